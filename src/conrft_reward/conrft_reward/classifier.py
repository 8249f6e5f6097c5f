"""The success classifier as it is stored and used: an ensemble of small networks on small images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from conrft_data.config import TaskConfig
from conrft_data.durable_files import publish, sync_file
from conrft_data.images import crop_and_resize
from conrft_data.types import Image, Observation
from conrft_reward.network import SuccessNetwork, normalised

FORMAT = 1

_METADATA_KEY = "conrft_reward"


class ClassifierError(ValueError):
    """A classifier cannot be loaded or does not fit; the text names the file or camera, and why."""


class ClassifierConfig(BaseModel):
    """What a classifier is, beside its numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(default=FORMAT, ge=FORMAT, le=FORMAT)
    task: str = Field(min_length=1, description="name of the task")
    cameras: dict[str, tuple[int, int]] = Field(min_length=1, description="width and height by name, pixels")
    size: int = Field(default=64, ge=32, le=256, multiple_of=8, description="side of the thumbnails, pixels")
    members: int = Field(default=3, ge=1, le=9, description="networks in the ensemble")
    threshold: float = Field(default=0.9, gt=0, lt=1, description="probability from which a frame counts as success")
    seed: int = Field(default=0, ge=0, description="that it was trained with")


class SuccessClassifier:
    """Probability that a frame shows the task done: the lowest of the ensemble's.

    The members agree where the data speak and differ where nothing like the frame was ever labelled. Taking the lowest
    makes the classifier doubt exactly there, because online training finds and exploits every false positive.
    """

    def __init__(self, config: ClassifierConfig, networks: Sequence[SuccessNetwork] | None = None) -> None:
        self.config = config
        made = networks or [SuccessNetwork(len(config.cameras), config.size) for _ in range(config.members)]
        self.networks = torch.nn.ModuleList(made).eval()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.networks.parameters()).device

    def to(self, device: torch.device | str) -> SuccessClassifier:
        """Moves it to a torch device."""
        self.networks.to(device)
        return self

    def thumbnails(self, images: Mapping[str, Image]) -> NDArray[np.uint8]:
        """The small images ``(cameras, S, S, 3)`` of one frame; raises ClassifierError where one does not fit."""
        return thumbnails(images, self.config.cameras, self.config.size)

    def probability(self, observation: Observation) -> float:
        """Probability of success on this frame alone, 0..1."""
        return float(self.probabilities(torch.from_numpy(self.thumbnails(observation.images))[None])[0])

    def probabilities(self, frames: Tensor) -> NDArray[np.float32]:
        """Probabilities ``(N,)`` of thumbnails ``(N, cameras, S, S, 3)`` uint8."""
        results = []
        with torch.inference_mode():
            for part in frames.split(256):
                images = normalised(part.to(self.device))
                logits = torch.stack([network(images) for network in self.networks])
                results.append(torch.sigmoid(logits.min(dim=0).values).cpu())
        return torch.cat(results).numpy() if results else np.zeros(0, dtype=np.float32)

    def check_task(self, task: TaskConfig) -> None:
        """Raises ClassifierError when it was trained for another task or for other images."""
        if self.config.task != task.name:
            raise ClassifierError(f"the classifier was trained for task {self.config.task!r}, this is {task.name!r}")
        if self.config.cameras != camera_sizes(task):
            sizes = f"{self.config.cameras}, the task has {camera_sizes(task)}"
            raise ClassifierError(f"the classifier was trained on cameras {sizes}")

    def save(self, file: str | Path) -> None:
        """Writes safetensors with the configuration in its metadata; a reader finds the old file or the new one."""
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.networks.state_dict().items()}
        try:
            temporary.write_bytes(save_tensors(tensors, {_METADATA_KEY: self.config.model_dump_json()}))
            sync_file(temporary)
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, file: str | Path) -> SuccessClassifier:
        """Reads what ``save`` wrote; raises ClassifierError when it is missing, damaged or of another form."""
        try:
            with safe_open(file, framework="pt") as stored:
                text = (stored.metadata() or {})[_METADATA_KEY]
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, not a dict
            classifier = cls(ClassifierConfig.model_validate_json(text))
            classifier.networks.load_state_dict(tensors, strict=True)
        except KeyError as error:
            raise ClassifierError(f"{file}: is no success classifier") from error
        except (OSError, SafetensorError, ValidationError, RuntimeError) as error:
            raise ClassifierError(f"{file}: cannot be read: {error}") from error
        if not all(torch.isfinite(value).all() for value in tensors.values()):
            raise ClassifierError(f"{file}: holds numbers that are not finite")
        return classifier


def camera_sizes(task: TaskConfig) -> dict[str, tuple[int, int]]:
    """Width and height of the task's images by camera, in the task's order."""
    return {name: (camera.width, camera.height) for name, camera in task.cameras.items()}


def thumbnails(images: Mapping[str, Image], cameras: Mapping[str, tuple[int, int]], size: int) -> NDArray[np.uint8]:
    """Images ``(H, W, 3)`` of ``cameras`` (width, height), in their order, shrunk to ``(cameras, size, size, 3)``."""
    small = []
    for name, (width, height) in cameras.items():
        image = images.get(name)
        if image is None or image.shape != (height, width, 3):
            got = "none" if image is None else f"{image.shape[1]}x{image.shape[0]}"
            raise ClassifierError(f"camera '{name}': expected {width}x{height} pixels, got {got}")
        small.append(crop_and_resize(image, size, size, source=name))
    return np.stack(small)
