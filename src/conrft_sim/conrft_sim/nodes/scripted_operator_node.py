"""Node ``scripted_operator``: a hand on a simulated SpaceMouse."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Joy

from conrft_data import topics
from conrft_data.config import TaskConfig, load_config
from conrft_data.conversion import MessageError, episode_status_from_msg, ns_to_stamp, twist_to_msg
from conrft_data.node_process import described, diagnostic_array, run
from conrft_data.types import Mode, Outcome, Phase
from conrft_msgs.msg import EpisodeState, SceneState
from conrft_sim.operator import OperatorHabits, OperatorInput, OperatorMode, ScriptedOperator
from conrft_sim.scene_message import scene_from_msg
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.task import DEFAULT_TASK, task_class

_MODES: dict[Mode, OperatorMode] = {
    Mode.DEMONSTRATION: "demonstrate",
    Mode.TRAINING: "intervene",
    Mode.EVALUATION: "judge",
}
_BUTTONS = ("close", "open", "success", "abort", "veto")
_REPEAT_PERIOD_S = 0.05
_SCENE_TIMEOUT_S = 0.3


class ScriptedOperatorNode(Node):
    """Answers each ``scene_state`` with ``spacenav/twist`` and ``spacenav/joy``; zeros while no episode runs."""

    def __init__(self) -> None:
        super().__init__("scripted_operator")
        self._declare_parameters()
        task_file = self._value("task_file")
        task = load_config(TaskConfig, Path(task_file)) if task_file else task_class(DEFAULT_TASK).default_config()
        self._plan = task_class(task.name).plan(task)
        self._operators = {mode: self._make_operator(mode) for mode in self._allowed_modes()}
        self._operator: ScriptedOperator | None = None
        self._episode, self._phase = 0, Phase.RESETTING
        self._prepared = -1
        self._scene: SceneSnapshot | None = None
        self._answered_ns, self._answer = -1, OperatorInput()
        self._scene_wall_s = 0.0
        self._takeovers, self._driven, self._vetoes = 0, 0, 0
        self._judged_id = ""
        self._connect()

    def _declare_parameters(self) -> None:
        declare, habits = self.declare_parameter, OperatorHabits()
        declare("task_file", "", described("YAML file of the task; empty: Pick Banana as shipped"))
        declare("mode", "auto", described("auto: as the episode's mode asks; or demonstrate, intervene, judge"))
        declare("seed", 0, described("of the hand's noise", integers=(0, 2**31 - 1)))
        declare(
            "lockstep", True, described("answer each scene once; false: also repeat the last state, as the device does")
        )
        declare("full_scale", 1.0, described("axis value of a full action", numbers=(0.01, 1000.0)))
        for index, name in enumerate(_BUTTONS):
            declare(f"button_{name}", index, described(f"index of the {name} button, -1: none", integers=(-1, 15)))
        declare(
            "stall_ticks",
            habits.stall_ticks,
            described("ticks without progress before a take-over", integers=(1, 1000)),
        )
        declare("min_ticks", habits.min_ticks, described("shortest take-over, ticks", integers=(1, 1000)))
        declare(
            "max_ticks", habits.max_ticks, described("longest first take-over of an episode, ticks", integers=(1, 1000))
        )
        declare("speed_low", habits.speed_low, described("slowest episode, share of full speed", numbers=(0.05, 1.0)))
        declare("speed_high", habits.speed_high, described("fastest episode, share of full speed", numbers=(0.05, 1.0)))
        declare(
            "negative_episodes",
            habits.negative_episodes,
            described(
                "first demonstrations, to fail: untouched and nearly done by turns, for the classifier",
                integers=(0, 1000),
            ),
        )
        declare("noise", habits.noise, described("of the hand, in full actions", numbers=(0.0, 1.0)))

    def _value(self, name: str):  # type: ignore[no-untyped-def]  # the type is the parameter's
        return self.get_parameter(name).value

    def _allowed_modes(self) -> list[OperatorMode]:
        mode = self._value("mode")
        if mode != "auto" and mode not in _MODES.values():
            raise ValueError(f"parameter mode is {mode!r}, allowed: auto, {', '.join(_MODES.values())}")
        return list(_MODES.values()) if mode == "auto" else [mode]

    def _make_operator(self, mode: OperatorMode) -> ScriptedOperator:
        names = ("stall_ticks", "min_ticks", "max_ticks", "speed_low", "speed_high", "noise", "negative_episodes")
        habits = OperatorHabits(**{name: self._value(name) for name in names})
        return ScriptedOperator(mode, self._plan, self._value("seed"), habits=habits)

    def _connect(self) -> None:
        # As spacenav_node publishes; in lockstep none may be lost.
        self._twist = self.create_publisher(Twist, topics.SPACENAV_TWIST, topics.TICK)
        self._joy = self.create_publisher(Joy, topics.SPACENAV_JOY, topics.TICK)
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
        self.create_subscription(EpisodeState, topics.EPISODE_STATE, self._on_episode_state, topics.EVERY_STATE)
        self.create_subscription(SceneState, topics.SCENE_STATE, self._on_scene, topics.TICK)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self.create_timer(1.0, self._report, clock=steady)
        if not self._value("lockstep"):
            self.create_timer(_REPEAT_PERIOD_S, self._repeat, clock=steady)

    def _on_episode_state(self, message: EpisodeState) -> None:
        try:
            state = episode_status_from_msg(message)
        except MessageError as error:
            self.get_logger().error(f"passed over: {error}", throttle_duration_sec=1.0)
            return
        self._episode, self._phase = state.episode, state.phase
        mode = self._value("mode")
        self._operator = self._operators[_MODES[state.mode] if mode == "auto" else mode]
        if self._phase is Phase.READY:
            self._prepared, self._answered_ns = -1, -1
        if self._scene is None:
            return
        if self._phase in (Phase.READY, Phase.RUNNING):
            self._consider(self._scene)
        elif state.outcome is Outcome.SUCCESS and state.episode_id != self._judged_id:
            self._judged_id = state.episode_id  # what is seen later is another scene
            self._judge_success(self._operator, self._scene)

    def _judge_success(self, operator: ScriptedOperator, scene: SceneSnapshot) -> None:
        """Presses and lets go of the veto button when the classifier called a success that is none."""
        if operator.disagrees(scene):
            self._vetoes += 1
            for self._answer in (OperatorInput(veto=True), OperatorInput()):
                self._send(scene.stamp_ns)

    def _on_scene(self, message: SceneState) -> None:
        try:
            self._scene = scene_from_msg(message)
        except (MessageError, ValueError) as error:
            self.get_logger().error(f"scene_state refused: {error}", throttle_duration_sec=1.0)
            return
        self._scene_wall_s = time.monotonic()
        self._consider(self._scene)

    def _consider(self, scene: SceneSnapshot) -> None:
        """Answers a scene; the same scene gets the same answer.

        While READY the first move is worked out anew for each scene, so that it is already there when step 0 is
        observed, and so that the noise does not depend on how long the wait was.
        """
        if self._operator is None or self._phase not in (Phase.READY, Phase.RUNNING):
            self._answered_ns, self._answer = -1, OperatorInput()
        elif scene.stamp_ns != self._answered_ns:
            if self._phase is Phase.READY or self._prepared != self._episode:
                self._operator.reset(self._episode)
                self._prepared = self._episode
            driving_before = self._operator.intervening
            self._answer, self._answered_ns = self._act(self._operator, scene), scene.stamp_ns
            self._takeovers += self._operator.intervening and not driving_before
            self._driven += self._answer.active
        self._send(scene.stamp_ns)

    def _act(self, operator: ScriptedOperator, scene: SceneSnapshot) -> OperatorInput:
        try:
            return operator.act(scene)
        except KeyError as error:
            self.get_logger().error(f"the hand rests: scene_state has no {error}", throttle_duration_sec=1.0)
            return OperatorInput()

    def _send(self, stamp_ns: int) -> None:
        twist = self._answer.twist * self._value("full_scale")
        self._twist.publish(twist_to_msg(twist))
        joy = Joy(axes=twist.tolist())
        joy.header.stamp = ns_to_stamp(stamp_ns)
        joy.buttons = self._pressed()
        self._joy.publish(joy)

    def _pressed(self) -> list[int]:
        buttons = [0] * (1 + max(0, *(self._value(f"button_{name}") for name in _BUTTONS)))
        for name in _BUTTONS:
            index = self._value(f"button_{name}")
            if index >= 0:
                buttons[index] = int(getattr(self._answer, name))
        return buttons

    def _repeat(self) -> None:
        """Repeats the device's state while the hand is on it; the device lets go when the scene is no longer seen."""
        if self._scene is None:
            return
        if time.monotonic() - self._scene_wall_s > _SCENE_TIMEOUT_S:
            self._answer = OperatorInput()
        self._twist.publish(twist_to_msg(self._answer.twist * self._value("full_scale")))

    def _report(self) -> None:
        seen = self._scene is not None
        level = DiagnosticStatus.OK if seen else DiagnosticStatus.WARN
        values = {
            "episode": self._episode,
            "takeovers": self._takeovers,
            "ticks_driven": self._driven,
            "vetoes": self._vetoes,
        }
        message = self._operator.mode if seen and self._operator else "waits for scene_state and episode_state"
        self._diagnostics.publish(diagnostic_array(self, level, message, values))


def main() -> None:
    """Entry point."""
    sys.exit(run(ScriptedOperatorNode, "scripted_operator"))


if __name__ == "__main__":
    main()
