"""The seam to a frozen vision-language-action backbone: camera images in, one embedding vector out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from conrft_policy.instructions import Instruction, InstructionError, load_instruction
from conrft_policy.octo.config import ImageConfig, OctoConfig, OctoConfigError
from conrft_policy.octo.frozen import FrozenOcto
from conrft_policy.octo.model import OctoTransformer

Images = Mapping[str, NDArray[np.uint8]]
Embedding = NDArray[np.float32]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"
INSTRUCTIONS_FILE = "instructions.safetensors"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FRAMES_AT_ONCE = 16  # bounds the memory of encode_episode


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
    def fingerprint(self) -> str:
        """Identifies weights, configuration, precision and instruction: equal fingerprints, equal embeddings."""

    def encode_episode(self, images: Images) -> Embedding:
        """Embed a whole episode: images (T, H, W, 3) uint8 RGB by camera -> (T, D)."""

    def stream(self) -> EmbeddingStream:
        """A new stream, as after ``reset``."""


class OctoBackbone:
    """An Octo of any size as a ``Backbone``. The first frame of an episode is its own predecessor."""

    def __init__(self, model: OctoTransformer, instruction: Instruction, *, dtype: torch.dtype = torch.float32) -> None:
        """``model`` is taken over (cast to ``dtype``, frozen) and stays on its device."""
        self._config = config = model.config
        _check_tokens(config, instruction)
        self._fingerprint = _fingerprint(model, instruction, dtype)
        self._device = model.norm.weight.device
        language = torch.from_numpy(instruction.tokens).to(self._device, dtype)
        self._octo = FrozenOcto(model.to(dtype), language)
        self.instruction = instruction.entry.instruction

    @property
    def embedding_dim(self) -> int:
        """D, the width of an embedding."""
        return self._config.token_dim

    @property
    def history(self) -> int:
        """Frames in the window."""
        return self._config.window

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras, in token order."""
        return tuple(image.camera for image in self._config.images)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 over weights, configuration, precision and instruction."""
        return self._fingerprint

    @torch.inference_mode()
    def encode_episode(self, images: Images) -> Embedding:
        """Embed a whole episode: images (T, H, W, 3) uint8 RGB by camera -> (T, D); each stem runs once a frame."""
        steps = len(next(iter(images.values()), ()))
        tokens = [self._tokens(_cut(images, start)) for start in range(0, steps, FRAMES_AT_ONCE)]
        if not tokens:
            return np.zeros((0, self.embedding_dim), dtype=np.float32)
        frames = torch.cat(tokens)
        offsets = torch.arange(1 - self.history, 1, device=self._device)
        window = (torch.arange(steps, device=self._device)[:, None] + offsets).clamp_(min=0)
        embeddings = [self._octo.embed(frames[rows]) for rows in window.split(FRAMES_AT_ONCE)]
        return _to_numpy(torch.cat(embeddings))

    def stream(self) -> OctoStream:
        """A new stream, as after ``reset``."""
        return OctoStream(self)

    def _tokens(self, images: Images) -> Tensor:
        """Image tokens of (N, H, W, 3) frames, (N, image_tokens, dim)."""
        frames = {image.name: self._frames(image, images) for image in self._config.images}
        return self._octo.image_tokens(frames)

    def _frames(self, image: ImageConfig, images: Images) -> Tensor:
        if image.camera not in images:
            raise BackboneError(f"no image of camera {image.camera!r}; cameras given: {sorted(images)}")
        frames = images[image.camera]
        expected = (image.source_size, image.source_size, 3)
        if frames.shape[1:] != expected or frames.dtype != np.uint8:
            raise BackboneError(
                f"camera {image.camera!r}: image is {frames.shape[1:]} {frames.dtype}, the backbone expects "
                f"{expected} uint8"
            )
        return torch.from_numpy(_writable(frames)).to(self._device)


class OctoStream:
    """The acting path of an ``OctoBackbone``: keeps the image tokens of the frames still in the window."""

    def __init__(self, backbone: OctoBackbone) -> None:
        self._backbone = backbone
        self._window: list[Tensor] = []

    def reset(self) -> None:
        """Forget the episode."""
        self._window = []

    @torch.inference_mode()
    def step(self, images: Images) -> Embedding:
        """Embed the next frame: images (H, W, 3) uint8 RGB by camera -> (D,)."""
        newest = self._backbone._tokens({camera: image[None] for camera, image in images.items()})
        history = self._backbone.history
        self._window = [*(self._window or [newest] * history), newest][-history:]
        return _to_numpy(self._backbone._octo.embed(torch.stack(self._window, dim=1)))[0]


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
) -> OctoBackbone:
    """Load a frozen backbone for one instruction.

    name_or_folder: a shipped backbone such as ``octo-nano``, or a folder {config.json, weights.safetensors,
    instructions.safetensors}. task: the task's name, or the instruction's text. device: torch's default if None.
    dtype: what config.json names as ``precision`` if None. Raises BackboneError with file and reason.
    """
    folder = backbone_folder(name_or_folder)
    config, precision = read_config(folder)
    try:
        instruction = load_instruction(folder / INSTRUCTIONS_FILE, task)
    except InstructionError as error:
        raise BackboneError(str(error)) from error
    model = load_octo(folder / WEIGHTS_FILE, config)
    return OctoBackbone(model.to(device or torch.get_default_device()), instruction, dtype=dtype or precision)


def read_config(folder: Path) -> tuple[OctoConfig, torch.dtype]:
    """Sizes and precision from a backbone's config.json; BackboneError names file and key."""
    path = folder / CONFIG_FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["architecture"] != "octo":
            raise BackboneError(f"{path}: architecture {values['architecture']!r} is unknown; known: 'octo'")
        if values["precision"] not in PRECISIONS:
            raise BackboneError(f"{path}: precision {values['precision']!r} is none of {sorted(PRECISIONS)}")
        return OctoConfig.from_json(values["octo"]), PRECISIONS[values["precision"]]
    except KeyError as error:
        raise BackboneError(f"{path}: key {error} is missing") from error
    except (OSError, json.JSONDecodeError, OctoConfigError) as error:
        raise BackboneError(f"{path}: {error}") from error


