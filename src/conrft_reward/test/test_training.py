"""The classifier learns the goal from labelled frames, and reports its errors on episodes that it never saw."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from drawn_episodes import QUICK, TASK, drawn_episode, observation

from conrft_reward.labelled_frames import labelled_frames
from conrft_reward.training import (
    Trained,
    TrainingError,
    cautious_threshold,
    erased,
    shifted,
    split_by_episode,
    train_classifier,
)


def test_it_tells_success_from_failure(trained: Trained) -> None:
    classifier = trained.classifier
    assert classifier.probability(observation(99, 0, thing=0.92, hand=0.3)) > 0.9
    assert classifier.probability(observation(99, 1, thing=0.1, hand=0.3)) < 0.1
    assert classifier.probability(observation(99, 2, thing=0.1, hand=0.92)) < 0.1, "the hand over an empty plate"
    assert classifier.probability(observation(99, 3, thing=0.5, hand=0.9)) < 0.1, "beside the plate"


def test_the_report_counts_errors_on_episodes_held_out(trained: Trained) -> None:
    held_out = trained.report["held_out"]
    assert held_out["episodes"] == 3
    assert held_out["frames"]["positives"] == 2 * 4
    assert held_out["after_gates"]["false_positives"] == 0
    assert held_out["decisions"] == {"successful_episodes": 2, "false_successes": 0, "missed_successes": 0}
    assert trained.report["train"]["episodes"] == 9
    assert trained.report["uncertain_frames"] == 8 * 2


def test_no_episode_is_in_both_parts() -> None:
    frames = labelled_frames([drawn_episode(n, success=n % 2 == 0) for n in range(10)], TASK, 32)
    train, held_out = split_by_episode(frames, 0.2, seed=3)
    assert not set(train.episodes.tolist()) & set(held_out.episodes.tolist())
    assert len(train) + len(held_out) == len(frames)
    for part in (train, held_out):
        assert part.labels.any()
        assert any(not part.labels[part.episodes == e].any() for e in set(part.episodes.tolist())), "a failed episode"
    again, _ = split_by_episode(frames, 0.2, seed=3)
    assert set(again.episodes.tolist()) == set(train.episodes.tolist())


@pytest.mark.parametrize("successes", [0, 1])
def test_too_few_successes_are_refused_with_a_reason(successes: int) -> None:
    episodes = [drawn_episode(n, success=n < successes) for n in range(4)]
    with pytest.raises(TrainingError, match=f"at least 2 successful episodes.* there are {successes} among 4"):
        train_classifier(episodes, TASK, 0, QUICK)


def test_one_seed_gives_one_classifier() -> None:
    episodes = [drawn_episode(n, success=n % 2 == 0) for n in range(6)]
    settings = dataclasses.replace(QUICK, max_steps=20, check_every=10)
    torch.manual_seed(1)
    first, report = train_classifier(episodes, TASK, 4, settings)
    torch.manual_seed(2)
    second, _ = train_classifier(episodes, TASK, 4, settings)
    other, _ = train_classifier(episodes, TASK, 5, settings)
    for name, value in first.networks.state_dict().items():
        assert torch.equal(value, second.networks.state_dict()[name]), name
    assert not torch.equal(next(first.networks.parameters()), next(other.networks.parameters()))
    assert report["seed"] == 4


@pytest.mark.parametrize(
    ("worst_failure", "threshold"),
    [(0.1, 0.9), (0.88, 0.94), (0.9999, 0.99)],
)
def test_the_threshold_rises_above_a_failure_that_comes_close(worst_failure: float, threshold: float) -> None:
    probabilities = np.array([0.01, worst_failure, 1.0, 1.0, 1.0], dtype=np.float32)
    labels = np.array([False, False, True, True, True])
    assert cautious_threshold(probabilities, labels, 0.9, 0.99) == pytest.approx(threshold)


def test_without_both_labels_the_threshold_is_the_tasks() -> None:
    assert cautious_threshold(np.ones(2, dtype=np.float32), np.array([True, True]), 0.9, 0.99) == 0.9


def test_shifting_keeps_pixels_and_repeats_the_edge() -> None:
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    moved = shifted(images, 2, np.random.default_rng(0))
    places = [(r, c) for r in range(5) for c in range(5)]
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    for before, after in zip(padded, moved, strict=True):
        assert any(np.array_equal(before[r : r + 8, c : c + 8], after) for r, c in places)
    np.testing.assert_array_equal(shifted(images, 0, np.random.default_rng(0)), images)


def test_erasing_hides_one_rectangle_and_leaves_the_original() -> None:
    images = np.zeros((20, 32, 32, 3), dtype=np.uint8)
    hidden = erased(images, 1.0, np.random.default_rng(0))
    assert not images.any()
    for image in hidden:
        rows, columns = np.nonzero(image.any(axis=2))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width
        assert 4 <= height <= 11
    np.testing.assert_array_equal(erased(images, 0.0, np.random.default_rng(0)), images)
