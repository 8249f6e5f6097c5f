"""The commander: the only publisher of target_pose.

It follows the Actions of an episode, leads the arm home between two, and else holds it.
"""

from __future__ import annotations

import sys
from array import array
from typing import Any

from geometry_msgs.msg import PoseStamped, WrenchStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger

from conrft_control.commander import Commander, CommanderSettings, Target
from conrft_control.gripper_opening import gripper_opening
from conrft_control.health_board import Level
from conrft_control.nodes import quality_of_service as qos
from conrft_control.nodes.node_health import NodeHealth
from conrft_control.nodes.parameters import (
    Bounded,
    declare,
    declare_config,
    declare_deadman,
    declare_fields,
    declare_lockstep,
    declare_robot,
    declare_task,
    declare_tolerance,
)
from conrft_data import topics
from conrft_data.config import TaskConfig
from conrft_data.conversion import (
    MessageError,
    command_from_msg,
    episode_status_from_msg,
    ns_to_stamp,
    pose_from_msg,
    pose_to_msg,
    stamp_to_ns,
    tick_of,
    wrench_from_msg,
)
from conrft_data.node_process import STOPPED, run
from conrft_data.types import Phase
from conrft_msgs.msg import Action, EpisodeState

_SETTINGS: dict[str, Bounded | str] = {
    "deadman_timeout_s": Bounded(0.02, 2.0, "real time: buttons that nobody has sent for so long are not held, s"),
}
_WATCHDOG_S = 0.02
_GRIPPER_RETRY_S = 0.1


