"""The consistency policy: noise to an action in one step, given the frozen backbone's embedding and proprioception.

ConRFT (arXiv:2502.05450), section III. Layer order, initialisation and constants are those of the official code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from conrft_policy.fast_tanh import Tanh
from conrft_policy.noise_schedule import boundary_scalings, karras_levels

LAYER_NORM_EPS = 1e-6

Activation = Literal["tanh", "mish", "relu", "silu"]
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": Tanh, "mish": nn.Mish, "relu": nn.ReLU, "silu": nn.SiLU}


class HeadConfig(BaseModel):
    """Sizes and constants of the head; together with the backbone they decide which weights fit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    embedding_dim: int = Field(ge=1, le=8192, description="width of the backbone's embedding")
    action_dim: int = Field(default=7, ge=1, le=64, description="numbers in an action, the gripper last")
    fix_gripper: bool = Field(default=False, description="the head leaves the gripper out and 0 (keep) is appended")
    binary_gripper: bool = Field(default=False, description="when acting, the gripper is opened or closed, never kept")
    proprio_dim: int = Field(default=38, ge=1, le=1024, description="stacked proprioception vectors, old frame first")
    proprio_latent: int = Field(default=64, ge=1, le=1024, description="width of the proprioception's latent")
    hidden: tuple[int, ...] = Field(default=(256, 256), min_length=1, description="widths of the hidden layers")
    activation: Activation = Field(default="tanh", description="after each hidden layer's LayerNorm")
    time_dim: int = Field(default=16, ge=4, le=256, multiple_of=2, description="width of the time embedding")
    sigma_data: float = Field(default=0.5, gt=0, le=10, description="standard deviation of the actions")
    sigma_min: float = Field(default=0.002, gt=0, le=1, description="smallest noise level")
    sigma_max: float = Field(default=80.0, gt=0, le=1000, description="largest noise level, where sampling starts")
    rho: float = Field(default=7.0, ge=1, le=20, description="curvature of the schedule")
    num_scales: int = Field(default=40, ge=2, le=1000, description="noise levels of the schedule")
    clip_denoised: bool = Field(default=True, description="clip actions to [-1, 1] inside the graph")

    @model_validator(mode="after")
    def _levels_fall(self) -> HeadConfig:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} must lie below sigma_max {self.sigma_max}")
        if self.fix_gripper and self.action_dim < 2:
            raise ValueError("fix_gripper needs an action beside the gripper")
        return self

    @property
    def denoised_dim(self) -> int:
        """Numbers that the network denoises: without the gripper where that is fixed."""
        return self.action_dim - 1 if self.fix_gripper else self.action_dim

    @property
    def encoding_dim(self) -> int:
        """Width of the conditioning: embedding and proprioception latent."""
        return self.embedding_dim + self.proprio_latent


def xavier_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with Xavier-uniform weights and zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class _ClampInward(torch.autograd.Function):
    """See :func:`clamp_inward`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        outward = ((x > 1) & (gradient < 0)) | ((x < -1) & (gradient > 0))
        return gradient.masked_fill(outward, 0.0)


def clamp_inward(x: Tensor) -> Tensor:
    """``x`` clipped to [-1, 1]; beyond it, descending the gradient leads back inside or nowhere, never farther out.

    A plain clip has no gradient there: an output that has gone too far would never come back.
    """
    clipped: Tensor = _ClampInward.apply(x)
    return clipped


def executable(actions: Tensor, config: HeadConfig) -> Tensor:
    """The head's actions ``(..., 7)`` as they are commanded: within [-1, 1], a binary gripper at one of its ends."""
    actions = actions.clamp(-1.0, 1.0)
    if not config.binary_gripper or config.fix_gripper:
        return actions
    gripper = actions[..., -1:]
    return torch.cat([actions[..., :-1], torch.where(gripper >= 0, 1.0, -1.0).to(gripper.dtype)], dim=-1)


class ProprioEncoder(nn.Sequential):
    """Stacked proprioception ``(B, proprio_dim)`` to a latent ``(B, latent)``: linear, LayerNorm, tanh."""

    def __init__(self, proprio_dim: int, latent: int) -> None:
        super().__init__(xavier_linear(proprio_dim, latent), nn.LayerNorm(latent, eps=LAYER_NORM_EPS), Tanh())


class TimeEmbedding(nn.Module):
    """Noise level ``(...)`` to an embedding ``(..., dim)``: 250 ln t, sines and cosines, then a small network."""

    frequencies: Tensor

    def __init__(self, dim: int, activation: Activation) -> None:
        super().__init__()
        half = dim // 2
        # The exponents are rounded to float32 before exp, as in the official code: angles reach 1500, where the last
        # digits matter.
        exponents = np.arange(half, dtype=np.float32) * np.float32(-math.log(10000) / (half - 1))
        frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
        self.register_buffer("frequencies", torch.from_numpy(frequencies), persistent=False)
        layers = (xavier_linear(dim, 2 * dim), _ACTIVATIONS[activation](), xavier_linear(2 * dim, dim))
        self.network = nn.Sequential(*layers)

    def forward(self, t: Tensor) -> Tensor:
        """Embeds noise levels of any shape, > 0."""
        logarithm = torch.log(t.double()).to(self.frequencies.dtype)
        angle = (250 * logarithm)[..., None] * self.frequencies
        return self.network(torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1))


