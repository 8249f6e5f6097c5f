"""Networks and optimisers go on where a checkpoint left them, on whatever device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conrft_data.config import TaskConfig
from conrft_data.types import Episode
from conrft_learner.networks import Networks
from conrft_learner.presets import Preset
from conrft_learner.trainer import Trainer
from conrft_policy.consistency_head import HeadConfig


def optimiser_devices(networks: Networks) -> set[tuple[str, str]]:
    """By name of each optimiser's tensors, where they are."""
    optimisers = (networks.actor_optimiser, networks.critic_optimiser)
    states = [state for optimiser in optimisers for state in optimiser.state.values()]
    return {(name, value.device.type) for state in states for name, value in state.items()}


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_restored_moments_and_step_are_on_the_device_of_the_networks(
    make_trainer: Callable[..., Trainer], preset: Preset, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path)
    trainer.offline()
    state = trainer.networks.state()
    elsewhere = Networks(preset, trainer.head_config, seed=1, device="meta")
    elsewhere.load_state(state)
    assert optimiser_devices(elsewhere) == {(name, "meta") for name in ("step", "exp_avg", "exp_avg_sq")}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_run_on_a_gpu_goes_on_from_its_checkpoint(
    preset: Preset, task: TaskConfig, make_episode: Callable[..., Episode], tmp_path: Path
) -> None:
    head = HeadConfig(embedding_dim=12, hidden=(16, 16), proprio_latent=8)

    def start() -> Trainer:
        return Trainer(preset, head, "backbone of the tests", task, 0, tmp_path, device="cuda")

    trainer = start()
    trainer.ingest(make_episode(10))
    trainer.train(2)
    trainer.save()
    trainer.close()
    again = start()
    assert again.restore()
    again.train(2)
    assert again.online_updates == 4
