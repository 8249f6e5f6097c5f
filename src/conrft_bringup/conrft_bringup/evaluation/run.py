"""Runs the trials of an evaluation, judged by the simulator or by a person, and writes its folder."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from conrft_bringup.demo.episode_count import EpisodeCount
from conrft_bringup.demo.graph_run import Interrupted, StageFailed, Watch, graph_environment, run_graph, run_trials
from conrft_bringup.demo.progress_line import ProgressLine
from conrft_bringup.episode_figures import last_episode_number
from conrft_bringup.evaluation.person_judge import PersonJudge
from conrft_bringup.evaluation.person_judge_link import PersonJudgeLink
from conrft_bringup.evaluation.result import EvaluationResult, EvaluationSettings
from conrft_bringup.evaluation.result_folder import Films, recorded_trials, write_result
from conrft_bringup.evaluation.trial_recording import SCENE_TOPIC
from conrft_bringup.trials import describe_outcomes
from conrft_data.config import TaskConfig, load_config


def run_evaluation(
    out: Path, settings: EvaluationSettings, task_file: Path, classifier: Path | None, films: Films
) -> EvaluationResult:
    """Runs what is missing of the trials and writes everything into ``out``.

    Raises:
        StageFailed: the graph could not go on.
        Interrupted: the person pressed Ctrl-C.
        ConfigError, ClassifierError: a file is not what it should be; nothing was run.
        BagError: a recording cannot be read.
    """
    task = load_config(TaskConfig, task_file)
    loaded = None
    if classifier is not None:
        from conrft_bringup.evaluation.classifier_verdicts import load_classifier

        loaded = load_classifier(classifier, task)
    line = ProgressLine("evaluation")
    try:
        if settings.judge == "person":
            _run_with_a_person(out, settings, line)
        else:
            log = out / "evaluate.log"
            series = run_trials(_arguments(settings), settings.trials, out / "episodes", log, line)
            line.finish(describe_outcomes(series.outcomes, len(series.counted), settings.trials))
    except (StageFailed, Interrupted):
        line.break_off()
        raise
    return write_result(out, out / "episodes", settings, task, classifier=loaded, films=films)


def _arguments(settings: EvaluationSettings) -> dict[str, str]:
    arguments = {
        "task": settings.task,
        "robot": settings.robot,
        "backbone": settings.backbone,
        "checkpoint": settings.checkpoint,
        "seed": str(settings.seed),
    }
    if settings.robot != "sim":
        return arguments
    return {**arguments, "perturbation": settings.perturbation, "extra_topics": str([SCENE_TOPIC])}


def _run_with_a_person(out: Path, settings: EvaluationSettings, line: ProgressLine) -> None:
    """The graph waits for the person before each trial, and the person says how it ended."""
    episodes = out / "episodes"
    judge = PersonJudge(settings.trials, done=len(recorded_trials(episodes, settings).counted))
    if judge.done:
        return
    simulated = settings.robot == "sim"
    # A robot's drivers run already, in the domain of this shell.
    environment = graph_environment() if simulated else dict(os.environ)
    os.environ.update({name: value for name, value in environment.items() if name.startswith("ROS_")})
    if not simulated:
        print("The arm stands until you let it go to its reset pose: conrft episode start", file=sys.stderr)
    link = PersonJudgeLink(judge, episodes, environment, sys.stdin)
    arguments = {
        **_arguments(settings),
        "episodes_dir": str(episodes),
        "episodes": "0",
        "first_episode": str(last_episode_number(episodes) + 1),
        "wait_for_start": "true",
        **({"operator": "none"} if simulated else {}),
    }
    watch = Watch(EpisodeCount(episodes), settings.trials, patience=math.inf, over=lambda: link.over)
    link.start()
    try:
        run_graph("evaluate", arguments, out / "evaluate.log", line, watch, environment)
    finally:
        link.close()
    if not judge.done:
        raise StageFailed(link.problem or "the graph ended before every trial was judged")
