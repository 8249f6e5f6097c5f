"""The observer: the only clock of the system. Ten times a second it says what the robot saw and felt."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped, WrenchStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from conrft_control.gripper_opening import gripper_opening
from conrft_control.health_board import HealthBoard, Level
from conrft_control.nodes.node_health import NodeHealth
from conrft_control.nodes.parameters import declare, declare_config, declare_lockstep, declare_robot, declare_task
from conrft_control.tick_assembly import EpisodeTicks, TickAssembler
from conrft_data import topics
from conrft_data.config import Camera
from conrft_data.conversion import (
    MessageError,
    episode_status_from_msg,
    ns_to_stamp,
    pose_from_msg,
    pose_to_msg,
    stamp_to_ns,
    twist_from_msg,
    wrench_from_msg,
)
from conrft_data.images import ImageError, array_to_image, crop_and_resize, image_to_rgb
from conrft_data.node_process import HARDWARE_ID, run
from conrft_data.ticks import Tick
from conrft_data.types import Float64, Outcome, Phase
from conrft_msgs.msg import EpisodeState, Observation

_POSE, _TWIST, _WRENCH, _GRIPPER = "current_pose", "twist", "wrench", "gripper"
_TICK_S = 0.1
_LOCKSTEP_CHECK_S = 0.25


class ObserverNode(Node):
    """Publishes one Observation for each tick of a running episode, and none that cannot be trusted.

    Without an Observation there is no Action, and without an Action the commander holds the arm.
    """

    def __init__(self, **options: Any) -> None:
        """``options`` go to rclpy's Node."""
        super().__init__("observer", **options)
        self._task, self._lockstep = declare_task(self), declare_lockstep(self)
        self._robot = declare_config(self, declare_robot(self), ("state_timeout", "camera_timeout"))
        self._gripper_timeout = declare(
            self,
            "gripper_timeout",
            0.25,
            "a gripper state older than this is stale, s; the gripper's driver sends 15 Hz",
            low=0.0,
            high=2.0,
        )
        self._patience = declare(
            self,
            "lockstep_patience",
            1.0,
            "lockstep: a tick may be incomplete for so long, s of wall time",
            low=0.05,
            high=60.0,
        )
        about = "a supervisor that says nothing for so long cannot end an episode: no Observation, s of wall time"
        silence_s = declare(self, "supervisor_timeout", 2.5, about, low=0.5, high=120.0)
        self._board = HealthBoard(["supervisor"], silence_s, self.get_namespace())
        # In real time a tick that comes late is not followed by a hasty one: each moves the arm a whole step.
        self._ticks = EpisodeTicks(0.0 if self._lockstep else _TICK_S / 2)
        self._reset_pose: Float64 | None = None
        self._problem = ""
        self._published = 0
        self._assembler = TickAssembler(self._subscribe())
        self._health = NodeHealth(self, self._report, inputs=[topics.EPISODE_STATE], outputs=[topics.OBSERVATION])
        self._publisher = self.create_publisher(Observation, topics.OBSERVATION, topics.TICK)
        self.create_subscription(EpisodeState, topics.EPISODE_STATE, self._on_state, topics.EVERY_STATE)
        self.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, 100)
        if self._lockstep:
            self.create_timer(_LOCKSTEP_CHECK_S, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        else:
            self.create_timer(_TICK_S, self._on_timer)

    def _subscribe(self) -> dict[str, float]:
        """Subscribes to every stream; returns the oldest usable sample of each, s."""
        robot, profile = self._robot, topics.SENSOR
        limits = {}
        for name in self._task.cameras:
            if name not in robot.cameras:
                raise ValueError(
                    f"task {self._task.name} needs camera '{name}', robot {robot.name} has only {sorted(robot.cameras)}"
                )
            self.create_subscription(Image, robot.cameras[name].topic, partial(self._on_sample, name), profile)
            limits[name] = robot.camera_timeout
        state = {
            _POSE: (PoseStamped, robot.current_pose),
            _TWIST: (TwistStamped, robot.twist),
            _WRENCH: (WrenchStamped, robot.wrench),
        }
        for name, (kind, topic) in state.items():
            self.create_subscription(kind, topic, partial(self._on_sample, name), profile)
            limits[name] = robot.state_timeout
        self.create_subscription(JointState, robot.gripper_state, partial(self._on_sample, _GRIPPER), profile)
        return {**limits, _GRIPPER: self._gripper_timeout}

    def _on_sample(self, name: str, message: Any) -> None:
        self._assembler.put(name, stamp_to_ns(message.header.stamp), message, time.monotonic())
        if self._lockstep:
            self._lockstep_tick()

    def _on_state(self, message: EpisodeState) -> None:
        try:
            status = episode_status_from_msg(message)
        except MessageError as error:
            self.get_logger().error(f"passed over: {error}", throttle_duration_sec=1.0)
            return
        if status.phase is Phase.RUNNING:
            self._ticks.begin(status.episode, status.stamp_ns if self._lockstep else 0)
            if self._lockstep:
                self._lockstep_tick()
        else:
            self._ticks.end()
            if self._lockstep and status.outcome is Outcome.FAULT:
                self._assembler.give_up()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            level, own = Level(min(status.level[0], Level.STALE)), status.hardware_id == HARDWARE_ID
            self._board.put(status.name, level, status.message, time.monotonic(), own=own)

    def _lockstep_tick(self) -> None:
        stamp_ns = self._assembler.common_stamp()
        if stamp_ns is not None and self._ticks.running:
            self._observe(stamp_ns)

    def _on_timer(self) -> None:
        self._board.listen(time.monotonic())
        now_ns = self.get_clock().now().nanoseconds
        stale = self._assembler.stale(now_ns)
        if self._ticks.running and not stale:
            self._observe(now_ns)
        if stale or self._health.level is not Level.OK:
            self._report()

    def _observe(self, stamp_ns: int) -> None:
        """Publishes the tick at ``stamp_ns``, unless its samples cannot be used."""
        if not self._ticks.is_due(stamp_ns):
            return
        if silent := self._board.silent(time.monotonic()):
            self._problem = silent[0]
            self._report()
            return
        try:
            message = self._message(self._assembler.samples())
        except (MessageError, ImageError) as error:
            self._problem = str(error)
            self._report()
            return
        tick = self._ticks.next(stamp_ns)
        if tick is None:
            return
        self._problem = ""
        self._address(message, tick)
        self._publisher.publish(message)
        self._published += 1

    def _unusable(self, samples: dict[str, Any]) -> str:
        """Why ``samples`` make no Observation; empty when they do."""
        try:
            self._message(samples)
        except (MessageError, ImageError) as error:
            return str(error)
        return ""

    def _message(self, samples: dict[str, Any]) -> Observation:
        """The Observation of ``samples``, without its key; raises MessageError or ImageError."""
        robot = self._robot
        message = Observation(
            images=[self._image(name, camera, samples[name]) for name, camera in self._task.cameras.items()],
            tcp_pose=pose_to_msg(pose_from_msg(samples[_POSE].pose, robot.current_pose)),
            tcp_twist=samples[_TWIST].twist,
            tcp_wrench=samples[_WRENCH].wrench,
            gripper_opening=gripper_opening(samples[_GRIPPER].position, robot.gripper_max_width, robot.gripper_state),
        )
        twist_from_msg(message.tcp_twist, robot.twist)
        wrench_from_msg(message.tcp_wrench, robot.wrench)
        return message

    def _image(self, name: str, camera: Camera, message: Image) -> Image:
        """The camera's image at the task's size; the driver's own message where its pixels can stay as they are."""
        crop = camera.crop or self._robot.cameras[name].crop
        fits = crop is None and (message.width, message.height) == (camera.width, camera.height)
        if (
            fits
            and message.encoding == "rgb8"
            and message.step == 3 * message.width
            and len(message.data) == message.step * message.height
        ):
            image = message
        else:
            topic = self._robot.cameras[name].topic
            pixels = crop_and_resize(image_to_rgb(message, topic), camera.width, camera.height, crop, topic)
            image = array_to_image(np.ascontiguousarray(pixels), "rgb8", name)
        image.header.frame_id = name
        return image

    def _address(self, message: Observation, tick: Tick) -> None:
        """Writes the tick's key; the pose of step 0 is the one that the policy's poses are relative to."""
        message.header.stamp = ns_to_stamp(tick.stamp_ns)
        message.header.frame_id = self._robot.base_frame
        message.episode, message.step = tick.episode, tick.step
        if tick.step == 0 or self._reset_pose is None:
            self._reset_pose = message.tcp_pose
        message.reset_pose = self._reset_pose
        for image in message.images:
            image.header.stamp = message.header.stamp

    def _report(self) -> None:
        self._board.listen(time.monotonic())
        assembler, now_ns = self._assembler, self.get_clock().now().nanoseconds
        problems = assembler.missing(time.monotonic(), self._patience) if self._lockstep else assembler.stale(now_ns)
        if not self._ticks.running and not assembler.silent():
            # Whether the next episode could begin is worth knowing before it does.
            self._problem = self._unusable(assembler.samples())
        problem = "; ".join(problems) or self._problem
        if silent := assembler.silent():
            self._health.say(Level.STALE, f"nothing received yet from {', '.join(silent)}")
        elif problem:
            self._health.say(Level.ERROR, f"no Observation: {problem}")
        else:
            self._health.say(Level.OK, "all streams are fresh", {"observations": self._published})


def main() -> None:
    """Runs the observer."""
    sys.exit(run(ObserverNode, "observer"))


if __name__ == "__main__":
    main()
