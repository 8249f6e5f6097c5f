"""Both stages on the bags of two folders, as one of several processes: what ``torchrun`` starts in the tests."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from conrft_data.config import TaskConfig, load_config
from conrft_learner.data_parallel import join
from conrft_learner.intake import EpisodeIntake
from conrft_learner.presets import Preset
from conrft_learner.trainer import Trainer


class NoEncoder:
    cameras = ("side", "wrist")

    def encode_episode(self, images: object) -> None:
        raise AssertionError("the bags hold their embeddings")


def main(task_file: str, preset_file: str, bags: str, out: str, fingerprint: str, embedding_dim: str) -> None:
    torch.set_num_threads(1)
    task, preset = load_config(TaskConfig, task_file), load_config(Preset, preset_file)
    head = preset.head_config(task, int(embedding_dim))
    trainer = Trainer(preset, head, fingerprint, task, 0, out, parallel=join("cpu"))
    intake = EpisodeIntake(trainer, NoEncoder(), Path(bags) / "demos", Path(bags) / "episodes")
    for bag in intake.waiting_demonstrations():
        intake.take(bag)
    trainer.offline()
    for bag in intake.waiting_episodes():
        intake.take(bag)
        trainer.train(trainer.pending_updates)
    trainer.save()


if __name__ == "__main__":
    main(*sys.argv[1:])
