"""Plots of a run: success, length and interventions over the online episodes, and the losses of both stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from conrft_bringup.learner_figures import METRICS, curves, read_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from conrft_bringup.demo.run_folder import RunFolder
    from conrft_bringup.report.run_report import RunFigures

_WINDOW = 10  # episodes of a moving mean
_COLOURS = {"demonstrator": "#7a7a7a", "offline": "#c44e52", "online": "#2a7f62"}
_LOSSES = ("bc_loss", "td_loss", "q_data")


def draw_learning_curves(folder: RunFolder, figures: RunFigures, path: Path) -> None:
    """Writes the plots as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), constrained_layout=True)
    _draw_success(axes[0, 0], figures)
    _draw_lengths(axes[0, 1], figures)
    _draw_interventions(axes[1, 0], figures)
    _draw_losses(axes[1, 1], {"offline": folder.offline, "online": folder.learner})
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def moving_mean(values: Sequence[float], window: int = _WINDOW) -> NDArray[np.float64]:
    """Mean over the last ``window`` values, over fewer at the beginning; as long as ``values``."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[begins]) / (ends - begins))


def _draw_success(axes: Axes, figures: RunFigures) -> None:
    axes.set(title="success", xlabel="online episode", ylabel="rate", ylim=(-0.03, 1.03))
    if figures.training:
        values = [float(episode.success) for episode in figures.training]
        label = f"online, with interventions, by the classifier (mean of {_WINDOW})"
        axes.plot(range(1, len(values) + 1), moving_mean(values), color="#4c72b0", label=label)
    for name, trials in figures.summaries().items():
        if trials.trials:
            axes.axhline(trials.success, color=_COLOURS[name], linestyle="--", label=f"{name}, {trials.trials} trials")
            axes.axhspan(trials.wilson_low, trials.wilson_high, color=_COLOURS[name], alpha=0.08)
    _legend(axes)


def _draw_lengths(axes: Axes, figures: RunFigures) -> None:
    axes.set(title="episode length", xlabel="online episode", ylabel="steps")
    if figures.training:
        values = [float(episode.length) for episode in figures.training]
        axes.plot(range(1, len(values) + 1), values, ".", color="#4c72b0", alpha=0.4)
        axes.plot(range(1, len(values) + 1), moving_mean(values), color="#4c72b0", label=f"mean of {_WINDOW}")
    for name, trials in figures.summaries().items():
        if trials.trials:
            axes.axhline(trials.mean_length, color=_COLOURS[name], linestyle="--", label=name)
    _legend(axes)


def _draw_interventions(axes: Axes, figures: RunFigures) -> None:
    axes.set(title="interventions", xlabel="online episode", ylabel="per episode")
    if figures.training:
        numbers = range(1, len(figures.training) + 1)
        share = [episode.operator_steps / max(episode.length, 1) for episode in figures.training]
        axes.bar(numbers, figures.interventions, color="#dd8452", alpha=0.5, label="take-overs")
        axes.plot(numbers, moving_mean(figures.interventions), color="#dd8452", label=f"mean of {_WINDOW}")
        axes.plot(numbers, moving_mean(share), color="#8172b3", label=f"share of steps (mean of {_WINDOW})")
    _legend(axes)


def _draw_losses(axes: Axes, runs: dict[str, Path]) -> None:
    axes.set(title="learner", xlabel="update")
    axes.set_yscale("symlog", linthresh=0.01)
    named: set[str] = set()
    for stage, folder in runs.items():
        # The learner counts its updates through both stages.
        figures = curves(read_records(folder / METRICS), stage)
        for index, name in enumerate(_LOSSES):
            if name in figures:
                steps, values = figures[name]
                axes.plot(steps, values, color=f"C{index}", label=None if name in named else name)
                named.add(name)
        if stage == "offline" and figures:
            begin = max(steps[-1] for steps, _ in figures.values())
            axes.axvline(begin, color="#999999", linestyle=":", label="online begins")
    _legend(axes)


def _legend(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8)
