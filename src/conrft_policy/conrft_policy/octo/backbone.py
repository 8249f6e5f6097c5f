"""An Octo of any size behind the seam of ``conrft_policy.backbone``.

Its folder holds {config.json, weights.safetensors, instructions.safetensors}.
"""

from __future__ import annotations

import hashlib
import json
import logging
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
from conrft_policy.instructions import Instruction, InstructionEntry, InstructionError, load_instruction, plain
from conrft_policy.text_encoder import TextEncoderMissingError

from .config import ImageConfig, OctoConfig, OctoConfigError
from .frozen import FrozenOcto
from .int8_linear import Int8UnsupportedError
from .model import OctoTransformer
from .t5_encoder import load_t5

WEIGHTS_FILE = "weights.safetensors"
INSTRUCTIONS_FILE = "instructions.safetensors"
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
"""Of weights and arithmetic. int8: the blocks' matrices in 8 bits, the rest in float32; for CPUs."""
OPTIONAL_KEYS = {"text_encoder", "weights", "compile"}
FRAMES_AT_ONCE = 16  # bounds the memory of encode_episode
RANDOM = "random"
RANDOM_TOKEN_SCALE = 0.2  # about that of T5's output

_log = logging.getLogger(__name__)


class OctoBackbone:
    """An Octo of any size as a ``Backbone``. The first frame of an episode is its own predecessor."""

    def __init__(
        self,
        model: OctoTransformer,
        instruction: Instruction,
        *,
        precision: str = "float32",
        compile_with: str | None = None,
    ) -> None:
        """``model`` (float32) is taken over: cast to ``precision``, frozen; it stays on its device.

        compile_with: a backend of torch.compile such as ``inductor``, for the transformer. Raises BackboneError.
        """
        self._config = config = model.config
        _check_tokens(config, instruction)
        self._fingerprint = _fingerprint(model, instruction, precision)
        self._device = model.norm.weight.device
        # What one 8-bit layer makes of a frame depends on the frames beside it; alone, it is the same every time.
        self._at_once = 1 if precision == "int8" else FRAMES_AT_ONCE
        dtype = torch.float32 if precision == "int8" else getattr(torch, precision)
        language = torch.from_numpy(instruction.tokens).to(self._device, dtype)
        try:
            self._octo = FrozenOcto(model.to(dtype), language, int8=precision == "int8")
        except Int8UnsupportedError as error:
            raise BackboneError(f"precision int8: {error}") from error
        self._embed = torch.compile(self._octo.embed, backend=compile_with) if compile_with else self._octo.embed
        self._instruction = instruction.entry.instruction
        self._precision = precision
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
        octo = self._octo
        prefix = (*octo.prefix_keys, *octo.prefix_values)
        return sum(_bytes(value) for value in (*octo.parameters(), *octo.buffers(), *prefix))

    @property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 over weights, configuration, precision and instruction."""
        return self._fingerprint

    @torch.inference_mode()
    def encode_episode(self, images: Images) -> Embedding:
        """Embed a whole episode: images (T, H, W, 3) uint8 RGB by camera -> (T, D); each stem runs once a frame."""
        steps = len(next(iter(images.values()), ()))
        tokens = [self._tokens(_cut(images, start, self._at_once)) for start in range(0, steps, self._at_once)]
        if not tokens:
            return np.zeros((0, self.embedding_dim), dtype=np.float32)
        frames = torch.cat(tokens)
        offsets = torch.arange(1 - self.history, 1, device=self._device)
        window = (torch.arange(steps, device=self._device)[:, None] + offsets).clamp_(min=0)
        embeddings = [self._embed(frames[rows]) for rows in window.split(self._at_once)]
        return _to_numpy(torch.cat(embeddings))

    @torch.inference_mode()
    def encode_windows(self, images: Images) -> Embedding:
        """Embed windows that share no frame: images (N, history, H, W, 3) uint8 RGB by camera -> (N, D)."""
        count = len(next(iter(images.values())))
        embeddings = []
        for start in range(0, count, self._at_once):
            windows = _cut(images, start, self._at_once)
            tokens = self._tokens({name: frames.reshape(-1, *frames.shape[2:]) for name, frames in windows.items()})
            embeddings.append(self._embed(tokens.unflatten(0, (-1, self.history))))
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
        return _to_numpy(self._backbone._embed(torch.stack(self._window, dim=1)))[0]


def load(
    folder: Path,
    config: dict[str, Any],
    task: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> OctoBackbone:
    """Load an Octo for one instruction; a ``conrft_policy.backbone.Loader``."""
    model, instruction, precision = load_parts(folder, config, task)
    if dtype is not None:
        precision = str(dtype).removeprefix("torch.")
    model = model.to(device or torch.get_default_device())
    return OctoBackbone(model, instruction, precision=precision, compile_with=config.get("compile"))


def load_parts(folder: Path, config: Mapping[str, Any], task: str) -> tuple[OctoTransformer, Instruction, str]:
    """The float32 transformer on the CPU, the encoded instruction, and the precision that config.json asks for."""
    octo, precision = parse_config(config, folder / CONFIG_FILE)
    if config.get("weights") == RANDOM:
        return (*_random(octo, task, folder), precision)
    instruction = _instruction(folder / INSTRUCTIONS_FILE, task, octo, config.get("text_encoder"))
    return load_octo(folder / WEIGHTS_FILE, octo), instruction, precision


def parse_config(config: Mapping[str, Any], path: Path) -> tuple[OctoConfig, str]:
    """Sizes and precision from a parsed config.json; BackboneError names file (``path``) and key."""
    wrong = sorted((set(config) - OPTIONAL_KEYS) ^ {"architecture", "precision", "octo"})
    if wrong:
        raise BackboneError(f"{path}: missing or unknown keys {wrong}")
    if config["precision"] not in PRECISIONS:
        raise BackboneError(f"{path}: precision {config['precision']!r} is none of {list(PRECISIONS)}")
    if config.get("weights", RANDOM) != RANDOM:
        raise BackboneError(f"{path}: weights {config['weights']!r}: only {RANDOM!r} may be said here")
    try:
        return OctoConfig.from_json(config["octo"]), config["precision"]
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


def _instruction(path: Path, task: str, config: OctoConfig, encoder: str | None) -> Instruction:
    """The stored tokens; of an instruction that is not stored, new ones, if what encodes it is on this machine."""
    try:
        return load_instruction(path, task)
    except InstructionError as missing:
        if encoder is None:
            raise BackboneError(str(missing)) from missing
        try:
            t5 = load_t5(encoder)
        except TextEncoderMissingError as error:
            raise BackboneError(f"{missing}\n{error}") from error
        return _new_instruction(task, t5.name, t5.encode(task, tokens=config.language_tokens))


def _random(config: OctoConfig, task: str, folder: Path) -> tuple[OctoTransformer, Instruction]:
    """A transformer and tokens of the right sizes that have learned nothing; the same in every process."""
    _log.warning(
        "%s: RANDOM WEIGHTS (random weights and random instruction tokens): good for trying the pipeline and for "
        "measuring speed, not for a policy. To import a checkpoint: conrft backbone import octo --help",
        folder.name,
    )
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        model = OctoTransformer(config)
    seed = int.from_bytes(hashlib.sha256(plain(task).encode()).digest()[:8], "big")
    shape = (config.language_tokens, config.language_dim)
    tokens = np.random.default_rng(seed).normal(scale=RANDOM_TOKEN_SCALE, size=shape).astype(np.float32)
    return model, _new_instruction(task, RANDOM, tokens)


def _new_instruction(text: str, encoder: str, tokens: NDArray[np.float32]) -> Instruction:
    entry = InstructionEntry(task=text, instruction=text, encoder=encoder, tensor="")
    return Instruction(entry=entry, tokens=tokens)


def _fingerprint(model: OctoTransformer, instruction: Instruction, precision: str) -> str:
    digest = hashlib.sha256()
    name = precision if precision == "int8" else f"torch.{precision}"
    header = {"config": model.config.to_json(), "precision": name, "instruction": instruction.entry.instruction}
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


def _bytes(values: Tensor) -> int:
    """Memory; a matrix that oneDNN has packed has no storage to ask, but one element for each of its numbers."""
    return values.numel() * values.element_size()


def _cut(images: Images, start: int, count: int) -> Images:
    return {camera: frames[start : start + count] for camera, frames in images.items()}


def _writable(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Torch shares memory only with writable, contiguous arrays; a view into a message is often neither."""
    ready = frames.flags.writeable and frames.flags.c_contiguous
    return frames if ready else frames.copy()


def _to_numpy(values: Tensor) -> Embedding:
    return np.asarray(values.float().cpu().numpy(), dtype=np.float32)
