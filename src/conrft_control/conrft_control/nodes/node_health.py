"""A node's own line on /diagnostics: once a second, and at once when its level changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from conrft_control.health_board import Level
from conrft_data import topics
from conrft_data.node_process import diagnostic_array

_PERIOD_S = 0.25
_BEATS_OF_A_HEARTBEAT = 4


class NodeHealth:
    """Publishes what a node says about itself, on the steady clock: simulated time may stand still.

    A node whose partners have not been discovered is STALE unless it is worse: what it publishes would be lost, or what
    it needs would never come.
    """

    def __init__(
        self,
        node: Node,
        refresh: Callable[[], None] | None = None,
        *,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
    ) -> None:
        """Starts the heartbeat.

        Args:
            node: the node.
            refresh: called before each heartbeat, so that the node can bring its word up to date.
            inputs: topics that somebody must publish.
            outputs: topics that somebody must subscribe.
        """
        self._node = node
        self._refresh = refresh
        self._inputs = [node.resolve_topic_name(topic) for topic in inputs]
        self._outputs = [node.resolve_topic_name(topic) for topic in outputs]
        # Depth 10, reliable: as diagnostic_updater publishes it.
        self._publisher = node.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
        self._said: tuple[Level, str, Mapping[str, object]] = (Level.STALE, "starting", {})
        self._published: Level | None = None
        self._logged: Level | None = None
        self._was_well = False
        self._beats = 0
        self.missing: list[str] = self._missing_partners()
        node.create_timer(_PERIOD_S, self._beat, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def level(self) -> Level:
        """The level that the node said last."""
        return self._said[0]

    def say(self, level: Level, message: str, values: Mapping[str, object] | None = None) -> None:
        """The node's state from now on; ``values`` are figures for a person."""
        self._said = (level, message, self._said[2] if values is None else values)
        if self._effective()[0] is not self._published:
            self._publish()

    def publish(self) -> None:
        """Says at once what would come with the next heartbeat, for somebody who waits for it."""
        self._publish()

    def _beat(self) -> None:
        self.missing = self._missing_partners()
        self._beats += 1
        if self._refresh is not None and self._beats % _BEATS_OF_A_HEARTBEAT == 0:
            self._refresh()
        if self._beats % _BEATS_OF_A_HEARTBEAT == 0 or self._effective()[0] is not self._published:
            self._publish()

    def _missing_partners(self) -> list[str]:
        missing = [f"nobody publishes {topic}" for topic in self._inputs if not self._node.count_publishers(topic)]
        return missing + [f"nobody subscribes {t}" for t in self._outputs if not self._node.count_subscribers(t)]

    def _effective(self) -> tuple[Level, str]:
        level, message, _ = self._said
        return (Level.STALE, "; ".join(self.missing)) if self.missing and level < Level.ERROR else (level, message)

    def _publish(self) -> None:
        level, message = self._effective()
        self._publisher.publish(diagnostic_array(self._node, bytes([level]), message, self._said[2]))
        self._published = level
        if level is not self._logged:
            self._log(level, message)

    def _log(self, level: Level, message: str) -> None:
        self._logged = level
        log = self._node.get_logger()
        self._was_well = self._was_well or level is Level.OK
        if level is Level.ERROR:
            log.error(message)
        elif level is Level.WARN or (level is Level.STALE and self._was_well):
            log.warning(message)
        else:
            log.info(message)
