"""Whether a simulator takes the place of one that died in the middle of a run."""

from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from conrft_data import topics
from conrft_data.conversion import stamp_to_ns

_PUTS_BACK = "SCENE"  # the supervisor's stage in which it waits for the scene anyway


class Predecessor:
    """Listens for the supervisor at the start of a simulator.

    The supervisor, if there is one, says every second on ``/diagnostics`` what it does, stamped with ROS time. In
    lockstep only a simulator makes that time: when it has begun to run, there was one before. In real time there was
    one when the supervisor has come further than to its first reset of the scene.
    """

    def __init__(self, node: Node, wait_s: float, *, lockstep: bool, decided: Callable[[int | None], None]) -> None:
        """``decided`` is called once: with None, or with the ROS time in ns that a predecessor has left behind.

        Without a word from a supervisor for ``wait_s`` nobody is replaced.
        """
        self._lockstep, self._decided, self._open = lockstep, decided, True
        self._supervisor = f"{node.get_namespace()}/supervisor".lstrip("/")
        node.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, 100)
        self._timer = node.create_timer(wait_s, self._nobody, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status if self._open else ():
            stage = next((value.value for value in status.values if value.key == "stage"), "")
            if status.name == self._supervisor and stage:
                left_ns = stamp_to_ns(message.header.stamp)
                replaced = left_ns > 0 if self._lockstep else stage != _PUTS_BACK
                self._decide(left_ns if replaced else None)

    def _nobody(self) -> None:
        self._decide(None)

    def _decide(self, left_ns: int | None) -> None:
        if self._open:
            self._open = False
            self._timer.cancel()
            self._decided(left_ns)
