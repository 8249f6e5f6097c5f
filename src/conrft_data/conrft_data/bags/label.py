"""What a person says afterwards about a recorded episode.

A small file beside the bag, so that the recording itself is never touched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from conrft_data import durable_files
from conrft_data.bags.errors import BagError
from conrft_data.types import Outcome

LABEL_FILE = "label.json"


@dataclass(frozen=True, kw_only=True)
class Label:
    """The outcome that counts from now on, and why."""

    outcome: Outcome
    reason: str = ""


def relabel(bag: Path, outcome: Outcome, reason: str = "") -> None:
    """Changes the outcome of the finished episode in folder ``bag``, atomically; the last label counts.

    A label that says the same already is not written again, so that nobody takes it for a new one.

    Raises:
        BagError: ``bag`` is no finished episode, ``outcome`` is NONE, or the disk refuses.
    """
    if not (bag / "metadata.yaml").is_file():
        raise BagError(f"{bag}: is not a finished episode bag, nothing to relabel")
    if outcome is Outcome.NONE:
        raise BagError(f"{bag}: an episode that has ended cannot be labelled NONE")
    if _says(bag, Label(outcome=outcome, reason=reason)):
        return
    try:
        write_label(bag, outcome, reason)
    except OSError as error:
        raise BagError(f"{bag}: the label cannot be written: {error.strerror or error}") from error


def _says(bag: Path, label: Label) -> bool:
    try:
        return read_label(bag) == label
    except BagError:
        return False


def write_label(folder: Path, outcome: Outcome, reason: str) -> None:
    """Puts a label into a folder, atomically; raises OSError when the disk refuses."""
    text = json.dumps({"outcome": outcome.name, "reason": reason}, indent=2) + "\n"
    durable_files.write_text(folder / LABEL_FILE, text)


def read_label(bag: Path) -> Label | None:
    """The label of the episode in folder ``bag``, None when it has none.

    Raises BagError when it cannot be understood.
    """
    file = bag / LABEL_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BagError(f"{file}: cannot be read: {error}") from error
    names = [outcome.name for outcome in Outcome if outcome is not Outcome.NONE]
    if not isinstance(content, dict) or set(content) - {"outcome", "reason"} or content.get("outcome") not in names:
        raise BagError(f"{file}: expected an outcome ({', '.join(names)}) and a reason, got {content!r:.200}")
    reason = content.get("reason", "")
    if not isinstance(reason, str):
        raise BagError(f"{file}: expected a sentence as reason, got {reason!r:.200}")
    return Label(outcome=Outcome[content["outcome"]], reason=reason)


def label_time(bag: Path) -> int:
    """When the label of the episode in folder ``bag`` was written, ns; 0 without a label."""
    try:
        return (bag / LABEL_FILE).stat().st_mtime_ns
    except OSError:
        return 0
