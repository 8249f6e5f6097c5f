"""From an official Octo checkpoint's folder to a backbone's folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from conrft_data.durable_files import publish, sync_tree
from conrft_policy.backbone import CONFIG_FILE, BackboneError
from conrft_policy.instructions import (
    Instruction,
    InstructionEntry,
    InstructionError,
    load_instruction,
    write_instructions,
)
from conrft_policy.text_encoder import TextEncoderMissingError

from . import official_config
from .backbone import INSTRUCTIONS_FILE, WEIGHTS_FILE, write_config
from .config import OctoConfig, OctoConfigError
from .flax_tree import CheckpointMismatchError, Shape, check_shapes, from_flax
from .orbax_arrays import OrbaxArrays, find_arrays, open_arrays
from .t5_encoder import T5Encoder, load_t5

STATISTICS_FILE = "dataset_statistics.json"
TRANSFORMER = "octo_transformer/"
TEXT_ENCODER = "task_tokenizers_language/hf_model/"
HEADS = "heads_"  # action heads; ConRFT trains its own


@dataclass(frozen=True, kw_only=True)
class OfficialCheckpoint:
    """A checkpoint as it lies on the disk, names and shapes checked, arrays not read yet."""

    folder: Path
    step: int
    config: OctoConfig
    arrays: OrbaxArrays
    names: Mapping[str, str]
    """Stored name by name relative to ``octo_transformer/``, the text encoder's left out."""
    text_names: Mapping[str, str]
    """Stored name by name relative to the text encoder."""
    text_encoder: str
    """Such as ``t5-base``."""
    statistics: Mapping[str, Any] | None
    """dataset_statistics.json, if it is there. For the record: ConRFT's actions are not normalised by it."""

    def read(self) -> dict[str, NDArray[np.float32]]:
        """The transformer's arrays by relative name; BackboneError names those that hold NaN or infinity."""
        values = {name: self.arrays[stored] for name, stored in self.names.items()}
        wrong = sorted(name for name, array in values.items() if not np.isfinite(array).all())
        if wrong:
            raise BackboneError(f"{self.arrays.folder}: not finite: {', '.join(wrong)}")
        return values

    def read_text_encoder(self) -> dict[str, NDArray[np.float32]] | None:
        """The frozen text encoder's arrays by relative name; None if the checkpoint has none."""
        return {name: self.arrays[stored] for name, stored in self.text_names.items()} or None


def open_checkpoint(
    folder: Path, *, step: int | None = None, cameras: Mapping[str, str] = official_config.CAMERAS
) -> OfficialCheckpoint:
    """Open a folder {config.json, dataset_statistics.json (optional), <step>/default/}; the newest step if None.

    cameras: our camera by the official observation's key. Raises BackboneError that names the file and, for arrays,
    lists every missing, extra or misshapen one.
    """
    path = folder / CONFIG_FILE
    official = _read_json(path)
    statistics = _read_json(folder / STATISTICS_FILE) if (folder / STATISTICS_FILE).is_file() else None
    arrays = open_arrays(find_arrays(folder, step))
    names, text_names, foreign = _sort_names(arrays.shapes)
    shapes = {name: arrays.shapes[stored] for name, stored in names.items()}
    try:
        config = official_config.octo_config(official, shapes, cameras)
        check_shapes(config, shapes | foreign)
    except OctoConfigError as error:
        raise BackboneError(f"{path}: {error}") from error
    except CheckpointMismatchError as error:
        raise BackboneError(f"{arrays.folder}: {error}") from error
    return OfficialCheckpoint(
        folder=folder,
        step=_step_of(arrays.folder, folder),
        config=config,
        arrays=arrays,
        names=names,
        text_names=text_names,
        text_encoder=official_config.text_encoder_name(official),
        statistics=statistics,
    )


