"""Plays a bag at the speed at which it was recorded, for where there is no ``ros2 bag play``.

What it publishes goes below a namespace of its own: a recorded action must never reach a commander that listens.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosbags.interfaces import Connection, QosDurability
from rosbags.rosbag2 import Reader

from conrft_control.health_board import Level
from conrft_control.nodes.node_health import NodeHealth
from conrft_control.nodes.parameters import declare
from conrft_data import topics
from conrft_data.node_process import StopRequested, run

_STEP_S = 0.01
_PAUSE_S = 1.0  # before it begins again
_MOST_LATE_S = 0.1


class BagPlayerNode(Node):
    """Publishes the messages of a rosbag2 recording as they are, below ``into``."""

    def __init__(self, **options: Any) -> None:
        """``options`` go to rclpy's Node."""
        super().__init__("bag_player", **options)
        self._bag = Path(str(declare(self, "bag", "", "folder of the recording, or a single .mcap or .db3 file")))
        self._into = str(declare(self, "into", "playback", "namespace of all that is played")).strip("/")
        if not self._into:
            raise ValueError("parameter into is empty: a recorded action must not reach a graph that is running")
        self._rate = declare(self, "rate", 1.0, "speed, 1: as recorded", low=0.01, high=100.0)
        self._loop = declare(self, "loop", True, "begin again at the end")
        self._wait_s = declare(self, "wait", 10.0, "for somebody who listens, at most s", low=0.0, high=600.0)
        self._reader = _opened(self._bag)
        self._publishers_by_id = self._advertise()
        self._messages: Iterator[tuple[Connection, int, bytes]] = iter(())
        self._next: tuple[Connection, int, bytes] | None = None
        self._started = time.monotonic()
        self._begun: float | None = None
        self._looked = self._started
        self._health = NodeHealth(self, lambda: self._health.say(Level.OK, f"plays {self._bag.name}"))
        self.create_timer(_STEP_S, self._play, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _advertise(self) -> dict[int, Publisher]:
        """A publisher for each recorded topic whose message is installed here."""
        made = {}
        for connection in self._reader.connections:
            package, _, kind = connection.msgtype.split("/")
            try:
                message_type = getattr(importlib.import_module(f"{package}.msg"), kind)
            except (ImportError, AttributeError):
                self.get_logger().warning(f"{connection.topic}: {connection.msgtype} is not installed, it is left out")
                continue
            name = f"{self._into}/{connection.topic.lstrip('/')}"
            made[connection.id] = self.create_publisher(message_type, name, _quality(connection))
        if not made:
            raise ValueError(f"{self._bag}: holds no message that is installed here")
        return made

    def _play(self) -> None:
        now = time.monotonic()
        if self._begun is None:
            listened = any(publisher.get_subscription_count() for publisher in self._publishers_by_id.values())
            if listened or now - self._started > self._wait_s:
                self._begin(now)
            return
        # Held up for longer than that, it goes on where it was: what is due would come as one burst, and be lost.
        self._begun += max(0.0, now - self._looked - _MOST_LATE_S)
        self._looked = now
        recorded_now = self._reader.start_time + (now - self._begun) * self._rate * 1e9
        while self._next is not None and self._next[1] <= recorded_now:
            connection, _, raw = self._next
            self._publishers_by_id[connection.id].publish(raw)
            self._next = next(self._messages, None)
        if self._next is None:
            if not self._loop:
                raise StopRequested(0)
            self._begin(now + _PAUSE_S)

    def _begin(self, at: float) -> None:
        known = [c for c in self._reader.connections if c.id in self._publishers_by_id]
        self._messages = iter(self._reader.messages(known))
        self._next = next(self._messages, None)
        self._begun = self._looked = at

    def destroy_node(self) -> None:
        """Closes the recording."""
        self._reader.close()
        super().destroy_node()


def _opened(bag: Path) -> Reader:
    """The recording, open; raises ValueError."""
    reader = None
    try:
        reader = Reader(bag)
        reader.open()
    except Exception as error:  # damaged files make the parser fail in many ways
        raise ValueError(f"parameter bag: {bag} cannot be played: {error}") from error
    return reader


def _quality(connection: Connection) -> QoSProfile:
    """As it was offered, as far as a late subscriber can tell."""
    offered = getattr(connection.ext, "offered_qos_profiles", [])
    latched = any(profile.durability is QosDurability.TRANSIENT_LOCAL for profile in offered)
    return topics.LATCHED if latched else QoSProfile(depth=topics.TICK.depth, durability=DurabilityPolicy.VOLATILE)


def main() -> None:
    """Runs the player."""
    sys.exit(run(BagPlayerNode, "bag_player"))


if __name__ == "__main__":
    main()
