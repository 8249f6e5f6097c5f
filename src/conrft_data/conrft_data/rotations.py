"""Rigid-body arithmetic on plain arrays.

A pose is ``(7,)`` float64: position x, y, z in metres, then the unit quaternion x, y, z, w (the order of
``geometry_msgs``). A quaternion rotates vectors of the body frame into the reference frame, as in REP-103 and REP-105.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_SMALL_ANGLE = 1e-9


def normalized(quaternion: ArrayLike) -> Array:
    """The quaternion ``(4,)`` scaled to unit length; raises ValueError when its length is zero or not finite."""
    q = np.asarray(quaternion, dtype=np.float64)
    length = math.sqrt(float(q @ q))
    if not length > 1e-6 or not math.isfinite(length):
        raise ValueError(f"quaternion {q.tolist()} has no direction")
    return q / length


def multiply(a: ArrayLike, b: ArrayLike) -> Array:
    """Hamilton product ``a b``: the rotation b followed by the rotation a. Both ``(4,)``, x, y, z, w."""
    ax, ay, az, aw = np.asarray(a, dtype=np.float64)
    bx, by, bz, bw = np.asarray(b, dtype=np.float64)
    return np.array(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ]
    )


def inverse(quaternion: ArrayLike) -> Array:
    """The opposite rotation of a unit quaternion ``(4,)``."""
    x, y, z, w = np.asarray(quaternion, dtype=np.float64)
    return np.array([-x, -y, -z, w])


def to_matrix(quaternion: ArrayLike) -> Array:
    """Rotation matrix ``(3, 3)`` of a unit quaternion ``(4,)``."""
    x, y, z, w = np.asarray(quaternion, dtype=np.float64)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotate(quaternion: ArrayLike, vector: ArrayLike) -> Array:
    """Expresses ``vector`` ``(3,)`` of the body frame in the reference frame."""
    return to_matrix(quaternion) @ np.asarray(vector, dtype=np.float64)


def rotate_blocks(quaternion: ArrayLike, vector6: ArrayLike) -> Array:
    """Rotates both halves of ``(6,)`` (translation, rotation) by the same rotation.

    Block-diagonal, without the adjoint's lever arm: a pure translation stays a pure translation in the other frame.
    """
    matrix, v = to_matrix(quaternion), np.asarray(vector6, dtype=np.float64)
    return np.concatenate([matrix @ v[:3], matrix @ v[3:6]])


def from_rotation_vector(vector: ArrayLike) -> Array:
    """Quaternion ``(4,)`` of the rotation by ``|vector|`` radians about ``vector`` ``(3,)``."""
    v = np.asarray(vector, dtype=np.float64)
    angle = math.sqrt(float(v @ v))
    if angle < _SMALL_ANGLE:
        return normalized([0.5 * v[0], 0.5 * v[1], 0.5 * v[2], 1.0])
    axis = v / angle
    return np.array([*(axis * math.sin(angle / 2)), math.cos(angle / 2)])


def to_rotation_vector(quaternion: ArrayLike) -> Array:
    """Rotation vector ``(3,)`` in radians, of length at most pi."""
    q = np.asarray(quaternion, dtype=np.float64)
    q = q if q[3] >= 0 else -q
    sine = math.sqrt(float(q[:3] @ q[:3]))
    if sine < _SMALL_ANGLE:
        return 2.0 * q[:3]
    return q[:3] / sine * (2.0 * math.atan2(sine, float(q[3])))


def to_euler_xyz(quaternion: ArrayLike) -> Array:
    """Roll, pitch, yaw ``(3,)`` in radians about the fixed axes x, y, z (REP-103), pitch within ±pi/2."""
    x, y, z, w = np.asarray(quaternion, dtype=np.float64)
    sin_pitch = min(1.0, max(-1.0, 2 * (w * y - x * z)))
    if abs(sin_pitch) > 1 - 1e-12:
        return np.array(
            [0.0, math.copysign(math.pi / 2, sin_pitch), -2 * math.copysign(1.0, sin_pitch) * math.atan2(x, w)]
        )
    return np.array(
        [
            math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
            math.asin(sin_pitch),
            math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
        ]
    )


def from_euler_xyz(angles: ArrayLike) -> Array:
    """Quaternion ``(4,)`` of roll, pitch, yaw ``(3,)`` in radians about the fixed axes x, y, z (REP-103)."""
    roll, pitch, yaw = np.asarray(angles, dtype=np.float64)
    about_x = from_rotation_vector([roll, 0, 0])
    about_y = from_rotation_vector([0, pitch, 0])
    about_z = from_rotation_vector([0, 0, yaw])
    return multiply(about_z, multiply(about_y, about_x))


def angle_between(a: ArrayLike, b: ArrayLike) -> float:
    """Angle in radians, 0..pi, between two unit quaternions ``(4,)``."""
    return float(np.linalg.norm(to_rotation_vector(multiply(a, inverse(b)))))


def relative_pose(reference: ArrayLike, pose: ArrayLike) -> Array:
    """``inv(T_reference) T_pose``: the pose ``(7,)`` expressed in the frame of ``reference`` ``(7,)``."""
    ref, p = np.asarray(reference, dtype=np.float64), np.asarray(pose, dtype=np.float64)
    back = inverse(ref[3:])
    return np.concatenate([rotate(back, p[:3] - ref[:3]), multiply(back, p[3:])])
