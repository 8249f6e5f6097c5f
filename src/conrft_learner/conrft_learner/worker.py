"""The learner's work in small pieces: take an episode in, pay what it owes, hand out weights. No ROS in here."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conrft_learner.intake import EpisodeIntake
from conrft_learner.pace import Pace, needed_updates_per_s
from conrft_learner.trainer import Trainer, TrainingDiverged
from conrft_policy.policy_weights import PolicyWeights

LABEL_PERIOD_S = 1.0
OFFLINE_FIGURES_PERIOD_S = 10.0
RETRY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far the learner is; the fields are those of ``conrft_msgs/LearnerStatus``."""

    ingested_episodes: int
    last_episode_id: str
    updates: int
    pending_updates: int
    weights_version: int


class LearningWorker:
    """Decides what to do next and does one piece of it.

    One online episode is taken in, then all updates that it is worth are done, then the next: so a learner that was
    killed and restarted does the same updates on the same data as one that ran through.
    """

    def __init__(
        self,
        trainer: Trainer,
        intake: EpisodeIntake,
        *,
        on_weights: Callable[[PolicyWeights], None],
        on_standing: Callable[[Standing], None],
        demonstrations_are_here: Callable[[], bool] = lambda: True,
        slice_updates: int = 5,
    ) -> None:
        """The callbacks are called on the thread that calls :meth:`step`.

        Args:
            trainer: what is trained.
            intake: where episodes come from.
            on_weights: takes each publication of weights.
            on_standing: takes the learner's standing, after each episode and each publication.
            demonstrations_are_here: false while they still arrive from elsewhere; no run begins to train before.
            slice_updates: updates in one piece of work.
        """
        self._trainer, self._intake = trainer, intake
        self._on_weights, self._on_standing = on_weights, on_standing
        self._demonstrations_are_here = demonstrations_are_here
        self._slice = slice_updates
        self._stopping: Callable[[], bool] = lambda: False
        self._published: int | None = None
        self._labels_checked = -LABEL_PERIOD_S
        self.doing = "starts"
        self.problem = ""
        self.pace = Pace()
        self.backlog = 0
        self._offline_noted: tuple[float, int] | None = None

    def step(self) -> bool:
        """Does one piece of work; false when there was nothing to do."""
        self._check_labels()
        if not (self._trainer.begun or self._demonstrations_are_here()):
            self.doing = "waits for the demonstrations from the robot's machine"
            return self._take_demonstration()
        return (
            self._take_lost()
            or self._take_demonstration()
            or self._offline()
            or self._announce_start()
            or self._online()
            or self._take_episode()
            or self._save()
        )

    def run(self, stop: threading.Event, wake: threading.Event, poll_s: float = 0.2) -> None:
        """Works until ``stop`` is set; idle, it looks for new bags every ``poll_s`` and at once when ``wake`` is set.

        It ends between two updates: with the paper's critic one alone takes seconds on a CPU.
        A disk that refuses (full, unplugged) pauses the work, with the reason in ``problem``, until it can be done.
        Training that diverged ends it, with the reason there too: the same updates would diverge again.
        """
        self._stopping = stop.is_set
        while not stop.is_set():
            try:
                busy = self.step()
                self.problem = ""
            except OSError as error:
                self.problem = f"training pauses: {_refusal(error, self._trainer.run_dir)}"
                self._trainer.report(self.problem)
                stop.wait(RETRY_S)
                continue
            except TrainingDiverged as error:
                self.problem = f"training has stopped: {error}; go on from an older checkpoint or with other settings"
                self._trainer.report(self.problem)
                stop.wait()
                return
            if not busy:
                wake.wait(poll_s)
                wake.clear()

    @property
    def refused(self) -> dict[str, str]:
        """Why episodes were not taken in, by name."""
        return self._intake.refused

    def standing(self) -> Standing:
        """How far the learner is now."""
        trainer = self._trainer
        return Standing(
            ingested_episodes=trainer.online_episodes,
            last_episode_id=self._intake.last_handled,
            updates=trainer.updates,
            pending_updates=trainer.pending_updates,
            weights_version=self._published or 0,
        )

    def warnings(self) -> list[str]:
        """What a person should know: episodes refused, labels unread, too slow a learner, weights not published."""
        trainer, refused, pace = self._trainer, list(self.refused.values()), self.pace.updates_per_s
        found = [f"{len(refused)} episodes were refused, the last: {refused[-1]}"] if refused else []
        found += list(self._intake.unread.values())[-3:]
        needed = needed_updates_per_s(trainer.preset.updates_per_tick)
        if trainer.online_updates and 0 < pace < needed:
            found.append(
                f"too slow for {trainer.preset.updates_per_tick:g} updates a tick: {pace:.1f} updates/s, "
                f"{needed:.1f} are needed; {trainer.pending_updates} updates are owed, {self.backlog} episodes wait"
            )
        unpublished = trainer.updates - (self._published or 0)
        if self._published is not None and unpublished > trainer.preset.publish_every + self._slice:
            found.append(f"the weights of the last {unpublished} updates are not published")
        return found

    def _check_labels(self) -> None:
        if time.monotonic() - self._labels_checked < LABEL_PERIOD_S:
            return
        for name in self._intake.apply_labels():
            self._trainer.report(f"episode {name} was relabelled")
        self.backlog = len(self._intake.waiting_episodes())
        self._labels_checked = time.monotonic()

    def _take_lost(self) -> bool:
        """Episodes that were in the replay at the checkpoint: nothing is drawn from it before they are back."""
        lost = self._trainer.lost
        waiting = [*self._intake.waiting_demonstrations(), *self._intake.waiting_episodes()] if lost else []
        bag = next((bag for bag in waiting if bag.name in lost), None)
        if bag is None:
            return False
        self.doing = "reads lost episodes again"
        self._intake.take(bag)
        return True

    def _take_demonstration(self) -> bool:
        waiting = self._intake.waiting_demonstrations() if not self._trainer.pending_updates else []
        if not waiting:
            return False
        self.doing = "takes demonstrations in"
        self._intake.take(waiting[0])
        return True

    def _offline(self) -> bool:
        trainer = self._trainer
        if trainer.offline_finished or not trainer.replay.count("demonstrations"):
            return False
        self.doing = "trains offline"
        if self._offline_noted is None:
            self._offline_noted = time.monotonic(), trainer.updates
        trainer.offline(steps=self._slice, stop=self._stopping)
        (since, before), now = self._offline_noted, time.monotonic()
        if now - since >= OFFLINE_FIGURES_PERIOD_S or trainer.offline_finished:
            self._note((trainer.updates - before) / max(now - since, 1e-9))
            self._offline_noted = now, trainer.updates
        return True

    def _announce_start(self) -> bool:
        """Weights and standing once, before the first episode."""
        if self._published is not None:
            return False
        self._publish()
        return True

    def _online(self) -> bool:
        trainer = self._trainer
        if not trainer.pending_updates:
            return False
        self.doing = "trains online"
        before, started = trainer.online_updates, time.monotonic()
        trainer.train(min(self._slice, trainer.pending_updates), stop=self._stopping)
        done, seconds = trainer.online_updates - before, time.monotonic() - started
        self.pace.add(done, seconds, finished=not trainer.pending_updates)
        if not trainer.pending_updates or trainer.updates - (self._published or 0) >= trainer.preset.publish_every:
            self._publish()
        return True

    def _take_episode(self) -> bool:
        waiting = self._intake.waiting_episodes()
        if not waiting:
            self.doing = "waits for episodes"
            return False
        self.doing = "takes an episode in"
        self._intake.take(waiting[0])
        self.backlog = len(waiting) - 1
        self._on_standing(self.standing())
        return True

    def _save(self) -> bool:
        """A checkpoint whenever there is time: a crash then costs the updates of one episode at most."""
        if not self._trainer.unsaved:
            return False
        self._trainer.save()
        return True

    def _publish(self) -> None:
        """Weights first: who sees a standing with nothing pending may count on them."""
        weights = self._trainer.acting_weights()
        self._on_weights(weights)
        self._published = weights.version
        self._on_standing(self.standing())
        if self.pace.updates_per_s:
            self._note(self.pace.updates_per_s)

    def _note(self, updates_per_s: float) -> None:
        """How the learner itself does, for the log."""
        figures = {
            "updates_per_s": round(updates_per_s, 3),
            "waiting_episodes": self.backlog,
            "pending_updates": self._trainer.pending_updates,
            "weights_version": self._published or 0,
        }
        self._trainer.log.write("learner", self._trainer.updates, figures)


def _refusal(error: OSError, run_dir: Path) -> str:
    """What the disk refuses, where, and what a person can do about it."""
    where = error.filename or run_dir
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no room is left for {where}; make room in {run_dir}, and it goes on by itself"
    return f"{error.strerror or error} ({where}); it goes on by itself when the disk does"
