"""Splits a recording made by hand with ``ros2 bag record`` into episode bags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rosbags.rosbag2 import Reader

from conrft_data.bags.assembly import Assembled, RawMessage, assemble, unpacked_status
from conrft_data.bags.definitions import (
    EPISODE_STATE,
    EPISODE_TOPICS,
    RecordedTopic,
    check_connection,
    check_definition,
)
from conrft_data.bags.errors import BagError
from conrft_data.bags.listing import METADATA_FILE
from conrft_data.bags.mcap_messages import complete_messages
from conrft_data.conversion import stamp_from_cdr, tick_from_cdr

_TEMPORARY_PREFIX = ".import-"


@dataclass(frozen=True)
class Imported:
    """Episodes that were made, and what is wrong with those that were not."""

    episodes: list[Assembled] = field(default_factory=list)
    problems: list[BagError] = field(default_factory=list)


def import_recording(recording: Path | str, folder: Path | str) -> Imported:
    """Makes one episode bag of every episode in a recording.

    The recording may hold other topics, several namespaces, several sessions, and gaps; it may lack its metadata or
    break off. An episode with a gap is kept up to the gap as ABORTED; one without its beginning is left out and
    reported.

    Args:
        recording: a bag folder (MCAP or SQLite, one or several files), or a single file of it.
        folder: of all episodes.

    Raises:
        BagError: it is no recording, was made with other message definitions, or holds no episode at all.
    """
    source = _Source(Path(recording))
    episodes = _find_episodes(source)
    if not episodes:
        raise BagError(
            f"{recording}: has no messages on a topic ending in {EPISODE_STATE.name}, so there is no episode to import"
        )
    result = Imported()
    for episode in episodes:
        try:
            made = assemble(
                _EpisodeMessages(source, episodes, episode),
                Path(folder),
                episode.episode_id,
                temporary_prefix=_TEMPORARY_PREFIX,
            )
        except BagError as error:
            result.problems.append(error)
        else:
            result.episodes.append(made)
    return result


class _Recorded(NamedTuple):
    """A message of the suite in the recording."""

    namespace: str
    topic: RecordedTopic
    recorded_ns: int
    raw: bytes


@dataclass
class _Span:
    """Where in the recording an episode lies.

    Attributes:
        namespace: prefix of its topics.
        episode_id: from its states.
        number: of the episode in its session.
        announced_ns: when its first state was recorded.
        first_ns, last_ns: when its first and last message were recorded.
    """

    namespace: str
    episode_id: str
    number: int
    announced_ns: int
    first_ns: int
    last_ns: int


def _find_episodes(source: _Source) -> list[_Span]:
    """The episodes in the order of their first states, with their extents."""
    spans: dict[tuple[str, str], _Span] = {}
    for message in source.messages(only=EPISODE_STATE):
        status = unpacked_status(message.raw)
        if status.episode_id:
            at = message.recorded_ns
            span = spans.setdefault(
                (message.namespace, status.episode_id),
                _Span(message.namespace, status.episode_id, status.episode, at, at, at),
            )
            span.last_ns = max(span.last_ns, at)
    episodes = list(spans.values())
    for message in source.messages():
        if message.topic is not EPISODE_STATE and (owner := _owner(episodes, message)):
            owner.first_ns = min(owner.first_ns, message.recorded_ns)
            owner.last_ns = max(owner.last_ns, message.recorded_ns)
    return episodes


def _owner(episodes: list[_Span], message: _Recorded) -> _Span | None:
    """The episode of a message.

    Ticks name only the episode's number, which begins again in every session: the last one announced before counts,
    or else the first one after, because a recording started in mid-episode gets the state late.
    """
    if message.topic is EPISODE_STATE:
        episode_id = unpacked_status(message.raw).episode_id
        return next((e for e in episodes if (e.namespace, e.episode_id) == (message.namespace, episode_id)), None)
    number = tick_from_cdr(message.raw).episode
    candidates = [e for e in episodes if (e.namespace, e.number) == (message.namespace, number)]
    before = [e for e in candidates if e.announced_ns <= message.recorded_ns]
    return before[-1] if before else next(iter(candidates), None)


class _EpisodeMessages:
    """The messages of one episode in recorded order, filed under their own stamps; can be gone through again."""

    def __init__(self, source: _Source, episodes: list[_Span], episode: _Span) -> None:
        self._source, self._episodes, self._episode = source, episodes, episode

    def __iter__(self) -> Iterator[RawMessage]:
        for message in self._source.messages(start=self._episode.first_ns, stop=self._episode.last_ns + 1):
            if _owner(self._episodes, message) is self._episode:
                yield RawMessage(message.topic, stamp_from_cdr(message.raw), message.raw)


class _Source:
    """The suite's messages in a recording of one or several files, whole or cut off."""

    def __init__(self, path: Path) -> None:
        self._parts = _parts(path)
        self._whole = {part: _opens(part) for part in self._parts}
        if broken := [part for part, whole in self._whole.items() if not whole and part.suffix != ".mcap"]:
            raise BagError(f"{broken[0]}: is damaged, and only MCAP files can be read up to where they break off")

    def messages(
        self, only: RecordedTopic | None = None, start: int | None = None, stop: int | None = None
    ) -> Iterator[_Recorded]:
        """Messages recorded from ``start`` up to before ``stop``, in recorded order; ``only`` those of one topic."""
        topics = EPISODE_TOPICS if only is None else (only,)
        for part in self._parts:
            read = self._read_whole if self._whole[part] else self._read_broken
            yield from read(part, topics, start, stop)

    @staticmethod
    def _read_whole(
        part: Path, topics: tuple[RecordedTopic, ...], start: int | None, stop: int | None
    ) -> Iterator[_Recorded]:
        with Reader(part) as reader:
            names = {c.topic: found for c in reader.connections if (found := _match(c.topic, c.msgtype, topics))}
            connections = [connection for connection in reader.connections if connection.topic in names]
            for connection in connections:
                check_connection(connection, str(part))
            for connection, recorded_ns, raw in reader.messages(connections, start, stop) if connections else ():
                yield _Recorded(*names[connection.topic], recorded_ns, raw)

    @staticmethod
    def _read_broken(
        part: Path, topics: tuple[RecordedTopic, ...], start: int | None, stop: int | None
    ) -> Iterator[_Recorded]:
        checked: set[str] = set()
        for message in complete_messages(part):
            found = _match(message.topic, message.type_name, topics)
            if (
                found is None
                or (start is not None and message.stamp_ns < start)
                or (stop is not None and message.stamp_ns >= stop)
            ):
                continue
            if message.topic not in checked:
                check_definition(
                    message.type_name, f"{part}: {message.topic}", text=message.definition, idl=message.idl
                )
                checked.add(message.topic)
            yield _Recorded(*found, message.stamp_ns, message.raw)


def _match(name: str, type_name: str, topics: tuple[RecordedTopic, ...]) -> tuple[str, RecordedTopic] | None:
    """Namespace and topic of a recorded name, None when it is not one of ``topics``."""
    for topic in topics:
        if name.endswith(topic.name) and type_name == topic.type_name:
            return name.removesuffix(topic.name), topic
    return None


def _parts(path: Path) -> list[Path]:
    """What to open.

    The folder when its recording is whole, else its files in the order in which ``ros2 bag`` numbered them.
    """
    if path.is_file() or ((path / METADATA_FILE).is_file() and _opens(path)):
        return [path]
    files = sorted((file for file in path.glob("*") if file.suffix in (".mcap", ".db3")), key=_number)
    if not files:
        raise BagError(f"{path}: is no rosbag2 recording, there is no .mcap or .db3 file")
    return files


def _number(file: Path) -> int:
    """Number of a part, as in ``name_12.mcap``."""
    match = re.search(r"_(\d+)$", file.stem)
    return int(match.group(1)) if match else 0


def _opens(path: Path) -> bool:
    """Whether a recording is whole, as far as its index and end tell."""
    try:
        with Reader(path):
            return True
    except Exception:  # damaged files make the parser fail in many ways
        return False