class ConsistencyDenoiser(nn.Module):
    """``D(x, t, s)``: the action behind a noisy action, given the encoding s (arXiv:2303.01469, equations 5 and 25)."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embedding = TimeEmbedding(config.time_dim, config.activation)
        self.input = xavier_linear(config.denoised_dim + config.time_dim + config.encoding_dim, config.hidden[0])
        layers: list[nn.Module] = []
        for i, width in enumerate(config.hidden):
            if i:
                layers.append(xavier_linear(config.hidden[i - 1], width))
            layers += [nn.LayerNorm(width, eps=LAYER_NORM_EPS), _ACTIVATIONS[config.activation]()]
        self.trunk = nn.Sequential(*layers)
        self.output = xavier_linear(config.hidden[-1], config.denoised_dim)

    def forward(self, x: Tensor, t: Tensor, encoding: Tensor, *, clip: bool) -> Tensor:
        """Denoises ``x (..., A)`` at levels ``t`` given ``encoding (..., E)``; both broadcast over x."""
        config = self.config
        scales = boundary_scalings(t[..., None], sigma_data=config.sigma_data, sigma_min=config.sigma_min)
        c_skip, c_out, c_in = scales
        # One linear layer over [c_in x, time, encoding], applied part by part: the wide encoding is then multiplied
        # once a state, not once for each of its n actions.
        parts = (config.denoised_dim, config.time_dim, config.encoding_dim)
        of_x, of_time, of_encoding = self.input.weight.split(parts, dim=1)
        conditioning = linear(self.time_embedding(t), of_time, self.input.bias) + linear(encoding, of_encoding)
        raw = self.output(self.trunk(linear(c_in * x, of_x) + conditioning))
        action = c_out * raw + c_skip * x
        return action.clamp(-1, 1) if clip else action

    def load_flax(self, parameters: Mapping[str, NDArray[np.float32]]) -> None:
        """Takes the official network's parameters by Flax path; raises ValueError unless names and shapes fit."""
        names = {"Dense_0": "output", "network/Dense_0": "input"}
        names |= {f"t_network/Dense_{i}": f"time_embedding.network.{2 * i}" for i in range(2)}
        names |= {f"network/Dense_{i}": f"trunk.{3 * i - 1}" for i in range(1, len(self.config.hidden))}
        names |= {f"network/LayerNorm_{i}": f"trunk.{3 * i}" for i in range(len(self.config.hidden))}
        state: dict[str, Tensor] = {}
        for path, value in parameters.items():
            module, _, kind = path.rpartition("/")
            if module not in names or kind not in ("kernel", "scale", "bias"):
                raise ValueError(f"unknown parameter {path!r}")
            tensor = torch.from_numpy(np.array(value))
            name = f"{names[module]}.{'bias' if kind == 'bias' else 'weight'}"
            state[name] = tensor.T if kind == "kernel" else tensor
        try:
            self.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise ValueError(f"parameters do not fit: {error}") from error


class ConsistencyHead(nn.Module):
    """The trainable part of the policy: proprioception encoder and denoiser.

    Shapes: B states, optionally n actions per state; E = embedding_dim + proprio_latent; A = denoised_dim.
    """

    levels: Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.proprio_encoder = ProprioEncoder(config.proprio_dim, config.proprio_latent)
        self.denoiser = ConsistencyDenoiser(config)
        levels = karras_levels(config.sigma_min, config.sigma_max, config.rho, config.num_scales)
        self.register_buffer("levels", levels, persistent=False)

    def encode(self, embedding: Tensor, proprio: Tensor) -> Tensor:
        """Encoding ``(B, E)`` of embeddings ``(B, D)`` and proprioception ``(B, proprio_dim)``, old frame first.

        No gradient reaches the embedding: the backbone is frozen.
        """
        return torch.cat([embedding.detach(), self.proprio_encoder(proprio)], dim=-1)

    def denoise(self, encoding: Tensor, x: Tensor, t: Tensor, *, clip: bool | None = None) -> Tensor:
        """The action behind a noisy one.

        Args:
            encoding: ``(B, E)``.
            x: noisy actions ``(B, A)`` or ``(B, n, A)``.
            t: noise levels ``(B,)``, one for all n actions of a state, or ``(B, n)``; ``(1,)`` is one for all.
            clip: to [-1, 1], which stops the gradient of saturated numbers; None: as configured.

        Returns:
            ``(B, A)`` or ``(B, n, A)``.
        """
        if x.dim() == 3:
            encoding = encoding[:, None]
            t = t[:, None] if t.dim() == 1 else t
        return self.denoiser(x, t, encoding, clip=self.config.clip_denoised if clip is None else clip)

    def sample(self, encoding: Tensor, noise: Tensor, *, clip: bool | None = None) -> Tensor:
        """One-step sample: ``D(sigma_max * noise, levels[0])``, for acting and for training alike.

        Args:
            encoding: ``(B, E)``.
            noise: standard normal ``(B, A)`` or ``(B, n, A)``.
            clip: see :meth:`denoise`.

        Returns:
            Actions ``(B, action_dim)`` or ``(B, n, action_dim)``; a fixed gripper is 0.
        """
        actions = self.denoise(encoding, self.config.sigma_max * noise, self.levels[:1], clip=clip)
        return pad(actions, (0, 1)) if self.config.fix_gripper else actions

    def trained_part(self, actions: Tensor) -> Tensor:
        """The part ``(..., A)`` of actions ``(..., action_dim)`` that the head denoises: without a fixed gripper."""
        return actions[..., : self.config.denoised_dim]
