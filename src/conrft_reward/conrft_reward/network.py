"""The success classifier's network: small enough to train on one core in under a minute."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Kernel, stride and output channels of each convolution. The first takes large steps: it is where the time goes.
CONVOLUTIONS = ((8, 4, 24), (4, 2, 32))
FEATURES = 48
DROPOUT = 0.25


class CameraEncoder(nn.Sequential):
    """One camera's image ``(B, 3, S, S)`` to features ``(B, FEATURES)``; no pooling, so where things are counts."""

    def __init__(self, size: int) -> None:
        layers: list[nn.Module] = []
        width = 3
        for kernel, stride, channels in CONVOLUTIONS:
            layers += [nn.Conv2d(width, channels, kernel, stride, padding=(kernel - stride) // 2), nn.ReLU()]
            width, size = channels, size // stride
        cells = size * size
        layers += [nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(width * cells, FEATURES), nn.ReLU()]
        super().__init__(*layers)


class SuccessNetwork(nn.Module):
    """Images of all cameras to one logit."""

    def __init__(self, cameras: int, size: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(CameraEncoder(size) for _ in range(cameras))
        self.output = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(cameras * FEATURES, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B,)`` of images ``(B, cameras, 3, S, S)`` in [-0.5, 0.5]."""
        features = [encoder(images[:, index]) for index, encoder in enumerate(self.encoders)]
        return self.output(torch.cat(features, dim=1)).squeeze(1)


def normalised(thumbnails: Tensor) -> Tensor:
    """Images ``(..., S, S, 3)`` uint8 as ``(..., 3, S, S)`` float in [-0.5, 0.5]."""
    return thumbnails.movedim(-1, -3).float().div_(255).sub_(0.5)
