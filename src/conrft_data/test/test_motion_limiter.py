"""A target keeps within its speeds and accelerations, and may stand still at any time."""

from itertools import pairwise

import numpy as np
import pytest

from conrft_data import rotations
from conrft_data.motion_limiter import MotionLimiter, SpeedLimits

LIMITS = SpeedLimits(linear_speed=0.4, angular_speed=1.0, linear_acceleration=1.0, angular_acceleration=4.0)
START = np.array([0.5, 0.0, 0.3, *rotations.from_euler_xyz([np.pi, 0, 0])])
DT = 0.1


def moved(pose: np.ndarray, x: float = 0.0, turn: float = 0.0) -> np.ndarray:
    turned = rotations.multiply(rotations.from_rotation_vector([0, 0, turn]), pose[3:])
    return np.concatenate([pose[:3] + np.array([x, 0, 0]), turned])


def test_a_step_within_the_limits_stays_as_it_is_to_the_last_bit() -> None:
    wanted = moved(START, 0.009, 0.03)
    assert MotionLimiter(LIMITS).limited(START, wanted, DT) is wanted


def test_speeds_and_accelerations_stay_within_their_limits_whatever_is_wanted() -> None:
    limiter, random = MotionLimiter(LIMITS), np.random.default_rng(1)
    targets = [START]
    for _ in range(200):
        wanted = moved(targets[-1], random.normal(scale=0.1), random.normal(scale=0.3))
        targets.append(limiter.limited(targets[-1], wanted, DT))
    velocities = np.array([(b[:3] - a[:3]) / DT for a, b in pairwise(targets)])
    rates = np.array([rotations.to_rotation_vector(rotations.multiply(b[3:], rotations.inverse(a[3:]))) / DT
                      for a, b in pairwise(targets)])  # fmt: skip
    for rows, speed, acceleration in ((velocities, 0.4, 1.0), (rates, 1.0, 4.0)):
        assert np.linalg.norm(rows, axis=1).max() == pytest.approx(speed, rel=1e-6)
        assert np.linalg.norm(np.diff(rows, axis=0), axis=1).max() == pytest.approx(acceleration * DT, rel=1e-6)


def test_a_stop_is_not_delayed_and_the_next_motion_begins_at_rest() -> None:
    limiter, target = MotionLimiter(LIMITS), START
    for _ in range(5):
        target = limiter.limited(target, moved(target, 0.1), DT)
    assert limiter.limited(target, target, DT) is target
    limiter.stop()
    assert limiter.limited(target, moved(target, 0.1), DT)[0] - target[0] == pytest.approx(0.01)


def test_without_time_there_is_no_motion() -> None:
    assert MotionLimiter(LIMITS).limited(START, moved(START, 0.1), 0.0) is START
