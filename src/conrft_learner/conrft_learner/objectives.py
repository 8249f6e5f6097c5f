"""The losses of ConRFT (arXiv 2502.05450) as functions of numbers alone, each to be checked against paper and code.

Shapes: ``E`` members of the critic ensemble, ``B`` states, ``N`` sampled actions for each state, ``A`` dimensions.
Every loss returns its value, a scalar to differentiate, and a dict of named figures for the log.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Figures = dict[str, float]


def td_target(
    rewards: Tensor,
    masks: Tensor,
    next_values: Tensor,
    discount: float,
    *,
    minimum: bool = True,
    lower_bound: Tensor | None = None,
) -> Tensor:
    """Bellman target ``y = r + discount * mask * min_k Q_target_k(s', a')`` (paper eq. 3, with one sample of ``a'``).

    Args:
        rewards: ``(B,)``.
        masks: ``(B,)``, 0 where the episode terminated, 1 elsewhere (a time-out bootstraps).
        next_values: ``(E, B)`` of the target critic.
        discount: gamma.
        minimum: over the ensemble; else its mean.
        lower_bound: ``(B,)`` Monte-Carlo returns below which the target may not fall, -inf where none holds.

    Returns:
        ``(B,)``.
    """
    following = next_values.amin(dim=0) if minimum else next_values.mean(dim=0)
    target = rewards + discount * masks * following
    return target if lower_bound is None else torch.maximum(target, lower_bound)


def td_loss(values: Tensor, target: Tensor) -> tuple[Tensor, Figures]:
    """Mean over members and batch of ``(Q_k(s, a) - y)^2``; values ``(E, B)``, target ``(B,)``."""
    loss = (values - target).square().mean()
    return loss, {"td_loss": loss.item(), "q_data": values.mean().item(), "td_target": target.mean().item()}


def calibrated_conservative_loss(
    values: Tensor, sampled_values: Tensor, lower_bound: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Figures]:
    """Conservatism of Cal-QL (arXiv 2303.05479), which the critic's loss takes times alpha (paper eq. 2).

    Sampled actions are pushed down to the data's value, but not below the return that the data achieved:
    ``T logsumexp([max(q, G), q_data] / T) - T ln(N + 1) - q_data``, mean over members and batch.

    Args:
        values: ``(E, B)``, of the data's actions.
        sampled_values: ``(E, B, N)``, of sampled actions at the same states.
        lower_bound: ``(B,)`` Monte-Carlo returns G, -inf where none holds.
        temperature: T.
    """
    bounded = torch.maximum(sampled_values, lower_bound[:, None])
    everything = torch.cat([bounded, values[..., None]], dim=-1)
    count = everything.shape[-1]
    out_of_distribution = temperature * (torch.logsumexp(everything / temperature, dim=-1) - math.log(count))
    loss = (out_of_distribution - values).mean()
    figures = {
        "cql_loss": loss.item(),
        "cql_bound_rate": (sampled_values < lower_bound[:, None]).float().mean().item(),
        "q_sampled": sampled_values.mean().item(),
    }
    return loss, figures


def behaviour_cloning_loss(
    denoised: Tensor,
    actions: Tensor,
    weights: Tensor,
    *,
    dimension_weights: Tensor | None = None,
    euclidean: bool = False,
) -> tuple[Tensor, Figures]:
    """Denoising to the data's action (paper eq. 4): ``mean_b[w_b mean_dim (D - a)^2]`` as in the official code.

    Args:
        denoised: ``(B, A)``, the head's output for the noised action.
        actions: ``(B, A)``, of the data.
        weights: ``(B,)`` of the noise levels.
        dimension_weights: ``(A,)``, or None for all ones.
        euclidean: the paper's distance, the root of the squares' sum, in place of their mean.
    """
    error = (denoised - actions).square()
    if dimension_weights is not None:
        error = error * dimension_weights
    distance = (error.sum(dim=-1) + 1e-12).sqrt() if euclidean else error.mean(dim=-1)
    loss = (distance * weights).mean()
    return loss, {"bc_loss": loss.item(), "bc_error": error.mean().item()}


def q_objective(values: Tensor, *, magnitude: Tensor | None) -> tuple[Tensor, Figures]:
    """What the actor minimises: minus the mean over members (not the minimum) and batch of Q ``(E, B)``.

    It is divided by ``magnitude``, the mean absolute value, where that is given, so that its weight means the same
    whatever the reward's scale (TD3+BC).
    """
    mean = values.mean()
    scale = 1.0 if magnitude is None else 1.0 / magnitude.clamp_min(1e-6)
    return -mean * scale, {"q_policy": mean.item()}
