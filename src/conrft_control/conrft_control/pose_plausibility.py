"""Whether a measured pose can be true: an arm does not leap, and does not reach beyond its links."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conrft_data.types import Float64

# No arm of this size reaches farther from its base, m.
_REACH = 2.0
# An arm may seem to move by so much at once, m, and so fast beyond it, m/s: above what a Franka can do.
_LEAP, _SPEED = 0.05, 3.0
# A stamp that runs ahead excuses no more than this, s: it may be as wrong as the pose.
_LONGEST_S = 0.05
# So many poses in a row that agree with each other are believed: the arm was somewhere else all along.
_WITNESSES = 5


@dataclass(frozen=True, slots=True)
class _Seen:
    stamp_ns: int
    position: Float64

    def agrees(self, other: _Seen) -> bool:
        elapsed_s = min(_LONGEST_S, max(0, other.stamp_ns - self.stamp_ns) / 1e9)
        return float(np.linalg.norm(other.position - self.position)) <= _LEAP + _SPEED * elapsed_s


class PosePlausibility:
    """Doubts a measured pose that is far from the last one, until others confirm it."""

    def __init__(self, *, may_leap: bool = False) -> None:
        """``may_leap``: in lockstep a simulator puts the arm back in one tick."""
        self._may_leap = may_leap
        self._believed: _Seen | None = None
        self._doubted: _Seen | None = None
        self._witnesses = 0

    def doubt(self, stamp_ns: int, pose: Float64) -> str:
        """Why the pose ``(7,)`` cannot be used; empty when it can."""
        seen = _Seen(stamp_ns, pose[:3])
        distance = float(np.linalg.norm(seen.position))
        if distance > _REACH:
            return f"current_pose: {distance:.3g} m away from the base, the arm holds"
        if self._may_leap or self._believed is None or self._believed.agrees(seen):
            self._believed, self._doubted = seen, None
            return ""
        self._witnesses = self._witnesses + 1 if self._doubted is not None and self._doubted.agrees(seen) else 1
        self._doubted = seen
        if self._witnesses < _WITNESSES:
            leap = float(np.linalg.norm(seen.position - self._believed.position))
            return f"current_pose: leapt by {leap:.2f} m, the arm holds"
        self._believed, self._doubted = seen, None
        return ""
