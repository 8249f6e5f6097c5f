"""The folder of a suite: what it was made with, one run folder for each task and seed, and which of them are done."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from conrft_bringup.demo.run_folder import RunFolder, RunFolderError, write_json, write_yaml
from conrft_bringup.demo.stages import STAGES, Stage
from conrft_data.bags.writer import lock_folder

# Stages of each method. Both begin with demonstrations, the reward classifier and the offline stage.
METHODS: dict[str, Sequence[Stage]] = {
    "hil-conrft": STAGES,
    "cal-conrft": tuple(stage for stage in STAGES if stage.name not in ("training", "evaluation_online")),
}
RUN_BYTES = 2_500_000_000  # of the recordings of one run, about


@dataclass(frozen=True, kw_only=True)
class SuiteSettings:
    """What every run of a suite is made with; kept in ``suite.yaml``. Tasks and seeds may be added later.

    Attributes:
        method: name in METHODS.
        preset, backbone: of every run.
        demonstrations: of every task; None: as many as the task asks for.
        episodes: of online training; more may be asked for later, and every run practises on.
        trials: of each evaluation.
    """

    method: str = "hil-conrft"
    preset: str = "stable"
    backbone: str = "octo-nano"
    demonstrations: int | None = None
    episodes: int = 60
    trials: int = 20


class SuiteFolder:
    """One folder for all tasks and seeds."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.table = self.root / "table.md"
        self.results = self.root / "suite.json"
        self._config = self.root / "suite.yaml"
        self._episodes = 0

    def begin(self, settings: SuiteSettings) -> None:
        """Makes the folder, or takes a suite of the same settings up again; raises RunFolderError.

        Only of online episodes there may be more than before.
        """
        self._episodes = settings.episodes
        if not self._config.is_file():
            self.root.mkdir(parents=True, exist_ok=True)
            write_yaml(self._config, asdict(settings))
            return
        before, now = yaml.safe_load(self._config.read_text(encoding="utf-8")) or {}, asdict(settings)
        changed = {key: f"{key} {before.get(key)}, not {now[key]}" for key in now if before.get(key) != now[key]}
        practises_on = settings.method == "hil-conrft" and settings.episodes > before.get("episodes", 0)
        if changed.keys() == {"episodes"} and practises_on:
            write_yaml(self._config, now)
        elif changed:
            raise RunFolderError(f"{self.root} holds a suite with other settings ({', '.join(changed.values())})")

    def run(self, task: str, seed: int) -> RunFolder:
        """The run of a task with a seed."""
        return RunFolder(self.root / task / f"seed{seed}")

    def done(self, task: str, seed: int) -> bool:
        """Whether everything of this run is written, with as many online episodes as the suite asks for."""
        marker = self._marker(task, seed)
        return marker.is_file() and self._read(marker).get("episodes", self._episodes) >= self._episodes

    def finish(self, task: str, seed: int, *, drop_recordings: bool) -> None:
        """Notes that a run is done; ``drop_recordings`` frees the room of its episodes, whose figures are kept."""
        recordings = "dropped" if drop_recordings else "kept"
        write_json(self._marker(task, seed), {"recordings": recordings, "episodes": self._episodes})
        self.tidy(task, seed)

    def reopen(self, task: str, seed: int) -> None:
        """Takes back that a run is done, where it was, for it is to practise on."""
        marker = self._marker(task, seed)
        if marker.is_file():
            self.tidy(task, seed)
            marker.unlink()

    def tidy(self, task: str, seed: int) -> None:
        """Deletes the recordings of a done run if they were to be dropped: a kill may have come between."""
        if self._read(self._marker(task, seed))["recordings"] == "dropped":
            self.run(task, seed).drop_recordings()

    def finished(self) -> list[tuple[str, int]]:
        """Task and seed of every run that is done, whoever asked for it."""
        return sorted(
            (marker.parent.parent.name, int(marker.parent.name.removeprefix("seed")))
            for marker in self.root.glob("*/seed*/done.json")
        )

    @contextlib.contextmanager
    def alone(self, task: str, seed: int) -> Iterator[bool]:
        """While it lasts nobody else works on this run; gives False where somebody does already."""
        folder = self.run(task, seed).root
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                os.close(lock)

    def room_for(self, runs: int) -> str:
        """Why the disk has no room for the recordings of so many runs; empty: it has."""
        free = shutil.disk_usage(self.root).free
        if free >= runs * RUN_BYTES:
            return ""
        return (
            f"{runs} runs record about {runs * RUN_BYTES / 1e9:.0f} GB, {free / 1e9:.0f} GB are free in {self.root}; "
            "--drop-recordings deletes the episodes of each run once its figures are written"
        )

    @staticmethod
    def _read(marker: Path) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
        return content

    def _marker(self, task: str, seed: int) -> Path:
        return self.run(task, seed).root / "done.json"
