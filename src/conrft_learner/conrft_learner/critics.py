"""Critics: Q(s, a) as an ensemble of small networks on features of the state that are computed once for each state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from conrft_policy.consistency_head import LAYER_NORM_EPS, Activation, ProprioEncoder, xavier_linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "silu": functional.silu,
    "relu": functional.relu,
    "mish": functional.mish,
}


@dataclass(frozen=True, kw_only=True)
class States:
    """A batch of states as the networks see them.

    Attributes:
        embedding: ``(B, D)`` of the frozen backbone.
        proprio: ``(B, 38)``, two stacked frames, the older first.
        frozen: further frozen features by name, for critics that see more than the embedding.
    """

    embedding: Tensor
    proprio: Tensor
    frozen: Mapping[str, Tensor] = field(default_factory=dict)


class Critic(Protocol):
    """What the objectives need of a critic: features once for each state, then values of any number of actions."""

    ensemble: Ensemble

    def encode(self, states: States) -> Tensor:
        """Features ``(B, F)`` of the states."""
        ...


class Member(nn.Module):
    """One Q network: two hidden layers of Linear, LayerNorm, activation.

    The state's part of the first layer is computed once for all actions.
    """

    def __init__(self, feature_dim: int, action_dim: int, hidden: int, activation: Activation) -> None:
        """Xavier-uniform kernels and zero biases, as in the official code."""
        super().__init__()
        self.feature_dim = feature_dim
        self.activation = ACTIVATIONS[activation]
        self.input = xavier_linear(feature_dim + action_dim, hidden)
        self.input_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)
        self.hidden = xavier_linear(hidden, hidden)
        self.hidden_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)

    def state_part(self, features: Tensor) -> Tensor:
        """First layer's contribution ``(B, H)`` of the state."""
        return functional.linear(features, self.input.weight[:, : self.feature_dim], self.input.bias)

    def action_part(self, actions: Tensor) -> Tensor:
        """First layer's contribution ``(..., H)`` of actions ``(..., A)``."""
        return functional.linear(actions, self.input.weight[:, self.feature_dim :])

    def rest(self, first: Tensor) -> Tensor:
        """Last hidden activations ``(..., H)`` from the first layer's sum ``(..., H)``."""
        x = self.activation(self.input_norm(first))
        return self.activation(self.hidden_norm(self.hidden(x)))


class Ensemble(nn.Module):
    """Ensemble of Q networks on common features.

    A loop over the members is faster on a CPU than one batched product, because the fused layer norm then does both its
    scale and its shift.
    """

    def __init__(
        self,
        feature_dim: int,
        action_dim: int,
        *,
        size: int = 2,
        hidden: int = 256,
        activation: Activation = "tanh",
        shared_output: bool = False,
    ) -> None:
        """``shared_output``: one last layer for all members, as in the official code."""
        super().__init__()
        self.action_dim = action_dim
        self.members = nn.ModuleList([Member(feature_dim, action_dim, hidden, activation) for _ in range(size)])
        self.outputs = nn.ModuleList([xavier_linear(hidden, 1) for _ in range(1 if shared_output else size)])

    def _pairs(self) -> list[tuple[Member, nn.Linear]]:
        outputs = list(self.outputs) * (len(self.members) // len(self.outputs))
        return list(zip(self.members, outputs, strict=True))  # type: ignore[arg-type]

    def forward(self, features: Tensor, actions: Tensor) -> Tensor:
        """Values at features ``(B, F)``: ``(E, B)`` of actions ``(B, A)``, or ``(E, B, N)`` of ``(B, N, A)``."""
        values = []
        for member, output in self._pairs():
            state = member.state_part(features)
            first = (state if actions.ndim == 2 else state[:, None]) + member.action_part(actions)
            values.append(output(member.rest(first)).squeeze(-1))
        return torch.stack(values)

    def values_above(self, features: Tensor, actions: Tensor, lower_bound: Tensor) -> Tensor:
        """Values ``(E, B, N)`` of actions ``(B, N, A)``, with a gradient only where above ``lower_bound`` ``(B,)``.

        A bounded value has no gradient in Cal-QL, so its backward pass is saved; the rows that have one are computed
        twice. The gradient is exact.
        """
        count = actions.shape[1]
        flat = actions.reshape(-1, actions.shape[-1])
        values = []
        for member, output in self._pairs():
            state = member.state_part(features)
            with torch.no_grad():
                every = output(member.rest(state[:, None] + member.action_part(actions))).squeeze(-1)
            above = every > lower_bound[:, None]
            rows = above.flatten().nonzero().squeeze(-1)
            first = state.index_select(0, rows.div(count, rounding_mode="floor")) + member.action_part(
                flat.index_select(0, rows)
            )
            selected = output(member.rest(first)).squeeze(-1)
            values.append(every.flatten().index_copy(0, rows, selected).view_as(every))
        return torch.stack(values)


class LightCritic(nn.Module):
    """Critic on the frozen embedding and a learned latent of the proprioception. The default: it needs no image."""

    def __init__(
        self,
        embedding_dim: int,
        proprio_dim: int,
        action_dim: int,
        *,
        latent: int = 64,
        size: int = 2,
        hidden: int = 256,
        activation: Activation = "tanh",
        shared_output: bool = False,
    ) -> None:
        """See :class:`Ensemble` for the sizes; ``latent`` is the width of the proprioception's layer."""
        super().__init__()
        self.proprio_encoder = ProprioEncoder(proprio_dim, latent)
        self.ensemble = Ensemble(
            embedding_dim + latent,
            action_dim,
            size=size,
            hidden=hidden,
            activation=activation,
            shared_output=shared_output,
        )

    def encode(self, states: States) -> Tensor:
        """Features ``(B, D + latent)``."""
        return torch.cat([states.embedding, self.proprio_encoder(states.proprio)], dim=-1)
