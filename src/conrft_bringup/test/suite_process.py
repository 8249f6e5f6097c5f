"""A suite in a process of its own, whose runs take no time and leave the figures of a run that went well.

    python suite_process.py OUT [--wait-in TASK/SEED] ARGUMENTS...

The run named by --wait-in tells that it has begun and never ends, so that the process can be killed in the middle.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from conrft_bringup.demo.run_folder import DemoSettings, write_json
from conrft_bringup.episode_figures import EpisodeFigures
from conrft_bringup.suite import cli, suite_run
from conrft_bringup.suite.suite_folder import SuiteFolder, SuiteSettings


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


def _fake(waits_in: str):  # type: ignore[no-untyped-def]
    def run_one(folder: SuiteFolder, _settings: SuiteSettings, _share: Path, task: str, seed: int) -> None:
        with (folder.root / "begun.txt").open("a") as log:
            log.write(f"{task}/{seed}\n")
        if f"{task}/{seed}" == waits_in:
            while True:
                time.sleep(1.0)
        write_figures(
            folder, task, seed, demonstrations=[(True, 50, 50)], offline=[(False, 100, 0)], online=[(True, 30, 0)]
        )

    return run_one


if __name__ == "__main__":
    words = sys.argv[1:]
    waits = words.pop(words.index("--wait-in") + 1) if "--wait-in" in words else ""
    suite_run._run_one = _fake(waits)
    sys.exit(cli.suite([word for word in words if word != "--wait-in"]))
