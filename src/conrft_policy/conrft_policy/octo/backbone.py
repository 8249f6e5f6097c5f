"""An Octo of any size behind the seam of ``conrft_policy.backbone``.

Its folder holds {config.json, weights.safetensors, instructions.safetensors}.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from conrft_policy.backbone import CONFIG_FILE, BackboneError, Embedding, Images, check_images
from conrft_policy.instructions import Instruction, InstructionEntry, InstructionError, load_instruction, plain
from conrft_policy.text_encoder import TextEncoderMissingError

from .config import OctoConfig, OctoConfigError
from .frozen import FrozenOcto
from .int8_linear import check_int8
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
        read: Callable[[], OctoTransformer],
        instruction: Instruction,
        *,
        precision: str = "float32",
        compile_with: str | None = None,
    ) -> None:
        """The weights are read once for the fingerprint and dropped, and again when a frame has to be embedded.

        read: gives the float32 transformer, on the device where it is to stay, anew at each call. compile_with: a
        backend of torch.compile such as ``inductor``, for the transformer. Raises BackboneError.
        """
        model = read()
        self._config = model.config
        _check_tokens(model.config, instruction)
        self._fingerprint = _fingerprint(model, instruction, precision)
        self._parameters = sum(parameter.numel() for parameter in model.parameters())
        self._device = model.norm.weight.device
        if precision == "int8":
            check_int8(self._device)
        # What one 8-bit layer makes of a frame depends on the frames beside it; alone, it is the same every time.
        self._at_once = 1 if precision == "int8" else FRAMES_AT_ONCE
        self._read, self._instruction, self._precision, self._compile_with = read, instruction, precision, compile_with

    @functools.cached_property
    def _octo(self) -> FrozenOcto:
        int8 = self._precision == "int8"
        dtype = torch.float32 if int8 else getattr(torch, self._precision)
        language = torch.from_numpy(self._instruction.tokens).to(self._device, dtype)
        return FrozenOcto(self._read().to(dtype), language, int8=int8)

    @functools.cached_property
    def _embed(self) -> Callable[[Tensor], Tensor]:
        """``FrozenOcto.embed``, compiled or not."""
        embed = self._octo.embed
        return torch.compile(embed, backend=self._compile_with) if self._compile_with else embed

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
        return self._instruction.entry.instruction

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
        check_images(images, self.image_sizes)
        return self._octo.image_tokens(
            {
                image.name: torch.from_numpy(_writable(images[image.camera])).to(self._device)
                for image in self._config.images
            }
        )


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
    read, instruction, precision = open_parts(folder, config, task)
    if dtype is not None:
        precision = str(dtype).removeprefix("torch.")
    place = torch.device(device) if device is not None else torch.get_default_device()
    return OctoBackbone(lambda: read().to(place), instruction, precision=precision, compile_with=config.get("compile"))


def open_parts(
    folder: Path, config: Mapping[str, Any], task: str
) -> tuple[Callable[[], OctoTransformer], Instruction, str]:
    """What reads the float32 transformer onto the CPU, the encoded instruction, and the precision to run it at."""
    octo, precision = parse_config(config, folder / CONFIG_FILE)
    if config.get("weights") == RANDOM:
        _log.warning(
            "%s: RANDOM WEIGHTS (random weights and random instruction tokens): good for trying the pipeline and for "
            "measuring speed, not for a policy. To import a checkpoint: conrft backbone import octo --help",
            folder.name,
        )
        return functools.partial(_random_model, octo), _random_instruction(octo, task), precision
    instruction = _instruction(folder / INSTRUCTIONS_FILE, task, octo, config.get("text_encoder"))
    return functools.partial(load_octo, folder / WEIGHTS_FILE, octo), instruction, precision


def parse_config(config: Mapping[str, Any], path: Path) -> tuple[OctoConfig, str]:
    """Sizes and precision from a parsed config.json; BackboneError names file (``path``) and key."""
    wrong = sorted((set(config) - OPTIONAL_KEYS) ^ {"architecture", "precision", "octo"})
    if wrong:
        raise BackboneError(f"{path}: missing or unknown keys {wrong}")
    if config["precision"] not in PRECISIONS:
        raise BackboneError(f"{path}: precision {config['precision']!r} is none of {list(PRECISIONS)}")
    if not isinstance(config.get("compile", ""), str):
        raise BackboneError(f"{path}: compile {config['compile']!r} is no name of a torch.compile backend")
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


def _random_model(config: OctoConfig) -> OctoTransformer:
    """A transformer that has learned nothing; the same in every process."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        return OctoTransformer(config)


def _random_instruction(config: OctoConfig, task: str) -> Instruction:
    """Tokens of the right shape that differ from text to text and mean nothing."""
    seed = int.from_bytes(hashlib.sha256(plain(task).encode()).digest()[:8], "big")
    shape = (config.language_tokens, config.language_dim)
    tokens = np.random.default_rng(seed).normal(scale=RANDOM_TOKEN_SCALE, size=shape).astype(np.float32)
    return _new_instruction(task, RANDOM, tokens)


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
