"""An arm does not leap, and does not reach beyond its links."""

import numpy as np

from conrft_control.pose_plausibility import PosePlausibility

MS = 1_000_000
HERE, THERE = np.array([0.5, 0, 0.3, 1, 0, 0, 0]), np.array([0.5, 0.4, 0.3, 1, 0, 0, 0])


def test_an_arm_at_full_speed_is_believed() -> None:
    poses = PosePlausibility()
    for tick in range(20):
        assert poses.doubt(tick * 10 * MS, HERE + np.array([0, 0.02 * tick, 0, 0, 0, 0, 0])) == ""


def test_a_single_leap_is_doubted_and_what_came_before_goes_on() -> None:
    poses = PosePlausibility()
    poses.doubt(0, HERE)
    assert poses.doubt(10 * MS, THERE) == "current_pose: leapt by 0.40 m, the arm holds"
    assert poses.doubt(20 * MS, HERE) == ""


def test_a_stamp_far_ahead_excuses_no_leap() -> None:
    poses = PosePlausibility()
    poses.doubt(0, HERE)
    assert "leapt by 0.40 m" in poses.doubt(10_000 * MS, THERE)


def test_five_poses_that_agree_are_believed() -> None:
    poses = PosePlausibility()
    poses.doubt(0, HERE)
    assert [bool(poses.doubt(k * 10 * MS, THERE)) for k in range(1, 7)] == [True, True, True, True, False, False]


def test_poses_all_over_the_place_are_never_believed() -> None:
    poses, random = PosePlausibility(), np.random.default_rng(0)
    poses.doubt(0, HERE)
    sides = [THERE, HERE * [1, 1, -1, 1, 1, 1, 1]]
    assert all(poses.doubt(k * MS, sides[k % 2] + random.normal(scale=0.01)) for k in range(1, 100))


def test_a_pose_beyond_the_arms_reach_is_refused_wherever_it_stands() -> None:
    far = np.array([0, 3.0, 0, 1, 0, 0, 0])
    assert "3 m away from the base" in PosePlausibility(may_leap=True).doubt(0, far)


def test_in_lockstep_a_simulator_may_put_the_arm_back_at_once() -> None:
    poses = PosePlausibility(may_leap=True)
    poses.doubt(0, HERE)
    assert poses.doubt(1, THERE) == ""
