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
from conrft_control.nodes.running import declare, declare_lockstep, run
from conrft_control.operator_input import DeviceSettings, TakeoverSettings
from conrft_data import topics
from conrft_data.conversion import command_to_msg, stamp_to_ns, tick_of
from conrft_data.types import ActionSource
from conrft_msgs.msg import Action, Observation, PolicyOutput, Reward

# Without an Observation for so long the last decision says nothing about the present.
_IDLE_S = 1.0


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
        if settings.lockstep and settings.reward_expected:
            self.create_subscription(Reward, topics.REWARD, self._on_reward, topics.TICK)
        # Both timers are armed for each tick anew and disarmed by its decision.
        self._deadline = self.create_timer(settings.deadline_s, self._expire)
        self._guard = self.create_timer(settings.guard_s, self._expire, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._deadline.cancel()
        self._guard.cancel()

    def _declare_settings(self) -> MuxSettings:
        takeover, device, settings = TakeoverSettings(), DeviceSettings(), MuxSettings()
        return MuxSettings(
            lockstep=declare_lockstep(self),
            policy_expected=declare(
                self,
                "policy_expected",
                settings.policy_expected,
                "a policy proposes actions; false: only the operator moves the arm",
            ),
            operator_expected=declare(
                self,
                "operator_expected",
                settings.operator_expected,
                "lockstep: each tick waits for the operator's buttons",
            ),
            reward_expected=declare(
                self, "reward_expected", settings.reward_expected, "lockstep: each tick waits for the reward node"
            ),
            deadline_s=declare(
                self,
                "deadline",
                settings.deadline_s,
                "an Action comes at the latest so long after its Observation's stamp, s",
                low=0.01,
                high=0.1,
            ),
            guard_s=declare(
                self,
                "guard",
                settings.guard_s,
                "and so long after the Observation came, s of wall time",
                low=0.1,
                high=600.0,
            ),
            short_guard_s=declare(
                self,
                "short_guard",
                settings.short_guard_s,
                "guard while the awaited node is known to be silent, s",
                low=0.01,
                high=10.0,
            ),
            overshoot=declare(
                self,
                "overshoot",
                settings.overshoot,
                "a proposal so far beyond [-1, 1] is clipped, one farther is refused",
                low=0.0,
                high=1.0,
            ),
            takeover=TakeoverSettings(
                deadband=declare(
                    self,
                    "deadband",
                    takeover.deadband,
                    "an axis below this counts as zero, full actions",
                    low=0.0,
                    high=1.0,
                ),
                enter=declare(
                    self, "enter", takeover.enter, "an axis from here on takes over, full actions", low=0.0, high=1.0
                ),
                leave=declare(
                    self, "leave", takeover.leave, "below this the hand rests, full actions", low=0.0, high=1.0
                ),
                hold_ticks=declare(
                    self,
                    "hold_ticks",
                    takeover.hold_ticks,
                    "the operator keeps control so many ticks after the last motion",
                    low=0,
                    high=100,
                ),
            ),
            device=DeviceSettings(
                axes=tuple(
                    declare(
                        self,
                        "axes",
                        list(device.axes),
                        "the device's axis for x, y, z and the rotations about them, base frame, from 1; negative: turned round",
                    )
                ),
                translation_gain=declare(
                    self,
                    "translation_gain",
                    device.translation_gain,
                    "device units to full actions",
                    low=0.0,
                    high=100.0,
                ),
                rotation_gain=declare(
                    self, "rotation_gain", device.rotation_gain, "device units to full actions", low=0.0, high=100.0
                ),
                close_button=declare(
                    self, "close_button", device.close_button, "closes the gripper; -1: none", low=-1, high=64
                ),
                open_button=declare(
                    self, "open_button", device.open_button, "opens the gripper; -1: none", low=-1, high=64
                ),
                timeout_s=self._device_timeout(device.timeout_s),
            ),
        )

    def _device_timeout(self, default: float) -> float:
        timeout = float(
            declare(
                self,
                "device_timeout",
                default,
                "real time: a twist older than this counts as zero, s",
                low=0.02,
                high=5.0,
            )
        )
        # In lockstep the buttons' stamp says that the twist is the tick's own.
        return 0.0 if self.get_parameter("lockstep").value else timeout

    def _inputs(self, settings: MuxSettings) -> list[str]:
        """Topics without which no tick can be decided."""
        inputs = [topics.OBSERVATION]
        if settings.policy_expected:
            inputs.append(topics.POLICY_OUTPUT)
        if settings.lockstep and settings.operator_expected:
            inputs += [topics.SPACENAV_TWIST, topics.SPACENAV_JOY]
        if settings.lockstep and settings.reward_expected:
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
        else:
            self._health.say(Level.OK, f"{self._last.command.source.name} moves the arm", values)


def main() -> None:
    """Runs the intervention mux."""
    sys.exit(run(InterventionMuxNode))


if __name__ == "__main__":
    main()
