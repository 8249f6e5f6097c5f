"""Tables for people: the one that a demo ends with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from conrft_bringup.trials import TrialsSummary

_WINDOWS = 5


def result_table(series: Mapping[str, TrialsSummary], interventions: Sequence[int]) -> str:
    """Rows of success with interval, mean length and trials; below them the interventions per episode over time.

    Args:
        series: by the name of its row, in order.
        interventions: take-overs of each online episode, in order.
    """
    rows = [("", "success", "95 % interval", "mean length", "trials")]
    for name, summary in series.items():
        interval = f"{100 * summary.wilson_low:.0f} to {100 * summary.wilson_high:.0f} %"
        length = f"{summary.mean_length:.1f}" if summary.trials else "-"
        rows.append((name, f"{100 * summary.success:.0f} %", interval, length, str(summary.trials)))
    lines = [aligned(rows)]
    if interventions:
        lines += ["", "interventions per episode"]
        lines += [f"  episodes {first:>3} to {last:>3}: {mean:.2f}" for first, last, mean in windows(interventions)]
    return "\n".join(lines)


def windows(values: Sequence[int], count: int = _WINDOWS) -> list[tuple[int, int, float]]:
    """Cuts values into up to ``count`` stretches of nearly equal size: first and last number (from 1), and the mean."""
    count = min(count, len(values))
    bounds = [round(index * len(values) / count) for index in range(count + 1)] if count else []
    stretches = itertools.pairwise(bounds)
    return [(begin + 1, end, sum(values[begin:end]) / (end - begin)) for begin, end in stretches]


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table as text: the first row is the head, the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_aligned(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """The first column to the left, the others to the right."""
    first, *others = row
    return "  ".join(
        [first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True))]
    )
