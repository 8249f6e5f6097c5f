"""Why the arm must not move until a person allows it again, and the short way back from a contact that was too hard."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from conrft_data import rotations
from conrft_data.config import SafetyLimits
from conrft_data.types import Float64

# Poses of the trail are at least so far apart, m; farther than the second, somebody else put the arm there.
_TRAIL_STEP, _TRAIL_JUMP = 0.001, 0.05
_TRAIL_LENGTH = 512

EMERGENCY = "emergency stop"


class Retreat:
    """The way back along a trail of poses, at limited speed, over a limited distance."""

    def __init__(self, trail: Sequence[Float64], distance: float, speed: float) -> None:
        """``trail``: poses ``(7,)``, the present one first; ``distance``: m; ``speed``: m/s."""
        self._trail = list(trail)
        lengths = [float(np.linalg.norm(there[:3] - here[:3])) for here, there in pairwise(self._trail)]
        self._reached = np.concatenate([[0.0], np.cumsum(lengths)])
        self._end = min(distance, float(self._reached[-1]))
        self._speed, self._gone = speed, 0.0

    def next_target(self, elapsed_s: float) -> Float64:
        """The target ``(7,)`` after ``elapsed_s`` more seconds."""
        self._gone = min(self._end, self._gone + self._speed * elapsed_s)
        index = int(np.searchsorted(self._reached, self._gone, side="right")) - 1
        if index + 1 >= len(self._trail):
            return self._trail[-1].copy()
        here, there = self._trail[index], self._trail[index + 1]
        part = (self._gone - self._reached[index]) / (self._reached[index + 1] - self._reached[index])
        turn = rotations.to_rotation_vector(rotations.multiply(there[3:], rotations.inverse(here[3:])))
        turned = rotations.multiply(rotations.from_rotation_vector(part * turn), here[3:])
        return np.concatenate([here[:3] + part * (there[:3] - here[:3]), rotations.normalized(turned)])


class ProtectiveStop:
    """Latches the first reason to stop; only ``reset``, an act of a person, releases it.

    Attributes:
        reason: why the arm must not move; empty when it may.
    """

    def __init__(self, limits: SafetyLimits) -> None:
        self.reason = ""
        self._limits = limits
        self._pressed = False
        self._trail: deque[Float64] = deque(maxlen=_TRAIL_LENGTH)
        self._present: Float64 | None = None
        self._retreat: Retreat | None = None

    def emergency(self, pressed: bool) -> bool:
        """The emergency stop's state; returns whether this stopped the arm."""
        self._pressed = pressed
        if not pressed or self.reason:
            # An emergency stop also ends a retreat.
            self._retreat = None if pressed else self._retreat
            return False
        self.reason = EMERGENCY
        return True

    def feel(self, wrench: ArrayLike) -> bool:
        """The measured wrench ``(6,)``, N and N m; returns whether it stopped the arm."""
        values = np.asarray(wrench, dtype=np.float64)
        force, torque = float(np.linalg.norm(values[:3])), float(np.linalg.norm(values[3:]))
        limits = self._limits
        if self.reason or (force <= limits.force and torque <= limits.torque):
            return False
        over = (
            f"{force:.1f} N, limit {limits.force:.1f} N"
            if force > limits.force
            else f"{torque:.2f} N m, limit {limits.torque:.2f} N m"
        )
        self.reason = f"wrench: {over}"
        if self._present is not None:
            trail = [self._present, *reversed(self._trail)]
            self._retreat = Retreat(trail, limits.retreat_distance, limits.retreat_speed)
        return True

    def passed(self, pose: Float64) -> None:
        """The arm was measured at ``pose`` ``(7,)``: where it came from, should it have to go back."""
        if self.reason:
            return
        self._present = pose
        distance = float(np.linalg.norm(pose[:3] - self._trail[-1][:3])) if self._trail else np.inf
        if distance > _TRAIL_JUMP:
            self._trail.clear()
        if distance >= _TRAIL_STEP:
            self._trail.append(pose)

    def retreated(self, elapsed_s: float) -> Float64 | None:
        """The target ``(7,)`` of the retreat after ``elapsed_s`` more seconds; None: there is no retreat."""
        return None if self._retreat is None else self._retreat.next_target(elapsed_s)

    def reset(self) -> str:
        """A person allows motion again; returns why not, empty: granted."""
        if self._pressed:
            return "the emergency stop is still pressed"
        if not self.reason:
            return "the arm was not stopped"
        self.reason, self._retreat = "", None
        self._trail.clear()
        return ""
