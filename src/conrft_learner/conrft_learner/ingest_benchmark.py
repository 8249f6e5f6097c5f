"""How fast finished bags get into the replay: read, checked, stored, and where the critic sees images, encoded."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from conrft_data.bags import write_episode
from conrft_data.config import Camera, Reset, TaskConfig, Workspace
from conrft_data.types import ACTION_DIM, ActionSource, Command, Episode, Mode, Observation, Outcome
from conrft_learner.critic_comparison import CAMERAS, CROP_BANK
from conrft_learner.intake import EpisodeIntake
from conrft_learner.presets import Preset
from conrft_learner.trainer import Trainer

EPISODES = 3
LENGTH = 50
EMBEDDING_DIM = 128
BACKBONE = "made by the policy"

_TASK = TaskConfig(
    name="bench",
    instruction="Noise.",
    action_dim=ACTION_DIM,
    max_steps=LENGTH,
    cameras={name: Camera(width=size, height=size) for name, size in CAMERAS.items()},
    reset=Reset(position=(0.5, 0.0, 0.2), euler_xyz=(3.14, 0.0, 0.0), kind="script"),
    workspace=Workspace(low=(0.0, -0.5, 0.0), high=(1.0, 0.5, 0.5)),
)


class _NoBackbone:
    """The policy's embeddings are in the bags."""

    cameras = tuple(CAMERAS)

    def encode_episode(self, images: object) -> np.ndarray:
        raise AssertionError("the bags hold their embeddings")


def bag_ingest_steps_per_s(folder: Path) -> dict[str, float]:
    """Steps/s from bags with two cameras' images and the policy's embeddings into the replay, by critic."""
    bags = [write_episode(folder / "episodes", _episode(number)) for number in range(EPISODES)]
    return {critic: round(_steps_per_s(folder, critic, bags), 1) for critic in ("light", "paper")}


def _steps_per_s(folder: Path, critic: str, bags: list[Path]) -> float:
    settings = {"critic": critic, "resnet_weights": "random", "crop_bank": CROP_BANK, "replay_capacity": 1000}
    preset = Preset.model_validate({"name": "bench", **settings})
    head = preset.head_config(_TASK, EMBEDDING_DIM)
    trainer = Trainer(preset, head, BACKBONE, _TASK, 0, folder / critic, report=lambda sentence: None)
    intake = EpisodeIntake(trainer, _NoBackbone(), None, folder / "episodes")
    start = time.perf_counter()
    for bag in bags:
        intake.take(bag)
    seconds = time.perf_counter() - start
    assert trainer.replay.count("online") == EPISODES * LENGTH, intake.refused
    trainer.close()
    return EPISODES * LENGTH / seconds


def _episode(number: int) -> Episode:
    rng = np.random.default_rng(number)
    pose = np.array([0.5, 0.0, 0.2, 1.0, 0.0, 0.0, 0.0])
    return Episode(
        episode_id=f"noise-{number:06d}",
        task=_TASK.name,
        instruction=_TASK.instruction,
        mode=Mode.TRAINING,
        outcome=Outcome.SUCCESS,
        final_step=LENGTH,
        observations=[
            Observation(
                stamp_ns=step * 100_000_000,
                episode=number,
                step=step,
                images={name: rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for name, size in CAMERAS.items()},
                tcp_pose=pose,
                reset_pose=pose,
                tcp_twist=rng.normal(size=6),
                tcp_wrench=rng.normal(size=6),
                gripper_opening=1.0,
            )
            for step in range(LENGTH + 1)
        ],
        commands=[
            Command(action=rng.uniform(-1, 1, ACTION_DIM).astype(np.float32), source=ActionSource.POLICY)
            for _ in range(LENGTH + 1)
        ],
        embeddings=rng.normal(size=(LENGTH + 1, EMBEDDING_DIM)).astype(np.float32),
        embedding_fingerprint=BACKBONE,
    )
