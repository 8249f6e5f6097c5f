"""Checkpoints: folders ``step-NNNNNNNNN``, written beside their place and renamed, verified at load.

The link ``best`` beside them names one that stays; a damaged one lies beside them as ``.damaged-step-NNNNNNNNN``, for a
person. safetensors and JSON only, so that reading one can never run code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from conrft_data.durable_files import publish, sync_tree

TENSORS = "state.safetensors"
STATE = "state.json"
PREFIX = "step-"
REPLACED = ".old"  # while its replacement gets its name
BEST = "best"
FOLDER = "checkpoints"  # of a run folder


class CheckpointDamaged(ValueError):
    """A checkpoint that cannot be used; the text names it and says why."""


def write_checkpoint(
    folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], files: Mapping[str, bytes]
) -> Path:
    """Writes ``folder/step-<step>``, with further ``files`` by name.

    A checkpoint of the same step is replaced. After a crash at any moment, all that :func:`checkpoints` finds is
    complete, and the newest of it is this one or the one before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{PREFIX}{step:09d}"
    temporary = folder / f".tmp-{final.name}"
    _remove_leftovers(folder)
    temporary.mkdir()
    data = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    text = json.dumps(state, sort_keys=True)
    envelope = {
        "tensors_sha256": hashlib.sha256(data).hexdigest(),
        "state_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "state": text,
    }
    for name, content in {**files, TENSORS: data, STATE: json.dumps(envelope).encode()}.items():
        (temporary / name).write_bytes(content)
    sync_tree(temporary)
    replaced = final.with_name(final.name + REPLACED)
    if final.exists():
        final.rename(replaced)
    publish(temporary, final)
    shutil.rmtree(replaced, ignore_errors=True)
    return final


def _remove_leftovers(folder: Path) -> None:
    """What a crash left: checkpoints half written, and those that were replaced."""
    for path in folder.glob(f".tmp-{PREFIX}*"):
        shutil.rmtree(path)
    for path in folder.glob(f"{PREFIX}*{REPLACED}"):
        if path.with_suffix("").exists():
            shutil.rmtree(path)


def mark_best(checkpoint: Path) -> None:
    """Lets the link ``best`` beside a checkpoint name it, in place of another."""
    temporary = checkpoint.parent / f".tmp-{BEST}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(checkpoint.name)
    publish(temporary, checkpoint.parent / BEST)


def remove_old(folder: Path, *, keep: int) -> None:
    """Removes all checkpoints but the newest ``keep`` and the best."""
    best = folder / BEST
    for old in checkpoints(folder)[:-keep]:
        if not (best.exists() and best.samefile(old)):
            shutil.rmtree(old, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints in a folder, oldest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.is_dir()] if folder.is_dir() else []
    return sorted(found, key=lambda path: (path.with_suffix("").name, path.suffix != REPLACED))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of one checkpoint; raises CheckpointDamaged."""
    try:
        data = (path / TENSORS).read_bytes()
        envelope = json.loads((path / STATE).read_text(encoding="utf-8"))
        text = envelope["state"]
        sums = envelope["tensors_sha256"], envelope["state_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointDamaged(f"checkpoint {path} cannot be read: {error}") from error
    if (hashlib.sha256(data).hexdigest(), hashlib.sha256(str(text).encode()).hexdigest()) != sums:
        raise CheckpointDamaged(f"checkpoint {path} is damaged: its checksum does not match")
    return load_tensors(data), json.loads(text)


def read_newest(
    folder: Path, report: Callable[[str], None], *, set_aside: bool = False
) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint that is whole; each damaged one on the way is reported by name. None when there is none.

    ``set_aside``: renames the damaged ones, so that they do not count among the newest that are kept.
    """
    for path in reversed(checkpoints(folder)):
        try:
            tensors, state = read_checkpoint(path)
        except CheckpointDamaged as error:
            kept = f" and it is kept as {_set_aside(path).name}" if set_aside else ""
            report(f"{error}; the one before it is used{kept}")
            continue
        return path, tensors, state
    return None


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f".damaged-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return path.rename(aside)


def read_chosen(path: Path, report: Callable[[str], None]) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """The checkpoint ``path``, or the newest whole one of the run folder ``path``; None when there is none.

    Raises:
        CheckpointDamaged: ``path`` is a checkpoint and damaged; nobody asked for another.
    """
    if (path / STATE).is_file():
        return path, *read_checkpoint(path)
    return read_newest(path / FOLDER, report)
