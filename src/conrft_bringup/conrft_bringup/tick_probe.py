"""Measures the way from Observation to Action in a running graph. Started by tick_benchmark.launch.yaml."""

from __future__ import annotations

import argparse
import json
import math
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from conrft_control.health_board import node_of
from conrft_data import topics
from conrft_data.conversion import stamp_to_ns
from conrft_data.node_process import HARDWARE_ID, STOPPED
from conrft_data.types import ActionSource
from conrft_msgs.msg import Action, LearnerStatus, Observation

DEADLINE_MS = 80.0
_RESET_PERIOD_S = 5.0  # between two attempts to reset a protective stop


@dataclass
class TickLatencies:
    """Collects the ticks of a graph in real time. Stamps and times are of the system's clock, in ns.

    Attributes:
        observed: stamps of the Observations that came.
        latency_ms: from the stamp to the arrival of the Action, by stamp.
        held: stamps whose Action was HOLD.
    """

    observed: set[int] = field(default_factory=set)
    latency_ms: dict[int, float] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)

    def observation(self, stamp_ns: int) -> None:
        """An Observation has come."""
        self.observed.add(stamp_ns)

    def action(self, stamp_ns: int, now_ns: int, *, held: bool) -> None:
        """An Action has come; the first one of a tick counts."""
        if stamp_ns in self.latency_ms:
            return
        self.latency_ms[stamp_ns] = (now_ns - stamp_ns) / 1e6
        if held:
            self.held.add(stamp_ns)

    def figures(self) -> dict[str, float | int]:
        """Ticks, missed ones by their kind (held, late or unanswered) and latencies of those that were answered."""
        ticks = self.observed | set(self.latency_ms)
        late = {stamp for stamp, latency in self.latency_ms.items() if latency > DEADLINE_MS}
        unanswered = ticks - set(self.latency_ms)
        times = np.array(list(self.latency_ms.values()) or [np.nan])
        return {
            "ticks": len(ticks),
            "missed": len(unanswered | late | self.held),
            "unanswered": len(unanswered),
            "late": len(late),
            "held": len(self.held),
            "latency_ms_median": round(float(np.median(times)), 2),
            "latency_ms_p99": round(float(np.percentile(times, 99)), 2),
        }


def stamp_of(raw: bytes) -> int:
    """Stamp in ns of a serialized message that begins with a header (CDR: 4 bytes of encapsulation, then the stamp)."""
    little_endian = raw[1] & 1
    seconds, nanoseconds = struct.unpack_from("<iI" if little_endian else ">iI", raw, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def measure(ticks: int, longest_s: float, stall_s: float = 60.0) -> dict[str, float | int]:
    """Listens until ``ticks`` ticks came while the learner was training; resets protective stops and counts them.

    Raises TimeoutError after ``longest_s``, or when no tick came for ``stall_s`` after the first; the text then holds
    the figures so far.
    """
    rclpy.init(args=[])
    probe = ProbeNode()
    executor = SingleThreadedExecutor()
    executor.add_node(probe)
    deadline, answered, moved = time.monotonic() + longest_s, 0, math.inf
    try:
        while (seen := len(probe.latencies.latency_ms)) < ticks:
            now = time.monotonic()
            answered, moved = (seen, now) if seen != answered else (answered, moved)
            if now > deadline:
                raise TimeoutError(f"{seen} of {ticks} ticks in {longest_s:.0f} s")
            if now > moved + stall_s:
                raise TimeoutError(f"no tick for {stall_s:.0f} s after {seen} of {ticks}: {probe.figures()}")
            executor.spin_once(timeout_sec=0.1)
        return probe.figures()
    finally:
        executor.shutdown(timeout_sec=0)
        rclpy.try_shutdown()


class ProbeNode(Node):
    """Listens to the loop, and resets protective stops as a person would: here nobody is in the arm's way."""

    def __init__(self) -> None:
        super().__init__("tick_probe")
        self.latencies = TickLatencies()
        self._trained: list[tuple[float, int]] = []
        self._stopped, self._resets = False, 0
        # Raw: unpacking the images would take time from those that are measured.
        self.create_subscription(Observation, topics.OBSERVATION, self._on_observation, topics.TICK, raw=True)
        self.create_subscription(Action, topics.ACTION, self._on_action, topics.TICK)
        self.create_subscription(LearnerStatus, topics.LEARNER_STATUS, self._on_status, topics.LATCHED)
        self.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, 100)
        self._reset = self.create_client(Trigger, topics.RESET_STOP)
        self.create_timer(_RESET_PERIOD_S, self._reset_stop)

    def figures(self) -> dict[str, float | int]:
        """Those of the ticks, protective stops that were reset, and the learner's updates a second."""
        (begun, first), (ended, last) = (self._trained or [(0.0, 0)])[0], (self._trained or [(0.0, 0)])[-1]
        rate = round((last - first) / (ended - begun), 2) if ended > begun else 0.0
        return {**self.latencies.figures(), "protective_stops": self._resets, "updates_per_s": rate}

    def _on_status(self, message: LearnerStatus) -> None:
        if message.pending_updates or self._trained:
            self._trained.append((time.monotonic(), message.updates))

    def _on_observation(self, raw: bytes) -> None:
        if self._trained:
            self.latencies.observation(stamp_of(raw))

    def _on_action(self, message: Action) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        if stamp_ns in self.latencies.observed:
            self.latencies.action(stamp_ns, time.time_ns(), held=message.source == ActionSource.HOLD)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.hardware_id == HARDWARE_ID and node_of(status.name)[1] == "commander":
                self._stopped = any(value.key == STOPPED for value in status.values)

    def _reset_stop(self) -> None:
        if self._stopped and self._reset.service_is_ready():
            self._reset.call_async(Trigger.Request()).add_done_callback(self._on_reset)

    def _on_reset(self, future: Future) -> None:
        response = future.result()
        if response is not None and response.success:
            self._stopped = False
            self._resets += 1


def main() -> int:
    """Measures and writes the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--longest", type=float, help="s (default: a minute and twice the time that the ticks take)")
    args = parser.parse_args()
    try:
        figures = measure(args.ticks, args.longest or 60.0 + 0.2 * args.ticks)
    except TimeoutError as error:
        print(f"tick probe: {error}", file=sys.stderr)
        return 1
    args.out.write_text(json.dumps(figures) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
