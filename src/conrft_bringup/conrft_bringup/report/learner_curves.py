"""Plots of everything that a learner wrote down: losses, values, and the figures of the episodes that it took in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conrft_bringup.learner_figures import METRICS, Curves, curves, online_episodes, read_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 3
_SIZE = (5.0, 3.4)  # inches of one panel
_LINEAR = 0.01  # below it an axis of both signs is linear


@dataclass(frozen=True)
class _Panel:
    """One plot.

    Attributes:
        title, unit: above it and along its axis.
        lines: figures that are drawn as lines.
        dots: figure of each episode that is drawn as dots.
        wide: whether it spans orders of magnitude and both signs.
        rate: whether its axis is from 0 to 1.
    """

    title: str
    unit: str
    lines: tuple[str, ...]
    dots: str = ""
    wide: bool = False
    rate: bool = False


_PANELS = (
    _Panel("critic", "loss", ("td_loss", "cql_loss", "critic_loss"), wide=True),
    _Panel("actor", "loss", ("bc_loss", "bc_error", "actor_loss"), wide=True),
    _Panel("values", "discounted return", ("q_data", "td_target", "q_sampled", "q_policy")),
    _Panel("sampled actions valued below the return", "share", ("cql_bound_rate",), rate=True),
    _Panel("success", "rate", ("success_rate", "autonomous_success_rate"), "success", rate=True),
    _Panel("interventions", "share of steps", ("mean_intervention_rate",), "intervention_rate", rate=True),
    _Panel("take-overs", "per episode", (), "take_overs"),
    _Panel("steps driven by the operator", "steps per episode", (), "operator_steps"),
    _Panel("episode length", "steps", ("mean_length",), "length"),
    _Panel("staleness of the acting weights", "updates", ("mean_staleness",), "staleness"),
    _Panel("speed", "updates/s", ("updates_per_s",)),
    _Panel("episodes that wait, updates owed", "number", ("waiting_episodes", "pending_updates")),
    _Panel("weights published", "updates", ("weights_version",)),
)
_NAMES = {
    "success_rate": "newest episodes",
    "autonomous_success_rate": "without take-over",
    "mean_intervention_rate": "newest episodes",
    "mean_length": "newest episodes",
    "mean_staleness": "newest episodes",
}


def metrics_files(folder: Path) -> list[Path]:
    """The figures of a learner's folder, or of the learners of both stages below a run's folder."""
    places = (folder / METRICS, folder / "offline" / METRICS, folder / "learner" / METRICS)
    return [path for path in places if path.is_file()]


def draw_learner_curves(files: Sequence[Path], path: Path) -> bool:
    """Draws the figures of one run, from one or several files in the order of training; false where there are none."""
    records = [record for file in files for record in read_records(file)]
    stages = {stage: curves(records, stage) for stage in ("offline", "online")}
    episodes = online_episodes(records)
    figures = _joined([*stages.values(), curves(episodes, "episodes"), curves(records, "learner")])
    panels = [panel for panel in _panels(figures) if any(name in figures for name in (*panel.lines, panel.dots))]
    if not panels:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = (_SIZE[0] * columns, _SIZE[1] * rows)
    figure, grid = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    last = max(steps[-1] for steps, _ in figures.values())
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.set_xlim(-0.02 * last, 1.02 * last)  # the same for all, to compare them
        _draw(axes, panel, figures, _begin_of_online(stages))
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return True


def _panels(figures: Iterable[str]) -> list[_Panel]:
    """The panels, and one for each figure that belongs to none of them."""
    known = {name for panel in _PANELS for name in (*panel.lines, panel.dots)}
    return [*_PANELS, *(_Panel(name, "", (name,)) for name in figures if name not in known)]


def _joined(parts: Iterable[Curves]) -> Curves:
    """Curves of several stages, one behind the other."""
    joined: Curves = {}
    for part in parts:
        for name, (steps, values) in part.items():
            before = joined.get(name, ([], []))
            joined[name] = (before[0] + steps, before[1] + values)
    return joined


def _begin_of_online(stages: dict[str, Curves]) -> float | None:
    """The update after which the online stage began; None where the run has one stage only."""
    ends = [max(steps) for steps, _ in stages["offline"].values()]
    return max(ends) if ends and stages["online"] else None


def _draw(axes: Axes, panel: _Panel, figures: Curves, online: float | None) -> None:
    axes.set(title=panel.title, xlabel="update", ylabel=panel.unit)
    if panel.wide:
        _set_wide_scale(axes, [value for name in panel.lines for value in figures.get(name, ([], []))[1]])
    if panel.rate:
        axes.set_ylim(-0.03, 1.03)
    if panel.dots in figures:
        axes.plot(*figures[panel.dots], ".", color="#999999", alpha=0.6, label="each episode")
    for name in panel.lines:
        if name in figures:
            axes.plot(*figures[name], label=_NAMES.get(name, name))
    if online is not None:
        axes.axvline(online, color="#999999", linestyle=":", label="online begins")
    if panel.dots and not panel.rate:
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -0.05 * max(high, 1.0)), max(high, 1.0))  # from 0, which some never leave
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)


def _set_wide_scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic scale with both signs, with as many marks as tell a value in a narrow range too."""
    from matplotlib.ticker import StrMethodFormatter, SymmetricalLogLocator

    sizes = [max(abs(value), _LINEAR) for value in values]
    decades = math.log10(max(sizes) / min(sizes)) * (2 if min(values) < 0 < max(values) else 1)
    axes.set_yscale("symlog", linthresh=_LINEAR)
    marks = [1.0] if decades > 3 else [1.0, 2.0, 5.0]
    axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=_LINEAR, subs=marks))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def learner_summary(files: Sequence[Path]) -> str:
    """The newest figures of each stage, for a person."""
    records = [record for file in files for record in read_records(file)]
    lines = []
    for stage in ("offline", "online", "learner"):
        if newest := [record for record in records if record.get("stage") == stage][-1:]:
            lines.append(f"{stage:<9} update {newest[0]['step']}  {_shown(newest[0])}")
    if episodes := online_episodes(records):
        lines.append(f"{'episodes':<9} {len(episodes)} taken in; the newest: {_shown(episodes[-1])}")
    return "\n".join(lines)


def _shown(record: dict[str, Any]) -> str:
    numbers = {name: value for name, value in record.items() if name != "step" and isinstance(value, int | float)}
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
