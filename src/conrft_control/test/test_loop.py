"""The five nodes as processes around a simulator, a policy and an operator that the test plays, in lockstep."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Joy
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from conrft_data import topics
from conrft_data.bags import list_episodes, read_episode
from conrft_data.conversion import (
    episode_status_from_msg,
    pose_from_msg,
    proposal_to_msg,
    stamp_to_ns,
    tick_of,
    twist_to_msg,
)
from conrft_data.ticks import EpisodeStatus, Proposal
from conrft_data.types import Mode, Outcome, Phase
from conrft_msgs.msg import EpisodeState, Observation
from conrft_msgs.srv import ResetScene

TICK_NS = 100_000_000
NODES = ("observer", "intervention_mux", "commander", "recorder", "supervisor")
GO = Proposal(
    action=np.array([0, 0, 0.2, 0, 0, 0, -1], np.float32),
    embedding=np.ones(8, np.float32),
    embedding_fingerprint="f",
    weights_version=3,
    inference_time=0.001,
)


class World:
    """Simulator, policy and operator in lockstep: a tick is published, and the next when its target came."""

    def __init__(self, graph: Any, robot: Any) -> None:
        self.graph, self.robot = graph, robot
        self.now_ns = 0
        self.targets: list[int] = []
        self.states: list[EpisodeStatus] = []
        self.policy_answers = True
        self.success_at: int | None = None
        self.step = -1
        node = graph.node
        self._clock = node.create_publisher(Clock, "/clock", 10)
        self._sensors = {
            topic: node.create_publisher(type(message), topic, topics.SENSOR)
            for topic, message in robot.messages(0).items()
        }
        self._twist = node.create_publisher(type(twist_to_msg(np.zeros(6))), topics.SPACENAV_TWIST, topics.TICK)
        self._joy = node.create_publisher(Joy, topics.SPACENAV_JOY, topics.TICK)
        self._policy = node.create_publisher(
            type(proposal_to_msg(GO, tick_of(Observation()))), topics.POLICY_OUTPUT, topics.TICK
        )
        node.create_subscription(PoseStamped, "target_pose", self._on_target, topics.COMMAND)
        node.create_subscription(
            Float64MultiArray, "gripper/gripper_position_controller/commands", self._on_gripper, topics.TICK
        )
        node.create_subscription(Observation, topics.OBSERVATION, self._on_observation, topics.TICK)
        node.create_subscription(EpisodeState, topics.EPISODE_STATE, self._on_state, topics.EVERY_STATE)
        node.create_service(ResetScene, topics.RESET_SCENE, self._on_reset)
        node.create_timer(0.3, self._publish)  # a tick that stays unanswered is sent again

    def _publish(self) -> None:
        clock = Clock()
        clock.clock.sec, clock.clock.nanosec = divmod(self.now_ns, 10**9)
        self._clock.publish(clock)
        for topic, message in self.robot.messages(self.now_ns).items():
            self._sensors[topic].publish(message)
        self._twist.publish(twist_to_msg(np.zeros(6)))
        joy = Joy(buttons=[0, 0, int(self.success_at is not None and self.step >= self.success_at)])
        joy.header.stamp = clock.clock
        self._joy.publish(joy)

    def _advance(self) -> None:
        self.now_ns += TICK_NS
        self._publish()

    def _on_target(self, message: PoseStamped) -> None:
        if stamp_to_ns(message.header.stamp) != self.now_ns:
            return
        self.targets.append(self.now_ns)
        self.robot.pose = pose_from_msg(message.pose)
        self.step += bool(self.states and self.states[-1].phase is Phase.RUNNING)
        self._advance()

    def _on_gripper(self, message: Float64MultiArray) -> None:
        self.robot.opening = message.data[0]

    def _on_observation(self, message: Observation) -> None:
        if self.policy_answers:
            self._policy.publish(proposal_to_msg(GO, tick_of(message)))

    def _on_state(self, message: EpisodeState) -> None:
        self.states.append(episode_status_from_msg(message))

    def _on_reset(self, request: ResetScene.Request, response: ResetScene.Response) -> ResetScene.Response:
        self.robot.pose, self.robot.opening, self.step = self.robot.home.copy(), 1.0, -1
        self._advance()
        response.success = True
        return response


class Loop:
    """The five nodes, each in its process."""

    def __init__(self, files: dict[str, str], folder: Path, **supervisor: object) -> None:
        common = {"use_sim_time": True, "lockstep": True, **files}
        own: dict[str, dict[str, object]] = {
            "recorder": {"episodes_dir": str(folder), "policy_expected": True},
            "intervention_mux": {"guard": 1.0},
            "supervisor": {
                "scene_reset": True,
                "session": "s",
                "required_nodes": list(NODES[:4]),
                "node_timeout": 3.0,
                **supervisor,
            },
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._parameters = {name: common | own.get(name, {}) for name in NODES}
        for name in NODES:
            self.start(name)

    def start(self, name: str) -> None:
        """Starts a node, or starts a dead one again."""
        if name in self.processes:
            self.processes[name].wait()
        arguments = [
            word for key, value in self._parameters[name].items() for word in ("-p", f"{key}:={json.dumps(value)}")
        ]
        command = [sys.executable, "-m", f"conrft_control.nodes.{name}_node", "--ros-args", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        self.processes[name] = subprocess.Popen(command, env=environment)

    def exit_code(self, name: str, timeout_s: float) -> int | None:
        """Of a node that is told to stop; None, and on stderr where each of its threads is, when it does not."""
        process = self.processes[name]
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            return None

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()


@pytest.fixture
def world(graph: Any, robot: Any, home: np.ndarray) -> World:
    robot.home = home
    return World(graph, robot)


@pytest.fixture
def loops() -> Iterator[list[Loop]]:
    started: list[Loop] = []
    yield started
    for loop in started:
        loop.close()


def ended(world: World) -> list[EpisodeStatus]:
    return [status for status in world.states if status.phase is Phase.ENDED]


def test_episodes_run_end_and_are_recorded_in_lockstep(
    world: World, loops: list[Loop], files: dict[str, str], tmp_path: Path, record_property: Any
) -> None:
    folder = tmp_path / "episodes"
    loops.append(Loop(files, folder, mode="evaluation", episodes=3))
    world.graph.until(lambda: any(status.phase is Phase.RUNNING for status in world.states), timeout_s=120)
    began, ticks = time.monotonic(), len(world.targets)
    world.graph.until(lambda: len(ended(world)) == 2, timeout_s=120)
    rate = (len(world.targets) - ticks) / (time.monotonic() - began)
    record_property("ticks_per_s", rate)
    print(f"{rate:.0f} ticks/s")
    world.success_at = 3
    supervisor = loops[0].processes["supervisor"]
    world.graph.until(lambda: supervisor.poll() is not None, timeout_s=120)
    assert supervisor.returncode == 0
    world.graph.until(lambda: len(list_episodes(folder)) == 3)
    assert [(info.outcome, info.mode) for info in list_episodes(folder)[:2]] == [(Outcome.TIMEOUT, Mode.EVALUATION)] * 2
    assert world.targets == sorted(set(world.targets))  # each tick was answered once
    first, second, third = (read_episode(info.path) for info in list_episodes(folder))
    assert third.outcome is Outcome.SUCCESS
    for episode in (first, second):
        assert episode.final_step == 6
        stamps = [observation.stamp_ns for observation in episode.observations]
        assert np.diff(stamps).tolist() == [TICK_NS] * 6
        np.testing.assert_array_equal(episode.actions(), np.tile(GO.action, (6, 1)))
        np.testing.assert_array_equal(episode.embeddings, np.ones((7, 8)))
        assert not episode.interventions().any()
    heights = [[observation.tcp_pose[2] for observation in episode.observations] for episode in (first, second)]
    np.testing.assert_allclose(heights[0], 0.3 - 0.006 * np.arange(7), atol=1e-6)
    assert heights[0] == heights[1]


def running_again(world: World, loop: Loop) -> None:
    """The operator starts the next episode after a fault."""
    client = world.graph.node.create_client(Trigger, topics.START_EPISODE)
    world.graph.until(client.service_is_ready)
    granted = False
    while not granted:  # it is refused until the one that had died is well again
        future = client.call_async(Trigger.Request())
        world.graph.until(future.done)
        granted = future.result().success
        world.graph.spin(0.1)
    world.graph.until(lambda: world.states[-1].phase is Phase.RUNNING, timeout_s=120)


def test_whoever_dies_the_arm_stands_still_the_cause_is_named_and_a_start_goes_on(
    world: World, loops: list[Loop], files: dict[str, str], tmp_path: Path
) -> None:
    loops.append(Loop(files, tmp_path / "episodes", mode="evaluation", node_timeout=4.0, hold_limit=3))
    world.policy_answers = False
    world.graph.until(lambda: ended(world), timeout_s=120)
    assert ended(world)[0].outcome is Outcome.FAULT
    assert "3 HOLDs in a row: policy: silent" in ended(world)[0].reason
    np.testing.assert_allclose(world.robot.pose, world.robot.home, atol=1e-9)
    world.policy_answers = True
    for victim in ("observer", "intervention_mux", "commander", "recorder"):
        running_again(world, loops[0])
        loops[0].processes[victim].kill()
        world.graph.until(lambda: world.states[-1].outcome is Outcome.FAULT, timeout_s=120)
        assert f"{victim}: silent" in world.states[-1].reason
        answered = len(world.targets)
        world.graph.spin(0.3)
        assert len(world.targets) <= answered + 1  # one may have been on its way already
        loops[0].start(victim)
    running_again(world, loops[0])


def test_every_node_stops_with_code_0_after_two_sigints(
    world: World, loops: list[Loop], files: dict[str, str], tmp_path: Path
) -> None:
    loops.append(Loop(files, tmp_path / "episodes", mode="evaluation"))
    world.graph.until(lambda: any(status.phase is Phase.RUNNING for status in world.states), timeout_s=120)
    world.graph.until(lambda: any((tmp_path / "episodes").glob(".tmp-*")), timeout_s=120)
    processes = loops[0].processes
    for pause in (0.02, 0.0):
        for process in processes.values():
            process.send_signal(signal.SIGINT)
        time.sleep(pause)
    assert {name: loops[0].exit_code(name, 20.0) for name in NODES} == dict.fromkeys(NODES, 0)
    # Six steps are soon over: the signal meets the episode before or after its end.
    assert not any((tmp_path / "episodes").glob(".tmp-*"))
    # One that is stopped before its first observation leaves nothing.
    assert {info.outcome for info in list_episodes(tmp_path / "episodes")} <= {Outcome.ABORTED, Outcome.TIMEOUT}
