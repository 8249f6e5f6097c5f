"""The intervention mux: one Action for each Observation, from the policy, from the operator, or HOLD."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Joy

from conrft_control.health_board import Level
from conrft_control.intervention_mux import Decision, InterventionMux, MuxSettings
from conrft_control.nodes import quality_of_service as qos
from conrft_control.nodes.node_health import NodeHealth
from conrft_control.nodes.parameters import Bounded, declare, declare_deadman, declare_fields, declare_lockstep
from conrft_control.operator_input import DeviceSettings, TakeoverSettings
from conrft_data import topics
from conrft_data.config import TaskConfig, load_config
from conrft_data.conversion import command_to_msg, stamp_to_ns, tick_of
from conrft_data.node_process import run
from conrft_data.types import ACTION_DIM, ActionSource
from conrft_msgs.msg import Action, Observation, PolicyOutput, Reward

# Without an Observation for so long the last decision says nothing about the present.
_IDLE_S = 1.0

_WAITING: dict[str, Bounded | str] = {
    "policy_expected": "a policy proposes actions; false: only the operator moves the arm",
    "operator_expected": "somebody holds the device; lockstep: each tick waits for the buttons",
    "reward_expected": "a reward node judges every tick; lockstep: each tick waits for it",
    "deadline_s": Bounded(0.01, 0.1, "an Action comes at the latest so long after its Observation's stamp, s"),
    "guard_s": Bounded(0.1, 600.0, "and so long after its Observation came, s of wall time"),
    "short_guard_s": Bounded(0.01, 10.0, "guard while the awaited node is known to be silent, s of wall time"),
    "reward_timeout_s": Bounded(0.2, 60.0, "real time: a policy that nobody has judged for so long is not followed, s"),
    "overshoot": Bounded(0.0, 1.0, "a proposal so far beyond [-1, 1] is clipped, one farther is refused"),
}
_TAKEOVER: dict[str, Bounded | str] = {
    "deadband": Bounded(0.0, 1.0, "an axis below this counts as zero, full actions"),
    "enter": Bounded(0.0, 1.0, "an axis from here on takes over, full actions"),
    "leave": Bounded(0.0, 1.0, "below this the hand rests, full actions"),
    "hold_ticks": Bounded(0, 100, "the operator keeps control so many ticks after the last motion"),
}
_DEVICE: dict[str, Bounded | str] = {
    "translation_gain": Bounded(0.0, 100.0, "device units to full actions"),
    "rotation_gain": Bounded(0.0, 100.0, "device units to full actions"),
    "close_button": Bounded(-1, 64, "closes the gripper; -1: none"),
    "open_button": Bounded(-1, 64, "opens the gripper; -1: none"),
}


class InterventionMuxNode(Node):
    """Gives the core every message and both clocks, and publishes what it decides."""

    def __init__(self, **options: Any) -> None:
        """``options`` go to rclpy's Node."""
        super().__init__("intervention_mux", **options)
        settings = self._declare_settings()
        self._mux = InterventionMux(settings)
        self._counts = dict.fromkeys(ActionSource, 0)
        self._faults = 0
        self._latency_ms = 0.0
        self._decided_wall_s = -_IDLE_S
        self._last: Decision | None = None
        self._frame = "base"
        self._publisher = self.create_publisher(Action, topics.ACTION, topics.TICK)
        self._health = NodeHealth(self, self._report, inputs=self._inputs(settings), outputs=[topics.ACTION])
        # The twist before the buttons: where both wait to be read, the twist of a tick is read first.
        self.create_subscription(Twist, topics.SPACENAV_TWIST, self._on_twist, qos.device(settings.lockstep))
        self.create_subscription(Joy, topics.SPACENAV_JOY, self._on_joy, qos.device(settings.lockstep))
        self.create_subscription(Observation, topics.OBSERVATION, self._on_observation, topics.TICK)
        if settings.policy_expected:
            self.create_subscription(PolicyOutput, topics.POLICY_OUTPUT, self._on_proposal, topics.TICK)
        if settings.reward_expected:
            self.create_subscription(Reward, topics.REWARD, self._on_reward, topics.TICK)
        # Both timers are armed for each tick anew and disarmed by its decision.
        self._deadline = self.create_timer(settings.deadline_s, self._expire)
        self._guard = self.create_timer(settings.guard_s, self._expire, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._deadline.cancel()
        self._guard.cancel()

    def _declare_settings(self) -> MuxSettings:
        lockstep = declare_lockstep(self)
        device = DeviceSettings()
        device_fields = declare_fields(self, device, _DEVICE)
        about = "device axis for base-frame x, y, z and the rotations about them, from 1; negative: turned round"
        buttons = {name: device_fields[name] for name in ("close_button", "open_button")}
        device_fields["deadman_button"] = declare_deadman(self, buttons)
        device_fields["axes"] = tuple(declare(self, "axes", list(device.axes), about))
        about = "real time: a twist older than this counts as zero, s"
        timeout_s = declare(self, "device_timeout", device.timeout_s, about, low=0.02, high=5.0)
        # In lockstep the buttons' stamp says that the twist is the tick's own.
        return MuxSettings(
            lockstep=lockstep,
            fixed_gripper=self._declare_fixed_gripper(),
            takeover=TakeoverSettings(**declare_fields(self, TakeoverSettings(), _TAKEOVER)),
            device=DeviceSettings(timeout_s=0.0 if lockstep else timeout_s, **device_fields),
            **declare_fields(self, MuxSettings(), _WAITING),
        )

    def _declare_fixed_gripper(self) -> bool:
        file = str(declare(self, "task_file", "", "YAML file of the task; empty: a task with gripper"))
        return bool(file) and load_config(TaskConfig, file).action_dim < ACTION_DIM

    def _inputs(self, settings: MuxSettings) -> list[str]:
        """Topics without which no episode may begin: what decides a tick, and the hand that can take over."""
        inputs = [topics.OBSERVATION]
        if settings.policy_expected:
            inputs.append(topics.POLICY_OUTPUT)
        if settings.operator_expected:
            inputs += [topics.SPACENAV_TWIST, topics.SPACENAV_JOY]
        if settings.reward_expected:
            inputs.append(topics.REWARD)
        return inputs

    def _clocks(self) -> tuple[int, float]:
        return self.get_clock().now().nanoseconds, time.monotonic()

    def _on_observation(self, message: Observation) -> None:
        self._frame = message.header.frame_id
        q = message.tcp_pose.orientation
        self._carry_out(self._mux.observe(tick_of(message), [q.x, q.y, q.z, q.w], *self._clocks()))

    def _on_proposal(self, message: PolicyOutput) -> None:
        # Not through proposal_from_msg: what it refuses must become a HOLD with its reason, not an exception.
        self._carry_out(self._mux.propose(tick_of(message), np.asarray(message.action), *self._clocks()))

    def _on_reward(self, message: Reward) -> None:
        self._carry_out(self._mux.rewarded(stamp_to_ns(message.header.stamp), *self._clocks()))

    def _on_twist(self, message: Twist) -> None:
        linear, angular = message.linear, message.angular
        self._mux.device.put_twist(
            [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z], self.get_clock().now().nanoseconds
        )

    def _on_joy(self, message: Joy) -> None:
        self._carry_out(self._mux.operate(list(message.buttons), stamp_to_ns(message.header.stamp), *self._clocks()))

    def _expire(self) -> None:
        self._carry_out(self._mux.expire(*self._clocks()))

    def _carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            self._publisher.publish(command_to_msg(decision.command, decision.tick, self._frame))
        self._arm_timers()
        for decision in decisions:
            self._note(decision)

    def _arm_timers(self) -> None:
        deadline_ns, guard_wall_s = self._mux.deadline_ns, self._mux.guard_wall_s
        if guard_wall_s is None:
            self._deadline.cancel()
            self._guard.cancel()
            return
        now_ns, wall_s = self._clocks()
        # One millisecond more, so that rounding cannot wake the core before its time.
        self._guard.timer_period_ns = max(0, round((guard_wall_s - wall_s) * 1e9)) + 1_000_000
        self._guard.reset()
        if deadline_ns is not None:
            self._deadline.timer_period_ns = max(0, deadline_ns - now_ns) + 1
            self._deadline.reset()

    def _note(self, decision: Decision) -> None:
        self._last, self._decided_wall_s = decision, time.monotonic()
        self._counts[decision.command.source] += 1
        self._faults += decision.fault
        self._latency_ms = (self.get_clock().now().nanoseconds - decision.tick.stamp_ns) / 1e6
        level = Level.ERROR if decision.fault else Level.OK
        if level is not self._health.level or decision.fault:
            self._report()

    def _report(self) -> None:
        values = {source.name.lower(): count for source, count in self._counts.items()} | {
            "faults": self._faults,
            "latency_ms": f"{self._latency_ms:.1f}",
            "operator_drives": self._mux.takeover.driving,
        }
        if self._last is None or time.monotonic() - self._decided_wall_s > _IDLE_S:
            waiting = self._mux.guard_wall_s is not None
            silent = f", {' and '.join(sorted(self._mux.silent))} fell silent" if self._mux.silent else ""
            message = "an Observation waits for its Action" if waiting else f"no Observation{silent}"
            self._health.say(Level.WARN if silent else Level.OK, message, values)
        elif self._last.fault:
            self._health.say(Level.ERROR, f"HOLD: {self._last.command.reason}", values)
        elif self._last.command.source is ActionSource.HOLD:
            self._health.say(Level.OK, f"HOLD: {self._last.command.reason}", values)
        else:
            self._health.say(Level.OK, f"{self._last.command.source.name} moves the arm", values)


def main() -> None:
    """Runs the intervention mux."""
    sys.exit(run(InterventionMuxNode, "intervention_mux"))


if __name__ == "__main__":
    main()
