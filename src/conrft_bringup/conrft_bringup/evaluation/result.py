"""What an evaluation was made with and what came out; the content of evaluation.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from conrft_bringup.evaluation.start_states import quadrants, start_axes
from conrft_bringup.evaluation.trial_recording import TrialRecording
from conrft_bringup.trials import TrialsSummary, mean_success_length, summarise
from conrft_data.types import ActionSource

if TYPE_CHECKING:
    from conrft_bringup.evaluation.classifier_verdicts import TrialVerdict


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What an evaluation was made with.

    Attributes:
        task: name in config/tasks.
        checkpoint: the policy's file.
        checkpoint_sha256: of that file.
        backbone: name or folder.
        robot: name in config/robots.
        judge: who says what a success is: ``simulator`` or ``person``.
        perturbation: of the simulated scene, as the simulator takes it; ``none`` without one.
        seed: start states are a function of it and the trial's number.
        trials: how many.
    """

    task: str
    checkpoint: str
    checkpoint_sha256: str
    backbone: str
    robot: str
    judge: str
    perturbation: str
    seed: int
    trials: int


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What came out.

    Attributes:
        settings: of the evaluation.
        trials: those that count, in the order of their numbers.
        void: why a trial does not count that was not run again, by its number.
        verdicts: of the classifier, by number; empty without one.
    """

    settings: EvaluationSettings
    trials: list[TrialRecording]
    void: dict[int, str]
    verdicts: Mapping[int, TrialVerdict] = field(default_factory=dict)

    @property
    def outcomes(self) -> list[tuple[bool, int]]:
        """Success and length of each trial."""
        return [(trial.success, trial.length) for trial in self.trials]

    @property
    def summary(self) -> TrialsSummary:
        """Success with its interval."""
        return summarise(self.outcomes)

    def as_dict(self) -> dict[str, Any]:
        """The content of evaluation.json."""
        content = {
            **asdict(self.settings),
            **self.summary.as_dict(),
            "successes": sum(trial.success for trial in self.trials),
            "mean_success_length": mean_success_length(self.outcomes),
            "intervention_free": self._proof(),
            "by_start": None,
            "classifier": None,
            "each": [self._row(trial) for trial in self.trials],
        }
        if axes := start_axes(self.trials):
            content["by_start"] = {"object": axes.name, "quadrants": quadrants(self.trials, axes)}
        if self.verdicts:
            from conrft_bringup.evaluation.classifier_verdicts import comparison

            content["classifier"] = comparison(self.trials, dict(self.verdicts))
        return content

    def _proof(self) -> dict[str, Any]:
        """Who moved the arm, counted in the recorded actions of the trials that count."""
        counts = {source: sum(trial.count(source) for trial in self.trials) for source in ActionSource}
        return {
            "proven": bool(self.trials) and not self.void,
            "actions": sum(counts.values()),
            **{source.name.lower(): number for source, number in counts.items()},
            "void": [{"trial": number, "why": why} for number, why in sorted(self.void.items())],
        }

    def _row(self, trial: TrialRecording) -> dict[str, Any]:
        start = {name: [round(float(value), 5) for value in pose] for name, pose in trial.start.items()}
        verdict = self.verdicts.get(trial.number)
        return {
            "trial": trial.number,
            "episode_id": trial.info.episode_id,
            "success": trial.success,
            "length": trial.length,
            "hold_steps": trial.count(ActionSource.HOLD),
            "classifier": verdict.success if verdict else None,
            "start": start,
        }
