"""Whatever a policy does, the physics stays sane: every number finite, nothing flung away, no speed gone mad."""

from __future__ import annotations

import numpy as np
import pytest

from conrft_data.reference_pose import ReferencePose
from conrft_sim.operator_benchmark import execute
from conrft_sim.simulation import Simulation
from conrft_sim.task import task_class, task_names

EPISODES = 2


@pytest.mark.parametrize("name", task_names())
def test_random_actions_leave_the_physics_sane(name: str) -> None:
    config = task_class(name).default_config()
    with Simulation(config, seed=7) as simulation:
        reference = ReferencePose(config.motion_limits())
        for episode in range(EPISODES):
            rng = np.random.default_rng([7, episode])
            simulation.reset(7, episode)
            reference.start(simulation.tcp_pose)
            way = np.zeros(7)
            for _ in range(config.max_steps):
                way = 0.8 * way + rng.normal(0.0, 0.6, 7)
                execute(simulation, reference, np.clip(way, -1.0, 1.0))
                assert_sane(simulation, episode)


def assert_sane(simulation: Simulation, episode: int) -> None:
    data = simulation.data
    assert np.isfinite(data.qpos).all() and np.isfinite(data.qvel).all(), f"episode {episode}"
    assert data.warning.number.sum() == 0, f"episode {episode}: MuJoCo warns"
    for name, pose in simulation.scene().objects.items():
        assert np.abs(pose[:3]).max() < 2.0, f"episode {episode}: {name} is at {pose[:3]}"
    for body in range(simulation.model.nbody):
        assert np.linalg.norm(data.cvel[body][3:]) < 15.0, f"episode {episode}: {simulation.model.body(body).name}"
