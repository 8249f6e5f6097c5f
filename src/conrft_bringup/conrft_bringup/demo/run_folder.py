"""Where everything of one run lies, and which of its stages are done."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from conrft_data import durable_files


class RunFolderError(ValueError):
    """The folder holds another run than the one that was asked for."""


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What a run was made with; kept in ``config.yaml``.

    Attributes:
        task: name of a task in config/tasks.
        preset: name of a preset in config/presets.
        backbone: name or folder of the policy's backbone.
        seed: everything random is a function of it.
        demonstrations: successful ones to record.
        episodes: of online training.
        trials: of each evaluation.
        seconds: budget of the whole run, s; online training ends early to keep it. None: no limit.
    """

    task: str = "pick_banana"
    preset: str = "stable"
    backbone: str = "octo-nano"
    seed: int = 0
    demonstrations: int = 20
    episodes: int = 60
    trials: int = 20
    seconds: float | None = None


class RunFolder:
    """The folder of one run. Paths are absolute, so that processes may run anywhere."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.config = self.root / "config.yaml"
        self.summary = self.root / "summary.json"
        self.demonstrations = self.root / "demos"
        self.classifier = self.root / "reward" / "classifier.safetensors"
        self.offline = self.root / "offline"
        self.offline_trials = self.root / "evaluation_offline"
        self.learner = self.root / "learner"
        self.episodes = self.root / "episodes"
        self.online_trials = self.root / "evaluation_online"
        self.evaluation = self.root / "evaluation"
        self.figures = self.root / "figures"
        self.dropped = self.root / "dropped"
        self.logs = self.root / "logs"
        self._stages = self.root / "stages.json"

    def begin(self, settings: DemoSettings) -> None:
        """Makes the folder, or takes an earlier run of the same settings up again; raises RunFolderError.

        A run may be given more online episodes than it had: it practises on from where it was.
        """
        if self.config.is_file():
            found = self.settings()
            if settings.episodes > found.episodes and settings == replace(found, episodes=settings.episodes):
                self._practise_on(found.episodes, settings)
            elif found != settings:
                raise RunFolderError(f"{self.root} holds a run with other settings ({_difference(found, settings)})")
            return
        self.logs.mkdir(parents=True, exist_ok=True)
        self.figures.mkdir(exist_ok=True)
        write_yaml(self.config, asdict(settings))

    def settings(self) -> DemoSettings:
        """What the run was made with; raises RunFolderError."""
        try:
            return DemoSettings(**yaml.safe_load(self.config.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError, TypeError) as error:
            raise RunFolderError(f"{self.config} is no configuration of a run: {error}") from error

    def finished(self) -> dict[str, float]:
        """Wall time in s of each stage that is done, by its name."""
        if not self._stages.is_file():
            return {}
        content: dict[str, float] = json.loads(self._stages.read_text(encoding="utf-8"))
        return content

    def finish(self, stage: str, wall_s: float) -> None:
        """Notes that a stage is done."""
        write_json(self._stages, {**self.finished(), stage: round(wall_s, 1)})

    def drop_recordings(self) -> None:
        """Deletes the bags of a reported run; their figures, kept in ``dropped``, count as if the bags were there."""
        for name, bags in (
            ("demonstrations", self.demonstrations),
            ("offline", self.offline_trials),
            ("training", self.episodes),
            ("online", self.online_trials),
        ):
            figures = self.figures / f"{name}.json"
            if figures.is_file():
                write_json(self.dropped / figures.name, json.loads(figures.read_text(encoding="utf-8")))
            shutil.rmtree(bags, ignore_errors=True)

    def _practise_on(self, before: int, settings: DemoSettings) -> None:
        """Reopens the online stage. What was said of its policy is put aside under names with ``_after_BEFORE``."""
        for path in (self.online_trials, self.evaluation, self.dropped / "online.json"):
            if path.exists():
                path.rename(path.with_name(f"{path.stem}_after_{before}{path.suffix}"))
        reopened = {name: f"{name}_after_{before}" for name in ("training", "evaluation_online")}
        write_json(self._stages, {reopened.get(name, name): wall_s for name, wall_s in self.finished().items()})
        write_yaml(self.config, asdict(settings))  # last: a kill before this comes here again


def write_json(path: Path, content: Any) -> None:
    """Writes JSON so that a reader, also one after a kill, never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable_files.write_text(path, json.dumps(content, indent=2) + "\n")


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Writes YAML in the same way."""
    durable_files.write_text(path, yaml.safe_dump(content, sort_keys=False))


def _difference(one: DemoSettings, other: DemoSettings) -> str:
    before, now = asdict(one), asdict(other)
    return ", ".join(f"{key} {before[key]}, not {now[key]}" for key in before if before[key] != now[key])
