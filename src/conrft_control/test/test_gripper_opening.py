"""The gripper's opening from its fingers: bounded, and one clear error for what is no position."""

import math

import pytest

from conrft_control.gripper_opening import gripper_opening
from conrft_data.conversion import MessageError


@pytest.mark.parametrize(
    ("fingers", "opening"), [([0.04, 0.04], 1.0), ([0.01, 0.01], 0.25), ([-0.001, 0.0], 0.0), ([0.08], 1.0)]
)
def test_the_opening_is_the_fingers_distance_over_the_largest(fingers: list[float], opening: float) -> None:
    assert gripper_opening(fingers, 0.08) == pytest.approx(opening)


@pytest.mark.parametrize("fingers", [[], [math.nan, 0.0], [math.inf, -math.inf], [1e308, 1e308]])
def test_what_is_no_position_is_refused_by_name(fingers: list[float]) -> None:
    with pytest.raises(MessageError, match="gripper/joint_states: expected the fingers' positions"):
        gripper_opening(fingers, 0.08, "gripper/joint_states")
