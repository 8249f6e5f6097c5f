"""Runs one stage's launch file, or one program, and watches over it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from domain_coordinator import domain_id

from conrft_bringup.demo.episode_count import EpisodeCount
from conrft_bringup.demo.progress_line import ProgressLine
from conrft_bringup.episode_figures import EpisodeFigures, episode_number, last_episode_number
from conrft_bringup.evaluation.trial_series import TrialSeries, simulated_trials
from conrft_bringup.launch_runner.errors import LaunchError
from conrft_bringup.launch_runner.output import LaunchOutput
from conrft_bringup.launch_runner.process_supervisor import GracePeriods, LaunchResult, ProcessSupervisor
from conrft_bringup.launch_runner.runner import find_launch_file, run_launch_file, run_program
from conrft_learner.progress import duration

# The learner writes a checkpoint when it is asked to stop.
_GRACE = GracePeriods(terminate=30.0, kill=5.0)
_AFTER_A_DEATH = 10.0  # s in which the other nodes can still say what it did to them
_MOST_DEATHS = 3  # of a node that is started again
_TIMES_EACH_TRIAL = 3
_SHUTTING_DOWN = "[INFO] [launch]: shutting down"
_reserved = contextlib.ExitStack()
_TAIL = 15  # lines of the log that are shown when a stage fails


class StageFailed(RuntimeError):
    """A stage could not be finished; the text says why and shows the end of its log."""


class Interrupted(RuntimeError):
    """The person pressed Ctrl-C."""


@dataclass(frozen=True)
class Watch:
    """How a graph stage is watched.

    Attributes:
        count: counts the episodes of the stage.
        wanted: number of episodes that the stage is to have.
        only_successes: whether only successful ones count.
        patience: without a new episode for so long the stage has failed, s of wall time.
        deadline: monotonic time at which the stage is ended early; None: never.
        over: asked again and again; once it says so the stage is ended, whatever is there.
    """

    count: EpisodeCount
    wanted: int
    only_successes: bool = False
    patience: float = 300.0
    deadline: float | None = None
    over: Callable[[], bool] = lambda: False


def graph_environment() -> dict[str, str]:
    """The environment of this process's graphs, which meet no other's: its own domain, on this machine only."""
    return {**os.environ, "ROS_DOMAIN_ID": str(_own_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


@functools.cache
def _own_domain() -> int:
    """A domain that no other process has reserved, and not the shell's; it is kept as long as this process lives."""
    shell, choose = os.environ.get("ROS_DOMAIN_ID", ""), random.SystemRandom()
    # Domains up to 101 keep clear of the ports that Linux gives to outgoing connections.
    domains = [domain for domain in range(1, 102) if str(domain) != shell]
    return int(_reserved.enter_context(domain_id(lambda: choose.choice(domains))))


