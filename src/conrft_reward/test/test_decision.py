"""Success is announced only after the gates, the threshold and so many ticks in a row."""

from __future__ import annotations

import pytest
from drawn_episodes import TASK, observation

from conrft_reward.decision import SuccessDecision, gates_hold

REWARD = TASK.reward


def verdicts(*probabilities: float, **options: float) -> list[bool]:
    decision = SuccessDecision(REWARD, 0.9)
    return [decision.judge(observation(1, step, **options), p).success for step, p in enumerate(probabilities)]


def test_one_frame_decides_nothing() -> None:
    assert verdicts(0.99, 0.99, 0.99) == [False, True, True]
    assert verdicts(0.99, 0.1, 0.99, 0.89, 0.9, 0.9) == [False, False, False, False, False, True]


@pytest.mark.parametrize("options", [{"opening": 0.49}, {"height": 0.159}])
def test_a_closed_gate_forbids_success(options: dict[str, float]) -> None:
    assert not gates_hold(observation(1, 0, **options), REWARD)
    assert not any(verdicts(1.0, 1.0, 1.0, 1.0, **options))


def test_a_gate_is_open_at_its_limit() -> None:
    assert gates_hold(observation(1, 0, opening=0.5, height=0.16), REWARD)


def test_the_count_begins_anew_with_an_episode_and_after_a_missed_step() -> None:
    decision = SuccessDecision(REWARD, 0.9)
    assert not decision.judge(observation(1, 5), 1.0).success
    assert not decision.judge(observation(2, 6), 1.0).success, "another episode"
    assert not decision.judge(observation(2, 8), 1.0).success, "step 7 is missing"
    assert decision.judge(observation(2, 9), 1.0).success


def test_a_closed_gate_begins_the_count_anew() -> None:
    decision = SuccessDecision(REWARD, 0.9)
    decision.judge(observation(1, 0), 1.0)
    decision.judge(observation(1, 1, opening=0.2), 1.0)
    assert not decision.judge(observation(1, 2), 1.0).success


def test_the_tasks_threshold_is_a_lower_bound() -> None:
    assert SuccessDecision(REWARD, 0.5).threshold == 0.9
    assert SuccessDecision(REWARD, 0.97).threshold == 0.97


def test_the_verdict_says_what_it_is_made_of() -> None:
    verdict = SuccessDecision(REWARD, 0.9).judge(observation(1, 0, height=0.0), 0.75)
    assert (verdict.probability, verdict.gates_passed, verdict.success) == (0.75, False, False)
