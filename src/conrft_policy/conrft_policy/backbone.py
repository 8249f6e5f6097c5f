"""The seam to a frozen vision-language-action backbone: camera images in, one embedding vector out.

A backbone is a folder with a config.json, whose ``architecture`` names what loads it (``LOADERS``). Policy, learner and
demo know nothing else of a backbone than what stands here; docs/backbones.md shows how to add one.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

Images = Mapping[str, NDArray[np.uint8]]
Embedding = NDArray[np.float32]

CONFIG_FILE = "config.json"

LOADERS = {
    "octo": "conrft_policy.octo.backbone:load",
    "robovlm": "conrft_policy.vlm.backbone:load",
    "transformers": "conrft_policy.vlm.backbone:load",
}
"""``architecture`` in config.json -> ``module:function``, a ``Loader``. A module is imported when it is needed."""


class BackboneError(ValueError):
    """A backbone that cannot be loaded, or images that it cannot take; the message names the file or the camera."""


class EmbeddingStream(Protocol):
    """Embeddings of one episode as it happens; what can be reused of earlier frames is."""

    def reset(self) -> None:
        """Forget the episode; the next frame is its own predecessor."""

    def step(self, images: Images) -> Embedding:
        """Embed the next frame: images (H, W, 3) uint8 RGB by camera -> (D,)."""


class Backbone(Protocol):
    """A frozen backbone for one instruction."""

    @property
    def embedding_dim(self) -> int:
        """D, the width of an embedding."""

    @property
    def history(self) -> int:
        """Frames that one embedding is computed from, the current one included."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that it reads."""

    @property
    def image_sizes(self) -> Mapping[str, tuple[int, int]]:
        """Height and width of each camera's images, pixels; one that takes any size says what it is meant for."""

    @property
    def instruction(self) -> str:
        """The text that it follows."""

    @property
    def precision(self) -> str:
        """What its weights and its arithmetic are, for example ``float32``, ``bfloat16`` or ``int8``."""

    @property
    def parameters(self) -> int:
        """Number of its parameters."""

    @property
    def memory_bytes(self) -> int:
        """Memory of its parameters and constants on its device."""

    @property
    def fingerprint(self) -> str:
        """Identifies weights, configuration, precision and instruction: equal fingerprints, equal embeddings."""

    def encode_episode(self, images: Images) -> Embedding:
        """Embed a whole episode: images (T, H, W, 3) uint8 RGB by camera -> (T, D)."""

    def stream(self) -> EmbeddingStream:
        """A new stream, as after ``reset``."""


class Loader(Protocol):
    """What stands behind an ``architecture``."""

    def __call__(
        self,
        folder: Path,
        config: dict[str, Any],
        task: str,
        *,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> Backbone:
        """Load the backbone in ``folder`` for one task (its name, or the instruction's text).

        config: the folder's parsed config.json; the loader refuses keys that it does not know. device: torch's default
        if None. dtype: what config.json asks for if None. Large weights may stay on disk until the first frame: a
        learner that finds all embeddings in its bags asks for the fingerprint only. Raises BackboneError with file and
        reason.
        """


def check_images(images: Images, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raises BackboneError unless each camera in ``sizes`` (H, W) has uint8 images (N, H, W, 3), all equally many."""
    first = next(iter(sizes))
    for camera, size in sizes.items():
        if camera not in images:
            raise BackboneError(f"no image of camera {camera!r}; cameras given: {sorted(images)}")
        frames, expected = images[camera], (*size, 3)
        if frames.shape[1:] != expected or frames.dtype != np.uint8:
            raise BackboneError(
                f"camera {camera!r}: image is {frames.shape[1:]} {frames.dtype}, the backbone expects {expected} uint8"
            )
        if len(frames) != len(images[first]):
            raise BackboneError(f"camera {camera!r}: {len(frames)} frames, {first!r} has another number")


def models_folder() -> Path:
    """Where the shipped backbones are: beside the sources, or under an installed package's share folder."""
    candidates = [Path(__file__).resolve().parent.parent / "models"]
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    candidates += [Path(prefix) / "share" / "conrft_policy" / "models" for prefix in prefixes if prefix]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise BackboneError(f"no shipped backbones found; looked in {', '.join(map(str, candidates))}")


def backbone_folder(name_or_folder: str | Path) -> Path:
    """The folder of a backbone: a path to one, or the name of a shipped one."""
    folder = Path(name_or_folder)
    if (folder / CONFIG_FILE).is_file():
        return folder
    shipped = models_folder()
    if folder.name == str(name_or_folder) and (shipped / folder / CONFIG_FILE).is_file():
        return shipped / folder
    names = sorted(entry.name for entry in shipped.iterdir() if (entry / CONFIG_FILE).is_file())
    raise BackboneError(f"{name_or_folder}: neither a folder with a {CONFIG_FILE} nor a shipped backbone ({names})")


def load_backbone(
    name_or_folder: str | Path,
    task: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Backbone:
    """Load a frozen backbone for one instruction.

    name_or_folder: a shipped backbone such as ``octo-nano``, or a backbone's folder. task: the task's name, or the
    instruction's text. device: torch's default if None. dtype: what config.json names as ``precision`` if None. Raises
    BackboneError with file and reason.
    """
    folder = backbone_folder(name_or_folder)
    config = read_config(folder)
    return _loader(config["architecture"])(folder, config, task, device=device, dtype=dtype)


def read_config(folder: Path) -> dict[str, Any]:
    """A backbone's config.json, its ``architecture`` known; else BackboneError."""
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path}: {error}") from error
    if not isinstance(config, dict) or "architecture" not in config:
        raise BackboneError(f"{path}: key 'architecture' is missing")
    if config["architecture"] not in LOADERS:
        raise BackboneError(f"{path}: architecture {config['architecture']!r} is unknown; known: {sorted(LOADERS)}")
    return config


def _loader(architecture: str) -> Loader:
    module, _, function = LOADERS[architecture].partition(":")
    return cast(Loader, getattr(importlib.import_module(module), function))
