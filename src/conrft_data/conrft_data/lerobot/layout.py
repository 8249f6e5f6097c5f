"""Where the parts of a LeRobotDataset v3 are, and what the columns of its frames are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from conrft_data.types import ACTION_DIM, PROPRIOCEPTION_DIM

VERSION = "v3.0"
FPS = 10  # ticks of the suite in a second

INFO = "meta/info.json"
STATISTICS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
# What the format has no place for.
OWN = "meta/conrft.json"

FILES_IN_CHUNK = 1000
DATA_FILE_MIB = 100
VIDEO_FILE_MIB = 200

STATE = "observation.state"
ACTION = "action"
IMAGE_PREFIX = "observation.images."
REWARD, DONE, SUCCESS = "next.reward", "next.done", "next.success"
TIMESTAMP, FRAME, EPISODE, INDEX, TASK = "timestamp", "frame_index", "episode_index", "index", "task_index"

STATE_NAMES = [
    "gripper_opening",
    *(f"force_{axis}" for axis in "xyz"),
    *("x", "y", "z", "roll", "pitch", "yaw"),
    *(f"torque_{axis}" for axis in "xyz"),
    *(f"velocity_{axis}" for axis in "xyz"),
    *(f"angular_velocity_{axis}" for axis in "xyz"),
]
ACTION_NAMES = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
assert len(STATE_NAMES) == PROPRIOCEPTION_DIM and len(ACTION_NAMES) == ACTION_DIM

_POSE_NAMES = ["x", "y", "z", "qx", "qy", "qz", "qw"]


class Feature(NamedTuple):
    """One column of the frames: numpy's name of its type, or ``image``; its shape; names of its numbers."""

    dtype: str
    shape: tuple[int, ...]
    names: list[str] | None = None

    def as_info(self) -> dict[str, Any]:
        """Its entry in info.json."""
        return {"dtype": self.dtype, "shape": list(self.shape), "names": self.names}


_SCALAR = (1,)
# Everything about a tick that the columns with LeRobot's names do not hold, or hold rounded.
OWN_FEATURES = {
    "conrft.stamp_ns": Feature("int64", _SCALAR),
    "conrft.step": Feature("int64", _SCALAR),
    "conrft.tcp_pose": Feature("float64", (7,), _POSE_NAMES),
    "conrft.reset_pose": Feature("float64", (7,), _POSE_NAMES),
    "conrft.tcp_twist": Feature("float64", (6,)),
    "conrft.tcp_wrench": Feature("float64", (6,)),
    "conrft.gripper_opening": Feature("float32", _SCALAR),
    "conrft.source": Feature("int64", _SCALAR),
    "conrft.has_proposal": Feature("bool", _SCALAR),
    "conrft.proposal": Feature("float32", (ACTION_DIM,), ACTION_NAMES),
    "conrft.has_verdict": Feature("bool", _SCALAR),
    "conrft.probability": Feature("float32", _SCALAR),
    "conrft.gates_passed": Feature("bool", _SCALAR),
    "conrft.success": Feature("bool", _SCALAR),
}


def features(cameras: Mapping[str, tuple[int, int]]) -> dict[str, Feature]:
    """The columns of a dataset with these cameras (width and height by name), in the order of the file."""
    images = {
        f"{IMAGE_PREFIX}{name}": Feature("image", (height, width, 3), ["height", "width", "channels"])
        for name, (width, height) in cameras.items()
    }
    return {
        STATE: Feature("float32", (PROPRIOCEPTION_DIM,), STATE_NAMES),
        ACTION: Feature("float32", (ACTION_DIM,), ACTION_NAMES),
        **images,
        REWARD: Feature("float32", _SCALAR),
        DONE: Feature("bool", _SCALAR),
        SUCCESS: Feature("bool", _SCALAR),
        **OWN_FEATURES,
        TIMESTAMP: Feature("float32", _SCALAR),
        FRAME: Feature("int64", _SCALAR),
        EPISODE: Feature("int64", _SCALAR),
        INDEX: Feature("int64", _SCALAR),
        TASK: Feature("int64", _SCALAR),
    }
