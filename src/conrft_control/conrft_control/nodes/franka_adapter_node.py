"""The Franka adapter: a gripper's actions, what the arm is told at the start, and recovery when a person asks for it.

Everything of franka_ros2 and of a gripper's driver that is not a plain topic goes through here, so that the rest of the
loop is the same on a robot and in simulation.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from conrft_control import franka_interfaces as franka
from conrft_control.button_presses import ButtonPresses
from conrft_control.franka_settings import FrankaSettings
from conrft_control.health_board import Level
from conrft_control.nodes import quality_of_service as qos
from conrft_control.nodes.franka_calls import ErrorRecovery, GripperActions, SetupSequence
from conrft_control.nodes.node_health import NodeHealth
from conrft_control.nodes.parameters import declare, declare_deadman, declare_file, declare_robot
from conrft_control.nodes.robot_state_watch import RobotStateWatch
from conrft_data import topics
from conrft_data.config import load_config
from conrft_data.conversion import MessageError, episode_status_from_msg, stamp_to_ns
from conrft_data.node_process import STOPPED, run
from conrft_data.types import Phase
from conrft_msgs.msg import EpisodeState

# How often goals and answers are looked after: far below what a gripper takes, far above what a core notices.
_STEP_S = 0.02


class FrankaAdapterNode(Node):
    """Listens to the commander's gripper commands and to the operator, and speaks to franka_ros2."""

    def __init__(self, **options: Any) -> None:
        """``options`` go to rclpy's Node."""
        super().__init__("franka_adapter", **options)
        robot = declare_robot(self)
        self._settings = load_config(FrankaSettings, declare_file(self, "franka_file", "YAML file of the Franka arm"))
        about = "button that recovers the arm after a reflex, outside episodes; -1: none, the service alone does"
        self._recover_button = int(declare(self, "recover_button", -1, about, low=-1, high=64))
        declare_deadman(self, {"recover_button": self._recover_button})
        self._presses = ButtonPresses(debounce_s=0.05)
        self._phase: Phase | None = None
        self._robot: RobotStateWatch | None = None
        self._told_stopped = False
        calls, again = franka.setup_calls(self._settings), franka.setup_again_calls(self._settings)
        self._setup = SetupSequence(self, list(calls), list(again), self._settings.service_timeout)
        self._recovery = ErrorRecovery(self, self._settings)
        self._gripper = (
            GripperActions(self, self._settings.gripper, robot.gripper_max_width) if self._settings.gripper else None
        )
        state = self._settings.robot_state
        inputs = [
            topics.EPISODE_STATE,
            *([state] if state else []),
            *([robot.gripper_command] if self._gripper else []),
        ]
        self._health = NodeHealth(self, self._report, inputs=inputs)
        self._connect(robot.gripper_command)

    def _connect(self, gripper_command: str) -> None:
        if self._gripper is not None:
            self.create_subscription(Float64MultiArray, gripper_command, self._on_gripper, topics.COMMAND)
        if self._settings.robot_state:
            kind = franka.interfaces("franka_msgs", "msg").FrankaRobotState
            self._robot = RobotStateWatch(self._settings, kind)
            self.create_subscription(kind, self._settings.robot_state, self._on_robot_state, topics.SENSOR, raw=True)
        self.create_subscription(EpisodeState, topics.EPISODE_STATE, self._on_episode_state, topics.EVERY_STATE)
        self.create_subscription(Joy, topics.SPACENAV_JOY, self._on_joy, qos.device(lockstep=False))
        # Their answers wait for the robot's; in the node's own group nothing else would run until then.
        waiting = ReentrantCallbackGroup()
        self.create_service(Trigger, topics.RECOVER_ROBOT, self._on_recover, callback_group=waiting)
        self.create_service(Trigger, topics.CONFIGURE_ROBOT, self._on_configure, callback_group=waiting)
        self.create_timer(_STEP_S, self._step, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_gripper(self, message: Float64MultiArray) -> None:
        assert self._gripper is not None
        self._gripper.want(message.data)

    def _on_robot_state(self, raw: bytes) -> None:
        assert self._robot is not None
        self._robot.hear(raw, time.monotonic())

    def _on_episode_state(self, message: EpisodeState) -> None:
        try:
            self._phase = episode_status_from_msg(message).phase
        except MessageError as error:
            self.get_logger().error(str(error))

    def _on_joy(self, message: Joy) -> None:
        pressed = self._presses.update(message.buttons, stamp_to_ns(message.header.stamp))
        if self._recover_button in pressed:
            self.executor.create_task(self._recover("button"))

    async def _on_recover(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.message = await self._recover("service")
        response.success = not response.message
        return response

    async def _recover(self, way: str) -> str:
        """Ends a reflex and sets up the arm again; returns why not, empty: the arm is well again."""
        error = self._refusal() or await self._recovery.start()
        if not error and self._settings.controllers is not None:
            error = await self._setup.start()
        self.get_logger().warning(f"the operator's {way} asked for error recovery: {error or 'the arm is well again'}")
        self._report()
        return error

    async def _on_configure(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.message = self._refusal()
        if not response.message:
            if self._gripper is not None:
                self._gripper.forget()
            response.message = await self._setup.start()
        response.success = not response.message
        return response

    def _refusal(self) -> str:
        """Why nobody may take the controllers off the arm, or put them on: a person has to end the motion first."""
        if self._phase is Phase.RUNNING:
            return "an episode is running; end it first"
        return "the arm is on its way home; stop it first" if self._phase is Phase.RESETTING else ""

    def _step(self) -> None:
        now = time.monotonic()
        hindrance: str | None = ""
        if self._robot is not None:
            self._robot.read(now)
            hindrance = self._robot.hindrance(now)
        self._setup.step(now, hindrance)
        self._recovery.step(now)
        if self._gripper is not None:
            self._gripper.step(now)
        if self._level() is not self._health.level or self._has_stopped() is not self._told_stopped:
            self._report()

    def _level(self) -> Level:
        if self._problems():
            return Level.ERROR
        return Level.STALE if self._awaited() else Level.OK

    def _problems(self) -> list[str]:
        problems = [self._setup.problem]
        if self._robot is not None:
            problems.append(self._robot.problem(self._phase, time.monotonic()))
            problems += self._robot.unlike_settings() if self._setup.done else []
        if self._gripper is not None and self._gripper.problem:
            problems.append(f"{self._gripper.problem}; once it is well: conrft episode configure")
        return [problem for problem in problems if problem]

    def _awaited(self) -> str:
        """What is not there yet; empty when everything is."""
        if not self._setup.done:
            return self._setup.word
        if self._robot is not None and not self._robot.seen:
            return f"{self._settings.robot_state}: nothing received yet"
        if self._robot is not None and self._robot.idle:
            return "robot: no controller is active (conrft episode configure activates it)"
        return self._gripper.awaited if self._gripper is not None else ""

    def _has_stopped(self) -> bool:
        return self._robot is not None and self._robot.has_stopped(self._phase, time.monotonic())

    def _report(self) -> None:
        level, problem, stopped = self._level(), "; ".join(self._problems()), self._has_stopped()
        values = {"gripper": self._gripper.doing if self._gripper is not None else "none", "set": self._setup.word}
        values |= {STOPPED: problem} if stopped else {}
        self._health.say(level, problem or self._awaited() or self._recovery.word or "the arm is set up", values)
        if stopped is not self._told_stopped:
            self._told_stopped = stopped
            self._health.publish()

    def destroy_node(self) -> None:
        """Ends the action clients as well."""
        self._recovery.destroy()
        if self._gripper is not None:
            self._gripper.destroy()
        super().destroy_node()


def main() -> None:
    """Runs the Franka adapter."""
    sys.exit(run(FrankaAdapterNode, "franka_adapter"))


if __name__ == "__main__":
    main()
