"""How success and length depend on where the objects lay when a trial began."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conrft_bringup.evaluation.trial_recording import TrialRecording

_FIXED = 1e-3  # m: an object whose starts spread less does not vary


@dataclass(frozen=True, kw_only=True)
class StartAxes:
    """The object that varies most from trial to trial, and the two axes along which it does.

    Attributes:
        name: of the object.
        axes: indices into x, y, z, in that order.
    """

    name: str
    axes: tuple[int, int]

    @property
    def labels(self) -> tuple[str, str]:
        """Of the two axes."""
        first, second = ("xyz"[axis] for axis in self.axes)
        return f"{self.name} {first}", f"{self.name} {second}"

    def of(self, trial: TrialRecording) -> tuple[float, float]:
        """Where the object lay, m."""
        pose = trial.start[self.name]
        return float(pose[self.axes[0]]), float(pose[self.axes[1]])


def start_axes(trials: list[TrialRecording]) -> StartAxes | None:
    """What to show the start states by; None where nothing varies, or nothing is known."""
    names = set.intersection(*(set(trial.start) for trial in trials)) if trials else set()
    spread = {name: np.ptp([trial.start[name][:3] for trial in trials], axis=0) for name in sorted(names)}
    if not spread or max(float(values.max()) for values in spread.values()) < _FIXED:
        return None
    name = max(spread, key=lambda name: float(spread[name].max()))
    first, second = sorted(np.argsort(-spread[name], kind="stable")[:2].tolist())
    return StartAxes(name=name, axes=(first, second))


def quadrants(trials: list[TrialRecording], axes: StartAxes) -> list[dict[str, float | int | str | None]]:
    """Success and mean length of successes in the four quarters of the area in which the trials began."""
    places = np.array([axes.of(trial) for trial in trials])
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    rows: list[dict[str, float | int | str | None]] = []
    for first in (False, True):
        for second in (False, True):
            inside = (places > middle) == (first, second)
            chosen = [trial for trial, within in zip(trials, inside.all(axis=1), strict=True) if within]
            won = [trial.length for trial in chosen if trial.success]
            signs = zip(axes.labels, middle, (first, second), strict=True)
            rows.append(
                {
                    "where": ", ".join(f"{label} {'>' if more else '<='} {at:.3f}" for label, at, more in signs),
                    "trials": len(chosen),
                    "successes": len(won),
                    "mean_success_length": round(float(np.mean(won)), 2) if won else None,
                }
            )
    return rows


def draw_starts(trials: list[TrialRecording], axes: StartAxes, path: Path) -> None:
    """Writes a PNG: each trial where its object lay; the colour is the length of a success, a cross is a failure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    places = np.array([axes.of(trial) for trial in trials])
    won = np.array([trial.success for trial in trials])
    figure, plot = pyplot.subplots(figsize=(6, 5), constrained_layout=True)
    if won.any():
        lengths = [trial.length for trial in trials if trial.success]
        x, y = places[won].T
        points = plot.scatter(x, y, c=lengths, cmap="viridis", s=70, label="success")
        figure.colorbar(points, label="steps of a success")
    x, y = places[~won].T
    plot.scatter(x, y, marker="x", color="#c44e52", s=70, label="failure")
    for trial, place in zip(trials, places, strict=True):
        plot.annotate(str(trial.number), place, xytext=(5, 5), textcoords="offset points", fontsize=8)
    _limit(plot, places)
    plot.set(title="start states", xlabel=f"{axes.labels[0]} (m)", ylabel=f"{axes.labels[1]} (m)")
    plot.legend(fontsize=8, loc="best")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _limit(plot, places: NDArray[np.float64]) -> None:  # type: ignore[no-untyped-def]  # Axes, imported late
    """The same scale on both axes, with some room around."""
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    reach = 0.6 * max(float(np.ptp(places, axis=0).max()), 0.01)
    plot.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach), aspect="equal")
    plot.grid(alpha=0.25)