def run_graph(
    launch_file: str,
    arguments: Mapping[str, str],
    log: Path,
    line: ProgressLine,
    watch: Watch,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs a launch file until its supervisor has run all episodes; raises StageFailed or Interrupted.

    ``environment`` is by default ``graph_environment()``.
    """
    environment = {**(environment or graph_environment()), "ROS_LOG_DIR": str(log.parent / "ros")}
    output = LaunchOutput(log, quiet=True)
    watcher = _Watcher(watch, line)
    try:
        path = find_launch_file(launch_file, environment)
        result = run_launch_file(path, arguments, output, environment=environment, grace=_GRACE, idle=watcher.look)
    except LaunchError as error:
        raise StageFailed(str(error)) from error
    finally:
        output.close()
    if result.interrupted:
        raise Interrupted
    watcher.look_at_episodes()
    if watcher.problem or result.exit_code:
        raise failure(watcher.problem or result.reason or "a node has failed", log, about=watcher.culprit)
    if not watcher.complete and not watcher.ended_early:
        raise failure(f"the graph ended after {watcher.state}", log)


def run_trials(arguments: Mapping[str, str], wanted: int, folder: Path, log: Path, line: ProgressLine) -> TrialSeries:
    """Runs evaluate.launch.yaml until ``folder`` holds trials 1 to ``wanted``; gives them.

    A trial that a fault has spoilt, or that is void, is run again under its own number, because the start state is a
    function of it and every method is to meet the same ones. Raises as ``run_graph``, and StageFailed when a trial ends
    with a fault each time; one that is void each time is in what is given.
    """
    count = EpisodeCount(folder)
    for _ in range(_TIMES_EACH_TRIAL):
        for first, number in missing_trials(folder, wanted):
            count.refresh()
            where = {"episodes_dir": str(folder), "first_episode": str(first), "episodes": str(number)}
            session = unused_session(arguments.get("session", "evaluation"), folder, first)
            all_arguments = {**arguments, **where, "session": session, "after_fault": "continue"}
            run_graph("evaluate", all_arguments, log, line, Watch(count, len(count.trials) + number))
    series = simulated_trials(folder, wanted)
    spoilt = set(range(1, wanted + 1)) - {trial.number for trial in series.counted} - set(series.void)
    if spoilt:
        raise failure(f"trial {min(spoilt)} ended with a fault {_TIMES_EACH_TRIAL} times", log)
    return series


def missing_trials(folder: Path, wanted: int) -> list[tuple[int, int]]:
    """Stretches (first number, how many) of the trials 1 to ``wanted`` that are not there yet, or only void ones."""
    there = {trial.number for trial in simulated_trials(folder, wanted).counted}
    stretches: list[tuple[int, int]] = []
    for number in sorted(set(range(1, wanted + 1)) - there):
        if stretches and sum(stretches[-1]) == number:
            stretches[-1] = (stretches[-1][0], stretches[-1][1] + 1)
        else:
            stretches.append((number, 1))
    return stretches


def unused_session(base: str, folder: Path, first: int) -> str:
    """``base``, or that and a number, so that no recorded episode from number ``first`` on has the same name."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for attempt in itertools.count(1):
        session = base if attempt == 1 else f"{base}-{attempt}"
        prefix = f"{session}-evaluation-"
        if not any(name.startswith(prefix) and episode_number(name) >= first for name in names):
            return session
    raise AssertionError  # counting never ends


def resumed(folder: Path, dropped: Sequence[EpisodeFigures] = ()) -> dict[str, str]:
    """Launch arguments with which a graph goes on with the episodes of ``folder``, after those whose bags were dropped.

    A node that dies and comes back costs one episode, not the whole stage.
    """
    last = max([last_episode_number(folder), *(figures.number for figures in dropped)])
    return {"first_episode": str(last + 1), "after_fault": "continue"}


def run_command(words: Sequence[str], log: Path, line: ProgressLine, *, state: Callable[[], str] = lambda: "") -> None:
    """Runs a ``conrft`` command and shows ``state()``, or else its last line; raises StageFailed or Interrupted."""
    latest = [""]

    def listen(_: str, text: str) -> None:
        latest[0] = text.strip() or latest[0]

    output = LaunchOutput(log, quiet=True, listener=listen)
    command = [sys.executable, "-m", "conrft_bringup", *words]
    try:
        result = run_program(command, output, grace=_GRACE, idle=lambda _: line.show(state() or latest[0][:100]))
    finally:
        output.close()
    _check(result, f"conrft {' '.join(words[:2])}", log)


def failure(problem: str, log: Path, about: str = "") -> StageFailed:
    """A failure with the end of its log, as it was before the launch was being ended.

    Args:
        problem: what went wrong.
        log: of the stage.
        about: only lines that name this process, where there are any.
    """
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    ends = [number for number, text in enumerate(lines) if _SHUTTING_DOWN in text]
    lines = lines[: ends[-1]] if ends else lines
    lines = [text for text in lines if about in text] or lines
    return StageFailed("\n".join([f"{problem}\nlog: {log}, which says:", *(f"    {text}" for text in lines[-_TAIL:])]))


def _check(result: LaunchResult, what: str, log: Path) -> None:
    if result.interrupted:
        raise Interrupted
    if result.exit_code:
        raise failure(f"{what} failed with exit code {result.failed[0][1]}", log)


class _Watcher:
    """Looks at a running graph: shows its progress, and ends it when it cannot go on."""

    def __init__(self, watch: Watch, line: ProgressLine, now: Callable[[], float] = time.monotonic) -> None:
        self.problem = ""
        self.culprit = ""
        self.ended_early = False
        self._watch, self._line, self._now = watch, line, now
        self._begin = self._last_episode = now()
        self._died: float | None = None
        watch.count.refresh()
        self._done_before = self._done

    @property
    def state(self) -> str:
        """How far the stage is, for a person."""
        return self._watch.count.describe(self._watch.wanted, only_successes=self._watch.only_successes)

    @property
    def complete(self) -> bool:
        """Whether every wanted episode is there."""
        return self._done >= self._watch.wanted

    @property
    def _done(self) -> int:
        count = self._watch.count
        return count.successes if self._watch.only_successes else len(count.trials)

    @property
    def _time_left(self) -> str:
        """At the rate so far; empty where it is not known yet, or nothing is left."""
        done, missing = self._done - self._done_before, self._watch.wanted - self._done
        if done <= 0 or missing <= 0:
            return ""
        return f"  {duration(missing * (self._last_episode - self._begin) / done)} left"

    def look_at_episodes(self) -> None:
        """Counts new episodes and shows the state."""
        if self._watch.count.refresh():
            self._last_episode = self._now()
        self._line.show(f"{self.state}{self._time_left}")

    def look(self, supervisor: ProcessSupervisor) -> None:
        """Called by the runner again and again."""
        self.look_at_episodes()
        if self.problem or self.ended_early:
            return
        self.problem = self._problem(supervisor.result)
        out_of_time = self._watch.deadline is not None and self._now() > self._watch.deadline
        self.ended_early = out_of_time or self._watch.over()
        if self.problem or self.ended_early:
            supervisor.shut_down(self.problem or ("the time is up" if out_of_time else "nothing is left to do"))

    def _problem(self, result: LaunchResult) -> str:
        """What keeps the stage from going on; empty: nothing."""
        if self._now() - self._last_episode > self._watch.patience:
            return f"no episode has been finished for {self._watch.patience:.0f} s"
        for label, deaths in result.deaths.items():
            if deaths > _MOST_DEATHS:
                self.culprit = label
                return f"{label} has died {deaths} times"
        if not result.failed:
            return ""
        self._died = self._died or self._now()
        self.culprit, code = result.failed[0]
        waited = self._now() - self._died > _AFTER_A_DEATH
        return f"{self.culprit} has died (exit code {code}); without it the arm holds still" if waited else ""
