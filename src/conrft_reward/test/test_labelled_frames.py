"""Success shows on the final step and in the tail of a successful episode, and nowhere else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from drawn_episodes import TASK, drawn_episode

from conrft_data.types import Mode, Outcome
from conrft_reward.labelled_frames import labelled_frames, labels_of


def labels(episode, reward=TASK.reward) -> list[bool | None]:  # type: ignore[no-untyped-def]
    return [label for _, label in labels_of(episode, reward)]


def test_the_final_step_and_the_tail_of_a_success_are_positive() -> None:
    episode = drawn_episode(0)
    # 4 ticks of reaching, 5 with the gripper closed, 2 after letting go, the final one, 3 of tail
    assert labels(episode) == [False] * 9 + [None] * 2 + [True] * 4


@pytest.mark.parametrize("outcome", [Outcome.ABORTED, Outcome.TIMEOUT, Outcome.FAULT])
def test_all_frames_of_any_other_outcome_are_negative(outcome: Outcome) -> None:
    episode = dataclasses.replace(drawn_episode(0), outcome=outcome)
    assert labels(episode) == [False] * 15


def test_a_vetoed_success_teaches_failure() -> None:
    episode = dataclasses.replace(
        drawn_episode(0), mode=Mode.TRAINING, outcome=Outcome.ABORTED, recorded_outcome=Outcome.SUCCESS
    )
    assert True not in labels(episode)


def test_without_a_gripper_only_the_last_ticks_are_uncertain() -> None:
    episode = drawn_episode(0)
    always_open = [dataclasses.replace(o, gripper_opening=1.0) for o in episode.observations]
    unlimited = TASK.reward.model_copy(update={"min_gripper_opening": 0.0})
    assert labels(dataclasses.replace(episode, observations=always_open), unlimited)[8:13] == [
        False,
        None,
        None,
        True,
        True,
    ]


def test_frames_keep_their_episode_step_and_gates() -> None:
    frames = labelled_frames([drawn_episode(0), drawn_episode(1, success=False)], TASK, 32)
    assert frames.images.shape == (len(frames), 2, 32, 32, 3)
    assert frames.episode_ids == ["test-demonstration-000000", "test-demonstration-000001"]
    assert frames.uncertain == 2
    assert frames.labels.sum() == 4
    first = frames.episodes == 0
    assert frames.steps[first].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14]
    np.testing.assert_array_equal(frames.gates[first], [True] * 4 + [False] * 5 + [True] * 4)
    assert set(frames.of_episodes([1]).episodes.tolist()) == {1}
