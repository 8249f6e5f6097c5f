"""Frozen feature maps of camera images, computed once for each frame, when its episode is ingested.

The official code augments each batch by random crops and so has to run its image encoder in every update. Here each
frame is stored in a bank of several random crops, and a batch draws one of them for each sample.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from conrft_data.types import Episode
from conrft_learner.resnet10 import CHANNELS, IMAGE_SIZE, POSITIONS, ResNet10, load_resnet10, random_resnet10

PADDING = 4  # pixels of repeated edge around the image, before it is resized
RANDOM_WEIGHTS = "random"
MAP_SHAPE = (CHANNELS, POSITIONS)
MAP_TYPE = "float16"
IMAGES_AT_ONCE = 16  # bounds the memory, and is as fast as more

Maps = NDArray[np.float16]
Frames = NDArray[np.uint8]


class ImageFeatures:
    """Images of an episode to ResNet-10 feature maps, each frame in ``crop_bank`` random crops.

    Attributes:
        cameras: whose images are encoded.
        crop_bank: K, crops of each frame; 1: the whole image, no crop.
    """

    def __init__(self, encoder: ResNet10, cameras: Sequence[str], *, crop_bank: int = 1, seed: int = 0) -> None:
        """``encoder`` stays on its device; ``seed`` decides the crops, together with episode and camera."""
        self.cameras = tuple(cameras)
        self.crop_bank = crop_bank
        self._encoder = encoder.eval()
        self._seed = seed
        self._device = encoder.mean.device

    @property
    def fingerprint(self) -> str:
        """Of all that the features depend on beside the images."""
        values = [self._encoder.fingerprint, list(self.cameras), self.crop_bank, self._seed]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    def encode_episode(self, episode: Episode) -> dict[str, Maps]:
        """Feature maps ``(T + 1, K, 512, 16)`` by camera; raises ValueError when an image is missing."""
        return {camera: self.encode(episode.episode_id, camera, _frames(episode, camera)) for camera in self.cameras}

    def encode(self, episode_id: str, camera: str, frames: Frames) -> Maps:
        """Feature maps ``(N, K, 512, 16)`` of one camera's frames ``(N, H, W, 3)``; the same for the same arguments."""
        bank = self.crop_bank
        maps = np.empty((len(frames) * bank, *MAP_SHAPE), dtype=MAP_TYPE)
        views = self._views(episode_id, camera, frames)
        for start in range(0, len(maps), IMAGES_AT_ONCE):
            part = maps[start : start + IMAGES_AT_ONCE]
            part[:] = self._encode_views([views(i) for i in range(start, start + len(part))])
        return maps.reshape(len(frames), bank, *MAP_SHAPE)

    @torch.inference_mode()
    def _encode_views(self, views: list[Frames]) -> Maps:
        pixels = torch.from_numpy(np.stack(views)).to(self._device)
        maps = self._encoder(resized(pixels)).contiguous().flatten(2).half()
        if not torch.isfinite(maps).all():
            raise ValueError(
                "the image encoder gives numbers that half precision does not hold: its weights are damaged"
            )
        return maps.cpu().numpy()

    def _views(self, episode_id: str, camera: str, frames: Frames) -> Callable[[int], Frames]:
        """View i: crop ``i % K`` of frame ``i // K``."""
        if self.crop_bank == 1:
            return lambda i: frames[i]
        rng = np.random.default_rng([self._seed, zlib.crc32(episode_id.encode()), zlib.crc32(camera.encode())])
        offsets = rng.integers(0, 2 * PADDING + 1, size=(len(frames) * self.crop_bank, 2))
        return lambda i: cropped(frames[i // self.crop_bank], offsets[i])


def load_image_features(
    weights: str,
    cameras: Sequence[str],
    *,
    crop_bank: int,
    seed: int,
    device: torch.device | str,
    report: Callable[[str], None],
) -> ImageFeatures:
    """Features by the ResNet-10 in a safetensors file, or by a random one, which is reported as what it is.

    Args:
        weights: the file, or ``random``.
        cameras: whose images are encoded.
        crop_bank: K.
        seed: of the crops, not of a random network: its features are the same in every run.
        device: of the encoder.
        report: takes a sentence for a person.

    Raises:
        ValueError: no weights are named, or they do not fit.
    """
    if not weights:
        raise ValueError(
            "critic 'paper' needs resnet_weights: the safetensors file of a ResNet-10, or 'random' for features of a "
            "network that has learned nothing"
        )
    if weights == RANDOM_WEIGHTS:
        report(
            "WARNING: the critic's image encoder has RANDOM weights (resnet_weights: random); it has learned nothing"
        )
        encoder = random_resnet10()
    else:
        encoder = load_resnet10(Path(weights).expanduser())
    return ImageFeatures(encoder.to(device), cameras, crop_bank=crop_bank, seed=seed)


def cropped(image: Frames, offset: Sequence[int] | NDArray[np.int64]) -> Frames:
    """Image ``(H, W, 3)`` shifted by ``offset`` (down, right) in 0..8 minus 4 pixels, its edge repeated."""
    rows, columns = (
        np.clip(np.arange(size) + int(shift) - PADDING, 0, size - 1)
        for size, shift in zip(image.shape[:2], offset, strict=True)
    )
    return image[rows[:, None], columns]


def resized(images: Tensor) -> Tensor:
    """Images ``(N, H, W, 3)`` uint8 to ``(N, 3, 128, 128)`` float, 0..255, unrounded (bilinear with anti-aliasing)."""
    pixels = images.permute(0, 3, 1, 2).float()
    if pixels.shape[2:] == (IMAGE_SIZE, IMAGE_SIZE):
        return pixels
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)


def _frames(episode: Episode, camera: str) -> Frames:
    try:
        return np.stack([o.images[camera] for o in episode.observations[: len(episode) + 1]])
    except KeyError:
        raise ValueError(f"episode {episode.episode_id} has no images of camera {camera}") from None
