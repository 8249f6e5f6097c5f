"""The observer publishes whole, fresh, finite ticks of a running episode, and nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from conrft_control.nodes.observer_node import ObserverNode
from conrft_data import topics
from conrft_data.conversion import episode_status_to_msg, observation_from_msg
from conrft_data.images import array_to_image
from conrft_data.node_process import HARDWARE_ID
from conrft_data.types import Outcome, Phase
from conrft_msgs.msg import Observation

MS = 1_000_000


class Observed:
    """An observer with a robot in front of it."""

    def __init__(self, graph: Any, robot: Any, files: dict[str, str], make_status: Any, **parameters: Any) -> None:
        self.graph, self.robot, self.make_status = graph, robot, make_status
        self.observations = graph.listen(Observation, topics.OBSERVATION, topics.TICK)
        self.diagnostics = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
        graph.start(ObserverNode, **files, **parameters)
        self.state(Phase.RESETTING)
        for topic, message in robot.messages(0).items():
            graph.say(topic, message)

    def state(self, phase: Phase, stamp_ns: int = 0, episode: int = 1, outcome: Outcome = Outcome.NONE) -> None:
        status = self.make_status(phase, episode, stamp_ns=stamp_ns, outcome=outcome)
        self.graph.say(topics.EPISODE_STATE, episode_status_to_msg(status), topics.LATCHED)

    def sense(self, stamp_ns: int, leave_out: str = "-") -> None:
        for topic, message in self.robot.messages(stamp_ns).items():
            if leave_out not in topic:
                self.graph.say(topic, message)

    def tick(self, stamp_ns: int) -> None:
        """One tick as in lockstep: the next comes when this one was observed."""
        before = len(self.observations)
        self.sense(stamp_ns)
        self.graph.until(lambda: len(self.observations) > before)

    def level(self) -> tuple[int, str]:
        status = self.diagnostics[-1].status[0]
        return status.level[0], status.message


@pytest.fixture
def lockstep(graph: Any, robot: Any, files: dict[str, str], status: Any) -> Observed:
    return Observed(graph, robot, files, status, lockstep=True, lockstep_patience=0.2)


@pytest.fixture
def real_time(graph: Any, robot: Any, files: dict[str, str], status: Any) -> Observed:
    return Observed(graph, robot, files, status)


def test_a_whole_tick_becomes_one_observation_with_its_stamp_and_number(lockstep: Observed) -> None:
    lockstep.state(Phase.RUNNING, 100 * MS, episode=3)
    for stamp in (100 * MS, 200 * MS):
        lockstep.tick(stamp)
    first, second = (
        observation_from_msg(message, {"side": (32, 24), "wrist": (16, 16)}) for message in lockstep.observations
    )
    assert [(o.stamp_ns, o.episode, o.step) for o in (first, second)] == [(100 * MS, 3, 0), (200 * MS, 3, 1)]
    np.testing.assert_allclose(first.tcp_pose, lockstep.robot.pose)
    np.testing.assert_allclose(first.tcp_twist, np.arange(6) / 10)
    np.testing.assert_allclose(first.tcp_wrench, np.arange(6))
    assert first.gripper_opening == 1.0
    assert first.images["side"].min() == first.images["wrist"].max() == 77
    assert lockstep.observations[0].header.frame_id == "base"


def test_poses_are_relative_to_the_measured_pose_of_step_0(lockstep: Observed) -> None:
    lockstep.state(Phase.RUNNING, 100 * MS)
    lockstep.tick(100 * MS)
    lockstep.robot.pose[0] += 0.05
    lockstep.tick(200 * MS)
    assert lockstep.observations[1].reset_pose == lockstep.observations[0].tcp_pose
    assert lockstep.observations[1].tcp_pose != lockstep.observations[0].tcp_pose


def test_between_episodes_there_are_no_observations(lockstep: Observed) -> None:
    lockstep.sense(100 * MS)
    lockstep.state(Phase.ENDED, 100 * MS)
    lockstep.sense(200 * MS)
    lockstep.graph.spin(0.3)
    assert lockstep.observations == []


def test_the_tick_that_was_there_before_the_episode_began_is_its_step_0(lockstep: Observed) -> None:
    lockstep.sense(100 * MS)
    lockstep.graph.spin(0.2)
    lockstep.state(Phase.RUNNING, 100 * MS)
    lockstep.graph.until(lambda: lockstep.observations)
    assert lockstep.observations[0].step == 0


def test_while_the_supervisor_is_silent_nothing_is_observed_because_nobody_could_end_the_episode(
    graph: Any, robot: Any, files: dict[str, str], status: Any
) -> None:
    observed = Observed(graph, robot, files, status, lockstep=True, supervisor_timeout=0.5)
    beat = DiagnosticArray(status=[DiagnosticStatus(name="supervisor", hardware_id=HARDWARE_ID)])
    graph.say(topics.DIAGNOSTICS, beat)
    observed.state(Phase.RUNNING, 100 * MS)
    observed.tick(100 * MS)

    def is_refused() -> bool:
        observed.sense(200 * MS + len(observed.observations) * MS)
        graph.spin(0.1)
        return "no Observation: supervisor: silent for" in observed.level()[1]

    graph.until(is_refused)
    seen = len(observed.observations)
    graph.say(topics.DIAGNOSTICS, beat)
    graph.until(lambda: observed.sense(900 * MS) or len(observed.observations) > seen)


def test_a_tick_that_is_sent_again_is_observed_once(lockstep: Observed) -> None:
    lockstep.state(Phase.RUNNING, 100 * MS)
    for _ in range(3):
        lockstep.sense(100 * MS)
    lockstep.graph.spin(0.3)
    assert len(lockstep.observations) == 1


def test_in_lockstep_a_missing_stream_is_named(lockstep: Observed) -> None:
    lockstep.state(Phase.RUNNING, 100 * MS)
    lockstep.sense(100 * MS, leave_out="wrist/")
    lockstep.graph.until(
        lambda: lockstep.diagnostics and lockstep.level()[0] == 2 and "wrist: missing" in lockstep.level()[1]
    )
    assert lockstep.observations == []


def test_in_lockstep_the_tick_that_a_dead_simulator_left_open_ends_with_the_fault(lockstep: Observed) -> None:
    lockstep.sense(50 * MS)
    lockstep.state(Phase.RUNNING, 100 * MS)
    lockstep.sense(100 * MS, leave_out="wrist/")
    lockstep.graph.until(lambda: lockstep.diagnostics and "wrist: missing" in lockstep.level()[1])
    lockstep.state(Phase.ENDED, 100 * MS, outcome=Outcome.FAULT)
    lockstep.graph.until(lambda: lockstep.level()[0] == 0)


def test_a_pose_that_is_not_finite_is_no_observation_and_an_error(lockstep: Observed) -> None:
    lockstep.state(Phase.RUNNING, 100 * MS)
    lockstep.robot.pose[1] = np.nan
    lockstep.sense(100 * MS)
    lockstep.graph.until(lambda: lockstep.diagnostics and "current_pose: expected finite" in lockstep.level()[1])
    assert lockstep.observations == []


def test_between_episodes_a_defect_is_an_error_as_long_as_it_lasts(lockstep: Observed) -> None:
    lockstep.robot.pose[1] = np.nan
    lockstep.sense(100 * MS)
    lockstep.graph.until(lambda: lockstep.diagnostics and "current_pose: expected finite" in lockstep.level()[1])
    lockstep.robot.pose[1] = 0.0
    lockstep.sense(200 * MS)
    lockstep.graph.until(lambda: lockstep.level()[0] == 0)


def test_other_sizes_and_encodings_are_brought_to_the_tasks(lockstep: Observed) -> None:
    lockstep.state(Phase.RUNNING, 100 * MS)
    messages = lockstep.robot.messages(100 * MS)
    big = np.zeros((48, 64, 3), np.uint8)
    big[:, :, 0] = 200  # blue, in bgr
    header = messages["side/color/image_raw"].header
    messages["side/color/image_raw"] = array_to_image(big, "bgr8", "optical_frame")
    messages["side/color/image_raw"].header.stamp = header.stamp
    for topic, message in messages.items():
        lockstep.graph.say(topic, message)
    lockstep.graph.until(lambda: lockstep.observations)
    side = observation_from_msg(lockstep.observations[0]).images["side"]
    assert side.shape == (24, 32, 3)
    assert side[0, 0].tolist() == [0, 0, 200]


def drive(observed: Observed, seconds: float, leave_out: str = "-") -> None:
    for _ in range(round(seconds / 0.03)):
        observed.sense(observed.graph.now_ns(), leave_out)
        observed.graph.spin(0.03)


def test_a_crop_of_the_robots_camera_is_cut_out(graph: Any, robot: Any, files: dict[str, str], status: Any) -> None:
    file = Path(files["robot_file"])
    config = json.loads(file.read_text())
    config["cameras"]["side"]["crop"] = [16, 0, 32, 12]
    file.write_text(json.dumps(config))
    robot.sizes["side"] = (64, 48)
    observed = Observed(graph, robot, files, status, lockstep=True)
    observed.state(Phase.RUNNING, 100 * MS)
    messages = robot.messages(100 * MS)
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[0:12, 16:32] = 200
    messages["side/color/image_raw"].data = pixels.tobytes()
    for topic, message in messages.items():
        graph.say(topic, message)
    graph.until(lambda: observed.observations)
    observation = observation_from_msg(observed.observations[0], {"side": (32, 24), "wrist": (16, 16)})
    assert (observation.images["side"] == 200).all()


def test_in_real_time_there_are_ten_observations_a_second(real_time: Observed) -> None:
    drive(real_time, 0.2)
    real_time.state(Phase.RUNNING)
    drive(real_time, 1.0)
    assert 8 <= len(real_time.observations) <= 12
    assert [message.step for message in real_time.observations] == list(range(len(real_time.observations)))


@pytest.mark.parametrize(("stream", "limit"), [("side/", "0.200"), ("current_pose", "0.100"), ("gripper", "0.250")])
def test_in_real_time_a_stale_stream_stops_the_observations_and_is_named(
    real_time: Observed, stream: str, limit: str
) -> None:
    drive(real_time, 0.2)
    real_time.state(Phase.RUNNING)
    drive(real_time, 0.3)
    assert real_time.observations
    drive(real_time, 0.5, leave_out=stream)
    seen = len(real_time.observations)
    assert real_time.level()[0] == 2
    assert f"{stream.rstrip('/')}: stale" in real_time.level()[1]
    assert f"at most {limit} s" in real_time.level()[1]
    drive(real_time, 0.2, leave_out=stream)
    assert len(real_time.observations) == seen
    drive(real_time, 0.4)
    assert len(real_time.observations) > seen
    assert real_time.level()[0] == 0


@pytest.mark.parametrize(("limit", "stream"), [("camera_timeout", "side"), ("state_timeout", "current_pose")])
def test_how_old_a_stream_may_be_is_a_parameter(
    graph: Any, robot: Any, files: dict[str, str], status: Any, limit: str, stream: str
) -> None:
    limits = {"camera_timeout": 2.0, "state_timeout": 2.0, "gripper_timeout": 2.0, limit: 0.05}
    observed = Observed(graph, robot, files, status, **limits)

    def told() -> bool:
        observed.sense(graph.now_ns() - 200 * MS)
        level, words = observed.level() if observed.diagnostics else (0, "")
        return (level, f"{stream}: stale" in words, "at most 0.050 s" in words) == (2, True, True)

    graph.until(told)
