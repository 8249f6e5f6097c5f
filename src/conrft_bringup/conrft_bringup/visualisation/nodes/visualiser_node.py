"""The visualiser: the ticks of a running graph, or of a played-back bag, as markers, poses and camera images."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from conrft_bringup.visualisation.marker_scene import MarkerScene, Workspace
from conrft_bringup.visualisation.robot_model import RobotModel
from conrft_bringup.visualisation.tick_view import TickView
from conrft_control.health_board import Level
from conrft_control.nodes.node_health import NodeHealth
from conrft_control.nodes.parameters import declare, declare_robot, declare_task
from conrft_data import topics
from conrft_data.conversion import (
    MessageError,
    command_from_msg,
    episode_status_from_msg,
    pose_from_msg,
    pose_to_msg,
    tick_of,
    verdict_from_msg,
)
from conrft_data.node_process import run
from conrft_msgs.msg import Action, EpisodeState, Observation, Reward, Value

MARKERS = "view/markers"
MEASURED_POSE = "view/measured_pose"
REFERENCE_POSE = "view/reference_pose"
IMAGE = "view/{camera}/image"
ROBOT_DESCRIPTION = "robot_description"

_ATTENTION_S = 0.25
_ARM_JOINT = re.compile(r"(?<!finger_)joint([1-7])$")  # of any prefix, as in left_fr3_joint1


class VisualiserNode(Node):
    """Listens to the graph only while somebody looks: without a viewer it costs the tick loop nothing."""

    def __init__(self, **options: Any) -> None:
        """``options`` go to rclpy's Node."""
        super().__init__("visualiser", **options)
        self._task, self._robot = declare_task(self), declare_robot(self)
        about = "namespace of the topics to show, relative to this node's; empty: its own"
        self._source = str(declare(self, "source", "", about)).strip("/")
        description = str(declare(self, "robot_description_file", "", "URDF of the robot, from plain shapes"))
        if not description:
            raise ValueError("parameter robot_description_file is empty: it must name the URDF of the robot")
        about = "of the arrow of a full action of 1, m"
        length = declare(self, "arrow_length", 0.15, about, low=0.01, high=1.0)
        joints = "sensor_msgs/JointState of the arm, relative to the source"
        joints_topic = declare(self, "joint_states", "franka_robot_state_broadcaster/measured_joint_states", joints)
        self._model = RobotModel.load(Path(description))
        self._scene = MarkerScene(
            Workspace(self._task.workspace.low, self._task.workspace.high),
            self._model,
            frame_id=self._robot.base_frame,
            finger_travel=self._robot.gripper_max_width / 2,
            arrow_length=length,
        )
        self._view = TickView(self._task.motion_limits())
        self._subscriptions_by_topic: dict[str, Subscription] = {}
        self._inputs = self._make_inputs(str(joints_topic))
        self._advertise()
        self._health = NodeHealth(self, self._report)
        self.create_timer(_ATTENTION_S, self._attend, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _make_inputs(self, joints_topic: str) -> dict[str, tuple[type, Callable[[Any], None], QoSProfile]]:
        """Message type, callback and quality of service by topic."""
        # Best effort, newest only: a viewer that is slow must never make the loop send anything twice.
        return {
            self._of_source(topics.OBSERVATION): (Observation, self._on_observation, topics.SENSOR),
            self._of_source(topics.ACTION): (Action, self._on_action, topics.SENSOR),
            self._of_source(topics.REWARD): (Reward, self._on_reward, topics.SENSOR),
            self._of_source(topics.VALUE): (Value, self._on_value, topics.SENSOR),
            self._of_source(topics.EPISODE_STATE): (EpisodeState, self._on_state, topics.LATCHED),
            self._of_source(self._robot.target_pose): (PoseStamped, self._on_reference, topics.SENSOR),
            self._of_source(joints_topic): (JointState, self._on_joints, topics.SENSOR),
        }

    def _of_source(self, topic: str) -> str:
        return f"{self._source}/{topic}" if self._source and not topic.startswith("/") else topic

    def _advertise(self) -> None:
        # Reliable, because that is what rviz and Foxglove ask for; depth one, because only the newest counts.
        quality = topics.COMMAND
        self._markers = self.create_publisher(MarkerArray, MARKERS, quality)
        self._measured = self.create_publisher(PoseStamped, MEASURED_POSE, quality)
        self._reference = self.create_publisher(PoseStamped, REFERENCE_POSE, quality)
        self._images = {
            name: self.create_publisher(Image, IMAGE.format(camera=name), quality) for name in self._task.cameras
        }
        description = self.create_publisher(String, ROBOT_DESCRIPTION, topics.LATCHED)
        description.publish(String(data=self._model.urdf))
        self._outputs = [self._markers, self._measured, self._reference, *self._images.values()]

    @property
    def watches(self) -> bool:
        """Whether it listens to the graph."""
        return bool(self._subscriptions_by_topic)

    def _attend(self) -> None:
        """Subscribes while there is a viewer, and only then."""
        looked_at = any(map(_has_viewer, self._outputs))
        if looked_at and not self._subscriptions_by_topic:
            for topic, (kind, callback, quality) in self._inputs.items():
                guarded = partial(self._guarded, topic, callback)
                self._subscriptions_by_topic[topic] = self.create_subscription(kind, topic, guarded, quality)
        elif not looked_at and self._subscriptions_by_topic:
            for subscription in self._subscriptions_by_topic.values():
                self.destroy_subscription(subscription)
            self._subscriptions_by_topic.clear()

    def _guarded(self, topic: str, callback: Callable[[Any], None], message: Any) -> None:
        """A message that cannot be shown is told and left out."""
        try:
            callback(message)
        except MessageError as error:
            self._health.say(Level.WARN, f"{topic}: {error}")

    def _on_observation(self, message: Observation) -> None:
        for image in message.images:
            publisher = self._images.get(image.header.frame_id)
            if publisher is not None and _has_viewer(publisher):
                publisher.publish(image)
        self._view.on_observation(
            tick_of(message), pose_from_msg(message.tcp_pose, topics.OBSERVATION), float(message.gripper_opening)
        )

    def _on_action(self, message: Action) -> None:
        self._view.on_command(tick_of(message), command_from_msg(message))
        self._show(message.header.stamp)

    def _on_reward(self, message: Reward) -> None:
        self._view.on_verdict(verdict_from_msg(message))

    def _on_value(self, message: Value) -> None:
        if math.isfinite(message.value):
            self._view.on_value(message.value)

    def _on_state(self, message: EpisodeState) -> None:
        self._view.on_status(episode_status_from_msg(message))
        self._show(message.header.stamp)

    def _on_reference(self, message: PoseStamped) -> None:
        self._view.on_reference(pose_from_msg(message.pose, self._robot.target_pose))

    def _on_joints(self, message: JointState) -> None:
        numbers = {
            match.group(1): p
            for name, p in zip(message.name, message.position, strict=False)
            if (match := _ARM_JOINT.search(name)) and math.isfinite(p)
        }
        self._view.on_joints(
            {
                name: numbers[number]
                for name in self._model.moving_joints
                if (match := _ARM_JOINT.search(name)) and (number := match.group(1)) in numbers
            }
        )

    def _show(self, stamp: Time) -> None:
        moment = self._view.moment
        if _has_viewer(self._markers):
            self._markers.publish(self._scene.markers(moment, stamp))
        for publisher, pose in ((self._measured, moment.measured), (self._reference, moment.reference)):
            if pose is not None and _has_viewer(publisher):
                message = PoseStamped(pose=pose_to_msg(pose))
                message.header.stamp, message.header.frame_id = stamp, self._robot.base_frame
                publisher.publish(message)

    def _report(self) -> None:
        watched = sum(map(_has_viewer, self._outputs))
        missing = self._subscriptions_by_topic and not self.count_publishers(self._of_source(topics.OBSERVATION))
        if not watched:
            self._health.say(Level.OK, "nobody looks")
        elif missing:
            self._health.say(
                Level.WARN, f"nobody publishes {self.resolve_topic_name(self._of_source(topics.OBSERVATION))}"
            )
        else:
            self._health.say(Level.OK, f"shows {watched} topics")


def _has_viewer(publisher: Publisher) -> bool:
    return bool(publisher.get_subscription_count())


def main() -> None:
    """Runs the visualiser."""
    sys.exit(run(VisualiserNode, "visualiser"))


if __name__ == "__main__":
    main()
