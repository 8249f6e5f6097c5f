"""Encoded instructions: the text encoder's output, computed once for each task and stored beside the weights.

One safetensors file holds the tokens of any number of instructions; its metadata holds a JSON index that says which
tensor belongs to which task and text. So the robot needs no text encoder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

INDEX_KEY = "instructions"


class InstructionError(ValueError):
    """An instruction that is not stored, or a file of instructions that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class InstructionEntry:
    """One line of the index."""

    task: str
    """Name of the task, for example ``pick_banana``."""
    instruction: str
    """The text that was encoded."""
    encoder: str
    """The text encoder, for the record."""
    tensor: str
    """Name of the tensor (tokens, width) in the file."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """An instruction and its tokens."""

    entry: InstructionEntry
    tokens: NDArray[np.float32]
    """(tokens, width), padding included."""


def read_index(path: Path) -> list[InstructionEntry]:
    """The stored instructions; InstructionError if the file is missing, cut off or not of this kind."""
    try:
        with safe_open(path, framework="numpy") as file:
            index = json.loads((file.metadata() or {})[INDEX_KEY])
        return [InstructionEntry(**line) for line in index]
    except FileNotFoundError as error:
        raise InstructionError(f"{path}: no such file") from error
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InstructionError(f"{path}: not a file of encoded instructions ({error})") from error


def load_instruction(path: Path, task: str) -> Instruction:
    """The instruction of a task, found by the task's name or by the text itself (case and spacing do not matter).

    Raises InstructionError that lists what is stored.
    """
    index = read_index(path)
    wanted = plain(task)
    for entry in index:
        if wanted in (plain(entry.task), plain(entry.instruction)):
            with safe_open(path, framework="numpy") as file:
                return Instruction(entry=entry, tokens=np.asarray(file.get_tensor(entry.tensor), dtype=np.float32))
    stored = "; ".join(f"{entry.task}: {entry.instruction!r}" for entry in index) or "nothing"
    raise InstructionError(
        f"{path}: no tokens for {task!r} (stored: {stored}). "
        f"Prepare them once with: conrft backbone tokens {path.parent} --task NAME --instruction TEXT"
    )


def store_instruction(path: Path, *, task: str, instruction: str, encoder: str, tokens: NDArray[np.float32]) -> None:
    """Add or replace the instruction of a task. The file is replaced as a whole, so it is never half-written."""
    stored = [load_instruction(path, entry.task) for entry in read_index(path)] if path.exists() else []
    kept = [item for item in stored if item.entry.task != task]
    entry = InstructionEntry(task=task, instruction=instruction, encoder=encoder, tensor=f"tokens/{task}")
    write_instructions(path, [*kept, Instruction(entry=entry, tokens=tokens)])


def write_instructions(path: Path, instructions: Sequence[Instruction]) -> None:
    """Replace the file by these instructions, any number of them, as a whole."""
    items = sorted(instructions, key=lambda item: item.entry.task)
    arrays = {item.entry.tensor: np.ascontiguousarray(item.tokens, dtype=np.float32) for item in items}
    data = save(arrays, metadata={INDEX_KEY: json.dumps([asdict(item.entry) for item in items])})
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def plain(text: str) -> str:
    """A text without what makes no difference: case, spacing, a full stop at the end."""
    return " ".join(text.split()).rstrip(".").casefold()
