"""How fast a commanded pose may move and gain speed: the last word on every target that the arm is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conrft_data import rotations

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SpeedLimits:
    """Of a commanded pose.

    Attributes:
        linear_speed: m/s.
        angular_speed: rad/s.
        linear_acceleration: m/s^2.
        angular_acceleration: rad/s^2.
    """

    linear_speed: float
    angular_speed: float
    linear_acceleration: float
    angular_acceleration: float


class MotionLimiter:
    """Bounds speed and acceleration from one target to the next.

    To stand still is always allowed at once: a stop is not delayed by the acceleration limit.
    """

    def __init__(self, limits: SpeedLimits) -> None:
        self.limits = limits
        self._velocity, self._turning = np.zeros(3), np.zeros(3)

    def stop(self) -> None:
        """The target stands still; the next motion begins at no speed."""
        self._velocity, self._turning = np.zeros(3), np.zeros(3)

    def limited(self, last: Float64, wanted: Float64, elapsed_s: float) -> Float64:
        """The target ``(7,)`` on the way from ``last`` to ``wanted`` that may follow after ``elapsed_s`` seconds.

        It is ``wanted`` itself, bit for bit, where no limit is exceeded.
        """
        if elapsed_s <= 0:
            return last
        limits = self.limits
        step = wanted[:3] - last[:3]
        turn = rotations.to_rotation_vector(rotations.multiply(wanted[3:], rotations.inverse(last[3:])))
        velocity = _limited(
            step / elapsed_s, self._velocity, limits.linear_speed, limits.linear_acceleration * elapsed_s
        )
        turning = _limited(
            turn / elapsed_s, self._turning, limits.angular_speed, limits.angular_acceleration * elapsed_s
        )
        position, orientation = wanted[:3], wanted[3:]
        if velocity is None and turning is None:
            self._velocity, self._turning = step / elapsed_s, turn / elapsed_s
            return wanted
        if velocity is not None:
            position = last[:3] + velocity * elapsed_s
        if turning is not None:
            turned = rotations.multiply(rotations.from_rotation_vector(turning * elapsed_s), last[3:])
            orientation = rotations.normalized(turned)
        self._velocity = step / elapsed_s if velocity is None else velocity
        self._turning = turn / elapsed_s if turning is None else turning
        return np.concatenate([position, orientation])


def _limited(wanted: Float64, present: Float64, speed: float, gain: float) -> Float64 | None:
    """The velocity ``(3,)`` nearest to ``wanted`` that the limits allow; None: ``wanted`` itself.

    ``speed``: longest; ``gain``: farthest from ``present``. What is rounding is let through.
    """
    change = wanted - present
    length, gained = float(np.linalg.norm(wanted)), float(np.linalg.norm(change))
    if length == 0 or (length <= speed * (1 + 1e-9) and gained <= gain * (1 + 1e-9)):
        return None
    velocity = wanted if gained <= gain else present + change * (gain / gained)
    length = float(np.linalg.norm(velocity))
    return velocity if length <= speed else velocity * (speed / length)
