"""The joints' way home."""

import numpy as np
import pytest

from conrft_control.posture_reset import PostureReset, positions_of


def test_no_joint_turns_faster_than_allowed_and_all_arrive_together() -> None:
    reset = PostureReset([1.0, -0.5, 0.0], joint_speed=0.5)
    start = np.zeros(3)
    path = [start] + [reset.next_target(start, 0.1) for _ in range(25)]
    steps = np.diff(path, axis=0)
    assert np.abs(steps).max() <= 0.05 + 1e-12
    np.testing.assert_allclose(path[10], [0.5, -0.25, 0.0], atol=1e-12)
    np.testing.assert_array_equal(path[-1], [1.0, -0.5, 0.0])


def test_a_new_reset_starts_where_the_joints_are() -> None:
    reset = PostureReset([1.0], joint_speed=0.5)
    for _ in range(30):
        reset.next_target(np.zeros(1), 0.1)
    reset.begin()
    np.testing.assert_allclose(reset.next_target(np.array([0.2]), 0.1), [0.25])


def test_joints_are_found_by_name() -> None:
    np.testing.assert_array_equal(positions_of(["b", "a"], ["a", "x", "b"], [1.0, 2.0, 3.0]), [3.0, 1.0])


@pytest.mark.parametrize(
    ("names", "positions", "error"),
    [(["a"], [1.0], "no position of b among a"), (["a", "b"], [1.0], "no position of b"), ([], [], "no joints at all"),
     (["a", "b"], [1.0, float("nan")], "not finite")],
)  # fmt: skip
def test_joints_that_are_missing_or_not_finite_are_an_error(
    names: list[str], positions: list[float], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        positions_of(["a", "b"], names, positions)
