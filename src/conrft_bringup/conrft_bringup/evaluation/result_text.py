"""The table of an evaluation, for people."""

from __future__ import annotations

from conrft_bringup.evaluation.result import EvaluationResult
from conrft_bringup.evaluation.start_states import quadrants, start_axes
from conrft_bringup.result_table import aligned, result_table
from conrft_bringup.trials import mean_success_length


def result_text(result: EvaluationResult) -> str:
    """Success and length; who moved the arm; by start state; the classifier's errors; every trial."""
    parts = [_headline(result), _proof(result), _by_start(result), _classifier(result), _each(result)]
    return "\n\n".join(part for part in parts if part)


def _headline(result: EvaluationResult) -> str:
    length = mean_success_length(result.outcomes)
    table = result_table({result.settings.task: result.summary}, [])
    judge = {"simulator": "the simulator's ground truth", "person": "a person's word"}[result.settings.judge]
    return f"{table}\n\nmean length of successes: {'-' if length is None else f'{length:.1f}'}; a success is {judge}"


def _proof(result: EvaluationResult) -> str:
    proof = result.as_dict()["intervention_free"]
    counts = f"{proof['actions']} actions: {proof['policy']} policy, {proof['hold']} hold, {proof['operator']} operator"
    if not result.void:
        return f"without intervention, by the recordings ({counts})"
    lines = [f"VOID, and not counted: trial {number}: {why}" for number, why in sorted(result.void.items())]
    return "\n".join([*lines, f"the other trials: {counts}"])


def _by_start(result: EvaluationResult) -> str:
    axes = start_axes(result.trials)
    if axes is None:
        return ""
    rows = [("start (m)", "success", "mean length of successes")]
    for row in quadrants(result.trials, axes):
        length = row["mean_success_length"]
        rows.append((str(row["where"]), f"{row['successes']}/{row['trials']}", "-" if length is None else f"{length}"))
    return aligned(rows)


def _classifier(result: EvaluationResult) -> str:
    if not result.verdicts:
        return ""
    content = result.as_dict()["classifier"]
    rows = [("classifier", *(name.replace("_", " ") for name in content["trials"]))]
    rows += [(name, *map(str, content[name].values())) for name in ("trials", "frames")]
    return aligned(rows)


def _each(result: EvaluationResult) -> str:
    axes = start_axes(result.trials)
    rows = [
        ("trial", "outcome", "length", *(["classifier"] if result.verdicts else []), *(axes.labels if axes else []))
    ]
    for trial in result.trials:
        said = [_word(result.verdicts[trial.number].success)] if result.verdicts else []
        start = [f"{value:.3f}" for value in axes.of(trial)] if axes else []
        rows.append((str(trial.number), _word(trial.success), str(trial.length), *said, *start))
    return aligned(rows)


def _word(success: bool) -> str:
    return "success" if success else "failure"
