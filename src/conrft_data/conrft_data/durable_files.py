"""Files and folders that are there whole or not at all, also after a crash or a loss of power."""

from __future__ import annotations

import os
from pathlib import Path


def is_plain_name(name: str) -> bool:
    """Whether a name is that of a visible file or folder, and leads nowhere else than into its own folder."""
    return bool(name) and not name.startswith(".") and "\0" not in name and Path(name).name == name


def sync_file(path: Path) -> None:
    """Waits until the contents of a file or the entries of a folder are on the disk.

    Raises OSError when they cannot get there.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Waits until a folder with everything in it is on the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync_file(path)
    sync_file(folder)


def publish(source: Path, target: Path) -> None:
    """Gives a finished file or folder its final name by one atomic rename on the same file system, durably.

    ``source`` must be synchronised before; an existing folder at ``target`` that is not empty is an OSError.
    """
    source.rename(target)
    sync_file(target.parent)
    if source.parent != target.parent:
        sync_file(source.parent)


def write_text(path: Path, text: str) -> None:
    """Replaces a small file: a reader sees the old text or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        sync_file(temporary)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
