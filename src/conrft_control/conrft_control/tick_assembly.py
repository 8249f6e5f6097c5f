"""When sensor streams make a tick, and what is wrong with them when they do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conrft_data.ticks import Tick

_CLOCK_RESTART_NS = 1_000_000_000


@dataclass(slots=True)
class _Stream:
    max_age_ns: int
    stamp_ns: int = -1
    arrived_s: float = 0.0
    sample: Any = None


class TickAssembler:
    """Keeps the newest sample of each sensor stream.

    In lockstep a tick is complete when every stream carries one stamp. In real time every stream may be as old as its
    limit, measured from its own stamp.
    Samples are kept as they come: nothing is copied.
    """

    def __init__(self, max_age_s: Mapping[str, float]) -> None:
        """``max_age_s``: the oldest usable sample of each stream, seconds, by the stream's name."""
        if not max_age_s:
            raise ValueError("a tick needs at least one stream")
        self._streams = {name: _Stream(max_age_ns=round(age * 1e9)) for name, age in max_age_s.items()}
        self._given_up_ns = -1

    def put(self, name: str, stamp_ns: int, sample: Any, wall_s: float = 0.0) -> None:
        """Takes a sample of stream ``name``; one that arrived out of order is passed over.

        One that is older by more than a second comes from a simulator that was started again, and counts.
        """
        stream = self._streams[name]
        if stamp_ns >= stream.stamp_ns or stamp_ns < stream.stamp_ns - _CLOCK_RESTART_NS:
            stream.stamp_ns, stream.sample, stream.arrived_s = stamp_ns, sample, wall_s

    def samples(self) -> dict[str, Any]:
        """The newest sample of each stream that has one."""
        return {name: stream.sample for name, stream in self._streams.items() if stream.sample is not None}

    def common_stamp(self) -> int | None:
        """The stamp that all streams carry, ns, or None (lockstep)."""
        stamps = {stream.stamp_ns if stream.sample is not None else None for stream in self._streams.values()}
        return stamps.pop() if len(stamps) == 1 else None

    def give_up(self) -> None:
        """Nobody waits for the open tick any more (lockstep): nothing completes one that a dead simulator left."""
        self._given_up_ns = self._newest_ns()

    def silent(self) -> list[str]:
        """Streams that have not spoken yet."""
        return [name for name, stream in self._streams.items() if stream.sample is None]

    def stale(self, now_ns: int) -> list[str]:
        """One sentence for each stream that must not be trusted at ROS time ``now_ns`` (real time)."""
        problems = []
        for name, stream in self._streams.items():
            age = now_ns - stream.stamp_ns
            if stream.sample is None:
                problems.append(f"{name}: nothing received yet")
            elif age > stream.max_age_ns:
                problems.append(f"{name}: stale, {age / 1e9:.3f} s old (at most {stream.max_age_ns / 1e9:.3f} s)")
            elif age < -stream.max_age_ns:
                problems.append(f"{name}: stamped {-age / 1e9:.3f} s in the future; are the clocks synchronised?")
        return problems

    def missing(self, wall_s: float, patience_s: float) -> list[str]:
        """One sentence for each stream that keeps a lockstep tick open for longer than ``patience_s`` of wall time."""
        newest = self._newest_ns()
        last_arrival = max(stream.arrived_s for stream in self._streams.values())
        problems = [f"{name}: nothing received yet" for name, stream in self._streams.items() if stream.sample is None]
        if wall_s - last_arrival > patience_s and newest != self._given_up_ns:
            problems += [
                f"{name}: missing at tick {newest / 1e9:.3f} s, last came {stream.stamp_ns / 1e9:.3f} s"
                for name, stream in self._streams.items()
                if stream.sample is not None and stream.stamp_ns != newest
            ]
        return problems

    def _newest_ns(self) -> int:
        return max(stream.stamp_ns for stream in self._streams.values())


class EpisodeTicks:
    """Numbers the ticks of the running episode: steps from 0, every stamp once, none from before the episode began.

    A step is one Observation. When a stale stream costs ticks the steps go on without a gap, and the stamps show it.
    """

    def __init__(self, shortest_s: float = 0.0) -> None:
        """``shortest_s``: a tick that comes sooner after the last is passed over."""
        self._shortest_ns = max(1, round(shortest_s * 1e9))
        self._episode: int | None = None
        self._step = 0
        self._last_ns = -1

    @property
    def running(self) -> bool:
        """Whether an episode is running."""
        return self._episode is not None

    def begin(self, episode: int, not_before_ns: int) -> None:
        """The episode runs; its first tick is stamped ``not_before_ns`` or later. Saying it again changes nothing."""
        if self._episode != episode:
            self._episode, self._step, self._last_ns = episode, 0, not_before_ns - self._shortest_ns

    def end(self) -> None:
        """No episode runs."""
        self._episode = None

    def is_due(self, stamp_ns: int) -> bool:
        """Whether a tick may be published at ``stamp_ns``."""
        return self.running and stamp_ns - self._last_ns >= self._shortest_ns

    def next(self, stamp_ns: int) -> Tick | None:
        """The key of the tick at ``stamp_ns``, or None when there is none to be published."""
        if self._episode is None or not self.is_due(stamp_ns):
            return None
        tick = Tick(stamp_ns, self._episode, self._step)
        self._step, self._last_ns = self._step + 1, stamp_ns
        return tick
