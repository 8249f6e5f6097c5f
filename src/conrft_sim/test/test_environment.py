"""The Gymnasium environment keeps Gymnasium's contract and the task's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from conrft_sim.environment import TaskEnv, register
from conrft_sim.plan import ideal_action
from conrft_sim.tasks.pick_banana import PickBanana

TASK = PickBanana.default_config()
PLAN = PickBanana.plan(TASK)


@pytest.fixture
def environment() -> Iterator[TaskEnv]:
    register()
    made = gymnasium.make("ConRFT/PickBanana-v0").unwrapped
    assert isinstance(made, TaskEnv)
    yield made
    made.close()


def test_gymnasium_finds_nothing_to_complain_about(environment: TaskEnv) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*infinity.*")  # the proprioception has no bounds
        check_env(environment)


def test_success_terminates_with_the_reward_of_success(environment: TaskEnv) -> None:
    environment.reset(seed=1)
    for _ in range(60):
        _, reward, terminated, truncated, info = environment.step(ideal_action(PLAN, environment.scene()))
        assert not truncated
        if terminated:
            break
        assert reward == pytest.approx(-0.05)
    assert terminated
    assert info["success"]
    assert reward == pytest.approx(10.0)


def test_step_limit_truncates_and_does_not_terminate() -> None:
    short = TASK.model_copy(update={"max_steps": 5})
    environment = TaskEnv(short)
    environment.reset(seed=0)
    ends = [environment.step(np.zeros(7, np.float32))[2:4] for _ in range(5)]
    environment.close()
    assert ends == [(False, False)] * 4 + [(False, True)]


def test_start_state_depends_on_seed_and_episode_alone(environment: TaskEnv) -> None:
    first, _ = environment.reset(seed=4, options={"episode": 9})
    environment.reset(seed=5)
    again, info = environment.reset(seed=4, options={"episode": 9})
    other, _ = environment.reset()
    assert info["episode"] == 9
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["side"], other["side"])


def test_gripper_keeps_its_state_between_the_thresholds(environment: TaskEnv) -> None:
    environment.reset(seed=0)
    close, keep = np.array([0, 0, 0, 0, 0, 0, -1], np.float32), np.zeros(7, np.float32)
    environment.step(close)
    for _ in range(6):
        observation, *_ = environment.step(keep)
    assert observation["proprioception"][0] < 0.05
