"""Runs every task with every seed, one after another; what fails is named and the others go on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from conrft_bringup.demo.graph_run import Interrupted
from conrft_bringup.demo.pipeline import run_demo
from conrft_bringup.demo.run_folder import DemoSettings
from conrft_bringup.demo.stages import EVALUATION_SEEDS, Run
from conrft_bringup.evaluation.checkpoint import checkpoint_file, sha256_of
from conrft_bringup.evaluation.classifier_verdicts import load_classifier
from conrft_bringup.evaluation.result import EvaluationSettings
from conrft_bringup.evaluation.result_folder import write_result
from conrft_bringup.suite.suite_folder import METHODS, SuiteFolder, SuiteSettings
from conrft_data.config import TaskConfig, load_config

RunOne = Callable[[SuiteFolder, SuiteSettings, Path, str, int], None]


def run_suite(
    folder: SuiteFolder,
    settings: SuiteSettings,
    share: Path,
    tasks: list[str],
    seeds: list[int],
    *,
    drop_recordings: bool = False,
    after_each: Callable[[], None] = lambda: None,
    run_one: RunOne | None = None,
) -> dict[str, str]:
    """Runs what is not done yet; gives what failed, ``TASK seed N`` to the reason. Raises Interrupted.

    All tasks come with the first seed before any comes with the second. ``after_each`` is called after each run.
    """
    failures: dict[str, str] = {}
    for seed in seeds:
        for task in tasks:
            name = f"{task} seed {seed}"
            with folder.alone(task, seed) as alone:
                if not alone:
                    print(f"== {name}: another process is at it")
                    continue
                if folder.done(task, seed):
                    print(f"== {name}: done before")
                    folder.tidy(task, seed)
                    continue
                folder.reopen(task, seed)
                print(f"== {name}", flush=True)
                try:
                    (run_one or _run_one)(folder, settings, share, task, seed)
                except (Interrupted, KeyboardInterrupt):
                    raise
                except Exception as error:  # whatever befalls one task, the others go on
                    failures[name] = f"{type(error).__name__}: {error}"
                    print(f"{name} has FAILED: {error}", file=sys.stderr, flush=True)
                    continue
                folder.finish(task, seed, drop_recordings=drop_recordings)
            after_each()
    return failures


def _run_one(folder: SuiteFolder, settings: SuiteSettings, share: Path, task: str, seed: int) -> None:
    config = load_config(TaskConfig, share / "config/tasks" / f"{task}.yaml")
    demo = DemoSettings(
        task=task,
        preset=settings.preset,
        backbone=settings.backbone,
        seed=seed,
        demonstrations=settings.demonstrations or config.demonstrations,
        episodes=settings.episodes,
        trials=settings.trials,
    )
    run = Run(folder=folder.run(task, seed), settings=demo, share=share)
    run.folder.begin(demo)
    print(run_demo(run, METHODS[settings.method]), flush=True)
    _write_evaluation(run, config, online=settings.method == "hil-conrft")


def _write_evaluation(run: Run, task: TaskConfig, *, online: bool) -> None:
    """The folder of the last evaluation, as ``conrft evaluate`` writes it; films of the failures only."""
    learned, trials = (
        (run.folder.learner, run.folder.online_trials) if online else (run.folder.offline, run.folder.offline_trials)
    )
    checkpoint = checkpoint_file(learned)
    settings = EvaluationSettings(
        task=task.name,
        checkpoint=str(checkpoint),
        checkpoint_sha256=sha256_of(checkpoint),
        backbone=run.settings.backbone,
        robot="sim",
        judge="simulator",
        perturbation="none",
        seed=run.settings.seed + EVALUATION_SEEDS,
        trials=run.settings.trials,
    )
    classifier = load_classifier(run.folder.classifier, task)
    write_result(run.folder.evaluation, trials, settings, task, classifier=classifier, films="failures")
