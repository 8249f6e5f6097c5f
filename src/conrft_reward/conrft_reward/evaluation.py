"""What a classifier gets wrong: false positives and false negatives, of frames, after the gates, and of decisions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conrft_data.config import TaskConfig
from conrft_data.durable_files import write_text
from conrft_reward.classifier import SuccessClassifier
from conrft_reward.labelled_frames import LabelledFrames

Report = dict[str, Any]


def evaluate(classifier: SuccessClassifier, task: TaskConfig, parts: Mapping[str, LabelledFrames]) -> Report:
    """A report, ready for JSON, of each part's errors at the classifier's threshold.

    ``frames`` counts every labelled frame, ``after_gates`` only treats a frame as positive when the task's gates hold
    too, ``decisions`` counts episodes after the ticks in a row that the task asks for.
    """
    threshold = max(classifier.config.threshold, task.reward.threshold)
    report: Report = {"task": task.name, "threshold": threshold, "consecutive": task.reward.consecutive}
    for name, frames in parts.items():
        probabilities = classifier.probabilities(frames.images)
        above = probabilities >= threshold
        report[name] = {
            "episodes": len(set(frames.episodes.tolist())),
            "frames": _errors(above, frames.labels),
            "after_gates": _errors(above & frames.gates, frames.labels & frames.gates),
            "decisions": _decisions(above & frames.gates, frames, task.reward.consecutive),
            "highest_failure_after_gates": _extreme(probabilities[frames.gates & ~frames.labels], np.max),
            "lowest_success_after_gates": _extreme(probabilities[frames.gates & frames.labels], np.min),
        }
    return report


def errors_of(classifier: SuccessClassifier, task: TaskConfig, frames: LabelledFrames) -> dict[str, NDArray[np.int64]]:
    """Rows of the false positives and of the false negatives after the gates, worst first."""
    threshold = max(classifier.config.threshold, task.reward.threshold)
    probabilities = classifier.probabilities(frames.images)
    above = (probabilities >= threshold) & frames.gates
    positives, negatives = frames.labels & frames.gates, ~frames.labels
    wrong = {"false positive": np.flatnonzero(above & negatives), "false negative": np.flatnonzero(~above & positives)}
    worst = {"false positive": -probabilities, "false negative": probabilities}
    return {kind: rows[np.argsort(worst[kind][rows], kind="stable")] for kind, rows in wrong.items()}


def _errors(decided: NDArray[np.bool_], labels: NDArray[np.bool_]) -> dict[str, float | int]:
    positives, negatives = int(labels.sum()), int((~labels).sum())
    false_positives, false_negatives = int((decided & ~labels).sum()), int((~decided & labels).sum())
    return {
        "positives": positives,
        "negatives": negatives,
        "false_positives": false_positives,
        "false_negatives": false_negatives,
        "false_positive_rate": round(false_positives / max(1, negatives), 5),
        "false_negative_rate": round(false_negatives / max(1, positives), 5),
    }


def _decisions(passed: NDArray[np.bool_], frames: LabelledFrames, consecutive: int) -> dict[str, int]:
    """Episodes in which success would be announced on failures, and successful ones in which it never would be."""
    false_successes = missed = successes = 0
    for episode in sorted(set(frames.episodes.tolist())):
        rows = np.flatnonzero(frames.episodes == episode)
        labels = frames.labels[rows]
        false_successes += bool(_announced(passed[rows], frames.steps[rows], consecutive)[~labels].any())
        if labels.any():
            successes += 1
            missed += not passed[rows][labels].any()
    return {"successful_episodes": successes, "false_successes": false_successes, "missed_successes": missed}


def _announced(passed: NDArray[np.bool_], steps: NDArray[np.int64], consecutive: int) -> NDArray[np.bool_]:
    announced = np.zeros_like(passed)
    in_a_row = 0
    for row in range(len(passed)):
        follows = row > 0 and steps[row] == steps[row - 1] + 1
        in_a_row = (in_a_row if follows else 0) + 1 if passed[row] else 0
        announced[row] = in_a_row >= consecutive
    return announced


def _extreme(values: NDArray[np.float32], pick: Any) -> float | None:
    return round(float(pick(values)), 5) if len(values) else None


def write_report(
    stem: Path,
    classifier: SuccessClassifier,
    task: TaskConfig,
    report: Report,
    parts: Mapping[str, LabelledFrames],
) -> None:
    """Writes ``<stem>.report.json`` and ``<stem>.errors.png``."""
    from conrft_reward.error_sheet import write_error_sheet  # it brings matplotlib, which the node does not need

    write_text(stem.with_name(f"{stem.name}.report.json"), json.dumps(report, indent=2) + "\n")
    write_error_sheet(stem.with_name(f"{stem.name}.errors.png"), classifier, task, parts)
