"""A vision-language model behind the seam of ``conrft_policy.backbone``.

Its folder holds config.json, which names the model: a folder beside it, or an id on the hub. Opening one reads the
weights once for the fingerprint; they are loaded into memory with the first frame, so a learner that finds every
embedding in its bags never has them.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from conrft_policy.backbone import BackboneError, Embedding, Images, check_images

from .action_token import load_action_token, reader_class
from .config import RoboVlmConfig, VlmConfig, parse_config, resolve_precision
from .pretrained import Pretrained, find_model
from .prompt import PromptReader

FRAMES_AT_ONCE = 8  # bounds the memory of encode_episode


class Reader(Protocol):
    """A model in memory, for one instruction."""

    def read(self, images: Images) -> Tensor:
        """Images (N, H, W, 3) uint8 RGB by camera -> (N, width)."""


@dataclass(frozen=True)
class Opened:
    """What is known of a model before its weights are loaded."""

    width: int
    """Of the embedding of one frame."""
    parameters: int
    fingerprint: str
    load: Callable[[], Reader]


class VlmBackbone:
    """A vision-language model as a ``Backbone``.

    Every frame is read by itself, once, and an embedding is what was read of the last ``history`` frames, oldest
    first. The first frame of an episode is its own predecessor.
    """

    def __init__(self, config: VlmConfig, instruction: str, precision: torch.dtype, opened: Opened) -> None:
        """``load`` of this module makes one from a folder."""
        self._config = config
        self._instruction = instruction
        self._precision = precision
        self._opened = opened

    @property
    def embedding_dim(self) -> int:
        """D, the width of an embedding: that of one frame, times the frames."""
        return self._config.history * self._opened.width

    @property
    def history(self) -> int:
        """Frames that one embedding is made of."""
        return self._config.history

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras."""
        return tuple(camera.camera for camera in self._config.cameras)

    @property
    def image_sizes(self) -> Mapping[str, tuple[int, int]]:
        """Height and width of each camera's images, pixels."""
        return {camera.camera: (camera.height, camera.width) for camera in self._config.cameras}

    @property
    def instruction(self) -> str:
        """The text that it follows."""
        return self._instruction

    @property
    def precision(self) -> str:
        """What its weights and its arithmetic are."""
        return str(self._precision).removeprefix("torch.")

    @property
    def parameters(self) -> int:
        """Number of parameters in the model's files."""
        return self._opened.parameters

    @property
    def memory_bytes(self) -> int:
        """Memory of the parameters once they are loaded."""
        return self._opened.parameters * self._precision.itemsize

    @property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 over weights, processor, configuration, precision and instruction."""
        return self._opened.fingerprint

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return "_reader" in self.__dict__

    def encode_episode(self, images: Images) -> Embedding:
        """Embed a whole episode: images (T, H, W, 3) uint8 RGB by camera -> (T, D); each frame is read once."""
        check_images(images, self.image_sizes)
        steps = len(images[self.cameras[0]])
        read = [
            self._read({camera: images[camera][start : start + FRAMES_AT_ONCE] for camera in self.cameras})
            for start in range(0, steps, FRAMES_AT_ONCE)
        ]
        if not read:
            return np.zeros((0, self.embedding_dim), dtype=np.float32)
        window = np.arange(steps)[:, None] + np.arange(1 - self.history, 1)
        return np.concatenate(read)[window.clip(min=0)].reshape(steps, self.embedding_dim)

    def stream(self) -> VlmStream:
        """A new stream, as after ``reset``. Loads the weights: the first tick must not wait for them."""
        _ = self._reader
        return VlmStream(self)

    @cached_property
    def _reader(self) -> Reader:
        """The model, loaded, and tried on a black frame: what does not fit together shows here."""
        reader = self._opened.load()
        black = {name: np.zeros((1, *size, 3), dtype=np.uint8) for name, size in self.image_sizes.items()}
        try:
            with torch.inference_mode():
                shape = tuple(reader.read(black).shape)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            raise BackboneError(
                f"{self._config.model}: cannot read {len(black)} images and an instruction as config.json asks: {error}"
            ) from error
        if shape != (1, self._opened.width):
            raise BackboneError(f"{self._config.model}: gives {shape}, its config.json says {(1, self._opened.width)}")
        return reader

    @torch.inference_mode()
    def _read(self, images: Images) -> Embedding:
        """Images (N, H, W, 3) by camera -> (N, width)."""
        return np.asarray(self._reader.read(images).float().cpu().numpy(), dtype=np.float32)


class VlmStream:
    """The acting path of a ``VlmBackbone``: a tick reads one frame, earlier ones are kept as they were read."""

    def __init__(self, backbone: VlmBackbone) -> None:
        self._backbone = backbone
        self._window: deque[Embedding] = deque(maxlen=backbone.history)

    def reset(self) -> None:
        """Forget the episode; the next frame is its own predecessor."""
        self._window.clear()

    def step(self, images: Images) -> Embedding:
        """Embed the next frame: images (H, W, 3) uint8 RGB by camera -> (D,)."""
        frame = {camera: image[None] for camera, image in images.items()}
        check_images(frame, self._backbone.image_sizes)
        newest = self._backbone._read(frame)[0]
        missing = 1 if self._window else self._backbone.history
        self._window.extend([newest] * missing)
        return np.concatenate(self._window)


def load(
    folder: Path,
    config: dict[str, Any],
    task: str,
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> VlmBackbone:
    """Open the backbone in ``folder`` for one task (its name in ``instructions``, or the instruction's text).

    Raises BackboneError with file and reason. Names and shapes of the weights are checked when they are loaded.
    """
    section, precision_name = parse_config(folder, config)
    place = torch.device(device) if device is not None else torch.get_default_device()
    precision = resolve_precision(precision_name, place, dtype)
    instruction = section.instruction(task)
    pretrained = Pretrained(find_model(section.model, folder, section.revision))
    if isinstance(section, RoboVlmConfig):
        opened = _open_robovlm(folder, section, pretrained, instruction, precision, place)
    else:
        opened = _open_any(section, pretrained, instruction, precision, place)
    return VlmBackbone(section, instruction, precision, opened)


def _open_robovlm(
    folder: Path,
    config: RoboVlmConfig,
    pretrained: Pretrained,
    instruction: str,
    dtype: torch.dtype,
    place: torch.device,
) -> Opened:
    kind = reader_class(pretrained)
    width = kind.width(pretrained.config)
    token = load_action_token(folder / config.action_token if config.action_token else None, width)
    learned = "" if token is None else hashlib.sha256(token.numpy().tobytes()).hexdigest()
    text, cameras = _text(config, kind.prompt, instruction), tuple(camera.camera for camera in config.cameras)
    return Opened(
        width=width,
        parameters=pretrained.parameters,
        fingerprint=_fingerprint(config, pretrained, text, dtype, learned),
        load=partial(kind, pretrained, token, text, cameras, dtype=dtype, device=place),
    )


def _open_any(
    config: VlmConfig, pretrained: Pretrained, instruction: str, dtype: torch.dtype, place: torch.device
) -> Opened:
    text, cameras = _text(config, PromptReader.prompt, instruction), tuple(camera.camera for camera in config.cameras)
    return Opened(
        width=PromptReader.width(pretrained),
        parameters=pretrained.parameters,
        fingerprint=_fingerprint(config, pretrained, text, dtype, ""),
        load=partial(PromptReader, pretrained, text, cameras, dtype=dtype, device=place),
    )


def _text(config: VlmConfig, prompt: str, instruction: str) -> str:
    return (config.prompt or prompt).replace("{instruction}", instruction.strip())


def _fingerprint(config: VlmConfig, pretrained: Pretrained, text: str, dtype: torch.dtype, learned: str) -> str:
    """Where the model lies and what other tasks are called does not change an embedding; everything else may."""
    header = {
        "kind": type(config).__name__,
        "settings": config.model_dump(
            mode="json", exclude={"model", "revision", "instructions", "prompt", "action_token"}
        ),
        "text": text,
        "precision": str(dtype),
        "action_token": learned,
        "model": pretrained.fingerprint(),
    }
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
