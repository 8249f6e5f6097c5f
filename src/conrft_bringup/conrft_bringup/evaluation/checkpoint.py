"""The policy that is evaluated."""

from __future__ import annotations

import hashlib
from pathlib import Path


def checkpoint_file(path: Path) -> Path:
    """The policy's file, from itself or the folder that holds it; raises FileNotFoundError."""
    file = (path / "policy.safetensors" if path.is_dir() else path).absolute()
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist")
    return file


def sha256_of(file: Path) -> str:
    """Tells one policy from another in a result."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
