"""Fetches finished episodes from another machine into a folder of this one: each once, whole, and as often as it takes.

Plain Python on files; what answers the questions is an :class:`EpisodeSource`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from conrft_data import durable_files
from conrft_data.bags.label import LABEL_FILE
from conrft_data.bags.listing import METADATA_FILE

EPISODES, DEMONSTRATIONS = 0, 1
_COLLECTIONS = {EPISODES: "episodes", DEMONSTRATIONS: "demonstrations"}
PARTIAL_PREFIX = ".pull-"
MANIFEST = "manifest.json"
CHUNK = 256 * 1024  # bytes
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 10.0
LIST_PERIOD_S = 0.5


class SourceSilent(Exception):
    """The other machine does not answer; the text says what it was asked."""


class EpisodeUnavailable(Exception):
    """The other machine refuses an episode, or what came of it is not what was announced; the text says why."""


@dataclass(frozen=True)
class RemoteEpisode:
    """A finished episode elsewhere: its name, the SHA-256 of its metadata.yaml, and the text of its label."""

    episode_id: str
    metadata_sha256: str
    label: str


@dataclass(frozen=True)
class RemoteFile:
    """Name, size in bytes and SHA-256 of a file of an episode."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Chunk:
    """A piece of a file, its SHA-256, and how many seconds the source wants to be left alone."""

    data: bytes
    sha256: str
    wait_s: float


class EpisodeSource(Protocol):
    """Where episodes come from. Every method may raise SourceSilent or EpisodeUnavailable."""

    def episodes(self, collection: int) -> list[RemoteEpisode]:
        """All finished episodes, by name."""
        ...

    def describe(self, collection: int, episode_id: str) -> list[RemoteFile]:
        """The files of an episode."""
        ...

    def read(self, collection: int, episode_id: str, name: str, offset: int, length: int) -> Chunk:
        """At most ``length`` bytes of a file."""
        ...


class EpisodePull:
    """Brings local folders up to what a source lists: new episodes, and labels that are new or have changed.

    A transfer that breaks off goes on where it was, also in another process. An episode appears by one atomic rename
    after every file has had its SHA-256 checked and is on the disk; then it is never fetched again.

    Attributes:
        received_bytes: taken from the source by this object, each byte that was kept.
        listed: collections of which everything that was listed has been fetched or refused at least once.
        problems: why single episodes could not be fetched, or a whole collection was refused, by name.
    """

    def __init__(
        self,
        source: EpisodeSource,
        folders: Mapping[int, Path],
        *,
        report: Callable[[str], None],
        pause: Callable[[float], bool],
        chunk_bytes: int = CHUNK,
    ) -> None:
        """Makes a pull; nothing is asked yet.

        Args:
            source: where episodes come from.
            folders: local folder of each collection, fetched in this order.
            report: takes a sentence for a person.
            pause: waits some seconds; true when the pull is to end.
            chunk_bytes: size of a piece.
        """
        self._source, self._folders = source, dict(folders)
        self._report, self._pause, self._chunk = report, pause, chunk_bytes
        self._metadata: dict[Path, str] = {}
        self._stopped = False
        self.received_bytes = 0
        self.listed: set[int] = set()
        self.problems: dict[str, str] = {}

    def update(self) -> int:
        """Fetches everything that is missing; returns the number of episodes fetched.

        Raises:
            SourceSilent: there is no answer; what came so far is kept.
            OSError: the local disk refuses.
        """
        fetched = 0
        for collection, folder in self._folders.items():
            what = _COLLECTIONS[collection]
            try:
                listed = self._source.episodes(collection)
                self.problems.pop(what, None)
            except EpisodeUnavailable as error:
                self._note(what, f"no {what} are listed: {error}")
                continue
            for remote in listed:
                try:
                    fetched += self._bring(collection, folder, remote)
                    self.problems.pop(remote.episode_id, None)
                except EpisodeUnavailable as error:
                    self._note(remote.episode_id, str(error))
                if self._stopped:
                    return fetched
            self.listed.add(collection)
        return fetched

    def _note(self, name: str, problem: str) -> None:
        if self.problems.get(name) != problem:
            self._report(problem)
        self.problems[name] = problem

    def _bring(self, collection: int, folder: Path, remote: RemoteEpisode) -> bool:
        name = remote.episode_id
        if not durable_files.is_plain_name(name):
            raise EpisodeUnavailable(f"{name!r} is no episode's name: it is not fetched")
        bag = folder / name
        if not bag.exists():
            return self._fetch(collection, bag, remote)
        if self._metadata_sha256(bag) != remote.metadata_sha256:
            raise EpisodeUnavailable(
                f"{bag} is another recording than the one of this name on the robot's machine: "
                "give the session or the folder another name"
            )
        _write_label(bag, remote.label)
        return False

    def _metadata_sha256(self, bag: Path) -> str:
        if bag not in self._metadata:
            try:
                self._metadata[bag] = hashlib.sha256((bag / METADATA_FILE).read_bytes()).hexdigest()
            except FileNotFoundError:
                return ""
        return self._metadata[bag]

    def _fetch(self, collection: int, bag: Path, remote: RemoteEpisode) -> bool:
        partial = bag.with_name(f"{PARTIAL_PREFIX}{bag.name}")
        files = self._source.describe(collection, bag.name)
        _check_files(bag.name, files, remote)
        _begin(partial, bag.name, files)
        for file in files:
            self._fetch_file(collection, bag.name, file, partial / bag.name / file.name)
            if self._stopped:
                return False
        _write_label(partial / bag.name, remote.label)  # it appears together with the episode
        durable_files.sync_tree(partial / bag.name)
        durable_files.publish(partial / bag.name, bag)
        shutil.rmtree(partial)
        return True

    def _fetch_file(self, collection: int, episode_id: str, file: RemoteFile, path: Path) -> None:
        while not self._stopped and (have := path.stat().st_size if path.exists() else 0) < file.size:
            wanted = min(self._chunk, file.size - have)
            chunk = self._source.read(collection, episode_id, file.name, have, wanted)
            if not chunk.data and not chunk.wait_s:
                raise self._discarded(episode_id, path, "is shorter than was announced")
            if chunk.data and hashlib.sha256(chunk.data).hexdigest() != chunk.sha256:
                raise SourceSilent(f"a piece of {file.name} of {episode_id} was damaged on its way")
            kept = chunk.data[:wanted]
            _append(path, kept)
            self.received_bytes += len(kept)
            if chunk.wait_s:
                self._stopped = self._pause(chunk.wait_s)
        if not self._stopped and _sha256(path, file.size) != file.sha256:
            raise self._discarded(episode_id, path, "does not have the announced checksum")

    def _discarded(self, episode_id: str, path: Path, why: str) -> EpisodeUnavailable:
        path.unlink(missing_ok=True)
        return EpisodeUnavailable(f"{episode_id}: {path.name} {why}, it is fetched anew")


