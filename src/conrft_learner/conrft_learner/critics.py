"""Critics: Q(s, a) as an ensemble of small networks on features of the state that are computed once for each state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from conrft_learner.resnet10 import CHANNELS, POSITIONS
from conrft_policy.consistency_head import LAYER_NORM_EPS, Activation, ProprioEncoder, xavier_linear
from conrft_policy.fast_tanh import Tanh, tanh

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": tanh,
    "silu": functional.silu,
    "relu": functional.relu,
    "mish": functional.mish,
}
CACHED_ROWS = 1024  # of a hidden layer: 1 MB at 256 units, half of the second-level cache of common processors


@dataclass(frozen=True, kw_only=True)
class States:
    """A batch of states as the networks see them.

    Attributes:
        embedding: ``(B, D)`` of the frozen backbone.
        proprio: ``(B, 38)``, two stacked frames, the older first.
        frozen: further frozen features by name, for critics that see more than the embedding: feature maps
            ``(B, 512, 16)`` of the cameras' newest images.
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
            every = _values_without_gradient(member, output, state, actions)
            above = every > lower_bound[:, None]
            rows = above.flatten().nonzero().squeeze(-1)
            first = state.index_select(0, rows.div(count, rounding_mode="floor")) + member.action_part(
                flat.index_select(0, rows)
            )
            selected = output(member.rest(first)).squeeze(-1)
            values.append(every.flatten().index_copy(0, rows, selected).view_as(every))
        return torch.stack(values)


