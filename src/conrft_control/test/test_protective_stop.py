"""What stops the arm until a person acts, and the way back from a hard contact."""

from itertools import pairwise

import numpy as np
import pytest

from conrft_control.protective_stop import ProtectiveStop
from conrft_data import rotations
from conrft_data.config import SafetyLimits

LIMITS = SafetyLimits(force=20.0, torque=5.0, retreat_distance=0.02, retreat_speed=0.05)
SOFT, HARD = np.array([0, 0, 19.9, 0, 0, 4.9]), np.array([0, 0, 21.0, 0, 0, 0])


def turned(pose: np.ndarray, angle: float) -> np.ndarray:
    turn = rotations.from_rotation_vector([0.0, 0.0, angle])
    return np.concatenate([pose[:3], rotations.multiply(turn, pose[3:])])


def stopped_after_going_down(home: np.ndarray, limits: SafetyLimits = LIMITS, metres: float = 0.1) -> ProtectiveStop:
    stop = ProtectiveStop(limits)
    for depth in np.arange(0.0, metres + 1e-9, 0.0005):
        stop.passed(home - [0, 0, depth, 0, 0, 0, 0])
    assert not stop.feel(SOFT)
    assert stop.feel(HARD)
    return stop


@pytest.mark.parametrize(("wrench", "words"), [(HARD, "21.0 N, limit 20.0 N"), ([0, 3, 0, 0, 6, 0], "6.00 N m")])
def test_a_force_or_torque_beyond_its_limit_stops_the_arm_and_is_named(wrench: list[float], words: str) -> None:
    stop = ProtectiveStop(LIMITS)
    assert not stop.feel(SOFT)
    assert stop.feel(wrench)
    assert words in stop.reason


def test_the_arm_goes_back_the_way_it_came_at_limited_speed_and_not_farther_than_allowed(home: np.ndarray) -> None:
    stop = stopped_after_going_down(home)
    heights = []
    for _ in range(10):
        heights.append(stop.retreated(0.1)[2] - (home[2] - 0.1))
    np.testing.assert_allclose(heights, [0.005, 0.01, 0.015, *[0.02] * 7], atol=1e-9)


def test_it_turns_back_no_faster_than_it_may(home: np.ndarray) -> None:
    stop = ProtectiveStop(LIMITS)
    stop.passed(home - [0, 0, 0.03, 0, 0, 0, 0])
    stop.passed(home)
    for angle in (0.2, 0.4, 0.6):  # on the spot
        stop.passed(turned(home, angle))
    stop.feel(HARD)
    poses = [turned(home, 0.6), *(stop.retreated(0.1) for _ in range(40))]
    turns = [rotations.angle_between(after[3:], before[3:]) for before, after in pairwise(poses)]
    # 5 rad/s beside 1.0 m/s, of which the retreat takes 0.05 m/s.
    assert max(turns) == pytest.approx(0.1 * 5.0 * 0.05)
    np.testing.assert_allclose(poses[-1], home - [0, 0, 0.02, 0, 0, 0, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("felt", "goes_on"),
    [
        ([21.0, 21.0, 15.0, 5.0, 1.0, 0.0], True),
        ([25.0, 31.0, 20.0, 5.0], True),  # the arm brakes
        ([25.0, 32.0], False),  # and does not press harder and harder
        ([15.0, 5.0, 19.0], True),
        ([15.0, 5.0, 21.0], False),  # it has left, and presses on something else
    ],
)
def test_the_way_back_ends_where_the_arm_presses_on_something_else_or_harder(
    home: np.ndarray, felt: list[float], goes_on: bool
) -> None:
    stop = stopped_after_going_down(home)
    told = [stop.feel([0, 0, newton, 0, 0, 0]) for newton in felt]
    assert (told[-1], stop.retreats) == (not goes_on, goes_on)
    assert not any(told[:-1])
    assert stop.reason


def test_it_goes_back_no_farther_than_it_came(home: np.ndarray) -> None:
    stop = stopped_after_going_down(home, metres=0.004)
    np.testing.assert_allclose(stop.retreated(10.0), home, atol=1e-9)


def test_a_retreat_of_no_distance_is_a_stop(home: np.ndarray) -> None:
    stop = stopped_after_going_down(home, LIMITS.model_copy(update={"retreat_distance": 0.0}))
    assert stop.retreated(1.0)[2] == home[2] - 0.1


def test_a_force_before_any_pose_stops_without_a_retreat() -> None:
    stop = ProtectiveStop(LIMITS)
    assert stop.feel(HARD)
    assert not stop.retreats


def test_only_a_person_lets_the_arm_move_again(home: np.ndarray) -> None:
    stop = stopped_after_going_down(home)
    stop.feel(SOFT)
    assert stop.reason
    assert stop.reset() == ""
    assert not stop.reason
    assert not stop.retreats
    assert stop.reset() == "the arm was not stopped"


def test_an_emergency_stop_stays_after_the_button_was_let_go_and_cannot_be_reset_while_it_is_pressed() -> None:
    stop = ProtectiveStop(LIMITS)
    assert not stop.emergency(False)
    assert stop.emergency(True)
    assert stop.reset() == "the emergency stop is still pressed"
    stop.emergency(False)
    assert stop.reason == "emergency stop"
    assert stop.reset() == ""


def test_an_order_to_stop_stops_like_a_button_that_was_let_go_but_lets_go_of_none() -> None:
    stop = ProtectiveStop(LIMITS)
    assert stop.order()
    assert (stop.reason, stop.reset()) == ("emergency stop", "")
    stop.emergency(True)
    assert not stop.order()
    assert stop.reset() == "the emergency stop is still pressed"


def test_an_emergency_stop_ends_a_retreat(home: np.ndarray) -> None:
    stop = stopped_after_going_down(home)
    assert stop.emergency(True)
    assert not stop.retreats
