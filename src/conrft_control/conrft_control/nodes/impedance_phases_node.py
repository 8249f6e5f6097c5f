"""Sets the impedance controller for each phase: its gains, and on the way home the posture of the joints too.

Made for crisp_controllers' CartesianController: gains are its node's parameters, the posture is its target_joint.
"""

from __future__ import annotations

import sys
import time
from array import array
from functools import partial
from typing import Any

from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState

from conrft_control.gain_schedule import GainSchedule, GainSet
from conrft_control.health_board import Level
from conrft_control.impedance_settings import Gains, ImpedanceSettings
from conrft_control.nodes.node_health import NodeHealth
from conrft_control.nodes.parameters import declare_file, declare_task
from conrft_control.posture_reset import PostureReset, positions_of
from conrft_data import topics
from conrft_data.config import ConfigError, load_config
from conrft_data.conversion import MessageError, episode_status_from_msg
from conrft_data.node_process import run
from conrft_data.types import Phase
from conrft_msgs.msg import EpisodeState

_STEP_S = 0.02
_POSTURE_PERIOD_S = 0.1


class ImpedancePhasesNode(Node):
    """Follows the supervisor's phases."""

    def __init__(self, **options: Any) -> None:
        """``options`` go to rclpy's Node."""
        super().__init__("impedance_phases", **options)
        file = declare_file(self, "impedance_file", "YAML file of the impedance controller's gains")
        self._settings = load_config(ImpedanceSettings, file)
        self._schedule = GainSchedule(self._settings.timeout)
        self._client = self.create_client(SetParameters, f"{self._settings.controller}/set_parameters")
        self._phase: Phase | None = None
        self._posture = self._declare_posture(file)
        self._joints_problem = ""
        inputs = [topics.EPISODE_STATE, *([self._settings.joint_states] if self._posture else [])]
        outputs = [self._settings.target_joint] if self._posture else []
        self._health = NodeHealth(self, self._report, inputs=inputs, outputs=outputs)
        self.create_subscription(EpisodeState, topics.EPISODE_STATE, self._on_episode_state, topics.EVERY_STATE)
        if self._posture is not None:
            self._publisher = self.create_publisher(JointState, self._settings.target_joint, topics.COMMAND)
            self.create_subscription(JointState, self._settings.joint_states, self._on_joints, topics.SENSOR)
        self._posture_wall_s = float("-inf")
        self.create_timer(_STEP_S, self._step, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _declare_posture(self, file: str) -> PostureReset | None:
        """The task's reset posture, if it has one."""
        goal = declare_task(self).reset.joints
        if goal is None:
            return None
        if len(goal) != len(self._settings.joints):
            raise ConfigError(
                f"{file}: joints: names {len(self._settings.joints)} joints, the task's reset.joints has {len(goal)}"
            )
        return PostureReset(goal, self._settings.joint_speed)

    def _on_episode_state(self, message: EpisodeState) -> None:
        try:
            phase = episode_status_from_msg(message).phase
        except MessageError as error:
            self.get_logger().error(str(error))
            return
        if phase is not self._phase and self._posture is not None:
            self._posture.begin()
        self._phase = phase
        self._schedule.enter(phase, time.monotonic())
        self._step()

    def _on_joints(self, message: JointState) -> None:
        assert self._posture is not None
        now = time.monotonic()
        if self._phase is not Phase.RESETTING or now - self._posture_wall_s < _POSTURE_PERIOD_S:
            return
        try:
            measured = positions_of(self._settings.joints, message.name, message.position)
        except ValueError as error:
            self._joints_problem = f"{self._settings.joint_states}: {error}"
            return
        self._joints_problem, elapsed = "", min(_POSTURE_PERIOD_S, now - self._posture_wall_s)
        self._posture_wall_s = now
        posture = JointState(name=list(self._settings.joints))
        posture.header.stamp = self.get_clock().now().to_msg()
        posture.position = array("d", self._posture.next_target(measured, elapsed))
        self._publisher.publish(posture)

    def _step(self) -> None:
        gains = self._schedule.due(time.monotonic(), server_is_there=self._client.service_is_ready())
        if gains is not None:
            values = self._settings.reset if gains is GainSet.RESET else self._settings.contact
            request = SetParameters.Request(parameters=_parameters(values))
            self._client.call_async(request).add_done_callback(partial(self._on_answer, gains, list(values)))
        if self._level() is not self._health.level:
            self._report()

    def _on_answer(self, gains: GainSet, names: list[str], answer: Future) -> None:
        results = zip(names, answer.result().results, strict=True)
        refused = [f"{name}: {result.reason or 'refused'}" for name, result in results if not result.successful]
        self._schedule.answered(gains, "; ".join(refused))

    def _level(self) -> Level:
        if self._schedule.problem or self._joints_problem:
            return Level.ERROR
        return Level.OK if self._schedule.settled or self._phase is None else Level.WARN

    def _report(self) -> None:
        taken = self._schedule.taken
        word = f"gains of {taken.value}" if taken is not None else "waits for the supervisor"
        if self._level() is Level.WARN:
            word = "the controller is being told its gains"
        problem = "; ".join(filter(None, (self._schedule.problem, self._joints_problem)))
        self._health.say(self._level(), problem or word, {"gains": taken.value if taken is not None else "unknown"})


def _parameters(gains: Gains) -> list[Parameter]:
    return [
        Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=float(value)))
        for name, value in gains.items()
    ]


def main() -> None:
    """Runs the node."""
    sys.exit(run(ImpedancePhasesNode, "impedance_phases"))


if __name__ == "__main__":
    main()
