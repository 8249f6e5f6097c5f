"""A node's own line on /diagnostics: once a second, and at once when its level changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from conrft_control.health_board import Level
from conrft_data import topics

_PERIOD_S = 1.0


class NodeHealth:
    """Publishes what a node says about itself. The heartbeat runs on the steady clock: simulated time may stand still."""

    def __init__(self, node: Node, refresh: Callable[[], None] | None = None) -> None:
        """``refresh`` is called before each heartbeat, so that the node can bring its word up to date."""
        self._node = node
        self._refresh = refresh
        # Depth 10, reliable: as diagnostic_updater publishes it.
        self._publisher = node.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
        self._status = DiagnosticStatus(
            name=node.get_fully_qualified_name().lstrip("/"), hardware_id="conrft", level=bytes([Level.WARN])
        )
        self._status.message = "starting"
        self._timer = node.create_timer(_PERIOD_S, self._heartbeat, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def level(self) -> Level:
        """The level said last."""
        return Level(self._status.level[0])

    def say(self, level: Level, message: str, values: Mapping[str, object] | None = None) -> None:
        """The node's state from now on; ``values`` are figures for a person."""
        changed = level is not self.level
        self._status.level, self._status.message = bytes([level]), message
        if values is not None:
            self._status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        if changed:
            self._publish()
            log = self._node.get_logger()
            if level >= Level.ERROR:
                log.error(message)
            elif level is Level.WARN:
                log.warning(message)
            else:
                log.info(message)

    def _heartbeat(self) -> None:
        if self._refresh is not None:
            self._refresh()
        self._publish()

    def _publish(self) -> None:
        message = DiagnosticArray(status=[self._status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)