class CommanderNode(Node):
    """Carries messages to the core, and its targets to the impedance controller."""

    def __init__(self, **options: Any) -> None:
        """``options`` go to rclpy's Node."""
        super().__init__("commander", **options)
        task, lockstep = self._declare_limits(declare_task(self)), declare_lockstep(self)
        self._robot = declare_config(self, declare_robot(self), ("action_timeout", "state_timeout"))
        settings = CommanderSettings(
            lockstep=lockstep,
            action_timeout_s=self._robot.action_timeout,
            state_timeout_s=self._robot.state_timeout,
            tolerance=declare_tolerance(self),
            safety=declare_config(self, self._robot.safety),
            deadman_button=declare_deadman(self, {}),
            **declare_fields(self, CommanderSettings(), _SETTINGS),
        )
        gripper_interface = declare(
            self, "send_gripper", True, "send gripper commands; false where another node drives the gripper"
        )
        self._commander = Commander(task, settings)
        self._health = NodeHealth(
            self,
            self._report,
            inputs=[topics.EPISODE_STATE, topics.ACTION, self._robot.current_pose],
            outputs=[self._robot.target_pose],
        )
        self._target_publisher = self.create_publisher(PoseStamped, self._robot.target_pose, topics.COMMAND)
        self._gripper_publisher = (
            self.create_publisher(Float64MultiArray, self._robot.gripper_command, topics.COMMAND)
            if gripper_interface
            else None
        )
        self._connect()
        if not lockstep:
            self.create_timer(_WATCHDOG_S, self._on_watchdog)
        self.create_timer(_GRIPPER_RETRY_S, self._send_gripper, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _declare_limits(self, task: TaskConfig) -> TaskConfig:
        """The task, with the limits of the reference pose as parameters."""
        limits = {
            "workspace": declare_config(self, task.workspace, prefix="workspace_"),
            "action_scale": declare_config(self, task.action_scale, ("leash", "leash_angle")),
        }
        return TaskConfig.model_validate(task.model_dump() | {name: each.model_dump() for name, each in limits.items()})

    def _connect(self) -> None:
        robot, settings = self._robot, self._commander.settings
        # The stop before everything else: where several wait to be read, it is read first.
        for profile in qos.EMERGENCY_STOP:
            self.create_subscription(Bool, topics.EMERGENCY_STOP, self._on_emergency_stop, profile)
        self.create_subscription(WrenchStamped, robot.wrench, self._on_wrench, topics.SENSOR)
        self.create_subscription(PoseStamped, robot.current_pose, self._on_pose, topics.SENSOR)
        self.create_subscription(JointState, robot.gripper_state, self._on_gripper, topics.SENSOR)
        self.create_subscription(EpisodeState, topics.EPISODE_STATE, self._on_state, topics.EVERY_STATE)
        if settings.deadman_button >= 0:
            self.create_subscription(Joy, topics.SPACENAV_JOY, self._on_joy, qos.device(settings.lockstep))
        self.create_subscription(Action, topics.ACTION, self._on_action, topics.TICK)
        self.create_service(Trigger, topics.STOP, self._on_stop)
        self.create_service(Trigger, topics.RESET_STOP, self._on_reset_stop)

    def _on_emergency_stop(self, message: Bool) -> None:
        self._carry_out(self._commander.on_emergency_stop(bool(message.data), self._now_ns()))

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._carry_out(self._commander.on_stop_order(self._now_ns()))
        response.success, response.message = True, "the arm stands, until conrft episode reset-stop"
        return response

    def _on_reset_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.message = self._commander.reset_stop() or "the arm may move again"
        response.success = not self._commander.stop.reason
        self._report()
        return response

    def _on_wrench(self, message: WrenchStamped) -> None:
        try:
            wrench = wrench_from_msg(message.wrench, self._robot.wrench)
        except MessageError:
            wrench = None
        self._carry_out(self._commander.on_wrench(stamp_to_ns(message.header.stamp), wrench, self._now_ns()))

    def _on_joy(self, message: Joy) -> None:
        self._commander.deadman.put(message.buttons, self._now_ns())

    def _on_state(self, message: EpisodeState) -> None:
        try:
            status = episode_status_from_msg(message)
        except MessageError as error:
            self.get_logger().error(f"passed over: {error}", throttle_duration_sec=1.0)
            return
        self._carry_out(self._commander.on_status(status, self._now_ns()))

    def _on_pose(self, message: PoseStamped) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        try:
            pose = pose_from_msg(message.pose, self._robot.current_pose)
        except MessageError:
            pose = None
        self._carry_out(self._commander.on_pose(stamp_ns, pose))

    def _on_gripper(self, message: JointState) -> None:
        try:
            opening = gripper_opening(message.position, self._robot.gripper_max_width, self._robot.gripper_state)
        except MessageError as error:
            self._commander.on_unusable_gripper(str(error))
            return
        self._carry_out(self._commander.on_gripper(stamp_to_ns(message.header.stamp), opening))

    def _on_action(self, message: Action) -> None:
        try:
            command = command_from_msg(message)
        except MessageError as error:
            self._carry_out(self._commander.on_unusable_action(tick_of(message), str(error), self._now_ns()))
            return
        self._carry_out(self._commander.on_action(tick_of(message), command, self._now_ns()))

    def _on_watchdog(self) -> None:
        topic = self._target_publisher.topic_name
        publishers = self.count_publishers(topic)
        self._commander.conflict = f"{topic} has {publishers} publishers, the arm holds" if publishers > 1 else ""
        self._carry_out(self._commander.on_time(self._now_ns()))

    def _carry_out(self, target: Target | None) -> None:
        # The gripper first: in lockstep the target sets simulated time going.
        if self._commander.gripper.due is not None:
            self._send_gripper()
        if target is not None:
            message = PoseStamped(pose=pose_to_msg(target.pose))
            message.header.stamp = ns_to_stamp(target.stamp_ns)
            message.header.frame_id = self._robot.base_frame
            self._target_publisher.publish(message)
        if self._level() is not self._health.level:
            self._report()

    def _send_gripper(self) -> None:
        opening, publisher = self._commander.gripper.due, self._gripper_publisher
        if opening is None or publisher is None or publisher.get_subscription_count() == 0:
            return
        publisher.publish(Float64MultiArray(data=array("d", [opening])))
        self._commander.gripper.sent()

    def _level(self) -> Level:
        commander = self._commander
        if commander.stop.reason or commander.conflict:
            return Level.ERROR
        if commander.problem:
            # Before the first motion there is time until the robot's drivers are there.
            return Level.STALE if commander.phase is None else Level.ERROR
        released = commander.deadman.released(self._now_ns())
        return Level.WARN if released or commander.warning else Level.OK

    def _report(self) -> None:
        commander, level = self._commander, self._level()
        if commander.stop.reason:
            how = "the arm stands until a person resets it: conrft episode reset-stop"
            self._health.say(level, f"{commander.stop.reason}; {how}", {STOPPED: commander.stop.reason})
        elif commander.problem:
            self._health.say(level, commander.problem, {STOPPED: commander.conflict} if commander.conflict else {})
        elif level is Level.WARN:
            released = commander.deadman.released(self._now_ns())
            self._health.say(level, commander.warning or f"{released}, the arm holds", {})
        elif commander.phase is None:
            self._health.say(level, "waits for the supervisor")
        else:
            doing = {Phase.RESETTING: "leads the arm home", Phase.RUNNING: "follows the Actions"}.get(
                commander.phase, "holds the arm"
            )
            self._health.say(level, doing, {"gripper_wanted": commander.gripper.wanted})

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def main() -> None:
    """Runs the commander."""
    sys.exit(run(CommanderNode, "commander"))


if __name__ == "__main__":
    main()
