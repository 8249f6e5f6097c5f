"""Asks a person for the outcome of each trial: what to say, when a trial may begin, and what an answer means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from conrft_data.ticks import EpisodeStatus
from conrft_data.types import Outcome, Phase

_FAILURE = "a person called it a failure"
_SUCCESS = "a person called it a success"


@dataclass(frozen=True, slots=True)
class Say:
    """Tell the person."""

    text: str


@dataclass(frozen=True, slots=True)
class Ask(Say):
    """Tell the person, and take as an answer only what is typed from now on."""


@dataclass(frozen=True, slots=True)
class Start:
    """Let the waiting trial begin."""


@dataclass(frozen=True, slots=True)
class End:
    """End the running trial."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Label:
    """Change the outcome of a finished trial's recording."""

    episode_id: str
    outcome: Outcome
    reason: str


Request = Say | Start | End | Label


class _Stage(Enum):
    WAITING = auto()  # for the arm to be back
    ASKING_TO_START = auto()
    RUNNING = auto()
    ENDING = auto()
    ASKING_FOR_OUTCOME = auto()
    DONE = auto()


_ANSWERS = {
    _Stage.ASKING_TO_START: "only Enter",
    _Stage.RUNNING: "s or f",
    _Stage.ASKING_FOR_OUTCOME: "y or n",
}


class PersonJudge:
    """Every event returns the requests that it leads to, in order.

    A trial begins when the person has put the scene back and says so. While it runs, the person may end it as a success
    or as a failure at any time; one that runs to the step limit is asked about afterwards. A trial that was aborted, or
    ended with a fault, is none and is repeated. Only an empty line that is typed after the question lets a trial begin:
    the person's hands may be in the scene.
    """

    def __init__(self, wanted: int, done: int = 0) -> None:
        """``wanted`` trials in all, of which ``done`` are there already."""
        self.wanted, self.judged = wanted, done
        self._stage = _Stage.DONE if done >= wanted else _Stage.WAITING
        self._episode_id = ""
        self._heard: tuple[str, Phase, Outcome] | None = None
        self._ready = False

    @property
    def done(self) -> bool:
        """Whether every trial has been judged."""
        return self._stage is _Stage.DONE

    @property
    def wants_line(self) -> bool:
        """Whether something that the person types would mean anything now."""
        return self._stage in _ANSWERS

    def status(self, status: EpisodeStatus) -> list[Request]:
        """The supervisor has spoken; while it waits for others it says the same again and again."""
        self._ready = status.phase is Phase.READY
        news = (status.episode_id, status.phase, status.outcome)
        if self.done or news == self._heard:
            return []
        self._heard = news
        if status.phase is Phase.READY and self._stage is _Stage.WAITING:
            return self._ask_to_start()
        if status.phase is Phase.RUNNING and self._stage is not _Stage.RUNNING:
            self._stage, self._episode_id = _Stage.RUNNING, status.episode_id
            return [Ask("it runs: s and Enter when it has succeeded, f and Enter when it has failed")]
        if status.phase is Phase.ENDED and self._stage in (_Stage.RUNNING, _Stage.ENDING):
            return self._ended(status)
        return []

    def line(self, text: str) -> list[Request]:
        """The person has typed a line."""
        answer = text.strip().lower()
        if self._stage is _Stage.ASKING_TO_START and not answer:
            self._stage = _Stage.WAITING
            return [Start()]
        if self._stage is _Stage.RUNNING and answer in ("s", "f"):
            self._stage = _Stage.ENDING
            if answer == "s":
                return [End(Outcome.SUCCESS, _SUCCESS)]
            return [End(Outcome.ABORTED, _FAILURE)]
        if self._stage is _Stage.ASKING_FOR_OUTCOME and answer in ("y", "n"):
            labels: list[Request] = [Label(self._episode_id, Outcome.SUCCESS, _SUCCESS)] if answer == "y" else []
            return labels + self._judged("success" if answer == "y" else "failure")
        return [Say(f"'{text.strip()}' is no answer: {_ANSWERS.get(self._stage, 'nothing now')}")]

    def not_started(self, problem: str) -> list[Request]:
        """The trial could not begin as asked."""
        if self._stage is not _Stage.WAITING:
            return []
        self._stage = _Stage.ASKING_TO_START
        return [Ask(f"not started: {problem}. Press Enter to try again")]

    def not_ended(self, problem: str) -> list[Request]:
        """The trial could not be ended as asked."""
        if self._stage is not _Stage.ENDING:
            return []
        self._stage = _Stage.RUNNING
        return [Say(f"not done: {problem}")]

    def _ask_to_start(self) -> list[Request]:
        self._stage = _Stage.ASKING_TO_START
        return [Ask(f"trial {self.judged + 1} of {self.wanted}: put the scene back, then press Enter")]

    def _ended(self, status: EpisodeStatus) -> list[Request]:
        if status.outcome is Outcome.SUCCESS:
            return self._judged("success")
        if status.outcome is Outcome.ABORTED and status.reason == _FAILURE:
            # A failed trial is one that did not succeed within the limit, whoever looked at the clock.
            return [Label(status.episode_id, Outcome.TIMEOUT, _FAILURE), *self._judged("failure")]
        if status.outcome is Outcome.TIMEOUT:
            self._stage = _Stage.ASKING_FOR_OUTCOME
            return [Ask("the step limit is reached. Has it succeeded? y or n and Enter")]
        why = f"{status.outcome.name.lower()}, {status.reason}".rstrip(", ")
        if status.outcome is Outcome.FAULT:
            self._stage = _Stage.ASKING_TO_START
            return [Ask(f"that was no trial ({why}). Press Enter when the robot may go on")]
        self._stage = _Stage.WAITING
        return [Say(f"that was no trial ({why}); it is repeated")]

    def _judged(self, word: str) -> list[Request]:
        self.judged += 1
        said: list[Request] = [Say(f"trial {self.judged}: {word}")]
        if self.judged >= self.wanted:
            self._stage = _Stage.DONE
            return said
        self._stage = _Stage.WAITING
        # The arm may have been back before the answer came.
        return said + (self._ask_to_start() if self._ready else [])
