"""The recorder's disk fills up: the loss is told, nothing is damaged, and it goes on when there is room."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray

from conrft_control.nodes.recorder_node import RecorderNode
from conrft_control.nodes.supervisor_node import SupervisorNode
from conrft_data import topics
from conrft_data.bags import list_episodes, read_episode, salvage_all
from conrft_data.conversion import command_to_msg, episode_status_from_msg, observation_to_msg
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import ActionSource, Command, Observation, Outcome, Phase
from conrft_msgs.msg import EpisodeState

COMMAND = Command(action=np.zeros(7, np.float32), source=ActionSource.POLICY)
STEPS = 6  # of the task


class Loop:
    """Supervisor and recorder; the test plays the robot, the observer and the commander."""

    def __init__(self, graph: Any, robot: Any, files: dict[str, str], folder: Path) -> None:
        self.graph, self.robot = graph, robot
        self.diagnostics = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
        self.states: list[EpisodeState] = graph.listen(EpisodeState, topics.EPISODE_STATE, topics.EVERY_STATE)
        graph.start(RecorderNode, episodes_dir=str(folder), min_free=2)
        self.say(0, 99)
        parameters = {"required_nodes": ["recorder"], "session": "s", "wait_for_learner": False}
        parameters |= {"after_fault": "continue", "success_from": ["operator"], "scene_reset": False}
        graph.start(SupervisorNode, **files, **parameters)

    def said(self, node: str) -> tuple[int, str]:
        """Level and sentence that a node said last."""
        own = [status for array in self.diagnostics for status in array.status if status.name == node]
        return (own[-1].level[0], own[-1].message) if own else (3, "")

    def last(self) -> EpisodeStatus | None:
        return episode_status_from_msg(self.states[-1]) if self.states else None

    def reach(self, phase: Phase, episode: int) -> EpisodeStatus:
        def there() -> bool:
            messages = self.robot.messages(self.graph.now_ns())
            for topic in ("current_pose", "gripper/joint_states"):
                self.graph.say(topic, messages[topic])
            self.graph.spin(0.02)
            return find() is not None

        def find() -> EpisodeStatus | None:
            said = [episode_status_from_msg(state) for state in self.states]
            return next((status for status in said if (status.phase, status.episode) == (phase, episode)), None)

        self.graph.until(there)
        status = find()
        assert status is not None
        return status

    def say(self, step: int, episode: int) -> None:
        tick = Tick(self.graph.now_ns(), episode, step)
        observation = Observation(
            stamp_ns=tick.stamp_ns,
            episode=episode,
            step=step,
            images={"side": np.full((128, 128, 3), step, np.uint8)},
            tcp_pose=np.array([0.5, 0, 0.3, 1, 0, 0, 0]),
            reset_pose=np.array([0.5, 0, 0.3, 1, 0, 0, 0]),
            tcp_twist=np.zeros(6),
            tcp_wrench=np.zeros(6),
            gripper_opening=1.0,
        )
        self.graph.say(topics.OBSERVATION, observation_to_msg(observation), topics.TICK)
        self.graph.say(topics.ACTION, command_to_msg(COMMAND, tick), topics.TICK)

    def run(self, episode: int) -> EpisodeStatus:
        """Runs an episode to its end, whatever that is."""
        self.reach(Phase.RUNNING, episode)
        for step in range(STEPS + 1):
            self.say(step, episode)
        return self.reach(Phase.ENDED, episode)


def test_a_full_disk_is_a_fault_and_no_episode_begins_before_there_is_room(
    graph: Any, robot: Any, files: dict[str, str], small_disk: Path, fill_disk: Callable[..., None]
) -> None:
    folder = small_disk / "episodes"
    loop = Loop(graph, robot, files, folder)
    assert loop.run(1).outcome is Outcome.TIMEOUT
    graph.until(lambda: len(list_episodes(folder)) == 1)
    whole = {path: path.read_bytes() for path in (folder / "s-training-000001").iterdir()}

    loop.reach(Phase.RUNNING, 2)
    fill_disk(leaving=200_000)  # room for four of the seven images
    for step in range(STEPS + 1):
        loop.say(step, 2)
    graph.until(lambda: (status := loop.last()) is not None and status.outcome is Outcome.FAULT)
    assert "No space left on device" in loop.states[-1].reason
    graph.until(lambda: "the disk is full" in loop.said("recorder")[1])
    assert loop.said("recorder")[0] == 2 and str(folder) in loop.said("recorder")[1]
    graph.spin(1.0)
    assert episode_status_from_msg(loop.states[-1]).episode == 2, "no episode begins"

    (small_disk / "filler").unlink()
    assert loop.run(3).outcome is Outcome.TIMEOUT
    graph.until(lambda: len(list_episodes(folder)) == 2)
    assert read_episode(folder / "s-training-000003").final_step == STEPS
    assert {path: path.read_bytes() for path in (folder / "s-training-000001").iterdir()} == whole
    (cut_off,) = salvage_all(folder)[0]
    assert cut_off.path.name == "s-training-000002" and cut_off.final_step >= 1


def test_a_bag_that_cannot_be_completed_is_a_fault_of_its_episode(
    graph: Any, robot: Any, files: dict[str, str], small_disk: Path, fill_disk: Callable[..., None]
) -> None:
    loop = Loop(graph, robot, files, small_disk / "episodes")
    loop.reach(Phase.RUNNING, 1)
    for step in range(STEPS):
        loop.say(step, 1)
    graph.spin(0.5)
    fill_disk(leaving=56_000)  # room for the last image, none for index and metadata
    loop.say(STEPS, 1)
    graph.until(lambda: (status := loop.last()) is not None and status.outcome is Outcome.FAULT)
    assert "not recorded whole" in loop.states[-1].reason
    assert list_episodes(small_disk / "episodes") == []
