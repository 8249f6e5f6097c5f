"""Which token of an Octo sequence may read which.

The sequence is the language prefix, then for each timestep: image tokens by camera, the repeated language (if the
configuration repeats it), and the readouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from .config import OctoConfig

BoolArray = NDArray[np.bool_]
PREFIX_TIMESTEP = -1


class TokenKind(IntEnum):
    """What a token stands for when the mask is made."""

    TASK = 0
    OBSERVATION = 1
    READOUT = 2


@dataclass(frozen=True)
class TokenGroup:
    """A run of tokens that the mask treats alike."""

    kind: TokenKind
    size: int


def step_groups(config: OctoConfig) -> list[TokenGroup]:
    """The groups of one timestep, in order."""
    groups = [TokenGroup(TokenKind.OBSERVATION, image.tokens) for image in config.images]
    if config.repeat_task_tokens:
        groups.append(TokenGroup(TokenKind.OBSERVATION, config.language_tokens))
    return [*groups, TokenGroup(TokenKind.READOUT, config.readout_tokens)]


def token_kinds(config: OctoConfig, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Kind and timestep of each token, both (N,); the prefix has timestep -1.

    The older line looks a token's group up with the wrong side of its boundary: a group's first token counts to the
    group before it. The released weights of that line were trained so, hence ``use_correct_attention=False``.
    """
    groups = step_groups(config)
    boundaries = np.cumsum([group.size for group in groups])
    side = "right" if config.use_correct_attention else "left"
    group_of_token = np.searchsorted(boundaries, np.arange(config.step_tokens), side=side)  # type: ignore[call-overload]
    step = np.array([group.kind for group in groups], dtype=np.int64)[group_of_token]
    prefix = np.full(config.language_tokens, TokenKind.TASK, dtype=np.int64)
    kinds = np.concatenate([prefix, np.tile(step, steps)])
    timesteps = np.concatenate([np.full_like(prefix, PREFIX_TIMESTEP), np.repeat(np.arange(steps), len(step))])
    return kinds, timesteps


def structural_mask(config: OctoConfig, steps: int) -> BoolArray:
    """(N, N), query by key, True where reading is allowed, before any padding.

    The task reads the task. Observations read the task and observations up to their own timestep. Readouts read the
    same and, up to their own timestep, the readouts of their name; nothing else reads a readout.
    """
    kinds, timesteps = token_kinds(config, steps)
    query_kind, key_kind = kinds[:, None], kinds[None, :]
    not_later = timesteps[None, :] <= timesteps[:, None]
    reads_task = key_kind == TokenKind.TASK
    reads_observation = (query_kind != TokenKind.TASK) & (key_kind == TokenKind.OBSERVATION)
    reads_readout = (query_kind == TokenKind.READOUT) & (key_kind == TokenKind.READOUT)
    return np.asarray((reads_task | reads_observation | reads_readout) & not_later)
