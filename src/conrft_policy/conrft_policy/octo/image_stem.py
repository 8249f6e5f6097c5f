"""Octo's image tokenizer: a small convolutional stem, one token for each patch."""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ImageConfig

STANDARDISATION_EPS = 1e-5  # added to the standard deviation, not to the variance
GROUP_NORM_EPS = 1e-6


class StandardisedConv2d(nn.Conv2d):
    """A 3x3 stride-2 convolution whose weights are standardised for each output channel; the bias is left alone."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=2, padding=1)

    def standardised_weight(self) -> Tensor:
        """(out, in, 3, 3): zero mean and unit population deviation over everything but the output channel."""
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        deviation = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return centred / (deviation + STANDARDISATION_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H/2, W/2)."""
        return F.conv2d(x, self.standardised_weight(), self.bias, stride=2, padding=1)


def reduce_image(images: Tensor, size: int) -> Tensor:
    """Average (N, H, W, 3) uint8 down to (N, 3, size, size) float32, still in 0..255."""
    channels_first = images.permute(0, 3, 1, 2).contiguous().float()
    factor = images.shape[1] // size
    return channels_first if factor == 1 else F.avg_pool2d(channels_first, factor)


def normalise(pixels: Tensor) -> Tensor:
    """0..255 -> -1..1. A missing goal image is all zeros and so becomes -1 everywhere, not 0."""
    return pixels / 127.5 - 1.0


class SmallStem(nn.Module):
    """Stride-2 convolutions with group normalisation, closed by a 1x1 convolution (``SmallStem16``)."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        channels = (6, *config.features)
        pairs = list(itertools.pairwise(channels))
        self.convolutions = nn.ModuleList(StandardisedConv2d(*pair) for pair in pairs)
        self.norms = nn.ModuleList(nn.GroupNorm(config.groups, out, eps=GROUP_NORM_EPS) for _, out in pairs)
        self.embedding = nn.Conv2d(config.features[-1], config.embedding_dim, kernel_size=1)

    def forward(self, pixels: Tensor, goal: Tensor | None = None) -> Tensor:
        """Tokenize images.

        pixels: (N, 3, H, W) in 0..255. goal: the same, or None for no goal image.
        Returns (N, tokens, embedding_dim), row by row.
        """
        if goal is None:
            x = self._first_without_goal(normalise(pixels))
        else:
            x = self.convolutions[0](normalise(torch.cat([pixels, goal], dim=1)))
        x = F.relu(self.norms[0](x))
        for convolution, norm in zip(self.convolutions[1:], self.norms[1:], strict=True):
            x = F.relu(norm(convolution(x)))
        return self.embedding(x).flatten(2).transpose(1, 2)

    def _first_without_goal(self, x: Tensor) -> Tensor:
        """The first convolution of images whose goal is missing; the goal's share is the same for all of them."""
        first = cast(StandardisedConv2d, self.convolutions[0])
        weight = first.standardised_weight()
        goal = normalise(torch.zeros_like(x[:1]))
        share = F.conv2d(goal, weight[:, 3:], first.bias, stride=2, padding=1)
        return F.conv2d(x, weight[:, :3], stride=2, padding=1) + share
