"""The way back to the reset pose, and when the arm has arrived there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from conrft_data import rotations
from conrft_data.config import Reset
from conrft_data.types import Float64


@dataclass(frozen=True, kw_only=True)
class ResetTolerance:
    """How near to the reset pose an episode may begin.

    Attributes:
        position: metres.
        angle: radians.
        gripper_opening: the gripper is at least so far open, 0 closed .. 1 open.
    """

    position: float = 0.01
    angle: float = 0.05
    gripper_opening: float = 0.9


def reset_pose(reset: Reset) -> Float64:
    """The reset pose ``(7,)``, base frame."""
    return np.concatenate([np.asarray(reset.position, dtype=np.float64), rotations.from_euler_xyz(reset.euler_xyz)])


def not_arrived(pose: ArrayLike, gripper_opening: float, goal: Float64, tolerance: ResetTolerance) -> str:
    """What still separates the arm from the start of an episode, in words; empty when nothing does.

    ``pose``: ``(7,)`` measured; ``gripper_opening``: measured, 0 closed .. 1 open; ``goal``: ``(7,)`` reset pose.
    """
    measured = np.asarray(pose, dtype=np.float64)
    distance = float(np.linalg.norm(measured[:3] - goal[:3]))
    angle = rotations.angle_between(measured[3:], goal[3:])
    problems = []
    # Negated, so that NaN is never an arrival.
    if not distance <= tolerance.position:
        problems.append(f"{distance * 1e3:.1f} mm away from the reset pose")
    if not angle <= tolerance.angle:
        problems.append(f"{angle:.3f} rad turned away from the reset pose")
    if not gripper_opening >= tolerance.gripper_opening:
        problems.append(f"gripper {gripper_opening:.2f} open")
    return ", ".join(problems)


class ResetMotion:
    """A straight line to the reset pose at limited speed, the orientation turning along with it."""

    def __init__(self, reset: Reset, leash: float) -> None:
        """``leash``: metres that the target may run ahead of the measured position; a blocked arm stops the motion."""
        self.goal = reset_pose(reset)
        self._linear_speed, self._angular_speed = reset.linear_speed, reset.angular_speed
        self._leash = leash

    def next_target(self, target: Float64, measured: Float64, elapsed_s: float) -> Float64:
        """The target ``(7,)`` that follows ``target`` after ``elapsed_s`` seconds."""
        to_goal = self.goal[:3] - target[:3]
        turn = rotations.to_rotation_vector(rotations.multiply(self.goal[3:], rotations.inverse(target[3:])))
        duration = max(
            float(np.linalg.norm(to_goal)) / self._linear_speed, float(np.linalg.norm(turn)) / self._angular_speed
        )
        part = 1.0 if duration <= elapsed_s else elapsed_s / duration
        position = target[:3] + part * to_goal
        if np.linalg.norm(position - measured[:3]) > max(self._leash, float(np.linalg.norm(target[:3] - measured[:3]))):
            return target
        turned = rotations.multiply(rotations.from_rotation_vector(part * turn), target[3:])
        return np.concatenate([position, rotations.normalized(turned)])
