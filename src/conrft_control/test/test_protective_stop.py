"""What stops the arm until a person acts, and the way back from a hard contact."""

import numpy as np
import pytest

from conrft_control.protective_stop import ProtectiveStop
from conrft_data.config import SafetyLimits

LIMITS = SafetyLimits(force=20.0, torque=5.0, retreat_distance=0.02, retreat_speed=0.05)
SOFT, HARD = np.array([0, 0, 19.9, 0, 0, 4.9]), np.array([0, 0, 21.0, 0, 0, 0])


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
        target = stop.retreated(0.1)
        assert target is not None
        heights.append(target[2] - (home[2] - 0.1))
    np.testing.assert_allclose(heights, [0.005, 0.01, 0.015, *[0.02] * 7], atol=1e-9)


def test_it_goes_back_no_farther_than_it_came(home: np.ndarray) -> None:
    stop = stopped_after_going_down(home, metres=0.004)
    target = stop.retreated(10.0)
    assert target is not None
    np.testing.assert_allclose(target, home, atol=1e-9)


def test_a_retreat_of_no_distance_is_a_stop(home: np.ndarray) -> None:
    stop = stopped_after_going_down(home, LIMITS.model_copy(update={"retreat_distance": 0.0}))
    target = stop.retreated(1.0)
    assert target is not None
    assert target[2] == home[2] - 0.1


def test_a_force_before_any_pose_stops_without_a_retreat() -> None:
    stop = ProtectiveStop(LIMITS)
    assert stop.feel(HARD)
    assert stop.retreated(0.1) is None


def test_only_a_person_lets_the_arm_move_again(home: np.ndarray) -> None:
    stop = stopped_after_going_down(home)
    stop.feel(SOFT)
    assert stop.reason
    assert stop.reset() == ""
    assert not stop.reason
    assert stop.retreated(0.1) is None
    assert stop.reset() == "the arm was not stopped"


def test_an_emergency_stop_stays_after_the_button_was_let_go_and_cannot_be_reset_while_it_is_pressed() -> None:
    stop = ProtectiveStop(LIMITS)
    assert not stop.emergency(False)
    assert stop.emergency(True)
    assert stop.reset() == "the emergency stop is still pressed"
    stop.emergency(False)
    assert stop.reason == "emergency stop"
    assert stop.reset() == ""


def test_an_emergency_stop_ends_a_retreat(home: np.ndarray) -> None:
    stop = stopped_after_going_down(home)
    stop.emergency(True)
    assert stop.retreated(0.1) is None
