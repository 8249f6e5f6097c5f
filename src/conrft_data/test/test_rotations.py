"""Rigid-body arithmetic against the official code's numbers (float64), and against its own laws."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conrft_data import rotations

GOLDEN = np.load(Path(__file__).parent / "data" / "x_robot_math.npz")
ANGLE = st.floats(-3.0, 3.0)


def same_rotation(a: np.ndarray, b: np.ndarray) -> bool:
    return abs(abs(float(np.dot(a, b))) - 1.0) < 1e-9


def test_euler_angles_become_the_right_quaternion_and_not_the_official_one_with_its_pitch_sign() -> None:
    for euler, right, official in zip(
        GOLDEN["euler"], GOLDEN["quat_scipy_xyz"], GOLDEN["euler_2_quat_official"], strict=True
    ):
        assert same_rotation(rotations.from_euler_xyz(euler), right)
        assert same_rotation(rotations.from_euler_xyz(euler), official) == (euler[1] == 0)


def test_relative_pose_equals_the_official_numbers() -> None:
    for pose, quat, euler in zip(GOLDEN["poses"], GOLDEN["rel_pose_quat"], GOLDEN["rel_pose_euler"], strict=True):
        relative = rotations.relative_pose(GOLDEN["reset_pose"], pose)
        np.testing.assert_allclose(relative[:3], quat[:3], atol=1e-12)
        assert same_rotation(relative[3:], quat[3:])
        np.testing.assert_allclose(rotations.to_euler_xyz(relative[3:]), euler[3:], atol=1e-9)


@given(st.tuples(ANGLE, ANGLE, ANGLE), st.tuples(ANGLE, ANGLE, ANGLE))
def test_rotation_vectors_and_euler_angles_survive_a_round_trip(
    vector: tuple[float, ...], euler: tuple[float, ...]
) -> None:
    quaternion = rotations.from_rotation_vector(vector)
    assert same_rotation(rotations.from_rotation_vector(rotations.to_rotation_vector(quaternion)), quaternion)
    quaternion = rotations.from_euler_xyz(euler)
    assert same_rotation(rotations.from_euler_xyz(rotations.to_euler_xyz(quaternion)), quaternion)


def test_both_halves_turn_alike_and_a_translation_stays_a_translation() -> None:
    tool_down = rotations.from_euler_xyz([np.pi, 0, 0])
    np.testing.assert_allclose(rotations.rotate_blocks(tool_down, [0, 0, 1, 0, 0, 0]), [0, 0, -1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(rotations.rotate_blocks(tool_down, [0, 0, 0, 0, 0, 1]), [0, 0, 0, 0, 0, -1], atol=1e-12)


def test_a_quaternion_without_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="no direction"):
        rotations.normalized([0, 0, 0, 0])
