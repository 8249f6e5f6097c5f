"""The offline stage from the command line: demonstrations in, a run folder with policy, checkpoints and figures out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from conrft_data.config import TaskConfig, load_config
from conrft_learner.intake import EpisodeIntake
from conrft_learner.objectives import Figures
from conrft_learner.presets import Preset
from conrft_learner.trainer import Trainer
from conrft_policy.backbone import load_backbone

PROGRESS_PERIOD_S = 2.0


def train_offline(
    *,
    demos: Path,
    out: Path,
    task_file: Path,
    preset_file: Path,
    seed: int,
    backbone: str,
    device: str,
    tensorboard: bool,
) -> int:
    """Runs the offline stage, or the rest of it where ``out`` holds an unfinished one; returns the exit code.

    ``out`` gets ``policy.safetensors``, ``checkpoints/``, ``metrics.jsonl`` and ``offline.json``.

    Raises:
        ValueError: a configuration, the backbone or the run folder is wrong, or no demonstration could be used.
    """
    started = time.monotonic()
    task, preset = load_config(TaskConfig, task_file), load_config(Preset, preset_file)
    encoder = load_backbone(backbone, task.instruction, device=device)
    head = preset.head_config(task, encoder.embedding_dim)
    trainer = Trainer(preset, head, encoder.fingerprint, task, seed, out, device=device, tensorboard=tensorboard)
    if trainer.restore():
        print(f"goes on at update {trainer.offline_step}")
    intake = EpisodeIntake(trainer, encoder, demos, None)
    waiting = intake.waiting_demonstrations()
    for number, bag in enumerate(waiting, 1):
        intake.take(bag)
        _progress(f"demonstrations  {number}/{len(waiting)}", last=number == len(waiting))
    transitions = trainer.replay.count("demonstrations")
    if not transitions:
        raise ValueError(f"{demos} holds no demonstration that can be used")
    print(f"{len(trainer.journal)} demonstrations, {transitions} transitions, {len(intake.refused)} refused")
    trainer.offline(_Progress())
    trainer.save()
    trainer.log.close()
    summary = {
        "demonstrations": len(trainer.journal),
        "refused": intake.refused,
        "transitions": transitions,
        "updates": trainer.offline_step,
        "preset": preset.name,
        "seed": seed,
        "wall_s": round(time.monotonic() - started, 1),
    }
    (out / "offline.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return 0


class _Progress:
    """One line that is rewritten every two seconds."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()

    def __call__(self, step: int, total: int, figures: Figures) -> None:
        now = time.monotonic()
        if now - self._last < PROGRESS_PERIOD_S and step < total:
            return
        self._last = now
        shown = [f"{name} {figures[name]:.3f}" for name in ("bc_loss", "td_loss", "q_data") if name in figures]
        _progress(f"offline  {step}/{total}  {'  '.join(shown)}  {now - self._started:.0f} s", last=step == total)


def _progress(line: str, *, last: bool) -> None:
    """Rewrites the line on a terminal; elsewhere only the last one is printed."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{line}", end="\n" if last else "", flush=True)
    elif last:
        print(line, flush=True)
