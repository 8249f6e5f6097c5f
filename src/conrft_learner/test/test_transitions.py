"""What a take-over means for the labels of the actions before it."""

import numpy as np
import pytest

from conrft_data.config import RewardConfig
from conrft_learner.transitions import Labels, TakeOverRules, labels

REWARD = RewardConfig(success=10.0, step=-0.05)
DISCOUNT = 0.9
DRIVEN = np.array([0, 0, 1, 1, 0, 0, 1, 0], dtype=bool)  # policy, operator, policy, operator, policy


def labelled(*, success: bool = True, driven: np.ndarray = DRIVEN, drop: bool = False, terminal: bool) -> Labels:
    rules = TakeOverRules(drop_rescued=drop, terminal=terminal)
    return labels(len(driven), success, driven, REWARD, DISCOUNT, rules)


def test_nothing_follows_the_policys_last_action_before_a_take_over() -> None:
    made = labelled(terminal=True)
    assert np.flatnonzero(made.terminated).tolist() == [1, 5, 7]
    assert made.rewards.tolist() == pytest.approx([-0.05] * 7 + [10.0])  # it costs nothing beyond the step
    assert made.returns[:2].tolist() == pytest.approx([-0.05 * 1.9, -0.05])
    assert made.returns[6:].tolist() == pytest.approx([-0.05 + 0.9 * 10, 10.0])


def test_without_the_rule_only_success_ends_an_episode() -> None:
    assert np.flatnonzero(labelled(terminal=False).terminated).tolist() == [7]
    assert not labelled(terminal=False, success=False).terminated.any()


def test_an_operator_who_drives_from_the_first_step_takes_nothing_over() -> None:
    driven = np.array([1, 1, 0, 0], dtype=bool)
    assert np.flatnonzero(labelled(terminal=True, driven=driven).terminated).tolist() == [3]


@pytest.mark.parametrize("terminal", [True, False])
def test_rescued_returns_bound_nothing_where_they_are_dropped(terminal: bool) -> None:
    kept, dropped = (labelled(drop=drop, terminal=terminal) for drop in (False, True))
    assert np.array_equal(kept.bounds, kept.returns)
    assert np.isneginf(dropped.bounds[:6]).all()
    assert np.array_equal(dropped.bounds[6:], dropped.returns[6:])


@pytest.mark.parametrize("length", [0, 1])
def test_the_shortest_episodes_are_labelled(length: int) -> None:
    made = labelled(terminal=True, driven=np.zeros(length, dtype=bool))
    assert made.terminated.tolist() == [True] * length
