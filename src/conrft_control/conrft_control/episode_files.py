"""Finished episodes as files, for a learner on another machine: which there are, and pieces of them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from conrft_data.bags.label import LABEL_FILE
from conrft_data.bags.listing import METADATA_FILE
from conrft_data.durable_files import is_plain_name

LONGEST_PIECE = 2**20  # bytes; a bounded read, and a message that no network chokes on
PAGE = 200  # episodes in one answer
_BLOCK = 2**20
_CHECKSUM_WAIT_S = 0.1


class FileRefused(ValueError):
    """An episode or file that is not served; the text says why."""


@dataclass(frozen=True)
class ListedEpisode:
    """A finished episode: its name, the SHA-256 of its metadata, and the text of its label (empty without one)."""

    episode_id: str
    metadata_sha256: str
    label: str


@dataclass(frozen=True)
class FileSummary:
    """Name, size in bytes and SHA-256 of one file of an episode."""

    name: str
    size: int
    sha256: str


class EpisodeFiles:
    """Reads the folders of finished episodes.

    Checksums are computed once for each file, in a thread of their own; everything else is a few small reads.
    """

    def __init__(self, folders: Mapping[int, Path]) -> None:
        """``folders``: of finished bags, by the number of the collection; one that does not exist yet is empty."""
        self._folders = dict(folders)
        self._metadata: dict[Path, tuple[int, str]] = {}
        self._problems: dict[Path, str] = {}
        self._checksums = _Checksums()

    @property
    def problems(self) -> dict[str, str]:
        """Why episodes are not listed though they are finished, by name."""
        return {bag.name: problem for bag, problem in self._problems.items() if bag.exists()}

    def page(self, collection: int, after: str) -> tuple[list[ListedEpisode], bool]:
        """Finished episodes whose names sort after ``after``, at most a page, and whether there are more.

        One that cannot be read is left out and named in ``problems``: without its label nobody knows how it counts.
        """
        folder = self._folder(collection)
        if not folder.is_dir():
            return [], False
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name > after and not entry.name.startswith("."))
        listed: list[ListedEpisode] = []
        for name in names:
            if (episode := self._listed(folder / name)) is None:
                continue
            if len(listed) == PAGE:
                return listed, True
            listed.append(episode)
        return listed, False

    def describe(self, collection: int, episode_id: str) -> tuple[list[FileSummary], float]:
        """The files of an episode but its label, or, while their checksums are computed, how long to wait in s."""
        bag = self._bag(collection, episode_id)
        files = sorted(path for path in bag.iterdir() if path.is_file() and self._is_served(path.name))
        sums = [self._checksums.of(path) for path in files]
        if any(digest is None for digest in sums):
            return [], _CHECKSUM_WAIT_S
        return [
            FileSummary(path.name, path.stat().st_size, str(digest)) for path, digest in zip(files, sums, strict=True)
        ], 0.0

    def read(self, collection: int, episode_id: str, name: str, offset: int, length: int) -> bytes:
        """At most ``length`` bytes, and at most ``LONGEST_PIECE``, of a file; empty at its end.

        Raises FileRefused for a name that is none of a finished episode's, OSError when the disk does.
        """
        bag = self._bag(collection, episode_id)
        if not is_plain_name(name) or not self._is_served(name) or not (bag / name).is_file():
            raise FileRefused(f"{episode_id} has no file {name!r}")
        if offset >= (bag / name).stat().st_size:
            return b""  # a file cannot be sought as far as the number could say
        with (bag / name).open("rb") as file:
            file.seek(offset)
            return file.read(min(length, LONGEST_PIECE))

    def close(self) -> None:
        """Ends the thread."""
        self._checksums.close()

    def _folder(self, collection: int) -> Path:
        if collection not in self._folders:
            raise FileRefused(f"collection {collection} is not served here")
        return self._folders[collection]

    def _bag(self, collection: int, episode_id: str) -> Path:
        bag = self._folder(collection) / episode_id
        if not is_plain_name(episode_id) or not (bag / METADATA_FILE).is_file():
            raise FileRefused(f"{episode_id!r} is not a finished episode of collection {collection}")
        return bag

    def _is_served(self, name: str) -> bool:
        return name != LABEL_FILE and not name.startswith(".")

    def _listed(self, bag: Path) -> ListedEpisode | None:
        """None for what is no finished episode, or none any more, and for one that cannot be read."""
        try:
            episode = ListedEpisode(bag.name, self._metadata_sha256(bag / METADATA_FILE), _label_text(bag / LABEL_FILE))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            self._problems[bag] = f"{bag.name}: {LABEL_FILE} or {METADATA_FILE} cannot be read: {error}"
            return None
        self._problems.pop(bag, None)
        return episode

    def _metadata_sha256(self, file: Path) -> str:
        changed = file.stat().st_mtime_ns
        if self._metadata.get(file, (0, ""))[0] != changed:
            self._metadata[file] = (changed, hashlib.sha256(file.read_bytes()).hexdigest())
        return self._metadata[file][1]


def _label_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


class RateLimit:
    """How long to wait so that not more than a number of bytes a second goes out."""

    def __init__(self, bytes_per_s: float, now: Callable[[], float]) -> None:
        """``now``: monotonic, s."""
        self._rate, self._now = bytes_per_s, now
        self._free_at = now()

    def wait(self) -> float:
        """Seconds until something may go out again; 0 or less: now."""
        return self._free_at - self._now()

    def spend(self, size: int) -> float:
        """``size`` bytes go out now; returns the seconds until the next may."""
        self._free_at = max(self._free_at, self._now()) + size / self._rate
        return self.wait()


class _Checksums:
    """SHA-256 of files, computed one after the other in a thread and kept as long as the file does not change."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checksums")
        self._known: dict[Path, tuple[tuple[int, int], Future[str]]] = {}
        self._closing = threading.Event()

    def of(self, path: Path) -> str | None:
        """The checksum; None while it is computed. Raises OSError when the file cannot be read."""
        status = path.stat()
        version = (status.st_size, status.st_mtime_ns)
        known = self._known.get(path)
        if known is None or known[0] != version:
            known = self._known[path] = (version, self._thread.submit(self._compute, path))
        if not known[1].done():
            return None
        try:
            return known[1].result()
        except OSError:
            del self._known[path]
            raise

    def close(self) -> None:
        self._closing.set()
        self._thread.shutdown(cancel_futures=True)

    def _compute(self, path: Path) -> str:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while (block := file.read(_BLOCK)) and not self._closing.is_set():
                digest.update(block)
        return digest.hexdigest()
