"""A task, a robot and the states of the supervisor that the tests of this package share."""

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped, WrenchStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState

from conrft_data import rotations
from conrft_data.config import TaskConfig
from conrft_data.conversion import ns_to_stamp, pose_to_msg, twist_to_msg, wrench_to_msg
from conrft_data.images import array_to_image
from conrft_data.ticks import EpisodeStatus
from conrft_data.types import Mode, Outcome, Phase

# The test files share modules of this folder; pytest itself imports none but conftest.py.
sys.path.insert(0, str(Path(__file__).parent))

TASK = {
    "name": "pick_banana",
    "instruction": "put the banana on the plate",
    "action_dim": 7,
    "max_steps": 6,
    "cameras": {"side": {"width": 32, "height": 24}, "wrist": {"width": 16, "height": 16}},
    "reset": {"position": [0.5, 0.0, 0.3], "euler_xyz": [3.14159265, 0.0, 0.0], "kind": "script"},
    "workspace": {"low": [0.3, -0.3, 0.05], "high": [0.7, 0.3, 0.5]},
}
ROBOT = {
    "name": "fake",
    "cameras": {"side": {"topic": "side/color/image_raw"}, "wrist": {"topic": "wrist/color/image_raw"}},
}
HOME = np.array([0.5, 0.0, 0.3, *rotations.from_euler_xyz([3.14159265, 0.0, 0.0])])


@pytest.fixture
def task() -> TaskConfig:
    return TaskConfig.model_validate(TASK)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """YAML files of task and robot, by parameter name; YAML is a superset of JSON."""
    paths = {"task_file": tmp_path / "task.yaml", "robot_file": tmp_path / "robot.yaml"}
    paths["task_file"].write_text(json.dumps(TASK))
    paths["robot_file"].write_text(json.dumps(ROBOT))
    return {name: str(path) for name, path in paths.items()}


def make_status(phase: Phase, episode: int = 1, **fields: object) -> EpisodeStatus:
    known: dict[str, object] = {
        "stamp_ns": 0,
        "phase": phase,
        "outcome": Outcome.NONE,
        "mode": Mode.TRAINING,
        "episode": episode,
        "final_step": 0,
        "episode_id": f"s-training-{episode:06d}",
        "task": "pick_banana",
        "instruction": "put the banana on the plate",
        "message_version": 1,
    }
    return EpisodeStatus(**(known | fields))


@pytest.fixture
def status() -> Callable[..., EpisodeStatus]:
    """Makes a state of the supervisor: status(Phase.RUNNING, episode=2)."""
    return make_status


@pytest.fixture
def home() -> np.ndarray:
    """The reset pose of the task."""
    return HOME.copy()


class Graph:
    """Nodes of a test in one process, on one executor, with everything that they publish collected by topic."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.node = self.add(Node("test", context=self.context))
        self.heard: dict[str, list[Any]] = {}
        self._publishers: dict[str, Any] = {}
        self._nodes: list[Node] = []

    def add(self, node: Node) -> Node:
        self.executor.add_node(node)
        return node

    def start(self, make: Callable[..., Node], **parameters: Any) -> Node:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = self.add(make(context=self.context, parameter_overrides=overrides))
        self._nodes.append(node)
        return node

    def listen(self, kind: type, topic: str, profile: Any = 10) -> list[Any]:
        heard = self.heard.setdefault(topic, [])
        self.node.create_subscription(kind, topic, heard.append, profile)
        return heard

    def publisher(self, topic: str, kind: type, profile: Any = 10) -> Any:
        """The test's publisher of a topic; waits for a subscriber when it is new."""
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(kind, topic, profile)
            self.until(lambda: self._publishers[topic].get_subscription_count() > 0)
        return self._publishers[topic]

    def say(self, topic: str, message: Any, profile: Any = 10) -> None:
        """Publishes; waits for a subscriber when the topic is new."""
        self.publisher(topic, type(message), profile).publish(message)

    def until(self, condition: Callable[[], Any], timeout_s: float = 60.0) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"nothing came within {timeout_s} s"
            self.executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def now_ns(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)

    def close(self) -> None:
        for node in self._nodes:
            stop = getattr(node, "stop", None)
            if stop is not None:
                stop()
        self.executor.shutdown()
        for node in [*self._nodes, self.node]:
            node.destroy_node()
        rclpy.shutdown(context=self.context)
        self._nodes.clear()
        self._publishers.clear()
        # What refers to itself would keep its place in the graph, and be taken for a partner by the next test.
        gc.collect()


@pytest.fixture
def graph() -> Iterator[Graph]:
    graph = Graph()
    yield graph
    graph.close()


class Robot:
    """Messages of a robot's drivers at one stamp."""

    def __init__(self) -> None:
        self.pose = HOME.copy()
        self.opening = 1.0
        self.sizes = {"side": (32, 24), "wrist": (16, 16)}

    def messages(self, stamp_ns: int) -> dict[str, Any]:
        stamp = ns_to_stamp(stamp_ns)
        broadcaster = "franka_robot_state_broadcaster"
        messages: dict[str, Any] = {
            "current_pose": PoseStamped(pose=pose_to_msg(self.pose)),
            f"{broadcaster}/desired_end_effector_twist": TwistStamped(twist=twist_to_msg(np.arange(6) / 10)),
            f"{broadcaster}/external_wrench_in_stiffness_frame": WrenchStamped(wrench=wrench_to_msg(np.arange(6))),
            "gripper/joint_states": JointState(name=["l", "r"], position=[0.04 * self.opening] * 2),
        }
        for name, (width, height) in self.sizes.items():
            messages[f"{name}/color/image_raw"] = array_to_image(
                np.full((height, width, 3), 77, np.uint8), "rgb8", "optical_frame"
            )
        for message in messages.values():
            message.header.stamp = stamp
        return messages


@pytest.fixture
def robot() -> Robot:
    return Robot()
