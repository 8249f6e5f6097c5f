"""Which recorded message belongs to which episode, and when an episode's recording is complete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from conrft_data import topics
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import Outcome, Phase

# Messages of an episode may come before the news that it runs: topics are not ordered among each other.
_EARLY_MESSAGES = 64


@dataclass(frozen=True, slots=True)
class Open:
    """Begin the recording of an episode."""

    status: EpisodeStatus


@dataclass(frozen=True, slots=True)
class Write:
    """Append one serialized message to an episode's recording."""

    episode_id: str
    topic: str
    raw: bytes
    stamp_ns: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Complete an episode's recording; ``remark`` is what is missing in it, empty when nothing is."""

    episode_id: str
    outcome: Outcome
    final_step: int
    remark: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Leave an episode's recording for salvage: how it ended was never told."""

    episode_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Relabel:
    """Give an episode whose recording goes on another outcome than it will be recorded with."""

    episode_id: str
    outcome: Outcome
    reason: str


Job = Open | Write | Finish | Abandon | Relabel


@dataclass(slots=True)
class _Recording:
    status: EpisodeStatus
    ended: EpisodeStatus | None = None
    ended_wall_s: float = 0.0
    steps: dict[str, set[int]] = field(default_factory=dict)

    def missing(self, final_step: int) -> list[str]:
        """Which of the tick topics lack steps up to the final one; those that never spoke are not expected."""
        expected = {topics.OBSERVATION, topics.ACTION} | set(self.steps)
        lacking = {topic: set(range(final_step + 1)) - self.steps.get(topic, set()) for topic in sorted(expected)}
        return [f"{topic} lacks {len(steps)} of {final_step + 1} steps" for topic, steps in lacking.items() if steps]

    def final_is_here(self, final_step: int) -> bool:
        """Whether everybody who spoke in this episode has spoken about its final step."""
        expected = {topics.OBSERVATION, topics.ACTION} | set(self.steps)
        return all(final_step in self.steps.get(topic, ()) for topic in expected)


class EpisodeSorter:
    """Sorts the stream of messages into episodes.

    Every event returns the jobs for the writer, in order. ``wall_s`` is monotonic.
    """

    def __init__(self, late_s: float, pack_status: Callable[[EpisodeStatus], bytes]) -> None:
        """Makes a sorter.

        Args:
            late_s: an ended episode waits so long for the messages of its final step.
            pack_status: serializes the state that this recorder itself has to write when it is stopped in the middle of
                an episode.
        """
        self._late_s = late_s
        self._pack_status = pack_status
        self._open: dict[int, _Recording] = {}
        self._early: list[tuple[str, Tick, bytes]] = []
        self.strays = 0

    @property
    def recording(self) -> list[str]:
        """Ids of the episodes that are being recorded."""
        return [recording.status.episode_id for recording in self._open.values()]

    def on_status(self, status: EpisodeStatus, raw: bytes, wall_s: float) -> list[Job]:
        """The supervisor has spoken; ``raw`` is what it said."""
        if status.phase is Phase.RUNNING:
            return self._begin(status, raw)
        recording = self._open.get(status.episode)
        if recording is None or recording.ended == status:  # the supervisor may say the same again
            return []
        if status.phase is Phase.ENDED and recording.status.episode_id == status.episode_id:
            recording.ended, recording.ended_wall_s = status, wall_s
            return [Write(status.episode_id, topics.EPISODE_STATE, raw, status.stamp_ns), *self.on_time(wall_s)]
        return []

    def on_tick(self, topic: str, tick: Tick, raw: bytes, wall_s: float) -> list[Job]:
        """A tick message came."""
        recording = self._open.get(tick.episode)
        if recording is None:
            self._early.append((topic, tick, raw))
            if len(self._early) > _EARLY_MESSAGES:
                self._early.pop(0)
                self.strays += 1
            return []
        if topic == topics.OBSERVATION and topic not in recording.steps and tick.step > 0:
            del self._open[tick.episode]
            return [Abandon(recording.status.episode_id, f"its beginning was missed, up to step {tick.step}")]
        recording.steps.setdefault(topic, set()).add(tick.step)
        jobs: list[Job] = [Write(recording.status.episode_id, topic, raw, tick.stamp_ns)]
        return jobs + (self.on_time(wall_s) if recording.ended is not None else [])

    def on_extra(self, topic: str, raw: bytes, stamp_ns: int) -> list[Job]:
        """A message of a topic that is recorded besides; it belongs to the episode that runs."""
        running = [recording for recording in self._open.values() if recording.ended is None]
        return [Write(recording.status.episode_id, topic, raw, stamp_ns) for recording in running]

    def on_time(self, wall_s: float) -> list[Job]:
        """Finishes each ended episode whose final step is complete, or whose time is over."""
        jobs: list[Job] = []
        for number, recording in list(self._open.items()):
            ended = recording.ended
            if ended is None:
                continue
            if recording.final_is_here(ended.final_step) or wall_s - recording.ended_wall_s >= self._late_s:
                del self._open[number]
                remark = "; ".join(recording.missing(ended.final_step))
                jobs.append(Finish(ended.episode_id, ended.outcome, ended.final_step, remark))
        return jobs

    def stop(self, stamp_ns: int) -> list[Job]:
        """The recorder is being shut down: a running episode ends as aborted at its last whole step."""
        jobs: list[Job] = []
        for recording in self._open.values():
            ended = recording.ended or self._aborted(recording, stamp_ns)
            if recording.ended is None:
                jobs.append(Write(ended.episode_id, topics.EPISODE_STATE, self._pack_status(ended), ended.stamp_ns))
            jobs.append(
                Finish(
                    ended.episode_id, ended.outcome, ended.final_step, "; ".join(recording.missing(ended.final_step))
                )
            )
        self._open.clear()
        return jobs

    def _aborted(self, recording: _Recording, stamp_ns: int) -> EpisodeStatus:
        whole = recording.steps.get(topics.OBSERVATION, set()) & recording.steps.get(topics.ACTION, set())
        return replace(
            recording.status,
            stamp_ns=max(stamp_ns, recording.status.stamp_ns),
            phase=Phase.ENDED,
            outcome=Outcome.ABORTED,
            final_step=max(whole, default=0),
            reason="the recorder was shut down in the middle of the episode",
        )

    def _begin(self, status: EpisodeStatus, raw: bytes) -> list[Job]:
        known = self._open.get(status.episode)
        if known is not None and known.status.episode_id == status.episode_id:
            return []
        jobs: list[Job] = []
        for number, recording in list(self._open.items()):
            if recording.ended is None or number == status.episode:
                del self._open[number]
                jobs.append(Abandon(recording.status.episode_id, "the next episode began before its end was told"))
        self._open[status.episode] = _Recording(status)
        jobs += [Open(status), Write(status.episode_id, topics.EPISODE_STATE, raw, status.stamp_ns)]
        early, self._early = self._early, []
        for topic, tick, message in early:
            if tick.episode == status.episode and tick.stamp_ns >= status.stamp_ns:
                jobs += self.on_tick(topic, tick, message, 0.0)
            else:
                self.strays += 1
        return jobs
