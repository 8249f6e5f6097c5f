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

# Until it has left the contact the arm brakes and may press harder than what stopped it, by this factor.
_BRAKING = 1.5
# Below this part of its limit the force is no longer that of the contact: from then on the limit counts again.
_LEFT = 0.5

EMERGENCY = "emergency stop"


class Retreat:
    """The way back along a trail of poses, at limited speeds, over a limited distance."""

    def __init__(self, trail: Sequence[Float64], distance: float, speed: float, turning_speed: float) -> None:
        """``trail``: poses ``(7,)``, the present one first; ``distance`` in m, speeds in m/s and rad/s."""
        self._trail = _shortened(trail, distance)
        times = [
            max(_distance(here, there) / speed, rotations.angle_between(there[3:], here[3:]) / turning_speed)
            for here, there in pairwise(self._trail)
        ]
        self._due_s, self._gone_s = np.concatenate([[0.0], np.cumsum(times)]), 0.0

    def next_target(self, elapsed_s: float) -> Float64:
        """The target ``(7,)`` after ``elapsed_s`` more seconds."""
        self._gone_s += elapsed_s
        index = int(np.searchsorted(self._due_s, self._gone_s, side="right")) - 1
        if index + 1 >= len(self._trail):
            return self._trail[-1].copy()
        part = (self._gone_s - self._due_s[index]) / (self._due_s[index + 1] - self._due_s[index])
        return _between(self._trail[index], self._trail[index + 1], part)


def _shortened(trail: Sequence[Float64], distance: float) -> list[Float64]:
    """The beginning of a trail, ``distance`` metres long."""
    kept, left = [trail[0]], distance
    for here, there in pairwise(trail):
        if left <= 0:
            break
        length = _distance(here, there)
        kept.append(there if length <= left else _between(here, there, left / length))
        left -= length
    return kept


def _distance(here: Float64, there: Float64) -> float:
    return float(np.linalg.norm(there[:3] - here[:3]))


def _between(here: Float64, there: Float64, part: float) -> Float64:
    """The pose ``(7,)`` after ``part`` of the way from one to the other."""
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
        self._highest_load = 1.0

    @property
    def retreats(self) -> bool:
        """Whether the arm goes back, or stands at the end of its way back."""
        return self._retreat is not None

    def emergency(self, pressed: bool) -> bool:
        """The emergency stop's state; returns whether the arm has to stop now, on a retreat too."""
        self._pressed = pressed
        return pressed and self.order()

    def order(self) -> bool:
        """A person orders a stop, without a button that could be held; returns whether the arm has to stop now."""
        if self.reason and not self.retreats:
            return False
        self.reason, self._retreat = self.reason or EMERGENCY, None
        return True

    def feel(self, wrench: ArrayLike) -> bool:
        """The measured wrench ``(6,)``, N and N m; returns whether the arm has to stop now, on a retreat too."""
        values, limits = np.asarray(wrench, dtype=np.float64), self._limits
        force, torque = float(np.linalg.norm(values[:3])), float(np.linalg.norm(values[3:]))
        # 1: at the limit.
        load = max(force / limits.force, torque / limits.torque)
        if self.retreats:
            return self._feel_back(load)
        if self.reason or load <= 1.0:
            return False
        over = (
            f"{force:.1f} N, limit {limits.force:.1f} N"
            if force > limits.force
            else f"{torque:.2f} N m, limit {limits.torque:.2f} N m"
        )
        self.reason, self._highest_load = f"wrench: {over}", _BRAKING * load
        if self._present is not None:
            trail = [self._present, *reversed(self._trail)]
            # It turns by the same part of its limit as it moves.
            turning_speed = limits.angular_speed * min(1.0, limits.retreat_speed / limits.linear_speed)
            self._retreat = Retreat(trail, limits.retreat_distance, limits.retreat_speed, turning_speed)
        return True

    def _feel_back(self, load: float) -> bool:
        """On the way back: whether the arm presses on something again, or harder than it did."""
        if load <= _LEFT:
            self._highest_load = 1.0
        if load <= self._highest_load:
            return False
        self._retreat = None
        return True

    def end_retreat(self) -> None:
        """The arm stays where it is: nobody knows what it does, or may let it."""
        self._retreat = None

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

    def retreated(self, elapsed_s: float) -> Float64:
        """The target ``(7,)`` of the retreat after ``elapsed_s`` more seconds; there must be one."""
        assert self._retreat is not None
        return self._retreat.next_target(elapsed_s)

    def reset(self) -> str:
        """A person allows motion again; returns why not, empty: granted."""
        if self._pressed:
            return "the emergency stop is still pressed"
        if not self.reason:
            return "the arm was not stopped"
        self.reason, self._retreat = "", None
        self._trail.clear()
        return ""
