"""A picture of what a classifier gets wrong, so that a person sees why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from conrft_data.config import TaskConfig
from conrft_reward.classifier import SuccessClassifier
from conrft_reward.evaluation import errors_of
from conrft_reward.labelled_frames import LabelledFrames

SHOWN = 12
COLUMNS = 6


def write_error_sheet(
    file: Path, classifier: SuccessClassifier, task: TaskConfig, parts: Mapping[str, LabelledFrames]
) -> None:
    """PNG of the worst errors after the gates, and below them of the frames that came closest to an error."""
    rows = []
    for name, frames in parts.items():
        probabilities = classifier.probabilities(frames.images)
        for kind, wrong in errors_of(classifier, task, frames).items():
            rows += [(f"{name}: {kind}", frames, row, probabilities[row]) for row in wrong[:SHOWN]]
        for kind, group, sign in (("closest failure", ~frames.labels, -1), ("weakest success", frames.labels, 1)):
            candidates = np.flatnonzero(group & frames.gates)
            closest = candidates[np.argsort(sign * probabilities[candidates], kind="stable")][: COLUMNS // 2]
            rows += [(f"{name}: {kind}", frames, row, probabilities[row]) for row in closest]
    lines = max(1, -(-len(rows) // COLUMNS))
    figure = Figure(figsize=(2.6 * COLUMNS, 1.75 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, frames, row, probability) in zip(axes, rows, strict=False):
        axis.imshow(np.concatenate(list(frames.images[int(row)].numpy()), axis=1))
        where = f"{frames.episode_ids[frames.episodes[row]]} step {frames.steps[row]}"
        axis.set_title(f"{title}\n{where}: {probability:.3f}", fontsize=6)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
