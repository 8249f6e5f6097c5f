"""Listens to a ROS graph for some seconds and writes down what came."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped, WrenchStamped
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import Image as ImageMessage
from sensor_msgs.msg import JointState

from conrft_bringup.doctor.finding import Level
from conrft_bringup.doctor.graph_checks import GraphSnapshot, Stream, Word
from conrft_control import franka_interfaces
from conrft_control.gripper_opening import gripper_opening
from conrft_data import topics
from conrft_data.config import ConfigError, RobotConfig, TaskConfig
from conrft_data.conversion import MessageError, pose_from_msg, stamp_to_ns, twist_from_msg, wrench_from_msg
from conrft_data.images import ImageError, crop_and_resize, image_to_rgb
from conrft_data.node_process import HARDWARE_ID
from conrft_data.types import Float64, Image

_CLOCK = "/clock"
_LEVELS = {
    DiagnosticStatus.OK: Level.OK,
    DiagnosticStatus.WARN: Level.WARNING,
    DiagnosticStatus.STALE: Level.WARNING,
    DiagnosticStatus.ERROR: Level.ERROR,
}


class _Listener:
    """One topic: counts, ages and the newest message."""

    def __init__(self, node: Node, kind: Any, topic: str, read: Callable[[Any], None]) -> None:
        self.topic = node.resolve_topic_name(topic)
        self._node, self._read = node, read
        self._count, self._ages = 0, list[float]()
        self._newest: Any = None
        node.create_subscription(kind, topic, self._on_message, topics.SENSOR)

    def _on_message(self, message: Any) -> None:
        self._count += 1
        self._newest = message
        header = getattr(message, "header", None)
        if header is not None:
            now_ns = int(self._node.get_clock().now().nanoseconds)
            self._ages.append((now_ns - stamp_to_ns(header.stamp)) / 1e9)

    def stream(self, seconds: float) -> Stream:
        stream = Stream(topic=self.topic, publishers=_publishers(self._node, self.topic), seconds=seconds)
        stream.count = self._count
        stream.age_s = statistics.median(self._ages) if self._ages else None
        if self._newest is not None:
            if isinstance(self._newest, ImageMessage):
                stream.size = (int(self._newest.width), int(self._newest.height))
            try:
                self._read(self._newest)
            except (MessageError, ImageError) as error:
                stream.problem = str(error)
        return stream


class ControllerList:
    """Asks the controller manager, where there is one and its interfaces are installed."""

    def __init__(self, node: Node) -> None:
        self._answer: Future | None = None
        try:
            kind = franka_interfaces.interfaces("controller_manager_msgs", "srv").ListControllers
        except ConfigError:
            return
        client = node.create_client(kind, "controller_manager/list_controllers")

        def ask() -> None:
            if self._answer is None and client.service_is_ready():
                self._answer = client.call_async(kind.Request())

        node.create_timer(0.1, ask, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def states(self) -> dict[str, str] | None:
        """State of each controller by name; None: nobody answered."""
        if self._answer is None or not self._answer.done():
            return None
        return {controller.name: controller.state for controller in self._answer.result().controller}


class GraphProbe:
    """Subscribes to what the loop subscribes to."""

    def __init__(self, node: Node, task: TaskConfig, robot: RobotConfig) -> None:
        self._node, self._robot = node, robot
        self._images: dict[str, Image] = {}
        self._pose: Float64 | None = None

        def keep_pose(message: Any) -> None:
            self._pose = pose_from_msg(message.pose, robot.current_pose)

        def listen(kind: Any, topic: str, read: Callable[[Any], Any]) -> _Listener:
            return _Listener(node, kind, topic, read)

        self._sensors = {
            "pose": listen(PoseStamped, robot.current_pose, keep_pose),
            "twist": listen(TwistStamped, robot.twist, lambda m: twist_from_msg(m.twist, robot.twist)),
            "wrench": listen(WrenchStamped, robot.wrench, lambda m: wrench_from_msg(m.wrench, robot.wrench)),
            "gripper": listen(
                JointState, robot.gripper_state, lambda m: gripper_opening(m.position, robot.gripper_max_width)
            ),
        }
        self._cameras = {
            name: listen(ImageMessage, robot.cameras[name].topic, self._keeps_image(name, task))
            for name in task.cameras
        }
        self._spacenav = listen(Twist, topics.SPACENAV_TWIST, lambda message: None)
        self._words: dict[str, Word] = {}
        node.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, 100)
        self._controllers = ControllerList(node)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        namespace = self._node.get_namespace().strip("/")
        for status in message.status:
            if status.hardware_id == HARDWARE_ID and status.name.rpartition("/")[0] == namespace:
                self._words[f"/{status.name}"] = Word(_LEVELS[status.level], status.message)

    def _keeps_image(self, name: str, task: TaskConfig) -> Callable[[Any], None]:
        camera, topic = task.cameras[name], self._robot.cameras[name].topic
        crop = camera.crop or self._robot.cameras[name].crop

        def keep(message: Any) -> None:
            pixels = image_to_rgb(message, topic)
            self._images[name] = np.array(crop_and_resize(pixels, camera.width, camera.height, crop, topic))

        return keep

    def snapshot(self, seconds: float) -> GraphSnapshot:
        """What came in the ``seconds`` since the probe was made."""
        node = self._node
        target = node.resolve_topic_name(self._robot.target_pose)
        return GraphSnapshot(
            nodes=[f"{namespace.rstrip('/')}/{name}" for name, namespace in node.get_node_names_and_namespaces()],
            cameras={name: listener.stream(seconds) for name, listener in self._cameras.items()},
            sensors={name: listener.stream(seconds) for name, listener in self._sensors.items()},
            spacenav=self._spacenav.stream(seconds),
            target_publishers=_publishers(node, target),
            target_subscribers=[_full_name(info) for info in node.get_subscriptions_info_by_topic(target)],
            words=dict(self._words),
            controllers=self._controllers.states(),
            simulated_time=node.count_publishers(_CLOCK) > 0,
            images=self._images,
            pose=self._pose,
        )


def listen(
    task: TaskConfig, robot: RobotConfig, namespace: str, seconds: float, remaps: Sequence[str] = ()
) -> GraphSnapshot:
    """Takes a snapshot of the graph in ``namespace``; discovery takes the first second of ``seconds``.

    ``remaps``: ``FROM:=TO`` each, for topics that are called otherwise than in the robot's file.
    """
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", *(word for rule in remaps for word in ("-r", rule))], context=context)
    try:
        node = Node("conrft_doctor", namespace=namespace or None, context=context)
        probe = GraphProbe(node, task, robot)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        # What arrives while the publishers are still being found says nothing about a rate.
        _spin(executor, 1.0)
        probe = GraphProbe(node, task, robot)
        began = time.monotonic()
        _spin(executor, seconds)
        snapshot = probe.snapshot(time.monotonic() - began)
        executor.shutdown()
        node.destroy_node()
        return snapshot
    finally:
        rclpy.shutdown(context=context)


def _spin(executor: SingleThreadedExecutor, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=left)


def _publishers(node: Node, topic: str) -> list[str]:
    return [_full_name(info) for info in node.get_publishers_info_by_topic(topic)]


def _full_name(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
