"""Small episodes, tasks and presets for the learner's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from conrft_data.config import Camera, Reset, TaskConfig, Workspace
from conrft_data.types import ActionSource, Command, Episode, Mode, Observation, Outcome
from conrft_learner.presets import Preset
from conrft_learner.trainer import Trainer

EMBEDDING_DIM = 12
FINGERPRINT = "backbone of the tests"

MakeEpisode = Callable[..., Episode]
MakeTrainer = Callable[..., Trainer]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def task() -> TaskConfig:
    return TaskConfig(
        name="pick_banana",
        instruction="Put the yellow banana on the green plate.",
        action_dim=7,
        max_steps=100,
        cameras={"side": Camera(width=16, height=16)},
        reset=Reset(position=(0.5, 0.0, 0.2), euler_xyz=(3.1416, 0.0, 0.0), kind="script"),
        workspace=Workspace(low=(0.0, -0.5, 0.0), high=(1.0, 0.5, 0.5)),
    )


@pytest.fixture
def preset() -> Preset:
    """Small and quick, with every feature of the losses in use."""
    return Preset(
        name="tiny",
        head_hidden=(16, 16),
        critic_hidden=16,
        proprio_latent=8,
        batch_size=16,
        online_batch_size=16,
        scale_inputs=True,
        acting_ema=0.9,
        cql_actions=3,
        target_return_bound=True,
        normalise_q=True,
        online_actor_lr=1e-4,
        online_cql_alpha=0.1,
        online_cql_alpha_final=0.01,
        schedule_start=1,
        schedule_end=3,
        offline_bc_steps=3,
        offline_critic_steps=3,
        offline_steps=4,
        training_starts=1,
        replay_capacity=400,
        checkpoint_every=5,
        log_every=1,
    )


@pytest.fixture
def make_episode() -> MakeEpisode:
    """Makes an episode of noise whose content depends on its number only."""

    def make(
        number: int,
        *,
        mode: Mode = Mode.TRAINING,
        length: int = 8,
        outcome: Outcome = Outcome.SUCCESS,
        operator: Iterable[int] = (),
        task: str = "pick_banana",
    ) -> Episode:
        rng = np.random.default_rng(number)
        driven = set(operator)
        pose = np.array([0.5, 0.0, 0.2, 1.0, 0.0, 0.0, 0.0])
        source = [
            ActionSource.OPERATOR if mode is Mode.DEMONSTRATION or k in driven else ActionSource.POLICY
            for k in range(length + 1)
        ]
        return Episode(
            episode_id=f"test-{number:06d}",
            task=task,
            instruction="Put the yellow banana on the green plate.",
            mode=mode,
            outcome=outcome,
            final_step=length,
            observations=[
                Observation(
                    stamp_ns=k * 100_000_000,
                    episode=number,
                    step=k,
                    images={"side": rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)},
                    tcp_pose=pose,
                    reset_pose=pose,
                    tcp_twist=rng.normal(size=6),
                    tcp_wrench=rng.normal(size=6),
                    gripper_opening=1.0,
                )
                for k in range(length + 1)
            ],
            commands=[
                Command(action=rng.uniform(-1, 1, 7).astype(np.float32), source=source[k]) for k in range(length + 1)
            ],
            embeddings=rng.normal(size=(length + 1, EMBEDDING_DIM)).astype(np.float32),
            embedding_fingerprint=FINGERPRINT,
        )

    return make


@pytest.fixture
def make_trainer(preset: Preset, task: TaskConfig, make_episode: MakeEpisode) -> MakeTrainer:
    """Makes a trainer that has ingested two demonstrations; an earlier one in the same folder has ended."""
    earlier: dict[Path, Trainer] = {}

    def make(run_dir: Path, *, seed: int = 0, demonstrations: int = 2, **changes: object) -> Trainer:
        if run_dir in earlier:
            earlier[run_dir].close()
        chosen = preset.model_copy(update=changes)
        trainer = Trainer(chosen, chosen.head_config(task, EMBEDDING_DIM), FINGERPRINT, task, seed, run_dir)
        earlier[run_dir] = trainer
        for number in range(demonstrations):
            trainer.ingest(make_episode(number, mode=Mode.DEMONSTRATION))
        return trainer

    return make
