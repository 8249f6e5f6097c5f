"""The simulator node speaks what the real drivers speak: one stamp a tick in lockstep, holding without commands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, TwistStamped, WrenchStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64MultiArray

from conrft_data import topics
from conrft_data.conversion import ns_to_stamp, stamp_to_ns
from conrft_data.images import image_to_rgb
from conrft_data.node_process import STOPPED
from conrft_msgs.msg import SceneState
from conrft_msgs.srv import ResetScene
from conrft_sim.nodes.simulator_node import SimulatorNode
from conrft_sim.simulation import START_NS

TICK_NS = 100_000_000
STREAMS = {
    "current_pose": PoseStamped,
    "franka_robot_state_broadcaster/desired_end_effector_twist": TwistStamped,
    "franka_robot_state_broadcaster/external_wrench_in_stiffness_frame": WrenchStamped,
    "franka_robot_state_broadcaster/measured_joint_states": JointState,
    "gripper/joint_states": JointState,
    "side/color/image_raw": Image,
    "side/color/camera_info": CameraInfo,
    "wrist/color/image_raw": Image,
    "wrist/color/camera_info": CameraInfo,
    "scene_state": SceneState,
}


class Commander:
    """Publishes targets for one graph."""

    def __init__(self, graph: Any) -> None:
        self.graph, self.peer = graph, graph.peer
        for topic, kind in STREAMS.items():
            self.peer.listen(kind, topic, topics.TICK)
        self.peer.listen(DiagnosticArray, "/diagnostics", 10)
        self.target = self.peer.create_publisher(PoseStamped, "target_pose", topics.COMMAND)
        self.gripper = self.peer.create_publisher(Float64MultiArray, "gripper/gripper_position_controller/commands", 10)
        assert graph.wait(lambda: self.target.get_subscription_count() and self.gripper.get_subscription_count())

    def newest_stamp(self) -> int:
        """Stamp of the newest tick that is complete, 0 before the first."""
        heard = [self.peer.heard[topic] for topic in STREAMS]
        if not all(heard):
            return 0
        stamps = {stamp_to_ns(messages[-1].header.stamp) for messages in heard}
        return stamps.pop() if len(stamps) == 1 else 0

    def complete(self, after_ns: int = 0) -> int:
        """Waits for a complete tick after ``after_ns`` and returns its stamp."""
        assert self.graph.wait(lambda: self.newest_stamp() > after_ns), "no complete tick"
        return self.newest_stamp()

    def send(self, *, move: tuple[float, float, float] = (0, 0, 0), stamp_ns: int | None = None) -> None:
        """Sends the measured pose, moved, as target of the newest tick (or of another stamp)."""
        message = PoseStamped()
        message.header.stamp = self.peer.heard["current_pose"][-1].header.stamp
        if stamp_ns is not None:
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        message.pose = self.peer.heard["current_pose"][-1].pose
        message.pose.position.x += move[0]
        message.pose.position.y += move[1]
        message.pose.position.z += move[2]
        self.target.publish(message)

    def position(self) -> np.ndarray:
        p = self.peer.heard["current_pose"][-1].pose.position
        return np.array([p.x, p.y, p.z])

    def errors(self) -> list[str]:
        statuses = [array.status[0] for array in self.peer.heard["/diagnostics"]]
        return [status.message for status in statuses if status.level == DiagnosticStatus.ERROR]


@pytest.fixture
def lockstep(graph_of: Any) -> Iterator[Commander]:
    with graph_of(SimulatorNode, "lockstep:=true", "resend_period:=0.3", "predecessor_wait:=0.0") as graph:
        yield Commander(graph)


@pytest.fixture
def real_time(graph_of: Any) -> Iterator[Commander]:
    with graph_of(
        SimulatorNode, "lockstep:=false", "image_rate:=10.0", "state_rate:=50.0", "predecessor_wait:=0.0"
    ) as graph:
        for topic in ("side/color/image_raw", "wrist/color/image_raw"):
            graph.peer.listen(Image, topic, topics.SENSOR)
        commander = Commander.__new__(Commander)
        commander.graph, commander.peer = graph, graph.peer
        graph.peer.listen(PoseStamped, "current_pose", topics.SENSOR)
        graph.peer.listen(Clock, "/clock", 10)
        graph.peer.listen(SceneState, "scene_state", topics.TICK)
        graph.peer.listen(DiagnosticArray, "/diagnostics", 10)
        commander.target = graph.peer.create_publisher(PoseStamped, "target_pose", topics.COMMAND)
        assert graph.wait(lambda: commander.target.get_subscription_count() and graph.peer.heard["current_pose"])
        yield commander


def test_every_stream_of_a_tick_carries_its_stamp(lockstep: Commander) -> None:
    first = lockstep.complete()
    lockstep.send()
    assert lockstep.complete(first) == first + TICK_NS


def test_time_stands_still_without_the_target_of_this_very_tick(lockstep: Commander) -> None:
    first = lockstep.complete()
    lockstep.send(stamp_ns=first - TICK_NS)
    lockstep.send(stamp_ns=first + TICK_NS)
    lockstep.graph.pause(0.5)
    assert lockstep.newest_stamp() == first


def test_an_unanswered_tick_is_sent_again_for_late_starters(lockstep: Commander) -> None:
    first = lockstep.complete()
    before = len(lockstep.peer.heard["side/color/image_raw"])
    lockstep.graph.pause(0.8)
    again = lockstep.peer.heard["side/color/image_raw"]
    assert len(again) > before
    assert {stamp_to_ns(message.header.stamp) for message in again} == {first}


def test_arm_follows_the_target_and_the_gripper_its_command(lockstep: Commander) -> None:
    stamp, start = lockstep.complete(), lockstep.position()
    lockstep.gripper.publish(Float64MultiArray(data=[0.0]))
    for _ in range(8):
        lockstep.send(move=(0.0, 0.02, 0.0))
        stamp = lockstep.complete(stamp)
    assert lockstep.position()[1] > start[1] + 0.05
    assert sum(lockstep.peer.heard["gripper/joint_states"][-1].position) < 0.01


def test_images_are_rgb_at_the_tasks_size_with_matching_camera_info(lockstep: Commander) -> None:
    lockstep.complete()
    for camera, size in (("side", 256), ("wrist", 128)):
        image = lockstep.peer.heard[f"{camera}/color/image_raw"][-1]
        info = lockstep.peer.heard[f"{camera}/color/camera_info"][-1]
        assert image.header.frame_id == camera
        assert image_to_rgb(image).shape == (size, size, 3)
        assert image_to_rgb(image).std() > 10
        assert (info.width, info.height) == (size, size)
        assert info.k[0] > 0


def test_a_target_that_is_not_finite_is_refused_and_time_goes_on_holding(lockstep: Commander) -> None:
    first, start = lockstep.complete(), lockstep.position()
    lockstep.send(move=(float("nan"), 0.0, 0.0))
    lockstep.complete(first)
    assert lockstep.position() == pytest.approx(start, abs=1e-3)
    assert lockstep.graph.wait(lambda: any("refused" in error for error in lockstep.errors()))


def test_targets_of_two_publishers_are_ignored_and_reported(lockstep: Commander) -> None:
    first = lockstep.complete()
    second = lockstep.peer.create_publisher(PoseStamped, "target_pose", topics.COMMAND)
    assert lockstep.graph.wait(lambda: lockstep.graph.node.count_publishers("target_pose") == 2)
    lockstep.send()
    assert lockstep.graph.wait(lambda: any("2 nodes" in error for error in lockstep.errors()))
    assert lockstep.newest_stamp() == first
    lockstep.peer.destroy_publisher(second)
    assert lockstep.graph.wait(lambda: lockstep.graph.node.count_publishers("target_pose") == 1)
    lockstep.send()
    lockstep.complete(first)


def test_reset_scene_gives_the_same_start_for_the_same_seed_and_episode(lockstep: Commander) -> None:
    client = lockstep.peer.create_client(ResetScene, topics.RESET_SCENE)
    assert lockstep.graph.wait(client.service_is_ready)

    def start(seed: int, episode: int) -> tuple[float, float]:
        stamp = lockstep.newest_stamp()
        future = client.call_async(ResetScene.Request(seed=seed, episode=episode))
        assert lockstep.graph.wait(future.done)
        assert future.result().success
        lockstep.complete(stamp)
        banana = lockstep.peer.heard["scene_state"][-1].poses[0].position
        return banana.x, banana.y

    lockstep.complete()
    first = start(1, 2)
    lockstep.send(move=(0.0, 0.05, 0.0))
    assert start(1, 3) != first
    assert start(1, 2) == first


def test_scene_state_names_the_tasks_objects_in_order(lockstep: Commander) -> None:
    lockstep.complete()
    scene = lockstep.peer.heard["scene_state"][-1]
    assert scene.objects == ["banana", "plate"]
    assert len(scene.poses) == 2
    assert scene.task == "pick_banana"
    assert not scene.success


def test_real_time_stamps_with_the_systems_time_and_leaves_the_clock_alone(real_time: Commander) -> None:
    poses, images = real_time.peer.heard["current_pose"], real_time.peer.heard["side/color/image_raw"]
    seen = len(images)
    real_time.graph.pause(2.0)
    age_s = (time.time_ns() - stamp_to_ns(poses[-1].header.stamp)) / 1e9
    assert -0.01 < age_s < 0.5
    assert 10 <= len(images) - seen <= 24
    assert not real_time.peer.heard["/clock"]


def test_real_time_holds_the_last_target_when_targets_stop(real_time: Commander) -> None:
    start = real_time.position()
    real_time.send(move=(0.0, 0.0, 0.04))
    real_time.graph.pause(1.5)
    held = real_time.position()
    assert held[2] == pytest.approx(start[2] + 0.04, abs=0.005)
    real_time.graph.pause(0.5)
    assert real_time.position() == pytest.approx(held, abs=0.002)
    messages = [array.status[0].message for array in real_time.peer.heard["/diagnostics"]]
    assert any("holds its last target" in message for message in messages)


def test_real_time_reset_is_not_undone_by_a_target_from_before(real_time: Commander) -> None:
    client = real_time.peer.create_client(ResetScene, topics.RESET_SCENE)
    assert real_time.graph.wait(client.service_is_ready)
    assert real_time.graph.wait(client.call_async(ResetScene.Request(seed=0, episode=1)).done)
    start = real_time.position()
    real_time.send(move=(0.0, 0.2, -0.1))
    real_time.graph.pause(0.5)
    assert real_time.position() == pytest.approx(start, abs=0.005)
    real_time.send(move=(0.0, 0.03, 0.0))
    real_time.graph.pause(0.8)
    assert real_time.position()[1] == pytest.approx(start[1] + 0.03, abs=0.005)


class Supervisor:
    """Says what a supervisor in the middle of a run says."""

    def __init__(self, graph: Any, *, stage: str, stamp_ns: int) -> None:
        publisher = graph.peer.create_publisher(DiagnosticArray, "/diagnostics", 10)
        status = DiagnosticStatus(name="supervisor", values=[KeyValue(key="stage", value=stage)])
        message = DiagnosticArray(status=[status])
        message.header.stamp = ns_to_stamp(stamp_ns)
        graph.peer.create_timer(0.1, lambda: publisher.publish(message))


@contextmanager
def started_beside(graph_of: Any, *, lockstep: bool, stage: str, stamp_ns: int) -> Iterator[Any]:
    with graph_of(SimulatorNode, f"lockstep:={str(lockstep).lower()}", "predecessor_wait:=30.0") as graph:
        graph.peer.listen(PoseStamped, "current_pose", topics.SENSOR)
        graph.peer.listen(Clock, "/clock", 10)
        graph.peer.listen(DiagnosticArray, "/diagnostics", 10)
        Supervisor(graph, stage=stage, stamp_ns=stamp_ns)
        yield graph


def replaces(graph: Any) -> bool:
    """First an error that ends an episode under way, later a warning that lets the next one begin."""
    statuses = [array.status[0] for array in graph.peer.heard["/diagnostics"]]
    waiting = [status for status in statuses if "waits for reset_scene" in status.message]
    stopped = [status for status in waiting if any(value.key == STOPPED for value in status.values)]
    assert all(status.level == DiagnosticStatus.ERROR for status in stopped)
    return bool(stopped) and waiting[-1].level == DiagnosticStatus.WARN


@pytest.mark.parametrize("lockstep", [True, False])
def test_one_that_replaces_another_goes_on_with_its_time_once_the_scene_is_put_back(
    graph_of: Any, lockstep: bool
) -> None:
    left_ns = 77_300_000_000
    with started_beside(graph_of, lockstep=lockstep, stage="RUNNING", stamp_ns=left_ns) as graph:
        heard = graph.peer.heard
        assert graph.wait(lambda: replaces(graph))
        graph.pause(0.5)
        assert not heard["current_pose"] and not heard["/clock"]
        client = graph.peer.create_client(ResetScene, topics.RESET_SCENE)
        assert graph.wait(client.service_is_ready)
        assert graph.wait(client.call_async(ResetScene.Request(seed=0, episode=4)).done)
        assert graph.wait(lambda: heard["current_pose"])
        first_ns = stamp_to_ns(heard["current_pose"][0].header.stamp)
        if lockstep:
            assert left_ns < first_ns <= left_ns + 1_000_000_000
            assert stamp_to_ns(heard["/clock"][0].clock) == first_ns
        else:
            assert first_ns == pytest.approx(time.time_ns(), abs=60_000_000_000)


@pytest.mark.parametrize(("lockstep", "stage", "stamp_ns"), [(True, "SCENE", 0), (False, "SCENE", 5)])
def test_one_whose_supervisor_has_not_begun_replaces_nobody(
    graph_of: Any, lockstep: bool, stage: str, stamp_ns: int
) -> None:
    with started_beside(graph_of, lockstep=lockstep, stage=stage, stamp_ns=stamp_ns) as graph:
        assert graph.wait(lambda: graph.peer.heard["current_pose"], 20.0)
        assert not replaces(graph)
        first_ns = stamp_to_ns(graph.peer.heard["current_pose"][0].header.stamp)
        assert (first_ns == START_NS) is lockstep


def wait_for_a_pose() -> None:
    """Until a simulator in another process is heard."""
    heard: list[PoseStamped] = []
    rclpy.init()
    try:
        node = rclpy.create_node("listener")
        node.create_subscription(PoseStamped, "current_pose", heard.append, topics.SENSOR)
        end = time.monotonic() + 60.0
        while not heard and time.monotonic() < end:
            rclpy.spin_once(node, timeout_sec=0.1)
        node.destroy_node()
    finally:
        rclpy.shutdown()
    assert heard


@pytest.mark.parametrize("signals", [1, 2])
def test_node_ends_cleanly_on_sigint(signals: int) -> None:
    command = [sys.executable, "-m", "conrft_sim.nodes.simulator_node", "--ros-args", "-p", "lockstep:=false"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for_a_pose()
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_an_unknown_task_file_is_one_sentence_and_exit_code_one() -> None:
    command = [sys.executable, "-m", "conrft_sim.nodes.simulator_node", "--ros-args", "-p", "task_file:=/nowhere.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "/nowhere.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_benchmark_ends_with_one_json_object() -> None:
    command = [sys.executable, "-m", "conrft_sim.benchmark", "--json", "--seconds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    assert figures["ticks_per_s"] > 0
