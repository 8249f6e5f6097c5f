"""A hand takes over with a deadband, hysteresis and a hold time; its push becomes an action in the tool's frame."""

import math

import numpy as np
import pytest

from conrft_control.operator_input import (
    CLOSE,
    KEEP,
    OPEN,
    DeviceSettings,
    OperatorDevice,
    Takeover,
    TakeoverSettings,
    end_effector_action,
)
from conrft_data import rotations

TOOL_DOWN = rotations.from_euler_xyz([math.pi, 0, 0])
SETTINGS = TakeoverSettings(deadband=0.05, enter=0.2, leave=0.1, hold_ticks=3)


def push(x: float) -> np.ndarray:
    return np.array([x, 0, 0, 0, 0, 0], dtype=float)


def drive(*pushes: float) -> list[bool]:
    takeover = Takeover(SETTINGS)
    return [takeover.update(push(x), KEEP) for x in pushes]


def test_a_push_below_the_enter_threshold_does_not_take_over() -> None:
    assert drive(0.19, 0.19) == [False, False]


def test_a_push_at_the_enter_threshold_takes_over_at_once() -> None:
    assert drive(0.2) == [True]


def test_between_leave_and_enter_control_stays_where_it_is() -> None:
    assert drive(0.15, 0.3, *[0.15] * 20) == [False, *[True] * 21]


def test_the_operator_keeps_control_for_the_hold_time_after_the_last_motion() -> None:
    assert drive(0.3, 0.0, 0.0, 0.0, 0.0) == [True, True, True, True, False]


def test_a_new_motion_starts_the_hold_time_again() -> None:
    assert drive(0.3, 0, 0, 0, 0.12, 0, 0, 0, 0) == [True] * 8 + [False]


def test_the_devices_noise_is_taken_out_of_the_motion() -> None:
    np.testing.assert_array_equal(
        Takeover(SETTINGS).without_noise([0.049, -0.049, 0.05, -0.05, 1, 0]), [0, 0, 0.05, -0.05, 1, 0]
    )


def test_a_gripper_button_takes_over_and_is_latched_until_the_operator_lets_go() -> None:
    takeover = Takeover(SETTINGS)
    assert takeover.update(push(0), CLOSE)
    seen = []
    for _ in range(4):
        takeover.update(push(0), KEEP)
        seen.append(takeover.gripper)
    assert seen == [CLOSE, CLOSE, CLOSE, KEEP]


def test_without_a_button_the_gripper_is_kept_as_it_is() -> None:
    takeover = Takeover(SETTINGS)
    takeover.update(push(1), KEEP)
    assert takeover.gripper == KEEP


@pytest.mark.parametrize("wrong", [{"leave": 0.3}, {"deadband": 0.15}, {"deadband": -0.1}, {"hold_ticks": -1}])
def test_thresholds_out_of_order_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"needs 0|hold_ticks"):
        TakeoverSettings(**{"deadband": 0.05, "enter": 0.2, "leave": 0.1, "hold_ticks": 3} | wrong)


def test_a_press_shorter_than_a_tick_is_kept_until_it_is_read_and_read_once() -> None:
    device = OperatorDevice(DeviceSettings())
    device.put_buttons([0, 1], 1)
    device.put_buttons([0, 0], 2)
    assert [device.take_gripper(), device.take_gripper()] == [OPEN, KEEP]


def test_a_button_that_is_held_counts_every_tick() -> None:
    device = OperatorDevice(DeviceSettings())
    device.put_buttons([1, 0], 1)
    assert [device.take_gripper(), device.take_gripper()] == [CLOSE, CLOSE]


def test_both_buttons_at_once_mean_nothing_and_buttons_may_be_unassigned() -> None:
    device = OperatorDevice(DeviceSettings())
    device.put_buttons([1, 1], 1)
    assert device.take_gripper() == KEEP
    device = OperatorDevice(DeviceSettings(close_button=-1, open_button=7))
    device.put_buttons([1, 1], 1)
    assert device.take_gripper() == KEEP


def test_a_device_that_went_silent_does_not_go_on_pushing() -> None:
    device = OperatorDevice(DeviceSettings(timeout_s=0.2))
    device.put_twist([1, 0, 0, 0, 0, 0], 0)
    assert device.axes(200_000_000)[0] == 1
    assert not device.axes(200_000_001).any()


def test_axes_are_mapped_with_sign_and_gain() -> None:
    device = OperatorDevice(DeviceSettings(axes=(2, -1, 3, 6, 5, -4), translation_gain=2.0, rotation_gain=0.5))
    device.put_twist([1, 2, 3, 4, 5, 6], 0)
    np.testing.assert_allclose(device.axes(0), [4, -2, 6, 3, 2.5, -2])


def test_an_axis_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="each of"):
        DeviceSettings(axes=(1, 1, 3, 4, 5, 6))


def test_the_push_is_turned_into_the_tools_frame_and_then_clipped() -> None:
    # The tool points down: up in the world is backwards along the tool, and its y axis is turned round as well.
    action = end_effector_action(np.array([0.5, 0.5, 3.0, 0, 0, 1]), TOOL_DOWN, CLOSE)
    np.testing.assert_allclose(action, [0.5, -0.5, -1, 0, 0, -1, -1], atol=1e-12)
