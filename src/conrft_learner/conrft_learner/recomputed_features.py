"""The official way, kept as the reference that the learner's speed is compared with.

The official code stores images and runs the frozen networks on them in every update. This module does the same with
this project's own networks. Nothing but ``conrft bench learner`` uses it; it is beside that, and not in ``bench/``,
because an installed package has no ``bench/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from conrft_learner.image_features import PADDING, cropped, resized
from conrft_learner.replay import Batch, Indices
from conrft_learner.resnet10 import ResNet10
from conrft_policy.backbone import Backbone, Embedding
from conrft_policy.octo.backbone import OctoBackbone

IMAGES_AT_ONCE = 32

Frames = NDArray[np.uint8]


class RecomputedFeatures(Protocol):
    """Frozen features of a batch, from its images."""

    def fill(self, indices: Indices, batch: Batch) -> None:
        """Overwrites the batch's stored features by those of the frames ``indices`` and of their successors."""
        ...


class RecomputedMaps:
    """ResNet-10 feature maps of every camera, each image cropped at random."""

    def __init__(self, encoder: ResNet10, images: Mapping[str, Frames], rng: np.random.Generator) -> None:
        """``images``: the replay's frames ``(capacity, H, W, 3)`` by camera."""
        self._encoder, self._images, self._rng = encoder, images, rng

    def fill(self, indices: Indices, batch: Batch) -> None:
        """See :class:`RecomputedFeatures`."""
        for camera, images in self._images.items():
            batch[camera][:] = self._encode(images, indices)
            batch[f"next_{camera}"][:] = self._encode(images, indices + 1)

    @torch.inference_mode()
    def _encode(self, images: Frames, rows: Indices) -> NDArray[np.float32]:
        offsets = self._rng.integers(0, 2 * PADDING + 1, size=(len(rows), 2))
        views = np.stack([cropped(images[row], offset) for row, offset in zip(rows, offsets, strict=True)])
        parts = torch.from_numpy(views).split(IMAGES_AT_ONCE)
        return torch.cat([self._encoder(resized(part)).contiguous().flatten(2) for part in parts]).numpy()


class RecomputedEmbeddings:
    """Embeddings of the VLA backbone, for each state from its own window of frames."""

    def __init__(self, backbone: Backbone, images: Mapping[str, Frames], first: NDArray[np.bool_]) -> None:
        """``images``: the replay's frames ``(capacity, H, W, 3)`` by camera; ``first``: which begin an episode."""
        self._backbone, self._images, self._first = backbone, images, first

    def fill(self, indices: Indices, batch: Batch) -> None:
        """See :class:`RecomputedFeatures`."""
        batch["embedding"][:] = self._encode(indices)
        batch["next_embedding"][:] = self._encode(indices + 1)

    def _encode(self, rows: Indices) -> Embedding:
        if not isinstance(self._backbone, OctoBackbone):
            # As if the frames were one episode: what frames share is then computed once, to the reference's advantage.
            return self._backbone.encode_episode({name: images[rows] for name, images in self._images.items()})
        windows = [rows]
        for _ in range(self._backbone.history - 1):
            windows.insert(0, windows[0] - ~self._first[windows[0]])
        window = np.stack(windows, axis=1)
        return self._backbone.encode_windows({name: images[window] for name, images in self._images.items()})
