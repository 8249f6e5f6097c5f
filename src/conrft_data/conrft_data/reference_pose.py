"""The commanded pose: how a normalised action moves the arm's target, on the robot and in the Gymnasium environment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conrft_data import rotations

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MotionLimits:
    """How far one action may move the reference, and where it may go.

    Attributes:
        translation_scale: metres in one tick at a full action of 1.
        rotation_scale: radians in one tick at a full action of 1.
        box_low, box_high: ``(3,)`` corners of the workspace box, base frame, metres.
        max_tilt: radians that the reference may turn away from the reset orientation.
        leash: metres that the reference may run ahead of the measured position.
        leash_angle: radians that the reference may turn ahead of the measured orientation.
    """

    translation_scale: float
    rotation_scale: float
    box_low: tuple[float, float, float]
    box_high: tuple[float, float, float]
    max_tilt: float
    leash: float = 0.06
    leash_angle: float = 0.4


class ReferencePose:
    """Integrates actions into a reference pose.

    The reference continues from the last reference, not from the measured pose, so that the arm does not sink under
    load; the leash bounds how far it can run ahead of an arm that is blocked.
    """

    def __init__(self, limits: MotionLimits) -> None:
        self.limits = limits
        self._pose: Float64 | None = None
        self._home = np.array([1.0, 0.0, 0.0, 0.0])

    @property
    def pose(self) -> Float64:
        """The reference ``(7,)``; raises RuntimeError before ``start``."""
        if self._pose is None:
            raise RuntimeError("the reference pose was read before start()")
        return self._pose.copy()

    @property
    def started(self) -> bool:
        """Whether ``start`` was called."""
        return self._pose is not None

    def start(self, measured: ArrayLike) -> Float64:
        """Puts the reference on the measured pose ``(7,)`` and takes its orientation as the upright one."""
        pose = _checked_pose(measured)
        self._pose, self._home = pose, pose[3:].copy()
        return self.pose

    def apply(self, action: ArrayLike, measured: ArrayLike) -> Float64:
        """Moves the reference by one action ``(7,)`` and returns it ``(7,)``.

        The first six numbers are clipped to [-1, 1], scaled and rotated from the end-effector frame of the measured
        pose to the base frame, translation and rotation by the same rotation. Raises ValueError at a number that is
        not finite; the reference then stays where it was.
        """
        a = np.asarray(action, dtype=np.float64)
        if a.shape != (7,) or not np.isfinite(a).all():
            raise ValueError(f"action must be 7 finite numbers, got {a.tolist()}")
        now, limits = _checked_pose(measured), self.limits
        step = rotations.rotate_blocks(now[3:], np.clip(a[:6], -1.0, 1.0))
        position = self.pose[:3] + step[:3] * limits.translation_scale
        turned = rotations.multiply(rotations.from_rotation_vector(step[3:] * limits.rotation_scale), self.pose[3:])
        position = now[:3] + _shortened(position - now[:3], limits.leash)
        position = np.clip(position, limits.box_low, limits.box_high)
        turned = _within(turned, now[3:], limits.leash_angle)
        turned = _within(turned, self._home, limits.max_tilt)
        self._pose = np.concatenate([position, rotations.normalized(turned)])
        return self.pose

    def move_to(self, pose: ArrayLike, last: ArrayLike) -> Float64:
        """Puts the reference on ``pose`` ``(7,)``, or where the box and the tilt limit allow, and returns it.

        Where ``last``, the reference so far, is beyond them (the arm was brought there), they reach out to it: the
        reference goes no farther out, and does not leap back in.
        """
        wanted, before, limits = _checked_pose(pose), _checked_pose(last), self.limits
        low, high = np.minimum(limits.box_low, before[:3]), np.maximum(limits.box_high, before[:3])
        tilt = max(limits.max_tilt, rotations.angle_between(before[3:], self._home))
        turned = _within(wanted[3:], self._home, tilt)
        self._pose = np.concatenate([np.clip(wanted[:3], low, high), rotations.normalized(turned)])
        return self.pose


def _checked_pose(pose: ArrayLike) -> Float64:
    p = np.array(pose, dtype=np.float64)
    if p.shape != (7,) or not np.isfinite(p).all():
        raise ValueError(f"pose must be 7 finite numbers, got {p.tolist()}")
    p[3:] = rotations.normalized(p[3:])
    return p


def _shortened(vector: Float64, longest: float) -> Float64:
    length = float(np.linalg.norm(vector))
    return vector if length <= longest else vector * (longest / length)


def _within(quaternion: Float64, centre: Float64, angle: float) -> Float64:
    """The rotation nearest to ``quaternion`` that is at most ``angle`` radians away from ``centre``."""
    away = rotations.to_rotation_vector(rotations.multiply(quaternion, rotations.inverse(centre)))
    return rotations.multiply(rotations.from_rotation_vector(_shortened(away, angle)), centre)
