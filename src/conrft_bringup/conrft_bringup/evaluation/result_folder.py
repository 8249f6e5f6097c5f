"""The folder of an evaluation: evaluation.json, table, plot of the start states, contact sheets and films."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from conrft_bringup.demo.run_folder import write_json
from conrft_bringup.evaluation.result import EvaluationResult, EvaluationSettings
from conrft_bringup.evaluation.result_text import result_text
from conrft_bringup.evaluation.start_states import draw_starts, start_axes
from conrft_bringup.evaluation.trial_recording import TrialRecording
from conrft_bringup.evaluation.trial_series import TrialSeries, persons_trials, simulated_trials
from conrft_bringup.report.contact_sheet import draw_episodes, draw_frames
from conrft_data.bags import read_episode
from conrft_data.config import TaskConfig
from conrft_data.types import Episode

if TYPE_CHECKING:
    from conrft_bringup.evaluation.classifier_verdicts import TrialVerdict
    from conrft_reward.classifier import SuccessClassifier

Films = Literal["all", "failures", "none"]
_MOST_FRAMES = 64  # on the sheet of frames that the classifier mistakes
_TITLE_WIDTH = 21  # characters above a frame


def recorded_trials(episodes: Path, settings: EvaluationSettings) -> TrialSeries:
    """The trials of an evaluation, as far as they are recorded."""
    read = persons_trials if settings.judge == "person" else simulated_trials
    return read(episodes, settings.trials)


def write_result(
    folder: Path,
    episodes: Path,
    settings: EvaluationSettings,
    task: TaskConfig,
    *,
    classifier: SuccessClassifier | None = None,
    films: Films = "all",
) -> EvaluationResult:
    """Reads the trials of ``episodes`` and writes everything into ``folder``; raises BagError or ValueError."""
    series = recorded_trials(episodes, settings)
    trials = series.counted
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = _look_at_images(folder, trials, task, classifier, films)
    result = EvaluationResult(settings=settings, trials=trials, void=series.void, verdicts=verdicts)
    _draw_failures(folder / "failures.png", trials)
    if axes := start_axes(trials):
        draw_starts(trials, axes, folder / "starts.png")
    (folder / "table.txt").write_text(result_text(result) + "\n", encoding="utf-8")
    write_json(folder / "evaluation.json", result.as_dict())
    return result


def _look_at_images(
    folder: Path, trials: list[TrialRecording], task: TaskConfig, classifier: SuccessClassifier | None, films: Films
) -> dict[int, TrialVerdict]:
    """Goes once through the images: judges them and makes the films."""
    verdicts: dict[int, TrialVerdict] = {}
    mistaken: list[tuple[Mapping[str, Any], str]] = []
    for trial in trials:
        filmed = films == "all" or (films == "failures" and not trial.success)
        if classifier is None and not filmed:
            continue
        episode = read_episode(trial.info.path)
        if classifier is not None:
            from conrft_bringup.evaluation.classifier_verdicts import judge

            verdicts[trial.number] = judge(classifier, task, episode)
            mistaken += _mistaken_frames(trial, episode, verdicts[trial.number])
        if filmed:
            from conrft_bringup.evaluation.trial_video import write_video

            (folder / "videos").mkdir(exist_ok=True)
            name = f"trial_{trial.number:03d}_{'success' if trial.success else 'failure'}.mp4"
            write_video(folder / "videos" / name, trial, episode, verdicts.get(trial.number))
    if mistaken:
        chosen = np.linspace(0, len(mistaken) - 1, min(len(mistaken), _MOST_FRAMES)).round().astype(int)
        draw_frames([mistaken[index] for index in chosen], folder / "classifier_differs.png")
    return verdicts


def _mistaken_frames(
    trial: TrialRecording, episode: Episode, verdict: TrialVerdict
) -> list[tuple[Mapping[str, Any], str]]:
    observations = {observation.step: observation for observation in episode.observations}
    frames = []
    for step in verdict.differences(trial):
        truth = "done" if trial.truth[step] else "not done"
        title = f"{trial.number}:{step} {truth} p{verdict.probability[step]:.2f}"[:_TITLE_WIDTH]
        frames.append((observations[step].images, title))
    return frames


def _draw_failures(path: Path, trials: list[TrialRecording]) -> None:
    path.unlink(missing_ok=True)
    failed = [trial for trial in trials if not trial.success]
    draw_episodes([(t.info.path, f"trial {t.number}: failure after {t.length} steps") for t in failed], path)
