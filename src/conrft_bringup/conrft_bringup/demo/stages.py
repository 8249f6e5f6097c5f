"""The stages of a demo, in their order. Each can be taken up again where it was broken off."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from conrft_bringup.demo.episode_count import EpisodeCount
from conrft_bringup.demo.graph_run import StageFailed, Watch, resumed, run_command, run_graph, run_trials
from conrft_bringup.demo.progress_line import ProgressLine
from conrft_bringup.demo.run_folder import DemoSettings, RunFolder
from conrft_bringup.episode_figures import load_figures
from conrft_bringup.evaluation.trial_recording import SCENE_TOPIC
from conrft_bringup.learner_figures import METRICS, read_records
from conrft_bringup.trials import describe_outcomes

# Start states are functions of seed and episode alone: these keep the stages' start states apart, and let both
# evaluations begin from the same ones.
_TRAINING_SEEDS = 1_000_000
EVALUATION_SEEDS = 2_000_000
_RESERVED = 60.0  # s of a limited run that are kept for the last evaluation


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run while it is being made.

    Attributes:
        folder, settings: of the run.
        share: this package's share directory.
        ends_at: monotonic time at which a limited run should be over; None: no limit.
    """

    folder: RunFolder
    settings: DemoSettings
    share: Path
    ends_at: float | None = None

    @property
    def task_file(self) -> Path:
        """The task's configuration."""
        return self.share / "config/tasks" / f"{self.settings.task}.yaml"

    @property
    def preset_file(self) -> Path:
        """The learner's preset."""
        return self.share / "config/presets" / f"{self.settings.preset}.yaml"

    def log(self, stage: str) -> Path:
        """The log of a stage."""
        return self.folder.logs / f"{stage}.log"


@dataclass(frozen=True)
class Stage:
    """One stage: its name in file names, its title for a person, and what it does."""

    name: str
    title: str
    run: Callable[[Run, ProgressLine], str]


def record_demonstrations(run: Run, line: ProgressLine) -> str:
    """The scripted operator demonstrates; failed attempts are recorded too, they teach the reward classifier."""
    count = EpisodeCount(run.folder.demonstrations)
    count.refresh()
    wanted = run.settings.demonstrations
    watch = Watch(count, wanted, only_successes=True)
    if count.successes < wanted:
        arguments = {
            "episodes": str(wanted - count.successes),
            "seed": str(run.settings.seed),
            "demos_dir": str(run.folder.demonstrations),
            "task": run.settings.task,
            **resumed(run.folder.demonstrations),
        }
        run_graph("record_demos", arguments, run.log("demonstrations"), line, watch)
    return count.describe(wanted, only_successes=True)


def train_reward(run: Run, line: ProgressLine) -> str:
    """The success classifier learns from the demonstrations' frames."""
    words = ["reward", "train", "--demos", str(run.folder.demonstrations), "--out", str(run.folder.classifier)]
    words += ["--task-file", str(run.task_file), "--seed", str(run.settings.seed)]
    run_command(words, run.log("reward"), line)
    return "done"


def train_offline(run: Run, line: ProgressLine) -> str:
    """The offline stage (Cal-ConRFT)."""
    words = ["train", "offline", "--demos", str(run.folder.demonstrations), "--out", str(run.folder.offline)]
    words += ["--task-file", str(run.task_file), "--preset-file", str(run.preset_file)]
    # One thread: the batches are small, and threads that wait for each other stall on a busy machine.
    words += ["--backbone", run.settings.backbone, "--seed", str(run.settings.seed), "--threads", "1"]
    from conrft_data.config import load_config
    from conrft_learner.presets import Preset  # with torch, which takes a second

    state = partial(_learner_state, run.folder.offline, load_config(Preset, run.preset_file).offline_updates)
    run_command(words, run.log("offline"), line, state=state)
    return state()


def evaluate_offline(run: Run, line: ProgressLine) -> str:
    """Trials of the policy that the offline stage made."""
    return _evaluate(run, line, "evaluation_offline", run.folder.offline, run.folder.offline_trials)


def train_online(run: Run, line: ProgressLine) -> str:
    """The online stage (HIL-ConRFT) with the operator's interventions."""
    dropped = load_figures(run.folder.dropped / "training.json")
    count = EpisodeCount(run.folder.episodes, with_take_overs=True, dropped=dropped)
    count.refresh()
    wanted = run.settings.episodes
    deadline = None if run.ends_at is None else max(run.ends_at - _RESERVED, time.monotonic())
    if len(count.trials) < wanted:
        arguments = {
            "episodes": str(wanted - len(count.trials)),
            "seed": str(run.settings.seed + _TRAINING_SEEDS),
            "preset": run.settings.preset,
            "backbone": run.settings.backbone,
            "demos_dir": str(run.folder.demonstrations),
            "episodes_dir": str(run.folder.episodes),
            "learner_dir": str(run.folder.learner),
            "checkpoint": str(run.folder.offline),
            "learner_checkpoint": str(run.folder.offline),
            "classifier": str(run.folder.classifier),
            "task": run.settings.task,
            **resumed(run.folder.episodes, dropped),
        }
        run_graph("train", arguments, run.log("training"), line, Watch(count, wanted, deadline=deadline))
    return count.describe(wanted, only_successes=False)


def evaluate_online(run: Run, line: ProgressLine) -> str:
    """Trials of the policy that the online stage made."""
    return _evaluate(run, line, "evaluation_online", run.folder.learner, run.folder.online_trials)


def _evaluate(run: Run, line: ProgressLine, stage: str, checkpoint: Path, trials: Path) -> str:
    arguments = {
        "task": run.settings.task,
        "seed": str(run.settings.seed + EVALUATION_SEEDS),
        "backbone": run.settings.backbone,
        "checkpoint": str(checkpoint),
        "session": stage,
        "extra_topics": str([SCENE_TOPIC]),
    }
    series = run_trials(arguments, run.settings.trials, trials, run.log(stage), line)
    for number, why in series.void.items():
        raise StageFailed(f"trial {number} in {trials} is void: {why}")
    return describe_outcomes(series.outcomes, len(series.counted), run.settings.trials)


def _learner_state(folder: Path, updates: int) -> str:
    """How far a learner is on its way to ``updates``, from the last line of its figures."""
    records = read_records(folder / METRICS)
    if not records:
        return ""
    last = records[-1]
    shown = [f"{name} {last[name]:.3f}" for name in ("bc_loss", "td_loss") if name in last]
    return "  ".join([f"update {last['step']} of {updates}", *shown])


STAGES = (
    Stage("demonstrations", "demonstrations", record_demonstrations),
    Stage("reward", "reward classifier", train_reward),
    Stage("offline", "offline training", train_offline),
    Stage("evaluation_offline", "evaluation after offline", evaluate_offline),
    Stage("training", "online training", train_online),
    Stage("evaluation_online", "evaluation after online", evaluate_online),
)
