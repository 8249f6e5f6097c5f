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

DEADLINE_MS = 80.0


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
        """Ticks, missed ones (held, late or unanswered) and latencies of those that were answered."""
        ticks = self.observed | set(self.latency_ms)
        late = {stamp for stamp, latency in self.latency_ms.items() if latency > DEADLINE_MS}
        missed = (ticks - set(self.latency_ms)) | late | self.held
        times = np.array(list(self.latency_ms.values()) or [np.nan])
        return {
            "ticks": len(ticks),
            "missed": len(missed),
            "latency_ms_median": round(float(np.median(times)), 2),
            "latency_ms_p99": round(float(np.percentile(times, 99)), 2),
        }


def stamp_of(raw: bytes) -> int:
    """Stamp in ns of a serialized message that begins with a header (CDR: 4 bytes of encapsulation, then the stamp)."""
    little_endian = raw[1] & 1
    seconds, nanoseconds = struct.unpack_from("<iI" if little_endian else ">iI", raw, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def measure(ticks: int, longest_s: float, stall_s: float = 60.0) -> dict[str, float | int]:
    """Listens until ``ticks`` ticks came while the learner was training.

    Raises TimeoutError after ``longest_s``, or when no tick came for ``stall_s`` after the first: a protective stop,
    for one, waits for a person. The text then holds the figures so far.
    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from conrft_data import topics
    from conrft_data.types import ActionSource
    from conrft_msgs.msg import Action, LearnerStatus, Observation

    latencies = TickLatencies()
    trained: list[tuple[float, int]] = []

    def on_status(message: LearnerStatus) -> None:
        if message.pending_updates or trained:
            trained.append((time.monotonic(), message.updates))

    def on_observation(raw: bytes) -> None:
        if trained:
            latencies.observation(stamp_of(raw))

    def on_action(message: Action) -> None:
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        if stamp_ns in latencies.observed:
            latencies.action(stamp_ns, time.time_ns(), held=message.source == ActionSource.HOLD)

    rclpy.init(args=[])
    node = rclpy.create_node("tick_probe")
    # Raw: unpacking the images would take time from those that are measured.
    node.create_subscription(Observation, topics.OBSERVATION, on_observation, topics.TICK, raw=True)
    node.create_subscription(Action, topics.ACTION, on_action, topics.TICK)
    node.create_subscription(LearnerStatus, topics.LEARNER_STATUS, on_status, topics.LATCHED)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    deadline, answered, moved = time.monotonic() + longest_s, 0, math.inf
    try:
        while (seen := len(latencies.latency_ms)) < ticks:
            now = time.monotonic()
            answered, moved = (seen, now) if seen != answered else (answered, moved)
            if now > deadline:
                raise TimeoutError(f"{seen} of {ticks} ticks in {longest_s:.0f} s")
            if now > moved + stall_s:
                raise TimeoutError(f"no tick for {stall_s:.0f} s after {seen} of {ticks}: {latencies.figures()}")
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.shutdown(timeout_sec=0)
        rclpy.try_shutdown()
    elapsed, updates = trained[-1][0] - trained[0][0], trained[-1][1] - trained[0][1]
    return {**latencies.figures(), "updates_per_s": round(updates / elapsed, 2) if elapsed else 0.0}


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
