"""The way of the joints back to the reset posture, beside the way of the tool centre point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from conrft_data.types import Float64


class PostureReset:
    """All joints turn on a straight line to the goal, none faster than the limit, all arriving together."""

    def __init__(self, goal: ArrayLike, joint_speed: float) -> None:
        """``goal``: ``(n,)`` rad; ``joint_speed``: of the joint that has the longest way, rad/s."""
        self.goal = np.asarray(goal, dtype=np.float64)
        self._joint_speed = joint_speed
        self._target: Float64 | None = None

    def begin(self) -> None:
        """A new reset: it starts from where the joints are."""
        self._target = None

    def next_target(self, measured: Float64, elapsed_s: float) -> Float64:
        """The posture ``(n,)`` to ask for next; ``measured``: ``(n,)`` rad, used at the start only."""
        start = measured if self._target is None else self._target
        way = self.goal - start
        longest = float(np.max(np.abs(way)))
        reach = self._joint_speed * max(0.0, elapsed_s)
        self._target = self.goal.copy() if longest <= reach else start + way * (reach / longest)
        return self._target.copy()


def positions_of(joints: Sequence[str], names: Sequence[str], positions: Sequence[float]) -> Float64:
    """``(n,)`` positions of ``joints`` out of a JointState; raises ValueError when one is missing or not finite."""
    by_name: Mapping[str, float] = dict(zip(names, positions, strict=False))
    missing = [joint for joint in joints if joint not in by_name]
    if missing:
        raise ValueError(f"no position of {', '.join(missing)} among {', '.join(names) or 'no joints at all'}")
    values = np.array([by_name[joint] for joint in joints], dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"a position is not finite: {values.tolist()}")
    return values
