"""Embeddings of demonstrations on disk: computed once for all runs with the same backbone.

A demonstration was recorded without a policy, so its bag has no embeddings; a large backbone takes minutes for twenty
of them. They are kept beside the bags, in a hidden folder that may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from conrft_data.types import Float32

FOLDER = ".embeddings"


def cached(bag: Path, fingerprint: str, frames: int, compute: Callable[[], Float32]) -> Float32:
    """The embeddings ``(frames, D)`` of a bag, read if this backbone made them before, else computed and kept.

    Where nothing can be written they are computed each time.
    """
    path = bag.parent / FOLDER / fingerprint[:16] / f"{bag.name}.safetensors"
    stored = _read(path, fingerprint)
    if stored is not None and len(stored) == frames:
        return stored
    embeddings = compute()
    with contextlib.suppress(OSError):  # a read-only medium, a full one
        _write(path, fingerprint, embeddings)
    return embeddings


def _read(path: Path, fingerprint: str) -> Float32 | None:
    try:
        with safe_open(path, framework="numpy") as file:
            right = (file.metadata() or {}).get("fingerprint") == fingerprint
            return np.asarray(file.get_tensor("embeddings"), dtype=np.float32) if right else None
    except (OSError, SafetensorError):
        return None


def _write(path: Path, fingerprint: str, embeddings: Float32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = save({"embeddings": np.ascontiguousarray(embeddings)}, metadata={"fingerprint": fingerprint})
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
