"""Frames of recorded episodes with what they teach the success classifier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conrft_data.config import RewardConfig, TaskConfig
from conrft_data.types import Episode, Observation, Outcome
from conrft_reward.classifier import camera_sizes, thumbnails
from conrft_reward.decision import gates_hold

# Ticks before the success whose label nobody knows: the goal may be reached, and the operator has not yet said so.
UNCERTAIN_TICKS = 2
# Longest time between letting go and success, ticks, in which frames are uncertain too.
LETTING_GO_TICKS = 20


@dataclass(frozen=True, kw_only=True)
class LabelledFrames:
    """N frames of E episodes.

    Attributes:
        images: ``(N, cameras, S, S, 3)`` uint8.
        labels: ``(N,)`` true: success.
        gates: ``(N,)`` whether the task's gates hold.
        episodes: ``(N,)`` index into ``episode_ids``.
        steps: ``(N,)`` tick in the episode.
        episode_ids: E names.
        uncertain: how many frames were left out because nobody knows their label.
    """

    images: Tensor
    labels: NDArray[np.bool_]
    gates: NDArray[np.bool_]
    episodes: NDArray[np.int64]
    steps: NDArray[np.int64]
    episode_ids: list[str]
    uncertain: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def of_episodes(self, episodes: Iterable[int]) -> LabelledFrames:
        """The frames of these episodes only."""
        rows = np.flatnonzero(np.isin(self.episodes, list(episodes)))
        return LabelledFrames(
            images=self.images[torch.from_numpy(rows)],
            labels=self.labels[rows],
            gates=self.gates[rows],
            episodes=self.episodes[rows],
            steps=self.steps[rows],
            episode_ids=self.episode_ids,
        )


def labelled_frames(episodes: Iterable[Episode], task: TaskConfig, size: int) -> LabelledFrames:
    """Labels all frames of the episodes, which are read one at a time: only thumbnails stay in memory."""
    images, labels, gates, owners, steps, ids = [], [], [], [], [], []
    uncertain = 0
    for index, episode in enumerate(episodes):
        ids.append(episode.episode_id)
        for observation, label in labels_of(episode, task.reward):
            if label is None:
                uncertain += 1
                continue
            images.append(thumbnails(observation.images, camera_sizes(task), size))
            labels.append(label)
            gates.append(gates_hold(observation, task.reward))
            owners.append(index)
            steps.append(observation.step)
    return LabelledFrames(
        images=torch.from_numpy(np.stack(images)) if images else torch.zeros(0, len(task.cameras), size, size, 3),
        labels=np.array(labels, dtype=np.bool_),
        gates=np.array(gates, dtype=np.bool_),
        episodes=np.array(owners, dtype=np.int64),
        steps=np.array(steps, dtype=np.int64),
        episode_ids=ids,
        uncertain=uncertain,
    )


def labels_of(episode: Episode, reward: RewardConfig) -> Iterator[tuple[Observation, bool | None]]:
    """Every frame with its label: True success, False not, None nobody knows.

    Success shows on the final step and in the tail of a successful episode, and on no other frame. The frames from
    letting go to success are uncertain: object and goal look the same, only the hand is still near, which is the gates'
    business; to call them failures would teach the network to look at the hand instead of the object.
    """
    succeeded = episode.outcome is Outcome.SUCCESS
    certain_until = _certain_until(episode, reward) if succeeded else episode.final_step + 1
    for observation in episode.observations:
        if observation.step < certain_until:
            yield observation, False
        else:
            yield observation, True if observation.step == episode.final_step else None
    for observation in episode.tail:
        yield observation, succeeded


def _certain_until(episode: Episode, reward: RewardConfig) -> int:
    """First step of a successful episode whose label is uncertain."""
    openings: Mapping[int, float] = {o.step: o.gripper_opening for o in episode.observations}
    latest = max(0, episode.final_step - UNCERTAIN_TICKS)
    for step in range(latest, max(-1, latest - LETTING_GO_TICKS), -1):
        if openings.get(step, 1.0) < reward.min_gripper_opening:
            return step + 1
    return latest