def load_octo(path: Path, config: OctoConfig) -> OctoTransformer:
    """A transformer in float32 from a safetensors file; names and shapes must fit exactly, else BackboneError."""
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BackboneError(f"{path}: weights missing, cut off or damaged ({error})") from error
    with torch.device("meta"):
        model = OctoTransformer(config)
    try:
        model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=True, assign=True)
    except RuntimeError as error:
        raise BackboneError(f"{path}: weights do not fit {CONFIG_FILE}: {error}") from error
    return model


def write_config(folder: Path, config: OctoConfig, *, precision: str) -> None:
    """Write a backbone's config.json, which ``read_config`` reads back."""
    values = {"architecture": "octo", "precision": precision, "octo": config.to_json()}
    (folder / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _fingerprint(model: OctoTransformer, instruction: Instruction, dtype: torch.dtype) -> str:
    digest = hashlib.sha256()
    header = {"config": model.config.to_json(), "precision": str(dtype), "instruction": instruction.entry.instruction}
    digest.update(json.dumps(header, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(instruction.tokens).tobytes())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_tokens(config: OctoConfig, instruction: Instruction) -> None:
    expected = (config.language_tokens, config.language_dim)
    if instruction.tokens.shape != expected:
        raise BackboneError(
            f"instruction {instruction.entry.instruction!r}: tokens are {instruction.tokens.shape}, "
            f"the backbone expects {expected}"
        )


def _cut(images: Images, start: int) -> Images:
    return {camera: frames[start : start + FRAMES_AT_ONCE] for camera, frames in images.items()}


def _writable(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Torch shares memory only with writable, contiguous arrays; a view into a message is often neither."""
    ready = frames.flags.writeable and frames.flags.c_contiguous
    return frames if ready else frames.copy()


def _to_numpy(values: Tensor) -> Embedding:
    return np.asarray(values.float().cpu().numpy(), dtype=np.float32)
