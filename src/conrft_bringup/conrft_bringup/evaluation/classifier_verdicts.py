"""The success classifier beside the truth: how often, and on which frames of the trials, they differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conrft_bringup.evaluation.trial_recording import TrialRecording
from conrft_data.config import TaskConfig
from conrft_data.types import Episode
from conrft_reward.classifier import SuccessClassifier
from conrft_reward.decision import SuccessDecision


@dataclass(frozen=True, kw_only=True)
class TrialVerdict:
    """What the classifier says of one trial.

    Attributes:
        success: it would have announced success before the end, or its last frame passes (the trial ended there, before
            it could pass several times in a row).
        passes: by step, whether the frame alone passes threshold and gates.
        probability: by step.
    """

    success: bool
    passes: dict[int, bool]
    probability: dict[int, float]

    def differences(self, trial: TrialRecording) -> list[int]:
        """Steps whose frame the classifier takes for what it is not."""
        return [step for step, done in sorted(trial.truth.items()) if self.passes.get(step, done) != done]


def load_classifier(file: Path, task: TaskConfig) -> SuccessClassifier:
    """The classifier of ``file``; raises ClassifierError where it is none for this task."""
    classifier = SuccessClassifier.load(file)
    classifier.check_task(task)
    return classifier


def judge(classifier: SuccessClassifier, task: TaskConfig, episode: Episode) -> TrialVerdict:
    """Judges every frame of a trial, as the reward node would have."""
    decision = SuccessDecision(task.reward, classifier.config.threshold)
    images = np.stack([classifier.thumbnails(observation.images) for observation in episode.observations])
    probabilities = classifier.probabilities(torch.from_numpy(images))
    passes: dict[int, bool] = {}
    announced = False
    for observation, probability in zip(episode.observations, probabilities, strict=True):
        verdict = decision.judge(observation, float(probability))
        passes[observation.step] = verdict.gates_passed and verdict.probability >= decision.threshold
        announced = announced or verdict.success
    return TrialVerdict(
        success=announced or passes[episode.final_step],
        passes=passes,
        probability={o.step: float(p) for o, p in zip(episode.observations, probabilities, strict=True)},
    )


def confusion(pairs: Iterable[tuple[bool, bool]]) -> dict[str, int]:
    """Counts of (said, true)."""
    counts = {"true_positive": 0, "false_positive": 0, "false_negative": 0, "true_negative": 0}
    for said, true in pairs:
        counts[f"{'true' if said == true else 'false'}_{'positive' if said else 'negative'}"] += 1
    return counts


def comparison(trials: list[TrialRecording], verdicts: dict[int, TrialVerdict]) -> dict[str, Any]:
    """The part of evaluation.json about the classifier; ``verdicts`` by number of the trial."""
    frames = [
        (verdicts[trial.number].passes[step], done)
        for trial in trials
        for step, done in trial.truth.items()
        if step in verdicts[trial.number].passes
    ]
    return {
        "trials": confusion((verdicts[trial.number].success, trial.success) for trial in trials),
        "frames": confusion(frames),
        "differing_frames": [
            {"trial": trial.number, "step": step, "truth": trial.truth[step], "probability": round(p, 4)}
            for trial in trials
            for step in verdicts[trial.number].differences(trial)
            for p in [verdicts[trial.number].probability[step]]
        ],
    }
