"""Adding a task takes one module and one file, as docs/tasks.md shows."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

from conrft_data.config import TaskConfig, load_config
from conrft_sim import tasks
from conrft_sim.environment import TaskEnv, register
from conrft_sim.operator import ScriptedOperator
from conrft_sim.operator_benchmark import run_episode
from conrft_sim.simulation import Simulation
from conrft_sim.task import task_class, task_names

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")
NAME = "place_block"


def shown(language: str) -> str:
    """What docs/tasks.md shows in ``language``, behind the mark that says that this test runs it."""
    (block,) = re.findall(rf"<!-- executed by .*test_ninth_task.py -->\n```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return block


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskConfig]:
    """The task's file; its module stands in a folder of its own, among the tasks."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{NAME}.py").write_text(shown("python"))
    (tmp_path / f"{NAME}.yaml").write_text(shown("yaml"))
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path / "modules")])
    yield load_config(TaskConfig, tmp_path / f"{NAME}.yaml")
    sys.modules.pop(f"conrft_sim.tasks.{NAME}", None)
    for known in [key for key in gymnasium.registry if "PlaceBlock" in key]:
        del gymnasium.registry[known]


def test_it_is_found_by_its_name_and_done_by_the_operator(config: TaskConfig) -> None:
    assert NAME in task_names()
    operator = ScriptedOperator("demonstrate", task_class(NAME).plan(config), seed=1)
    with Simulation(config) as simulation:
        assert all(run_episode(simulation, operator, 1, episode).success for episode in range(1, 6))


def test_gymnasium_knows_it(config: TaskConfig) -> None:
    register()
    made = gymnasium.make("ConRFT/PlaceBlock-v0").unwrapped
    assert isinstance(made, TaskEnv)
    observation, _ = made.reset(seed=0)
    made.close()
    assert observation["side"].shape == (256, 256, 3)


def test_a_module_without_a_task_is_refused_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty_task.py").write_text("")
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    with pytest.raises(TypeError, match=r"empty_task\.py: must define exactly one subclass of Task, defines 0"):
        task_class("empty_task")
    sys.modules.pop("conrft_sim.tasks.empty_task")
