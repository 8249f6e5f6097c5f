"""An Octo of any size behind the seam of ``conrft_policy.backbone``.

Its folder holds {config.json, weights.safetensors, instructions.safetensors}.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from conrft_policy.backbone import CONFIG_FILE, BackboneError, Embedding, Images
from conrft_policy.instructions import Instruction, InstructionEntry, InstructionError, load_instruction
from conrft_policy.text_encoder import TextEncoderMissingError

from .config import ImageConfig, OctoConfig, OctoConfigError
from .frozen import FrozenOcto
from .model import OctoTransformer
from .t5_encoder import load_t5

WEIGHTS_FILE = "weights.safetensors"
INSTRUCTIONS_FILE = "instructions.safetensors"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FRAMES_AT_ONCE = 16  # bounds the memory of encode_episode


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
        self._instruction = instruction.entry.instruction
        self._precision = str(dtype).removeprefix("torch.")
        self._parameters = sum(parameter.numel() for parameter in model.parameters())

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
    def image_sizes(self) -> dict[str, tuple[int, int]]:
        """Height and width of each camera's images, pixels."""
        return {image.camera: (image.source_size, image.source_size) for image in self._config.images}

    @property
    def instruction(self) -> str:
        """The text that it follows."""
        return self._instruction

    @property
    def precision(self) -> str:
        """What its weights and its arithmetic are."""
        return self._precision

    @property
    def parameters(self) -> int:
        """Parameters of the whole transformer, before what is frozen was merged."""
        return self._parameters

    @property
    def memory_bytes(self) -> int:
        """Memory of parameters and constants."""
        return sum(value.nbytes for value in (*self._octo.parameters(), *self._octo.buffers()))

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


def load(
    folder: Path,
    config: dict[str, Any],
    task: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> OctoBackbone:
    """Load an Octo for one instruction; a ``conrft_policy.backbone.Loader``."""
    octo, precision = parse_config(config, folder / CONFIG_FILE)
    try:
        instruction = load_instruction(folder / INSTRUCTIONS_FILE, task)
    except InstructionError as error:
        instruction = _encode_now(task, octo, config.get("text_encoder"), error)
    model = load_octo(folder / WEIGHTS_FILE, octo)
    return OctoBackbone(model.to(device or torch.get_default_device()), instruction, dtype=dtype or precision)


def parse_config(config: Mapping[str, Any], path: Path) -> tuple[OctoConfig, torch.dtype]:
    """Sizes and precision from a parsed config.json; BackboneError names file (``path``) and key."""
    wrong = sorted((set(config) - {"text_encoder"}) ^ {"architecture", "precision", "octo"})
    if wrong:
        raise BackboneError(f"{path}: missing or unknown keys {wrong}")
    if config["precision"] not in PRECISIONS:
        raise BackboneError(f"{path}: precision {config['precision']!r} is none of {sorted(PRECISIONS)}")
    try:
        return OctoConfig.from_json(config["octo"]), PRECISIONS[config["precision"]]
    except OctoConfigError as error:
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


def write_config(folder: Path, config: OctoConfig, *, precision: str, text_encoder: str | None = None) -> None:
    """Write a backbone's config.json, which ``parse_config`` takes.

    text_encoder: the T5 that encodes instructions which are not stored, if its weights are on the machine.
    """
    values: dict[str, Any] = {"architecture": "octo", "precision": precision, "octo": config.to_json()}
    if text_encoder is not None:
        values["text_encoder"] = text_encoder
    (folder / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _encode_now(text: str, config: OctoConfig, encoder: str | None, why: InstructionError) -> Instruction:
    """Tokens of an instruction that is not stored; BackboneError if what encodes it is not at hand."""
    if encoder is None:
        raise BackboneError(str(why)) from why
    try:
        t5 = load_t5(encoder)
    except TextEncoderMissingError as error:
        raise BackboneError(f"{why}\n{error}") from error
    entry = InstructionEntry(task=text, instruction=text, encoder=t5.name, tensor="")
    return Instruction(entry=entry, tokens=t5.encode(text, tokens=config.language_tokens))


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
