"""Kinematics and limits of the Franka arm.

Source: Franka Control Interface documentation, "Robot and interface specifications" (Panda).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

# Denavit-Hartenberg parameters in Craig's convention, one row for each joint: a (m), d (m), alpha (rad).
DH_PARAMETERS: tuple[tuple[float, float, float], ...] = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.316, np.pi / 2),
    (0.0825, 0.0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0.0, 0.0, np.pi / 2),
    (0.088, 0.0, np.pi / 2),
)
FLANGE_DISTANCE = 0.107  # joint 7 to flange, along z, m
HAND_YAW = -np.pi / 4  # flange to hand, about z, rad
TCP_DISTANCE = 0.1034  # flange to tool centre point between the finger tips, along z, m

POSITION_LOW = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])  # rad
POSITION_HIGH = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])  # rad
VELOCITY_LIMIT = np.array([2.1750, 2.1750, 2.1750, 2.1750, 2.6100, 2.6100, 2.6100])  # rad/s
TORQUE_LIMIT = np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0])  # N m

READY = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])  # Franka's usual start posture, rad
FINGER_TRAVEL = 0.04  # of each finger, m


def forward(joints: ArrayLike) -> Float64:
    """Homogeneous transform ``(4, 4)`` from the base to the tool centre point for joint angles ``(7,)`` in rad."""
    q = np.asarray(joints, dtype=np.float64)
    transform = np.eye(4)
    for (a, d, alpha), angle in zip(DH_PARAMETERS, q, strict=True):
        transform = transform @ _craig(a, d, alpha, float(angle))
    return transform @ _craig(0.0, FLANGE_DISTANCE + TCP_DISTANCE, 0.0, HAND_YAW)


def _craig(a: float, d: float, alpha: float, theta: float) -> Float64:
    """Rot_x(alpha) Trans_x(a) Rot_z(theta) Trans_z(d)."""
    ca, sa, ct, st = np.cos(alpha), np.sin(alpha), np.cos(theta), np.sin(theta)
    return np.array(
        [
            [ct, -st, 0.0, a],
            [st * ca, ct * ca, -sa, -d * sa],
            [st * sa, ct * sa, ca, d * ca],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
