"""Monte-Carlo returns, and where they may serve as a bound on the value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]


def monte_carlo_returns(rewards: Float32, dones: Bool, discount: float, *, step_reward: float | None = None) -> Float32:
    """Discounted return of every transition: ``G_i = r_i + discount * G_{i+1} * (1 - done_i)``.

    Args:
        rewards: ``(T,)``.
        dones: ``(T,)``, true where nothing follows.
        discount: gamma, in (0, 1).
        step_reward: reward of a step that achieves nothing. When given and no transition earned anything else, the
            episode would have gone on like that, and every return is ``step_reward / (1 - discount)``
            (the official code's rule for sparse rewards).

    Returns:
        ``(T,)`` float32.
    """
    if len(rewards) == 0:
        return np.zeros(0, dtype=np.float32)
    if step_reward is not None and np.all(rewards == np.float32(step_reward)):
        return np.full(len(rewards), step_reward / (1.0 - discount), dtype=np.float32)
    returns = np.zeros(len(rewards), dtype=np.float64)
    following = 0.0
    for i in range(len(rewards) - 1, -1, -1):
        following = float(rewards[i]) + discount * following * (1.0 - float(dones[i]))
        returns[i] = following
    return returns.astype(np.float32)


def before_takeover(interventions: Bool) -> Bool:
    """``(T,)``: true for transitions that a later take-over rescued.

    Their return was earned by the operator, not by the policy: as a lower bound on the value it would teach that
    stalling pays.

    Args:
        interventions: ``(T,)``, true where the operator moved the arm.
    """
    previous = np.concatenate([[False], interventions[:-1]]) if len(interventions) else interventions
    starts = np.flatnonzero(interventions & ~previous)
    rescued = np.zeros(len(interventions), dtype=np.bool_)
    if len(starts):
        rescued[: starts[-1]] = True
    return rescued
