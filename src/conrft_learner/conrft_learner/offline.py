"""The offline stage from the command line: demonstrations in, a run folder with policy, checkpoints and figures out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from conrft_data.config import TaskConfig, load_config
from conrft_learner.data_parallel import join
from conrft_learner.figure_sinks import FigureSink, open_sinks
from conrft_learner.intake import EpisodeIntake
from conrft_learner.objectives import Figures
from conrft_learner.presets import Preset
from conrft_learner.progress import offline_line
from conrft_learner.trainer import Trainer
from conrft_policy.backbone import load_backbone

PROGRESS_PERIOD_S = 2.0
QUIET_S = 30.0  # between lines where they cannot be rewritten


def train_offline(
    *,
    demos: Path,
    out: Path,
    task_file: Path,
    preset_file: Path,
    seed: int,
    backbone: str,
    resnet_weights: str | None,
    device: str,
    tensorboard: bool,
    wandb_project: str = "",
) -> int:
    """Runs the offline stage, or the rest of it where ``out`` holds an unfinished one; returns the exit code.

    ``out`` gets ``policy.safetensors``, ``checkpoints/``, ``metrics.jsonl`` and ``offline.json``. Several processes
    that ``torchrun`` started train together; all of them must see ``demos`` and ``out``.

    Raises:
        ValueError: a configuration, the backbone or the run folder is wrong, or no demonstration could be used.
    """
    started = time.monotonic()
    task, preset = load_config(TaskConfig, task_file), load_preset(preset_file, resnet_weights)
    preset, threads = within_cores(preset, torch.get_num_threads())
    torch.set_num_threads(threads)
    parallel = join(device)
    encoder = load_backbone(backbone, task.instruction, device=parallel.device)
    sinks: list[FigureSink] = []
    if parallel.rank == 0:
        config = run_config(preset, task, encoder.fingerprint, seed)
        sinks = open_sinks(out, tensorboard=tensorboard, wandb_project=wandb_project, config=config)
    trainer = Trainer(
        preset,
        preset.head_config(task, encoder.embedding_dim),
        encoder.fingerprint,
        task,
        seed,
        out,
        device=parallel.device,
        sinks=sinks,
        report=print if parallel.rank == 0 else lambda sentence: None,
        parallel=parallel,
    )
    if trainer.restore():
        trainer.report(f"goes on at update {trainer.offline_step}")
    intake = EpisodeIntake(trainer, encoder, demos, None)
    _ingest(trainer, intake, demos)
    try:
        trainer.offline(_Progress(trainer) if trainer.first else None)
        if trainer.unsaved:
            trainer.save()
    finally:
        trainer.close()
    if trainer.first:
        _write_summary(trainer, intake, time.monotonic() - started)
    return 0


def load_preset(file: Path | str, resnet_weights: str | None) -> Preset:
    """A preset, its image encoder's weights replaced where others are named; ConfigError when it is wrong."""
    preset = load_config(Preset, file)
    return preset.model_copy(update={"resnet_weights": resnet_weights}) if resnet_weights else preset


def within_cores(preset: Preset, cores: int) -> tuple[Preset, int]:
    """The preset, and torch's threads, with which a learner keeps to so many cores.

    The thread that makes batches ahead is one of them; where there is one only, no batch is made ahead.
    """
    if not preset.prefetch_batches:
        return preset, cores
    return (preset, cores - 1) if cores > 1 else (preset.model_copy(update={"prefetch_batches": 0}), 1)


def run_config(preset: Preset, task: TaskConfig, backbone_fingerprint: str, seed: int) -> dict[str, Any]:
    """What a run is made with, for who shows its figures."""
    return {
        "preset": preset.model_dump(mode="json"),
        "task": task.model_dump(mode="json"),
        "backbone": backbone_fingerprint,
        "seed": seed,
    }


def _ingest(trainer: Trainer, intake: EpisodeIntake, demos: Path) -> None:
    waiting = intake.waiting_demonstrations()
    for number, bag in enumerate(waiting, 1):
        intake.take(bag)
        if trainer.first:
            _progress(f"demonstrations  {number}/{len(waiting)}", last=number == len(waiting))
    transitions = trainer.replay.count("demonstrations")
    if not transitions:
        raise ValueError(f"{demos} holds no demonstration that can be used")
    trainer.report(f"{len(trainer.journal)} demonstrations, {transitions} transitions, {len(intake.refused)} refused")


def _write_summary(trainer: Trainer, intake: EpisodeIntake, wall_s: float) -> None:
    summary = {
        "demonstrations": len(trainer.journal),
        "refused": intake.refused,
        "transitions": trainer.replay.count("demonstrations"),
        "updates": trainer.offline_step,
        "preset": trainer.preset.name,
        "seed": trainer.seed,
        "wall_s": round(wall_s, 1),
    }
    (trainer.run_dir / "offline.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


class _Progress:
    """One line that is rewritten every two seconds; elsewhere than on a terminal a line now and then."""

    def __init__(self, trainer: Trainer) -> None:
        """The updates that ``trainer`` has done already, an earlier process did."""
        self._log, self._first = trainer.log, trainer.offline_step
        self._started = self._last = time.monotonic()
        self._period = PROGRESS_PERIOD_S if sys.stdout.isatty() else QUIET_S

    def __call__(self, step: int, total: int, figures: Figures) -> None:
        now = time.monotonic()
        if now - self._last < self._period and step < total:
            return
        self._last = now
        rate = (step - self._first) / max(now - self._started, 1e-9)
        self._log.write("learner", step, {"updates_per_s": round(rate, 3)})
        _progress(offline_line(step, total, rate, figures), last=step == total, always=True)


def _progress(line: str, *, last: bool, always: bool = False) -> None:
    """Rewrites the line on a terminal; elsewhere only the last one is printed, or all where they ``always`` are."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{line}", end="\n" if last else "", flush=True)
    elif last or always:
        print(line, flush=True)
