"""The Octo transformer as a torch module: images and an instruction in, readout tokens out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import structural_mask
from .config import OctoConfig
from .image_stem import SmallStem, reduce_image

LAYER_NORM_EPS = 1e-6
POSITION_STD = 0.02


class Attention(nn.Module):
    """Multi-head attention with biases; query, key and value share one matrix, in this order."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, dim) -> query, key and value, each (B, heads, N, dim / heads)."""
        batch, count, dim = x.shape
        query, key, value = self.qkv(x).view(batch, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        return query, key, value

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Read ``value`` (B, heads, N, e) for each query; bias is added to the logits. Returns (B, M, dim)."""
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Self-attention over (B, N, dim)."""
        return self.attend(*self.split(x), bias)


class Mlp(nn.Module):
    """Two layers with GELU in its tanh form."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.rise = nn.Linear(dim, hidden)
        self.fall = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return self.fall(F.gelu(self.rise(x), approximate="tanh"))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: OctoConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.token_dim, eps=LAYER_NORM_EPS)
        self.attention = Attention(config.token_dim, config.heads)
        self.mlp_norm = nn.LayerNorm(config.token_dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(config.token_dim, config.mlp_dim)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        x = x + self.attention(self.attention_norm(x), bias)
        return x + self.mlp(self.mlp_norm(x))


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Which inputs are real. None means: all of them. Keys of ``images`` are Octo's image names."""

    timesteps: Tensor | None = None
    """(B, T) bool."""
    language: Tensor | None = None
    """(B,) bool: there is an instruction."""
    images: Mapping[str, Tensor] | None = None
    """(B, T) bool by image name."""


class OctoTransformer(nn.Module):
    """Images and an instruction to readout tokens; the embedding is the mean of the last timestep's readouts."""

    def __init__(self, config: OctoConfig) -> None:
        super().__init__()
        self.config = config
        dim, horizon = config.token_dim, config.max_horizon
        self.stems = nn.ModuleDict({image.name: SmallStem(image) for image in config.images})
        self.image_projections = nn.ModuleDict(
            {image.name: nn.Linear(image.embedding_dim, dim) for image in config.images}
        )
        self.image_positions = nn.ParameterDict(
            {image.name: _position(1, horizon, image.tokens, dim) for image in config.images}
        )
        self.language_projection = nn.Linear(config.language_dim, dim)
        self.language_position = _position(1, config.language_tokens, dim)
        self.readout_position = _position(1, horizon, config.readout_tokens, dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)

    def language_block(self, language: Tensor) -> Tensor:
        """Encoded instruction (B, language_tokens, language_dim) -> its tokens (B, language_tokens, dim)."""
        return self.language_projection(language) + self.language_position

    def image_block(self, name: str, images: Tensor, goal: Tensor | None = None) -> Tensor:
        """Images (N, H, W, 3) uint8 -> tokens (N, n, dim) without position. goal: (N, H, W, 3) uint8 or None."""
        size = next(image.size for image in self.config.images if image.name == name)
        goal_pixels = None if goal is None else reduce_image(goal, size)
        return self.image_projections[name](self.stems[name](reduce_image(images, size), goal_pixels))

    def tokens(
        self, images: Mapping[str, Tensor], language: Tensor, goals: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The whole input sequence: prefix (B, L, dim) and timesteps (B, T, step_tokens, dim)."""
        prefix = self.language_block(language)
        parts = []
        for image in self.config.images:
            frames = images[image.name]
            batch, steps = frames.shape[:2]
            goal = None
            if goals is not None:
                goal = goals[image.name][:, None].expand_as(frames).flatten(0, 1)
            block = self.image_block(image.name, frames.flatten(0, 1), goal)
            parts.append(block.unflatten(0, (batch, steps)) + self.image_positions[image.name][:, :steps])
        if self.config.repeat_task_tokens:
            parts.append(prefix[:, None].expand(batch, steps, -1, -1))
        parts.append(self.readout_position[:, :steps].expand(batch, -1, -1, -1))
        return prefix, torch.cat(parts, dim=2)

    def attention_mask(self, batch: int, steps: int, padding: Padding | None = None) -> Tensor:
        """(B, N, N) bool, query by key: the structure and the padding of the keys."""
        device = self.norm.weight.device
        structure = torch.from_numpy(structural_mask(self.config, steps)).to(device)
        keys = self._key_mask(batch, steps, padding or Padding(), device)
        return structure & keys[:, None, :]

    def _key_mask(self, batch: int, steps: int, padding: Padding, device: torch.device) -> Tensor:
        """(B, N) bool: keys that are not padded. Repeated language follows the task's mask, not the timestep's."""
        config = self.config
        ones = torch.ones(batch, steps, dtype=torch.bool, device=device)
        timesteps = ones if padding.timesteps is None else padding.timesteps.to(device)
        language = ones[:, 0] if padding.language is None else padding.language.to(device)
        real_images = padding.images or {}
        parts = []
        for image in config.images:
            real = timesteps & real_images[image.name].to(device) if image.name in real_images else timesteps
            parts.append(real[..., None].expand(-1, -1, image.tokens))
        if config.repeat_task_tokens:
            parts.append(language[:, None, None].expand(-1, steps, config.language_tokens))
        parts.append(ones[..., None].expand(-1, -1, config.readout_tokens))
        prefix = language[:, None].expand(-1, config.language_tokens)
        return torch.cat([prefix, torch.cat(parts, dim=2).flatten(1)], dim=1)

    def sequence(
        self,
        images: Mapping[str, Tensor],
        language: Tensor,
        *,
        padding: Padding | None = None,
        goals: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Every output token, the language prefix first: (B, N, dim); arguments as for ``forward``."""
        prefix, timesteps = self.tokens(images, language, goals)
        batch, steps = timesteps.shape[:2]
        bias = logit_bias(self.attention_mask(batch, steps, padding), timesteps.dtype)[:, None]
        x = torch.cat([prefix, timesteps.flatten(1, 2)], dim=1)
        for block in self.blocks:
            x = block(x, bias)
        return self.norm(x)

    def forward(
        self,
        images: Mapping[str, Tensor],
        language: Tensor,
        *,
        padding: Padding | None = None,
        goals: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Readout tokens of every timestep, (B, T, readout_tokens, dim).

        images: (B, T, H, W, 3) uint8 by Octo's image name. language: (B, language_tokens, language_dim).
        goals: (B, H, W, 3) uint8 by image name; None is a task given by text alone.
        """
        x = self.sequence(images, language, padding=padding, goals=goals)
        timesteps = x[:, self.config.language_tokens :].unflatten(1, (-1, self.config.step_tokens))
        return timesteps[:, :, -self.config.readout_tokens :]

    def embed(self, images: Mapping[str, Tensor], language: Tensor, *, padding: Padding | None = None) -> Tensor:
        """The embedding of the last timestep, (B, dim); arguments as for ``forward``."""
        return self.forward(images, language, padding=padding)[:, -1].mean(dim=1)


def logit_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where reading is allowed, else the lowest finite number (not -inf: a fully masked row stays finite)."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def _position(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * POSITION_STD)
