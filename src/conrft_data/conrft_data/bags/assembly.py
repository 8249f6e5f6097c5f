"""Makes an episode bag of raw messages whose recording did not end in the regular way: after a crash, or by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from conrft_data.bags import definitions
from conrft_data.bags.definitions import ACTION, EPISODE_STATE, OBSERVATION, TICK_TOPICS, RecordedTopic
from conrft_data.bags.errors import BagError
from conrft_data.bags.writer import EpisodeWriter
from conrft_data.conversion import MessageError, episode_status_from_msg, tick_from_cdr
from conrft_data.ticks import EpisodeStatus
from conrft_data.types import MESSAGE_VERSION, Outcome, Phase


class RawMessage(NamedTuple):
    """A serialized message (CDR) with the topic it goes to in the episode bag and its time in the recording."""

    topic: RecordedTopic
    stamp_ns: int
    raw: bytes


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """An episode bag that was made.

    Attributes:
        path: of the bag.
        outcome: how the episode ended; ABORTED when its end is missing.
        final_step: last step that is complete.
        lost: what could not be kept, as a sentence; empty when everything was.
    """

    path: Path
    outcome: Outcome
    final_step: int
    lost: str = ""


def assemble(
    messages: Iterable[RawMessage], folder: Path, episode_id: str | None = None, *, temporary_prefix: str
) -> Assembled:
    """Writes the usable part of one episode as an episode bag.

    Usable is the run of complete ticks from step 0: an observation and, but for the last, its action. The recorded
    outcome holds only when the run reaches the recorded final step; otherwise the episode counts as ABORTED after its
    last complete tick, and what came later is left out.

    Args:
        messages: of one episode in recorded order; gone through twice.
        folder: of all episodes.
        episode_id: name of the bag; None: the recorded one.
        temporary_prefix: of the hidden folder in which the bag is made.

    Raises:
        BagError: nothing is usable, the task is not known, the message version is another, or the bag exists already.
    """
    contents = _survey(messages)
    status, usable = _usable_part(contents, episode_id or "the recording")
    whole = status.phase is Phase.ENDED and status.final_step <= usable and status.outcome is not Outcome.NONE
    final_step = status.final_step if whole else usable
    lost = "" if whole else _loss(status, usable, max(contents.observed))
    end = (
        status
        if whole
        else replace(status, phase=Phase.ENDED, outcome=Outcome.ABORTED, final_step=final_step, reason=lost)
    )
    name = episode_id or status.episode_id
    with EpisodeWriter(
        folder,
        name,
        task=status.task,
        mode=status.mode,
        extra_topics=contents.extra_topics.values(),
        temporary_prefix=temporary_prefix,
    ) as writer:
        last_ns = _copy(messages, writer, contents.observed if whole else set(range(final_step + 1)))
        if not whole:
            writer.write(EPISODE_STATE.name, _packed(end, contents.status_raw), last_ns)
        path = writer.finish(end.outcome, final_step)
    return Assembled(path=path, outcome=end.outcome, final_step=final_step, lost=lost)


class _Contents:
    """Which ticks, which last state and which other topics a recording holds."""

    def __init__(self) -> None:
        self.observed: set[int] = set()
        self.answered: set[int] = set()
        self.status: EpisodeStatus | None = None
        self.status_raw = b""
        self.extra_topics: dict[str, RecordedTopic] = {}

    def usable_final_step(self) -> int | None:
        """Last step of the unbroken run of observations from step 0 that are connected by actions."""
        if 0 not in self.observed:
            return None
        step = 0
        while step in self.answered and step + 1 in self.observed:
            step += 1
        return step


def _survey(messages: Iterable[RawMessage]) -> _Contents:
    contents = _Contents()
    for message in messages:
        if message.topic == EPISODE_STATE:
            contents.status, contents.status_raw = unpacked_status(message.raw), message.raw
        elif message.topic == OBSERVATION:
            contents.observed.add(tick_from_cdr(message.raw).step)
        elif message.topic == ACTION:
            contents.answered.add(tick_from_cdr(message.raw).step)
        elif message.topic not in TICK_TOPICS:
            contents.extra_topics[message.topic.name] = message.topic
    return contents


def _usable_part(contents: _Contents, where: str) -> tuple[EpisodeStatus, int]:
    """The last state, and the last step of the run of complete ticks; raises BagError when there is none."""
    status = contents.status
    if status is None:
        raise BagError(f"{where}: has no complete message on {EPISODE_STATE.name}, the task is not known")
    if status.message_version != MESSAGE_VERSION:
        raise BagError(
            f"{status.episode_id}: holds message version {status.message_version}, expected {MESSAGE_VERSION}"
        )
    usable = contents.usable_final_step()
    if usable is None:
        first = min(contents.observed, default=None)
        raise BagError(
            f"{status.episode_id}: "
            + ("has no complete observation" if first is None else f"begins at step {first}, its beginning is missing")
        )
    return status, usable


def _copy(messages: Iterable[RawMessage], writer: EpisodeWriter, steps: set[int]) -> int:
    """Copies the messages of these steps, each once, and all that belong to no step; returns the last time stamp."""
    last_ns = 0
    seen: set[tuple[str, int]] = set()
    for message in messages:
        if message.topic in TICK_TOPICS:
            key = (message.topic.name, tick_from_cdr(message.raw).step)
            if key in seen or key[1] not in steps:
                continue
            seen.add(key)
        writer.write(message.topic.name, message.raw, message.stamp_ns)
        last_ns = max(last_ns, message.stamp_ns)
    return last_ns


def _loss(status: EpisodeStatus, usable: int, observed: int) -> str:
    if status.phase is Phase.ENDED:
        ended = f"the episode had ended at step {status.final_step} with {status.outcome.name}"
        return f"the ticks after step {usable} are not complete, {ended}"
    later = f", {observed - usable} later ticks are not connected to it" if observed > usable else ""
    return f"the recording breaks off after step {usable}{later}"


def unpacked_status(raw: bytes) -> EpisodeStatus:
    """The episode's state of its serialized message; raises BagError when it is none."""
    try:
        return episode_status_from_msg(definitions.unpack(raw, EPISODE_STATE.type_name))
    except (MessageError, ValueError) as error:
        raise BagError(f"{EPISODE_STATE.name}: {error}") from error


def _packed(status: EpisodeStatus, template: bytes) -> bytes:
    """The state in serialized form; ``template`` is the recorded message that it changes."""
    message = definitions.unpack(template, EPISODE_STATE.type_name)
    changed = replace(
        message,
        state=int(status.phase),
        outcome=int(status.outcome),
        final_step=status.final_step,
        reason=status.reason,
    )
    return definitions.pack(changed)