def import_checkpoint(
    checkpoint: OfficialCheckpoint,
    out: Path,
    instructions: Sequence[str],
    *,
    precision: str = "float32",
    t5: str | Path | None = None,
    tokens: Path | None = None,
) -> None:
    """Write a checkpoint as a backbone's folder; ``out`` appears whole, by one rename, or not at all.

    instructions: texts to encode now. precision: as in config.json. t5: folder or hub id of the text encoder.
    tokens: a file of instructions encoded elsewhere, looked at first. Raises BackboneError.
    """
    if out.exists():
        raise BackboneError(f"{out}: exists already; remove it, or name another folder")
    encoded = _encode(checkpoint, instructions, t5, tokens)
    weights = from_flax(checkpoint.config, checkpoint.read())
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        temporary.chmod(0o755)  # mkdtemp's own is for secrets
        origin = {"format": "pt", "source": "octo", "step": str(checkpoint.step)}
        (temporary / WEIGHTS_FILE).write_bytes(save(weights, metadata=origin))
        write_instructions(temporary / INSTRUCTIONS_FILE, encoded)
        write_config(temporary, checkpoint.config, precision=precision, text_encoder=checkpoint.text_encoder)
        if checkpoint.statistics is not None:
            text = json.dumps(checkpoint.statistics, indent=2) + "\n"
            (temporary / STATISTICS_FILE).write_text(text, encoding="utf-8")
        sync_tree(temporary)
        publish(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _encode(
    checkpoint: OfficialCheckpoint, texts: Sequence[str], t5: str | Path | None, tokens: Path | None
) -> list[Instruction]:
    encoder: T5Encoder | None = None
    config, encoded = checkpoint.config, {}
    for text in texts:
        instruction = None if tokens is None else _stored(tokens, text)
        if instruction is None:
            try:
                encoder = encoder or load_t5(checkpoint.text_encoder, t5, checkpoint.read_text_encoder())
            except (TextEncoderMissingError, ValueError) as error:
                raise BackboneError(f"instruction {text!r}: {error}") from error
            values = encoder.encode(text, tokens=config.language_tokens)
            instruction = Instruction(entry=_entry(text, encoder.name), tokens=values)
        if instruction.tokens.shape != (config.language_tokens, config.language_dim):
            expected = (config.language_tokens, config.language_dim)
            raise BackboneError(
                f"instruction {text!r}: tokens are {instruction.tokens.shape}, the checkpoint expects {expected}"
            )
        encoded[instruction.entry.task] = instruction
    return list(encoded.values())


def _stored(tokens: Path, text: str) -> Instruction | None:
    """The instruction as it was encoded elsewhere, or None."""
    try:
        found = load_instruction(tokens, text)
    except InstructionError as error:
        if not tokens.is_file():
            raise BackboneError(str(error)) from error
        return None
    return Instruction(entry=_entry(found.entry.instruction, found.entry.encoder), tokens=found.tokens)


def _entry(text: str, encoder: str) -> InstructionEntry:
    """An index line; the text itself serves as the task's name."""
    return InstructionEntry(task=text, instruction=text, encoder=encoder, tensor=f"tokens/{text}")


def _sort_names(shapes: Mapping[str, Shape]) -> tuple[dict[str, str], dict[str, str], dict[str, Shape]]:
    """Stored names of the transformer and of the text encoder by relative name, and shapes of what is neither."""
    names, text_names, foreign = {}, {}, {}
    for stored, shape in shapes.items():
        path = stored.removeprefix("params/")
        relative = path.removeprefix(TRANSFORMER)
        if relative.startswith(TEXT_ENCODER):
            text_names[relative.removeprefix(TEXT_ENCODER)] = stored
        elif path.startswith(TRANSFORMER):
            names[relative] = stored
        elif not path.startswith(HEADS):
            foreign[stored] = shape
    return names, text_names, foreign


def _step_of(arrays: Path, folder: Path) -> int:
    return int(arrays.relative_to(folder).parts[0])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise BackboneError(f"{path}: not a JSON object")
    return values
