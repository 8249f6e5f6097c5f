"""Each task of the simulation has its file, and the file says what the task's module says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conrft_data.config import TaskConfig, load_config
from conrft_sim.task import task_class, task_names

FOLDER = Path(__file__).parents[1] / "config" / "tasks"


@pytest.mark.parametrize("name", task_names())
def test_file_and_module_say_the_same(name: str) -> None:
    assert rounded(load_config(TaskConfig, FOLDER / f"{name}.yaml")) == rounded(task_class(name).default_config())


def test_no_file_is_without_a_task() -> None:
    assert {file.stem for file in FOLDER.glob("*.yaml")} <= set(task_names())


def rounded(config: TaskConfig) -> Any:
    """The configuration as plain data; an angle in a file has eight digits."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(part) for part in value]
        return round(value, 7) if isinstance(value, float) else value

    return plain(config.model_dump())
