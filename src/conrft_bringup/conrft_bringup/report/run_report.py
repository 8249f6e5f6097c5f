"""Reads a run's episodes and writes ``figures/*.json``, ``summary.json`` and the plots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conrft_bringup.demo.run_folder import RunFolder, write_json
from conrft_bringup.episode_figures import EpisodeFigures, episode_figures, finished_trials, load_figures
from conrft_bringup.evaluation.trial_series import simulated_trials
from conrft_bringup.result_table import result_table
from conrft_bringup.trials import TrialsSummary, summarise
from conrft_data.bags import EpisodeInfo


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """The episodes of each stage, in order."""

    demonstrations: list[EpisodeFigures]
    offline: list[EpisodeFigures]
    training: list[EpisodeFigures]
    online: list[EpisodeFigures]

    @property
    def interventions(self) -> list[int]:
        """Take-overs of each online episode."""
        return [max(figures.take_overs, 0) for figures in self.training]

    def summaries(self) -> dict[str, TrialsSummary]:
        """Of the three series of trials, under their names in summary.json."""
        series = {"demonstrator": self.demonstrations, "offline": self.offline, "online": self.online}
        return {name: summarise([(f.success, f.length) for f in figures]) for name, figures in series.items()}


def read_figures(folder: RunFolder) -> RunFigures:
    """Reads the bags of a run, and what is kept of those that were dropped; a stage that has not run yet has none."""
    trials = folder.settings().trials
    bags = {
        "demonstrations": finished_trials(folder.demonstrations),
        "offline": _counted(folder.offline_trials, trials),
        "training": finished_trials(folder.episodes),
        "online": _counted(folder.online_trials, trials),
    }
    return RunFigures(**{name: _figures(infos, folder.dropped / f"{name}.json") for name, infos in bags.items()})


def report(folder: RunFolder, *, plots: bool = True) -> str:
    """Writes everything that can be drawn from the bags of a run; gives the table."""
    figures = read_figures(folder)
    for name in ("demonstrations", "offline", "training", "online"):
        write_json(folder.figures / f"{name}.json", [episode.as_dict() for episode in getattr(figures, name)])
    write_json(folder.summary, summary(folder, figures))
    if plots:
        from conrft_bringup.report.contact_sheet import draw_contact_sheet
        from conrft_bringup.report.learner_curves import draw_learner_curves, metrics_files
        from conrft_bringup.report.learning_curves import draw_learning_curves

        draw_learning_curves(folder, figures, folder.root / "learning_curves.png")
        draw_learner_curves(metrics_files(folder.root), folder.root / "learner_curves.png")
        draw_contact_sheet(folder, figures, folder.root / "contact_sheet.png")
    series = figures.summaries()
    rows = {"demonstrator": "demonstrator", "offline": "after offline training", "online": "after online training"}
    return result_table({title: series[name] for name, title in rows.items()}, figures.interventions)


def summary(folder: RunFolder, figures: RunFigures) -> dict[str, Any]:
    """The content of summary.json."""
    return {
        **{name: trials.as_dict() for name, trials in figures.summaries().items()},
        "interventions_per_episode": figures.interventions,
        "seed": folder.settings().seed,
        "wall_s": round(sum(folder.finished().values()), 1),
    }


def _counted(folder: Path, trials: int) -> list[EpisodeInfo]:
    return [trial.info for trial in simulated_trials(folder, trials).counted]


def _figures(bags: list[EpisodeInfo], dropped: Path) -> list[EpisodeFigures]:
    there = {info.episode_id for info in bags}
    kept = [figures for figures in load_figures(dropped) if figures.episode_id not in there]
    return [*kept, *(episode_figures(info) for info in bags)]
