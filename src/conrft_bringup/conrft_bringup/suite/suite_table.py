"""A suite's results laid out like the paper's Table I: the paper's figure, and ours beside it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from conrft_bringup.suite.suite_results import TaskResult

_NAMES = {"cal-conrft": "Cal-ConRFT", "hil-conrft": "HIL-ConRFT"}
_NOTE = """\
Paper: {source}; 20 trials on a real robot. Ours: the simulator's ground truth, without intervention; mean ± standard
deviation over seeds (a single seed: the figure alone), and successes of all trials. Cal-ConRFT is the policy after the
offline stage, HIL-ConRFT the same run after the online stage. Length: mean steps of the successes. Minutes: robot time
of the online stage. The last columns: our demonstrator's length, HIL-ConRFT's share of it, and take-overs per episode
in the first and the last ten online episodes."""


def suite_table(results: Sequence[TaskResult], paper: dict[str, Any]) -> str:
    """Markdown: one row a task, and the means over these tasks."""
    head = ["task", "seeds", "minutes: paper", "ours"]
    for method in _NAMES.values():
        head += [f"{method} success: paper", "ours"]
    for method in _NAMES.values():
        head += [f"{method} length: paper", "ours"]
    head += ["demonstrator", "length ratio", "take-overs"]
    rows = [_row(result, paper["tasks"].get(result.task, {})) for result in results]
    if len(results) > 1:
        rows.append(_means(results, [paper["tasks"].get(result.task, {}) for result in results]))
    lines = [f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]]
    return "\n".join([*lines, "", _NOTE.format(source=paper["source"])])


def _row(result: TaskResult, paper: dict[str, Any]) -> list[str]:
    cells = [paper.get("title", result.task), str(len(result.seeds))]
    cells += [_number(paper.get("minutes")), _spread(result.training_min, ".1f")]
    for method in _NAMES:
        successes, trials = result.counts(method)
        counts = f" ({successes}/{trials})" if trials else ""
        rates = [100 * rate for rate in result.success(method)]
        cells += [_number(paper.get("success", {}).get(method)), _spread(rates, ".0f") + counts]
    for method in _NAMES:
        cells += [_number(paper.get("length", {}).get(method)), _spread(result.lengths(method), ".1f")]
    habits = result.interventions()
    first, last = habits["take_overs_first"], habits["take_overs_last"]
    taken = "-" if first is None or last is None else f"{first:.1f} to {last:.1f}"
    ratio = result.length_ratio("hil-conrft")
    return [*cells, _spread(result.demonstrator_lengths, ".1f"), "-" if ratio is None else f"{ratio:.2f}", taken]


def _means(results: Sequence[TaskResult], papers: Sequence[dict[str, Any]]) -> list[str]:
    """Means over the tasks, and of the paper's figures for the same tasks."""
    cells = ["**mean**", "", _mean([paper.get("minutes") for paper in papers], ".1f")]
    cells.append(_mean([_of(result.training_min) for result in results], ".1f"))
    for method in _NAMES:
        cells.append(_mean([paper.get("success", {}).get(method) for paper in papers], ".1f"))
        cells.append(_mean([_of([100 * rate for rate in result.success(method)]) for result in results], ".1f"))
    for method in _NAMES:
        cells.append(_mean([paper.get("length", {}).get(method) for paper in papers], ".1f"))
        cells.append(_mean([_of(result.lengths(method)) for result in results], ".1f"))
    cells.append(_mean([_of(result.demonstrator_lengths) for result in results], ".1f"))
    cells.append(_mean([result.length_ratio("hil-conrft") for result in results], ".2f"))
    return [*cells, ""]


def _of(values: Sequence[float]) -> float | None:
    return statistics.mean(values) if values else None


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return format(statistics.mean(known), form) if known else "-"


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    mean = format(statistics.mean(values), form)
    return f"{mean} ± {format(statistics.stdev(values), form)}" if len(values) > 1 else mean


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
