"""A suite in a process of its own, whose stages take no time and leave the recordings of a run that went well.

    python suite_process.py --out OUT [--wait-in TASK/SEED/STAGE] ARGUMENTS...

The stage named by --wait-in tells that it has begun and never ends, so that the process can be killed in the middle.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from recorded_runs import record, write_trial

from conrft_bringup.demo.run_folder import DemoSettings, write_json
from conrft_bringup.demo.stages import Run, Stage
from conrft_bringup.episode_figures import EpisodeFigures
from conrft_bringup.suite import cli
from conrft_bringup.suite.suite_folder import METHODS, SuiteFolder
from conrft_data.config import TaskConfig, load_config
from conrft_data.types import Outcome
from conrft_reward.classifier import ClassifierConfig, SuccessClassifier, camera_sizes


def write_figures(folder: SuiteFolder, task: str, seed: int, **stages: Sequence[tuple[bool, int, int]]) -> None:
    """Figures as a run leaves them: (success, length, steps of the operator) of each episode by stage."""
    run = folder.run(task, seed)
    run.begin(DemoSettings(task=task, seed=seed))
    for name in ("demonstrations", "offline", "training", "online"):
        episodes = [
            EpisodeFigures(
                episode_id=f"{name}-{number:06d}",
                number=number,
                success=success,
                length=length,
                take_overs=int(driven > 0),
                operator_steps=driven,
                hold_steps=0,
            )
            for number, (success, length, driven) in enumerate(stages.get(name, ()), 1)
        ]
        write_json(run.figures / f"{name}.json", [episode.as_dict() for episode in episodes])
    run.finish("training", 60.0)


def _demonstrations(run: Run) -> None:
    record(run.folder.demonstrations, 1, outcome=Outcome.SUCCESS, sources="oooo")


def _reward(run: Run) -> None:
    task = load_config(TaskConfig, run.task_file)
    SuccessClassifier(ClassifierConfig(task=task.name, cameras=camera_sizes(task))).save(run.folder.classifier)


def _policy(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "policy.safetensors").touch()


def _trial(folder: Path) -> None:
    write_trial(folder, 1, "ppp", success=True, enlarged=8)


def _train(run: Run) -> None:
    record(run.folder.episodes, run.settings.episodes, outcome=Outcome.SUCCESS, sources="ppoo")
    _policy(run.folder.learner)


_WORK: dict[str, Callable[[Run], None]] = {
    "demonstrations": _demonstrations,
    "reward": _reward,
    "offline": lambda run: _policy(run.folder.offline),
    "evaluation_offline": lambda run: _trial(run.folder.offline_trials),
    "training": _train,
    "evaluation_online": lambda run: _trial(run.folder.online_trials),
}


def _quick(stage: Stage, out: Path, waits_in: str) -> Stage:
    """The stage, which leaves what it leaves without taking its time."""

    def work(run: Run, _line: object) -> str:
        name = f"{run.settings.task}/{run.settings.seed}/{stage.name}"
        with (out / "begun.txt").open("a") as log:
            log.write(f"{name}\n")
        while name == waits_in:
            time.sleep(1.0)
        _WORK[stage.name](run)
        return "done"

    return Stage(stage.name, stage.title, work)


if __name__ == "__main__":
    words = sys.argv[1:]
    waits = words.pop(words.index("--wait-in") + 1) if "--wait-in" in words else ""
    out = Path(words[words.index("--out") + 1])
    METHODS.update({name: [_quick(stage, out, waits) for stage in stages] for name, stages in METHODS.items()})
    sys.exit(cli.suite([word for word in words if word != "--wait-in"]))
