"""What the runs of a suite came to, read from the figures that each run keeps."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conrft_bringup.demo.run_folder import RunFolder
from conrft_bringup.episode_figures import EpisodeFigures, load_figures
from conrft_bringup.suite.suite_folder import SuiteFolder
from conrft_bringup.trials import mean_success_length, wilson_interval

TICK_MIN = 0.1 / 60  # of robot time in a step, min
STAGE_OF_METHOD = {"cal-conrft": "offline", "hil-conrft": "online"}
"""Whose trials are a method's: those after the offline stage, and those after the online stage."""
_FEW = 10  # episodes at the beginning and at the end


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One run.

    Attributes:
        seed: of the run.
        demonstrations, offline, training, online: episodes of its stages, in order; offline and online are trials.
        wall_s: that the whole run took.
    """

    seed: int
    demonstrations: list[EpisodeFigures]
    offline: list[EpisodeFigures]
    training: list[EpisodeFigures]
    online: list[EpisodeFigures]
    wall_s: float

    def trials(self, method: str) -> list[EpisodeFigures]:
        """The trials of a method."""
        return self.online if STAGE_OF_METHOD[method] == "online" else self.offline

    @property
    def training_min(self) -> float:
        """Robot time of the online stage, minutes."""
        return sum(episode.length for episode in self.training) * TICK_MIN


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """All seeds of one task."""

    task: str
    seeds: list[SeedResult]

    def success(self, method: str) -> list[float]:
        """Rate of each seed, 0 to 1; empty where the method was not run."""
        return [_rate(seed.trials(method)) for seed in self.seeds if seed.trials(method)]

    def counts(self, method: str) -> tuple[int, int]:
        """Successes and trials of all seeds together."""
        trials = [trial for seed in self.seeds for trial in seed.trials(method)]
        return sum(trial.success for trial in trials), len(trials)

    def lengths(self, method: str) -> list[float]:
        """Mean length of the successes of each seed that had any, steps."""
        return _lengths([seed.trials(method) for seed in self.seeds])

    @property
    def demonstrator_lengths(self) -> list[float]:
        """The same of the demonstrations."""
        return _lengths([seed.demonstrations for seed in self.seeds])

    @property
    def training_min(self) -> list[float]:
        """Robot time of the online stage of each seed, minutes."""
        return [seed.training_min for seed in self.seeds if seed.training]

    def length_ratio(self, method: str) -> float | None:
        """Length of the method's successes over the demonstrator's."""
        ours, theirs = self.lengths(method), self.demonstrator_lengths
        return statistics.mean(ours) / statistics.mean(theirs) if ours and theirs else None

    def interventions(self) -> dict[str, float | None]:
        """Take-overs per episode and share of steps that the operator drove, in the first and last online episodes."""
        first = [episode for seed in self.seeds for episode in seed.training[:_FEW]]
        last = [episode for seed in self.seeds for episode in seed.training[-_FEW:]]
        return {
            "take_overs_first": _mean([max(episode.take_overs, 0) for episode in first]),
            "take_overs_last": _mean([max(episode.take_overs, 0) for episode in last]),
            "operator_share_first": _share(first),
            "operator_share_last": _share(last),
        }

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        content: dict[str, Any] = {
            "seeds": [seed.seed for seed in self.seeds],
            "demonstrator_length": _mean(self.demonstrator_lengths),
            "online_episodes": [len(seed.training) for seed in self.seeds],
            "online_robot_min": _mean(self.training_min),
            "wall_s": [seed.wall_s for seed in self.seeds],
            "interventions": self.interventions(),
        }
        for method in STAGE_OF_METHOD:
            successes, trials = self.counts(method)
            if not trials:
                continue
            low, high = wilson_interval(successes, trials)
            ratio = self.length_ratio(method)
            content[method] = {
                "success": round(successes / trials, 4),
                "successes": successes,
                "trials": trials,
                "wilson_low": round(low, 4),
                "wilson_high": round(high, 4),
                "success_of_seeds": [round(rate, 4) for rate in self.success(method)],
                "mean_length": _mean(self.lengths(method)),
                "length_of_seeds": [round(length, 2) for length in self.lengths(method)],
                "length_over_demonstrator": None if ratio is None else round(ratio, 4),
            }
        return content


def read_results(folder: SuiteFolder, order: Sequence[str]) -> list[TaskResult]:
    """Every task with a finished run: those of ``order`` first, then others by name."""
    runs = folder.finished()
    names = {task for task, _ in runs}
    ordered = [task for task in order if task in names] + sorted(names - set(order))
    return [
        TaskResult(task=task, seeds=[_read(folder.run(task, seed), seed) for name, seed in runs if name == task])
        for task in ordered
    ]


def paper_figures(share: Path) -> dict[str, Any]:
    """The paper's table: ``source``, and by task what it reports."""
    content: dict[str, Any] = yaml.safe_load((share / "config/paper_table_1.yaml").read_text(encoding="utf-8"))
    return content


def _read(run: RunFolder, seed: int) -> SeedResult:
    stages = {name: load_figures(run.figures / f"{name}.json") for name in _STAGES}
    return SeedResult(seed=seed, wall_s=round(sum(run.finished().values()), 1), **stages)


_STAGES = ("demonstrations", "offline", "training", "online")


def _rate(episodes: list[EpisodeFigures]) -> float:
    return sum(episode.success for episode in episodes) / len(episodes)


def _lengths(runs: list[list[EpisodeFigures]]) -> list[float]:
    lengths = [mean_success_length([(episode.success, episode.length) for episode in run]) for run in runs]
    return [length for length in lengths if length is not None]


def _share(episodes: list[EpisodeFigures]) -> float | None:
    steps = sum(episode.length for episode in episodes)
    return round(sum(max(episode.operator_steps, 0) for episode in episodes) / steps, 4) if steps else None


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.mean(values), 4) if values else None
