"""Recovers the episode from a recording that was cut off.

The recorder was killed, the power failed, the disk was full.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from conrft_data import durable_files, topics
from conrft_data.bags.assembly import Assembled, RawMessage, assemble
from conrft_data.bags.definitions import EPISODE_TOPICS, RecordedTopic, check_definition
from conrft_data.bags.errors import BagError
from conrft_data.bags.label import LABEL_FILE
from conrft_data.bags.listing import read_info
from conrft_data.bags.mcap_messages import complete_messages
from conrft_data.bags.writer import TEMPORARY_PREFIX, lock_folder

DAMAGED_PREFIX = ".damaged-"
_SALVAGE_PREFIX = ".salvage-"


def salvage(leftover: Path | str) -> Assembled:
    """Makes an episode bag of a recording that was cut off.

    The hidden folder of an interrupted recording is removed once the new bag is complete. A damaged bag under its
    final name is moved aside and kept, hidden, as ``.damaged-<episode_id>``.

    Args:
        leftover: the hidden folder, or the damaged bag.

    Raises:
        BagError: it is still being written, or nothing in it is usable; then it stays as it is. A recording of which
            not one byte had reached the disk is removed.
    """
    source = Path(leftover)
    if not source.is_dir():
        raise BagError(f"{source}: is not a folder")
    lock = lock_folder(source)
    if lock is None:
        raise BagError(f"{source}: is still being recorded")
    try:
        if source.name.startswith(TEMPORARY_PREFIX):
            return _salvage_interrupted(source)
        return _salvage_damaged(source)
    except OSError as error:
        raise BagError(f"{source}: cannot be salvaged: {error.strerror or error}") from error
    finally:
        os.close(lock)


def interrupted_recordings(folder: Path | str) -> list[Path]:
    """Hidden folders of recordings that were cut off, or that still go on."""
    return sorted(path for path in Path(folder).glob(f"{TEMPORARY_PREFIX}*") if path.is_dir())


def salvage_all(folder: Path | str) -> tuple[list[Assembled], list[BagError]]:
    """Salvages every interrupted recording in the folder of all episodes.

    Returns what was recovered, and what could not be and stays as it is.
    """
    recovered, problems = [], []
    for leftover in interrupted_recordings(folder):
        try:
            recovered.append(salvage(leftover))
        except BagError as error:
            problems.append(error)
    return recovered, problems


def _salvage_interrupted(source: Path) -> Assembled:
    episode_id = source.name.removeprefix(TEMPORARY_PREFIX)
    target = source.parent / episode_id
    if target.is_dir() and not any(source.iterdir()):
        # The crash came between giving the bag its name and removing the empty hidden folder.
        source.rmdir()
        info = read_info(target)
        return Assembled(path=target, outcome=info.outcome, final_step=info.final_step)
    if not any(file.stat().st_size for file in source.rglob("*.mcap")):
        shutil.rmtree(source)
        raise BagError(f"{source}: nothing of it had reached the disk, so it is removed")
    result = _assembled(source, episode_id)
    _copy_label(source / episode_id, result.path)
    shutil.rmtree(source)
    return result


def _salvage_damaged(source: Path) -> Assembled:
    episode_id = source.name.removeprefix(DAMAGED_PREFIX)
    aside = source.with_name(f"{DAMAGED_PREFIX}{episode_id}")
    if aside != source:
        durable_files.publish(source, aside)
    try:
        result = _assembled(aside, episode_id)
    except BagError:
        if aside != source:
            durable_files.publish(aside, source)
        raise
    _copy_label(aside, result.path)
    return result


def _copy_label(source: Path, bag: Path) -> None:
    if (source / LABEL_FILE).is_file():
        durable_files.write_text(bag / LABEL_FILE, (source / LABEL_FILE).read_text(encoding="utf-8"))


def _assembled(source: Path, episode_id: str) -> Assembled:
    files = sorted(source.rglob("*.mcap"))
    if not files:
        raise BagError(f"{source}: holds no recording")
    # What an interrupted salvage left; its source is still here.
    shutil.rmtree(source.with_name(f"{_SALVAGE_PREFIX}{episode_id}"), ignore_errors=True)
    return assemble(_Recording(files[0]), source.parent, episode_id, temporary_prefix=_SALVAGE_PREFIX)


class _Recording:
    """Messages in a file that may be cut off; can be gone through again."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __iter__(self) -> Iterator[RawMessage]:
        known = {topic.name: topic for topic in EPISODE_TOPICS}
        checked: set[str] = set()
        for message in complete_messages(self._file):
            # Of what was recorded besides the tick, only the name and the type are left.
            topic = known.setdefault(message.topic, RecordedTopic(message.topic, message.type_name, topics.TICK))
            if topic.name not in checked:
                where = f"{self._file}: {topic.name}"
                check_definition(topic.type_name, where, text=message.definition, idl=message.idl)
                checked.add(topic.name)
            yield RawMessage(topic, message.stamp_ns, message.raw)
