"""Learning curves of a suite: success, length and interventions of the online episodes, one row a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from conrft_bringup.episode_figures import EpisodeFigures
from conrft_bringup.report.learning_curves import moving_mean
from conrft_bringup.suite.suite_results import TICK_MIN, SeedResult, TaskResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Against = Literal["episodes", "minutes"]
Float64 = NDArray[np.float64]
_LABELS = {"episodes": "online episode", "minutes": "robot time of the online stage (min)"}
_MEASURES: dict[str, Callable[[EpisodeFigures], float]] = {
    # In practice nobody asks the ground truth.
    "success by the classifier, with interventions": lambda episode: float(episode.success),
    "episode length (steps)": lambda episode: float(episode.length),
    "intervention rate (share of steps)": lambda episode: max(episode.operator_steps, 0) / max(episode.length, 1),
}


def draw_suite_curves(results: Sequence[TaskResult], titles: dict[str, str], path: Path, against: Against) -> bool:
    """Writes the plot as PNG; whether any task has online episodes."""
    shown = [result for result in results if any(seed.training for seed in result.seeds)]
    if not shown:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (4 * len(_MEASURES), 2.6 * len(shown) + 0.4)
    figure, axes = pyplot.subplots(len(shown), len(_MEASURES), figsize=size, constrained_layout=True, squeeze=False)
    for row, result in zip(axes, shown, strict=True):
        for place, (name, measure) in zip(row, _MEASURES.items(), strict=True):
            _draw(place, result, measure, against)
            place.set_title(f"{titles.get(result.task, result.task)}: {name}", fontsize=9)
            place.grid(alpha=0.25)
        _draw_trials(row[0], result, against)
        row[1].axhline(
            np.mean(result.demonstrator_lengths), color="#7a7a7a", linestyle="--", linewidth=1, label="demonstrator"
        )
        row[1].legend(fontsize=7)
    for place in axes[-1]:
        place.set_xlabel(_LABELS[against], fontsize=8)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return True


def positions(seed: SeedResult, against: Against) -> Float64:
    """Where each online episode of a run stands on the axis."""
    if against == "episodes":
        return np.arange(1, len(seed.training) + 1, dtype=np.float64)
    return np.cumsum([episode.length for episode in seed.training]) * TICK_MIN


def _draw(place: Axes, result: TaskResult, measure: Callable[[EpisodeFigures], float], against: Against) -> None:
    """Each seed's moving mean thin, their mean thick, as far as all seeds go."""
    curves = []
    for seed in result.seeds:
        if seed.training:
            x, y = positions(seed, against), moving_mean([measure(episode) for episode in seed.training])
            curves.append((x, y))
            place.plot(x, y, color="#4c72b0", alpha=0.35, linewidth=1)
    grid = np.linspace(max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves), 100)
    place.plot(grid, np.mean([np.interp(grid, x, y) for x, y in curves], axis=0), color="#4c72b0", linewidth=2)


def _draw_trials(place: Axes, result: TaskResult, against: Against) -> None:
    """True success without intervention, before and after."""
    place.set_ylim(-0.03, 1.06)
    last = float(np.mean([positions(seed, against)[-1] for seed in result.seeds if seed.training]))
    for method, x, colour in (("cal-conrft", 0.0, "#c44e52"), ("hil-conrft", last, "#2a7f62")):
        rates = result.success(method)
        if rates:
            label = f"truth, without intervention, {'before' if x == 0 else 'after'}"
            place.plot([x] * len(rates), rates, "o", color=colour, markersize=5, label=label)
    place.legend(fontsize=7, loc="lower right")
