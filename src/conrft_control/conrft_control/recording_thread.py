"""Writes episodes to the disk in a thread of its own, so that a slow disk never delays a callback."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from conrft_control.episode_sorting import Abandon, Finish, Job, Open, Relabel, Write
from conrft_data.bags.errors import BagError
from conrft_data.bags.label import relabel
from conrft_data.durable_files import is_plain_name
from conrft_data.ticks import EpisodeStatus
from conrft_data.types import Outcome


class Writer(Protocol):
    """What is needed of ``conrft_data.bags.writer.EpisodeWriter``."""

    def write(self, topic: str, raw: bytes, stamp_ns: int) -> None:
        """Appends a message."""
        ...

    def relabel(self, outcome: Outcome, reason: str) -> None:
        """Labels the bag in the making."""
        ...

    def finish(self, outcome: Outcome, final_step: int) -> Path:
        """Completes the bag and returns its folder."""
        ...

    def close(self) -> None:
        """Closes the files and leaves the recording for salvage."""
        ...


class RecordingThread:
    """Carries out jobs in order.

    An episode whose recording fails is broken off and stays on the disk as a leftover: nothing half gets a final name.
    """

    def __init__(
        self,
        folder: Path,
        open_writer: Callable[[EpisodeStatus], Writer],
        capacity_bytes: int,
        say: Callable[[str], None],
    ) -> None:
        """Starts the thread.

        Args:
            folder: of all episode bags, those of earlier recorders included.
            open_writer: begins the recording of an episode in it; may raise BagError.
            capacity_bytes: of messages that wait for the disk; beyond it an episode is broken off.
            say: for a person, called from the thread.
        """
        self._folder, self._open_writer, self._capacity, self._say = folder, open_writer, capacity_bytes, say
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._writers: dict[str, Writer] = {}
        self._pending: set[str] = set()
        self._finishing: list[str] = []
        self._finished: list[Path] = []
        self._overflowed: set[str] = set()
        self._problems: dict[str, str] = {}
        self.queued_bytes = 0
        self._thread = threading.Thread(target=self._work, name="recording")
        self._thread.start()

    @property
    def finished(self) -> list[Path]:
        """Folders of the bags that are complete, oldest first."""
        with self._changed:
            return list(self._finished)

    @property
    def problems(self) -> dict[str, str]:
        """What went wrong, by episode id."""
        with self._changed:
            return dict(self._problems)

    def add(self, jobs: list[Job]) -> None:
        """Hands over jobs; returns at once."""
        if not jobs:
            return
        with self._changed:
            for job in jobs:
                self._add(job)
            self._changed.notify()

    def _add(self, job: Job) -> None:
        if isinstance(job, Write):
            if job.episode_id in self._overflowed:
                return
            if self.queued_bytes + len(job.raw) > self._capacity:
                self._overflowed.add(job.episode_id)
                job = Abandon(
                    job.episode_id, f"the disk is too slow, {self.queued_bytes / 2**20:.0f} MiB wait to be written"
                )
            else:
                self.queued_bytes += len(job.raw)
        elif isinstance(job, Open):
            self._pending.add(job.status.episode_id)
        elif isinstance(job, Finish):
            self._finishing.append(job.episode_id)
        self._jobs.append(job)

    def relabel(self, episode_id: str, outcome: Outcome, reason: str) -> str:
        """Changes the outcome of an episode, at once or when its bag is complete; returns what was done.

        ``episode_id``: of any episode in the folder, whoever recorded it; empty for the last one that this process
        finished. Raises BagError when there is no such episode.
        """
        if outcome is Outcome.NONE:
            raise BagError("an episode that has ended cannot be labelled NONE")
        with self._changed:
            if not episode_id and self._finishing:
                episode_id = self._finishing[-1]
            if episode_id in self._pending:
                self._jobs.append(Relabel(episode_id, outcome, reason))
                self._changed.notify()
                return f"{episode_id} will be relabelled {outcome.name} when its recording is complete"
            if not episode_id and not self._finished:
                raise BagError("this recorder has recorded no episode yet: name the one that is meant")
            episode_id = episode_id or self._finished[-1].name
        if not is_plain_name(episode_id):
            raise BagError(f"{episode_id!r} is no episode's name")
        relabel(self._folder / episode_id, outcome, reason)
        return f"{episode_id} is relabelled {outcome.name}"

    def close(self, timeout_s: float = 30.0) -> bool:
        """Carries out what waits, then ends the thread; False when the disk did not keep up with ``timeout_s``."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if not self._jobs:
                    break
                job = self._jobs.popleft()
            self._carry_out(job)
        for writer in self._writers.values():
            writer.close()

    def _carry_out(self, job: Job) -> None:
        episode_id = job.status.episode_id if isinstance(job, Open) else job.episode_id
        try:
            if isinstance(job, Open):
                self._writers[episode_id] = self._open_writer(job.status)
            elif isinstance(job, Write):
                self._write(job)
            elif isinstance(job, Finish):
                self._finish(job)
            elif isinstance(job, Relabel):
                self._relabel(job)
            else:
                self._break_off(episode_id, job.reason)
        except (BagError, OSError) as error:
            self._break_off(episode_id, str(error))

    def _write(self, job: Write) -> None:
        with self._changed:
            self.queued_bytes -= len(job.raw)
        writer = self._writers.get(job.episode_id)
        if writer is not None:
            writer.write(job.topic, job.raw, job.stamp_ns)

    def _relabel(self, job: Relabel) -> None:
        writer = self._writers.get(job.episode_id)
        try:
            if writer is not None:
                writer.relabel(job.outcome, job.reason)
            else:  # it was finished meanwhile
                self.relabel(job.episode_id, job.outcome, job.reason)
        except BagError as error:
            self._say(f"{job.episode_id} is not relabelled {job.outcome.name}: {error}")

    def _finish(self, job: Finish) -> None:
        writer = self._writers.pop(job.episode_id, None)
        if writer is None:  # it was broken off
            self._forget(job.episode_id)
            return
        try:
            bag = writer.finish(job.outcome, job.final_step)
        except (BagError, OSError):
            writer.close()
            raise
        if job.remark:
            self._say(f"{job.episode_id} has gaps: {job.remark}")
        with self._changed:
            self._forget(job.episode_id)
            self._finished.append(bag)

    def _forget(self, episode_id: str) -> None:
        """Takes an episode off the lists of those whose end is awaited, if it is still there."""
        with self._changed:
            self._pending.discard(episode_id)
            self._finishing = [name for name in self._finishing if name != episode_id]

    def _break_off(self, episode_id: str, reason: str) -> None:
        self._forget(episode_id)
        with self._changed:
            self._problems.setdefault(episode_id, reason)
        self._say(f"{episode_id} is not recorded whole: {reason}")
        writer = self._writers.pop(episode_id, None)
        if writer is not None:
            try:
                writer.close()
            except (BagError, OSError) as error:
                self._say(f"{episode_id}: {error}")