@torch.no_grad()
def _values_without_gradient(member: Member, output: nn.Linear, state: Tensor, actions: Tensor) -> Tensor:
    """Values ``(B, N)`` of actions ``(B, N, A)``, some states at a time: what is between the layers stays in cache."""
    states = max(1, CACHED_ROWS // actions.shape[1])
    pieces = zip(state.split(states), actions.split(states), strict=True)
    values = [output(member.rest(part[:, None] + member.action_part(sampled))) for part, sampled in pieces]
    return torch.cat(values).squeeze(-1)


class LightCritic(nn.Module):
    """Critic on the frozen embedding and a learned latent of the proprioception. The default: it needs no image."""

    def __init__(
        self,
        embedding_dim: int,
        proprio_dim: int,
        make_ensemble: Callable[[int], Ensemble],
        *,
        latent: int = 64,
    ) -> None:
        """``make_ensemble`` is given the features' width; ``latent`` is the width of the proprioception's layer."""
        super().__init__()
        self.proprio_encoder = ProprioEncoder(proprio_dim, latent)
        self.ensemble = make_ensemble(embedding_dim + latent)

    def encode(self, states: States) -> Tensor:
        """Features ``(B, D + latent)``."""
        return torch.cat([states.embedding, self.proprio_encoder(states.proprio)], dim=-1)


class SpatialLearnedEmbeddings(nn.Module):
    """Learned weighted sums over the positions of a feature map, several for each channel."""

    def __init__(self, channels: int = CHANNELS, positions: int = POSITIONS, sums: int = 8) -> None:
        """LeCun-normal weights, as in the official code."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, positions, sums))
        _lecun_normal(self.weight, channels * positions)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps ``(B, C, P)`` to ``(B, C * sums)``, the sums of one channel side by side."""
        # One small product for each channel: a third of the time of an einsum that has to reorder its inputs.
        return torch.bmm(maps.transpose(0, 1), self.weight).transpose(0, 1).flatten(1)


class CameraEncoder(nn.Sequential):
    """Frozen feature maps ``(B, 512, 16)`` of one camera to a latent ``(B, latent)``.

    The official dropout between embeddings and bottleneck is never active in the critic.
    """

    def __init__(self, latent: int) -> None:
        """Spatial learned embeddings, then the bottleneck: linear, LayerNorm, tanh."""
        embeddings = SpatialLearnedEmbeddings()
        channels, _, sums = embeddings.weight.shape
        bottleneck = nn.Linear(channels * sums, latent)
        _lecun_normal(bottleneck.weight, channels * sums)
        nn.init.zeros_(bottleneck.bias)
        super().__init__(embeddings, bottleneck, nn.LayerNorm(latent, eps=LAYER_NORM_EPS), Tanh())


class PaperCritic(nn.Module):
    """The paper's critic: frozen ResNet-10 feature maps of every camera and the proprioception; not the embedding."""

    def __init__(
        self,
        cameras: Sequence[str],
        proprio_dim: int,
        make_ensemble: Callable[[int], Ensemble],
        *,
        camera_latent: int = 256,
        latent: int = 64,
    ) -> None:
        """``cameras`` in the order of their latents; ``camera_latent`` is the width of each; else see LightCritic."""
        super().__init__()
        self.cameras = tuple(cameras)
        self.camera_encoders = nn.ModuleList(CameraEncoder(camera_latent) for _ in self.cameras)
        self.proprio_encoder = ProprioEncoder(proprio_dim, latent)
        self.ensemble = make_ensemble(camera_latent * len(self.cameras) + latent)

    def encode(self, states: States) -> Tensor:
        """Features ``(B, cameras * camera_latent + latent)``; the cameras' maps are in ``states.frozen`` by name."""
        latents = [
            encoder(states.frozen[camera]) for camera, encoder in zip(self.cameras, self.camera_encoders, strict=True)
        ]
        return torch.cat([*latents, self.proprio_encoder(states.proprio)], dim=-1)

    def load_flax(self, parameters: Mapping[str, NDArray[np.float32]], official_cameras: Sequence[str]) -> None:
        """Takes the official critic's parameters by Flax path, the frozen encoder's left aside.

        Args:
            parameters: ``encoder/encoder_<camera>/...``, ``encoder/Dense_0`` and ``LayerNorm_0`` (proprioception),
                ``network/...`` with a leading axis for the members, ``Dense_0`` (the shared last layer).
            official_cameras: the official names of this critic's cameras, in order.

        Raises:
            ValueError: names or shapes do not fit.
        """
        modules = {"encoder/Dense_0": "proprio_encoder.0", "encoder/LayerNorm_0": "proprio_encoder.1"}
        modules |= {"Dense_0": "ensemble.outputs.0"}
        for i, camera in enumerate(official_cameras):
            theirs = {"SpatialLearnedEmbeddings_0": 0, "Dense_0": 1, "LayerNorm_0": 2}
            modules |= {f"encoder/encoder_{camera}/{t}": f"camera_encoders.{i}.{n}" for t, n in theirs.items()}
        state: dict[str, Tensor] = {}
        for path, value in parameters.items():
            if "/pretrained_encoder/" in path:
                continue
            module, _, kind = path.rpartition("/")
            if module in modules:
                state[f"{modules[module]}.{_torch_kind(kind)}"] = _torch_layout(value, kind)
            else:
                state |= _members(module, kind, value)
        try:
            self.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise ValueError(f"parameters do not fit: {error}") from error


def _members(module: str, kind: str, value: NDArray[np.float32]) -> dict[str, Tensor]:
    """Each member's share of a parameter of the official ensemble; an unknown one keeps its path."""
    names = {"Dense_0": "input", "LayerNorm_0": "input_norm", "Dense_1": "hidden", "LayerNorm_1": "hidden_norm"}
    name = names.get(module.removeprefix("network/"))
    if name is None:
        return {f"{module}/{kind}": torch.from_numpy(np.array(value))}
    return {
        f"ensemble.members.{i}.{name}.{_torch_kind(kind)}": _torch_layout(part, kind) for i, part in enumerate(value)
    }


def _torch_kind(kind: str) -> str:
    return "bias" if kind == "bias" else "weight"


def _torch_layout(value: NDArray[np.float32], kind: str) -> Tensor:
    """Dense kernels (in, out) are turned; spatial embeddings (H, W, C, F) become (C, H W, F)."""
    tensor = torch.from_numpy(np.array(value, dtype=np.float32))
    if kind == "kernel" and tensor.ndim == 4:
        return tensor.flatten(0, 1).transpose(0, 1).contiguous()
    return tensor.T.contiguous() if kind == "kernel" else tensor


def _lecun_normal(weight: Tensor, inputs: int) -> None:
    """Flax's default: normal of variance 1 / inputs, cut off at two deviations and widened to make up for it."""
    deviation = inputs**-0.5 / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)
