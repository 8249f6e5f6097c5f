"""The commanded pose: integrates, clips and never drifts."""

import numpy as np
import pytest

from conrft_data import rotations
from conrft_data.reference_pose import MotionLimits, ReferencePose

DOWN = rotations.from_euler_xyz([np.pi, 0, 0])
START = np.array([0.5, 0.0, 0.3, *DOWN])
LIMITS = MotionLimits(
    translation_scale=0.03, rotation_scale=0.15, box_low=(0.3, -0.2, 0.05), box_high=(0.7, 0.2, 0.5), max_tilt=0.5
)


def started() -> ReferencePose:
    reference = ReferencePose(LIMITS)
    reference.start(START)
    return reference


def test_an_action_in_the_tool_frame_moves_the_reference_in_the_base_frame() -> None:
    pose = started().apply([0, 0, 1, 0, 0, 0, 0], START)
    np.testing.assert_allclose(pose[:3], [0.5, 0, 0.27], atol=1e-12)


def test_the_reference_goes_on_from_itself_so_that_a_sagging_arm_does_not_pull_it_down() -> None:
    reference = started()
    sagging = START - [0, 0, 0.01, 0, 0, 0, 0]
    for _ in range(50):
        pose = reference.apply(np.zeros(7), sagging)
    np.testing.assert_allclose(pose[:3], START[:3], atol=1e-12)


def test_the_leash_keeps_the_reference_near_a_blocked_arm() -> None:
    reference = started()
    for _ in range(20):
        pose = reference.apply([1, 0, 0, 0, 0, 0, 0], START)
    assert np.linalg.norm(pose[:3] - START[:3]) == pytest.approx(LIMITS.leash)


def test_the_workspace_box_and_the_tilt_bound_the_reference() -> None:
    reference, measured = started(), START
    for _ in range(60):
        measured = reference.apply([0, 0, 1, 1, 0, 0, 0], measured)
    assert measured[2] >= LIMITS.box_low[2] - 1e-12
    assert rotations.angle_between(measured[3:], DOWN) <= LIMITS.max_tilt + 1e-9


def test_an_action_beyond_one_moves_as_far_as_one() -> None:
    np.testing.assert_allclose(
        started().apply([9, 0, 0, 0, 0, 0, 0], START), started().apply([1, 0, 0, 0, 0, 0, 0], START)
    )


def test_from_beyond_the_box_it_neither_leaps_back_in_nor_goes_farther_out() -> None:
    reference, outside, step = started(), np.array([0.9, 0, 0.3, *DOWN]), np.array([0.05, 0, 0, 0, 0, 0, 0])
    for wanted, reached in ((outside, 0.9), (outside + step, 0.9), (outside - step, 0.85)):
        assert reference.move_to(wanted, outside)[0] == pytest.approx(reached)


def test_from_beyond_the_tilt_limit_it_neither_turns_back_at_once_nor_farther_away() -> None:
    reference, limit = started(), LIMITS.max_tilt
    tilted, farther, back = (START.copy() for _ in range(3))
    for pose, angle in ((tilted, limit + 0.4), (farther, limit + 0.5), (back, limit + 0.3)):
        pose[3:] = rotations.multiply(rotations.from_rotation_vector([angle, 0, 0]), DOWN)
    for wanted, reached in ((tilted, limit + 0.4), (farther, limit + 0.4), (back, limit + 0.3)):
        assert rotations.angle_between(reference.move_to(wanted, tilted)[3:], DOWN) == pytest.approx(reached)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_refused_and_changes_nothing(bad: float) -> None:
    reference = started()
    with pytest.raises(ValueError, match="finite"):
        reference.apply([bad, 0, 0, 0, 0, 0, 0], START)
    np.testing.assert_array_equal(reference.pose, START)


def test_reading_before_the_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="start"):
        _ = ReferencePose(LIMITS).pose
