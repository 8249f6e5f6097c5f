"""An episode as the arrays that the replay stores, one row for each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conrft_data.config import RewardConfig
from conrft_data.types import ACTION_DIM, Episode, Mode, Outcome, proprioception
from conrft_learner.returns import before_takeover, monte_carlo_returns

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What an episode's outcome decides, for its T transitions; a relabelling changes exactly these.

    Attributes:
        rewards: ``(T,)``.
        terminated: ``(T,)``, true where no value follows: success ended the episode, or a take-over the policy's part.
        returns: ``(T,)`` Monte-Carlo returns.
        bounds: ``(T,)`` the same where they bound the value from below, -inf where a later take-over earned them.
    """

    rewards: Float32
    terminated: Bool
    returns: Float32
    bounds: Float32


@dataclass(frozen=True, kw_only=True)
class EpisodeFrames:
    """T transitions between T+1 frames.

    Attributes:
        episode_id: unique name.
        demonstration: whether all of it counts as demonstration.
        embeddings: ``(T+1, D)`` of the frozen backbone.
        proprio: ``(T+1, 19)``.
        actions: ``(T, 7)`` executed, in [-1, 1].
        interventions: ``(T,)``, true where the operator moved the arm.
        labels: rewards, returns and terminal flags.
    """

    episode_id: str
    demonstration: bool
    embeddings: Float32
    proprio: Float32
    actions: Float32
    interventions: Bool
    labels: Labels

    def __len__(self) -> int:
        """T, the number of transitions."""
        return len(self.actions)


@dataclass(frozen=True, kw_only=True)
class TakeOverRules:
    """What a take-over means for the actions before it.

    Attributes:
        drop_rescued: a return that a later take-over earned is no bound of the value.
        terminal: the policy's last action before a take-over leads nowhere, as if the episode had ended in failure
            there (compare RLIF, arXiv 2311.12996): what the operator earns then is not the policy's.
    """

    drop_rescued: bool
    terminal: bool


def labels(
    length: int, success: bool, interventions: Bool, reward: RewardConfig, discount: float, rules: TakeOverRules
) -> Labels:
    """Labels of an episode of ``length`` transitions that ended in success or was cut off."""
    rewards = np.full(length, reward.step, dtype=np.float32)
    terminated = np.zeros(length, dtype=np.bool_)
    if success and length:
        rewards[-1], terminated[-1] = reward.success, True
    if rules.terminal:
        terminated[:-1] |= interventions[1:] & ~interventions[:-1]
    returns = monte_carlo_returns(rewards, terminated, discount, step_reward=reward.step)
    bounds = returns.copy()
    if rules.drop_rescued:
        bounds[before_takeover(interventions)] = -np.inf
    return Labels(rewards=rewards, terminated=terminated, returns=returns, bounds=bounds)


def frames_from_episode(
    episode: Episode, embeddings: Float32, reward: RewardConfig, discount: float, rules: TakeOverRules
) -> EpisodeFrames:
    """Arrays of an episode; raises ValueError when it holds no transition or the embeddings do not fit.

    Args:
        episode: with T transitions.
        embeddings: ``(T+1, D)``, of the learner's own backbone.
        reward: the task's rewards.
        discount: gamma of the Monte-Carlo returns.
        rules: what a take-over means for the actions before it.
    """
    if len(episode) == 0:
        raise ValueError(f"episode {episode.episode_id} has no transition")
    if len(embeddings) != len(episode) + 1:
        raise ValueError(f"episode {episode.episode_id} has {len(episode) + 1} frames but {len(embeddings)} embeddings")
    demonstration = episode.mode is Mode.DEMONSTRATION
    interventions = np.zeros(len(episode), dtype=np.bool_) if demonstration else episode.interventions()
    actions = np.clip(episode.actions(), -1.0, 1.0).reshape(len(episode), ACTION_DIM)
    proprio = np.stack([proprioception(observation) for observation in episode.observations[: len(episode) + 1]])
    if not all(np.isfinite(array).all() for array in (embeddings, proprio, actions)):
        raise ValueError(f"episode {episode.episode_id} holds a number that is not finite")
    return EpisodeFrames(
        episode_id=episode.episode_id,
        demonstration=demonstration,
        embeddings=np.ascontiguousarray(embeddings, dtype=np.float32),
        proprio=proprio,
        actions=actions,
        interventions=interventions,
        labels=labels(len(episode), episode.outcome is Outcome.SUCCESS, interventions, reward, discount, rules),
    )
