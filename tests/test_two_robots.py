"""Two simulated robots at once feed one learner, each gets its weights, and the launch ends cleanly."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from conrft_bringup.launch_runner.process_supervisor import ProcessSupervisor
from conrft_data import topics
from conrft_data.bags import list_episodes, read_episode
from conrft_data.conversion import episode_status_from_msg
from conrft_data.types import Outcome, Phase
from conrft_msgs.msg import EpisodeState, LearnerStatus

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from short_run import make_run
from watched_launch import LaunchWitness, watched_launch

ROBOTS = ("left", "right")
LEARNED = 2  # episodes of each robot, so that the last of them was driven by weights that the learner had made
PATIENCE_S = 420.0


class Witness(LaunchWitness):
    """Ends the launch when the learner has learned from enough episodes of both robots."""

    def __init__(self, node: Node) -> None:
        self.learned: dict[str, set[str]] = {robot: set() for robot in ROBOTS}
        self.at_once = False
        self._running = dict.fromkeys(ROBOTS, False)
        self._deadline = time.monotonic() + PATIENCE_S
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        node.create_subscription(LearnerStatus, topics.LEARNER_STATUS, self._on_learner, topics.LEARNER_STANDING)
        for robot in ROBOTS:

            def on_state(message: EpisodeState, robot: str = robot) -> None:
                self._running[robot] = episode_status_from_msg(message).phase is Phase.RUNNING
                self.at_once |= all(self._running.values())

            node.create_subscription(EpisodeState, f"{robot}/{topics.EPISODE_STATE}", on_state, topics.TICK)

    def look(self, supervisor: ProcessSupervisor) -> None:
        self._executor.spin_once(timeout_sec=0.02)
        if self.at_once and all(len(learned) >= LEARNED for learned in self.learned.values()):
            supervisor.shut_down("both robots have been learned from")
        elif time.monotonic() > self._deadline:
            supervisor.shut_down("nothing more was learned")

    def _on_learner(self, message: LearnerStatus) -> None:
        robot = message.last_episode_id.partition("-")[0]
        if robot in ROBOTS:
            self.learned[robot].add(message.last_episode_id)


def test_two_robots_at_once_are_learned_from_and_act_with_the_same_learners_weights(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "launch.log"
    run.mkdir()
    arguments = make_run(run)
    witness, result = watched_launch("two_robots", arguments, log, Witness, period_s=0.02)
    lines = log.read_text()
    assert result.reason == "both robots have been learned from", lines[-3000:]

    told = [json.loads(line) for line in (run / "learner/metrics.jsonl").read_text().splitlines()]
    learned = [line["episode_id"] for line in told if line["stage"] == "episodes" and line.get("mode") == "training"]
    assert len(learned) == len(set(learned)), "none twice"
    assert set().union(*witness.learned.values()) <= set(learned)
    versions: dict[str, list[set[int]]] = {robot: [] for robot in ROBOTS}
    for info in list_episodes(run / "episodes"):
        if info.episode_id not in learned:  # the end of the launch has cut it short
            continue
        assert info.outcome is Outcome.TIMEOUT, info
        versions[info.episode_id.partition("-")[0]].append(set(read_episode(info.path).weights_versions.values()))
    for robot, driven in versions.items():
        assert len(driven) >= LEARNED
        assert min(driven[-1]) > max(driven[0]), f"{robot} never got the weights that its episodes had made"

    # Every process ended by itself when it was asked to, and none had died before.
    assert (result.exit_code, result.failed, dict(result.deaths)) == (0, [], {})
    started = lines.count("process started with pid")
    assert lines.count("process has finished cleanly") == started == 2 * 9 + 1, lines[-3000:]
    assert "has not ended yet" not in lines and "process has died" not in lines, lines[-3000:]
    assert "Traceback" not in lines, lines[-3000:]
