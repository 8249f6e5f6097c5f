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


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_refused_and_changes_nothing(bad: float) -> None:
    reference = started()
    with pytest.raises(ValueError, match="finite"):
        reference.apply([bad, 0, 0, 0, 0, 0, 0], START)
    np.testing.assert_array_equal(reference.pose, START)


def test_reading_before_the_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="start"):
        _ = ReferencePose(LIMITS).pose