class PullThread:
    """Runs an :class:`EpisodePull` again and again; a source that is silent is asked again after longer and longer."""

    def __init__(
        self,
        source: EpisodeSource,
        folders: Mapping[int, Path],
        *,
        report: Callable[[str], None],
        on_new: Callable[[], None],
        first_retry_s: float = FIRST_RETRY_S,
        list_period_s: float = LIST_PERIOD_S,
    ) -> None:
        """Starts the thread.

        Args:
            source: where episodes come from; its methods are called on the thread.
            folders: local folder of each collection.
            report: takes a sentence for a person, on the thread.
            on_new: called on the thread after episodes were fetched.
            first_retry_s: pause after the first silence; it doubles up to ``LONGEST_RETRY_S``.
            list_period_s: between two looks at what is new.
        """
        self._report, self._on_new = report, on_new
        self._first_retry_s, self._list_period_s = first_retry_s, list_period_s
        self._stop, self._wake = threading.Event(), threading.Event()
        self._folders = dict(folders)
        self.pull = EpisodePull(source, folders, report=report, pause=self._stop.wait)
        self.silence = ""
        self.refusal = ""
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="episode pull", daemon=True)
        self._thread.start()

    @property
    def demonstrations_are_here(self) -> bool:
        """Whether the demonstrations that the source listed first have all been fetched."""
        return DEMONSTRATIONS not in self._folders or DEMONSTRATIONS in self.pull.listed

    def wake(self) -> None:
        """There may be something new."""
        self._wake.set()

    def close(self, timeout_s: float = 5.0) -> None:
        """Ends the thread; a transfer under way goes on in the next process."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        retry_s, silent_since = self._first_retry_s, time.monotonic()
        while not self._stop.is_set():
            try:
                if self.pull.update():
                    self._on_new()
                self.silence = self.refusal = ""
                retry_s = self._first_retry_s
                self._wake.wait(self._list_period_s)
                silent_since = time.monotonic()
            except SourceSilent as error:
                if not self.silence:
                    self._report(f"no episodes arrive: {error}")
                self.silence = f"no episodes arrive for {time.monotonic() - silent_since:.0f} s: {error}"
                self._stop.wait(retry_s)
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)
            except OSError as error:
                self.refusal = f"episodes cannot be fetched: {error}"
                self._report(self.refusal)
                self._stop.wait(LONGEST_RETRY_S)
            except BaseException as error:
                self.failure = error
                return
            self._wake.clear()


def _check_files(episode_id: str, files: list[RemoteFile], remote: RemoteEpisode) -> None:
    for file in files:
        if not durable_files.is_plain_name(file.name) or file.name == LABEL_FILE:
            raise EpisodeUnavailable(f"{episode_id}: {file.name!r} is no file's name: it is not fetched")
    if METADATA_FILE not in (file.name for file in files):
        raise EpisodeUnavailable(f"{episode_id}: has no {METADATA_FILE}, it is not fetched")
    if not any(file.name == METADATA_FILE and file.sha256 == remote.metadata_sha256 for file in files):
        raise EpisodeUnavailable(f"{episode_id}: its {METADATA_FILE} has changed, it is fetched anew")


def _begin(partial: Path, episode_id: str, files: list[RemoteFile]) -> None:
    """Makes the folder of a transfer, or keeps that of one which was broken off, if it was of the same files."""
    manifest = json.dumps([asdict(file) for file in files])
    kept = partial / MANIFEST
    if kept.is_file() and kept.read_text(encoding="utf-8") == manifest:
        return
    shutil.rmtree(partial, ignore_errors=True)
    (partial / episode_id).mkdir(parents=True)
    durable_files.write_text(kept, manifest)


def _append(path: Path, data: bytes) -> None:
    # Unbuffered: what a full disk still took is a beginning like any other.
    with path.open("ab", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def _sha256(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    if size or path.exists():
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    else:
        path.touch()
    return digest.hexdigest()


def _write_label(bag: Path, text: str) -> None:
    """The robot's label counts; where it has none, one that was given here stays."""
    file = bag / LABEL_FILE
    if text and not (file.is_file() and file.read_text(encoding="utf-8") == text):
        durable_files.write_text(file, text)
