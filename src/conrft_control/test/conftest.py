"""A task, a robot and the states of the supervisor that the tests of this package share."""

from pathlib import Path

import numpy as np
import pytest
from conrft_data import rotations
from conrft_data.config import TaskConfig
from conrft_data.ticks import EpisodeStatus
from conrft_data.types import Mode, Outcome, Phase

TASK = {
    "name": "pick_banana",
    "instruction": "put the banana on the plate",
    "action_dim": 7,
    "max_steps": 6,
    "cameras": {"side": {"width": 32, "height": 24}, "wrist": {"width": 16, "height": 16}},
    "reset": {"position": [0.5, 0.0, 0.3], "euler_xyz": [3.14159265, 0.0, 0.0], "kind": "script"},
    "workspace": {"low": [0.3, -0.3, 0.05], "high": [0.7, 0.3, 0.5]},
}
ROBOT = {
    "name": "fake",
    "cameras": {"side": {"topic": "side/color/image_raw"}, "wrist": {"topic": "wrist/color/image_raw"}},
}
HOME = np.array([0.5, 0.0, 0.3, *rotations.from_euler_xyz([3.14159265, 0.0, 0.0])])


@pytest.fixture
def task() -> TaskConfig:
    return TaskConfig.model_validate(TASK)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """YAML files of task and robot, by parameter name; YAML is a superset of JSON."""
    import json

    paths = {"task_file": tmp_path / "task.yaml", "robot_file": tmp_path / "robot.yaml"}
    paths["task_file"].write_text(json.dumps(TASK))
    paths["robot_file"].write_text(json.dumps(ROBOT))
    return {name: str(path) for name, path in paths.items()}


def make_status(phase: Phase, episode: int = 1, **fields: object) -> EpisodeStatus:
    known: dict[str, object] = {
        "stamp_ns": 0,
        "phase": phase,
        "outcome": Outcome.NONE,
        "mode": Mode.TRAINING,
        "episode": episode,
        "final_step": 0,
        "episode_id": f"s-training-{episode:06d}",
        "task": "pick_banana",
        "instruction": "put the banana on the plate",
        "message_version": 1,
    }
    return EpisodeStatus(**(known | fields))  # type: ignore[arg-type]


@pytest.fixture
def status():  # type: ignore[no-untyped-def]
    """Makes a state of the supervisor: status(Phase.RUNNING, episode=2)."""
    return make_status


@pytest.fixture
def home() -> np.ndarray:
    """The reset pose of the task."""
    return HOME.copy()
