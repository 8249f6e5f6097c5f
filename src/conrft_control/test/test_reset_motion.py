"""The arm goes home on a straight line at limited speed, and arrival is judged strictly."""

import numpy as np
import pytest

from conrft_control.reset_motion import ResetMotion, ResetTolerance, not_arrived, reset_pose
from conrft_data import rotations
from conrft_data.config import TaskConfig

TOLERANCE = ResetTolerance(position=0.01, angle=0.05, gripper_opening=0.9)


def moved(pose: np.ndarray, xyz: list[float], turn: list[float] | None = None) -> np.ndarray:
    turned = rotations.multiply(rotations.from_rotation_vector(turn or [0, 0, 0]), pose[3:])
    return np.concatenate([pose[:3] + xyz, turned])


def test_the_motion_ends_at_the_reset_pose_and_never_exceeds_its_speeds(task: TaskConfig, home: np.ndarray) -> None:
    motion = ResetMotion(task.reset, leash=0.06)
    target = moved(home, [0.1, -0.2, -0.2], [0, 0, 1.0])
    for _ in range(40):
        following = motion.next_target(target, target, 0.1)
        assert np.linalg.norm(following[:3] - target[:3]) <= task.reset.linear_speed * 0.1 + 1e-9
        assert rotations.angle_between(following[3:], target[3:]) <= task.reset.angular_speed * 0.1 + 1e-9
        target = following
    np.testing.assert_allclose(target[:3], home[:3], atol=1e-9)
    assert rotations.angle_between(target[3:], home[3:]) < 1e-6


def test_the_path_is_straight(task: TaskConfig, home: np.ndarray) -> None:
    start = moved(home, [0.1, -0.2, -0.2])
    target = ResetMotion(task.reset, leash=0.06).next_target(start, start, 0.1)
    direction = (target - start)[:3] / np.linalg.norm((target - start)[:3])
    np.testing.assert_allclose(direction, [-1 / 3, 2 / 3, 2 / 3], atol=1e-9)


def test_a_blocked_arm_stops_the_motion_at_the_leash(task: TaskConfig, home: np.ndarray) -> None:
    motion, blocked = ResetMotion(task.reset, leash=0.06), moved(home, [0, 0, -0.2])
    target = blocked
    for _ in range(50):
        target = motion.next_target(target, blocked, 0.1)
    assert 0.04 < np.linalg.norm(target[:3] - blocked[:3]) <= 0.06


def test_at_home_with_open_gripper_nothing_is_left(task: TaskConfig, home: np.ndarray) -> None:
    np.testing.assert_allclose(reset_pose(task.reset), home)
    assert not_arrived(home, 1.0, home, TOLERANCE) == ""


@pytest.mark.parametrize(
    ("offset", "turn", "opening", "word"),
    [
        ([0.011, 0, 0], [0, 0, 0], 1.0, "11.0 mm"),
        ([0, 0, 0], [0, 0.06, 0], 1.0, "rad"),
        ([0, 0, 0], [0, 0, 0], 0.8, "gripper"),
        ([np.nan, 0, 0], [0, 0, 0], 1.0, "mm"),
        ([0, 0, 0], [0, 0, 0], np.nan, "gripper"),
    ],
)
def test_what_is_left_is_said(
    home: np.ndarray, offset: list[float], turn: list[float], opening: float, word: str
) -> None:
    assert word in not_arrived(moved(home, offset, turn), opening, home, TOLERANCE)
