"""Makes episode bags of a LeRobotDataset v3: of one that this suite exported, or of another robot's."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray
from PIL import Image

from conrft_data import durable_files, rotations
from conrft_data.bags import Assembled, BagError, Imported, relabel, write_episode
from conrft_data.config import TaskConfig
from conrft_data.lerobot import layout
from conrft_data.lerobot.video import read_frames
from conrft_data.types import (
    ACTION_DIM,
    PROPRIOCEPTION_DIM,
    ActionSource,
    Command,
    Episode,
    Mode,
    Observation,
    Outcome,
    Verdict,
)

Columns = dict[str, NDArray[Any]]

_TICK_NS = 1_000_000_000 // layout.FPS


def import_dataset(
    dataset: Path, folder: Path, task: TaskConfig | None = None, outcome: Outcome | None = None
) -> Imported:
    """Makes one episode bag of every episode in ``dataset``.

    A dataset that :func:`~conrft_data.lerobot.export_dataset` wrote gives the bags that it was made of. Any other needs
    ``observation.state`` ``(19,)`` in the order of :func:`~conrft_data.types.proprioception`, ``action`` ``(7,)`` in
    [-1, 1] and the cameras of ``task`` at 10 frames per second; its last frame is the last observation, and whose
    action led there is the operator.

    Args:
        dataset: root folder.
        folder: of all episodes.
        task: what another robot's dataset is of; gives name, cameras and reset pose.
        outcome: of every episode, for another robot's dataset that has neither ``next.success`` nor ``next.reward``.

    Raises:
        BagError: it is no such dataset. What is wrong with single episodes is told in the result.
    """
    source = _Dataset(dataset)
    result = Imported()
    for row in source.episodes():
        index = int(row["episode_index"])
        try:
            columns = source.frames(row)
            if source.own:
                episode = _own_episode(source, columns, source.own[index])
            else:
                episode = _foreign_episode(source, columns, index, task, outcome)
            path = _write(folder, episode)
        except (BagError, ValueError, KeyError, OSError) as error:
            told = f"no column {error}" if isinstance(error, KeyError) else error
            result.problems.append(BagError(f"{dataset}: episode {index}: {told}"))
        else:
            result.episodes.append(Assembled(path=path, outcome=episode.outcome, final_step=len(episode), lost=""))
    return result


def _write(folder: Path, episode: Episode) -> Path:
    """Makes the bag beside its place, so that an episode that cannot be written leaves nothing behind."""
    target = folder / episode.episode_id
    if target.exists():
        raise BagError(f"{target}: exists already")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=folder) as temporary:
        path = write_episode(temporary, episode)
        if episode.recorded_outcome is not episode.outcome:
            relabel(path, episode.outcome, "as in the dataset")
        durable_files.publish(path, target)
    return target


class _Dataset:
    """Tables and files of a dataset."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            self.info = json.loads((root / layout.INFO).read_text(encoding="utf-8"))
            version, self.fps = str(self.info["codebase_version"]), self.info["fps"]
            features, self._data_path = self.info["features"], str(self.info["data_path"])
            self.images = {name: f for name, f in features.items() if f["dtype"] in ("image", "video")}
            self.names = {name: feature.get("names") for name, feature in features.items()}
            own = root / layout.OWN
            self.own: list[dict[str, Any]] = json.loads(own.read_text())["episodes"] if own.is_file() else []
            tasks = parquet.read_table(root / layout.TASKS).to_pylist()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BagError(f"{root}: is no LeRobotDataset: {error}") from error
        if not version.startswith("v3."):
            raise BagError(
                f"{root}: is a LeRobotDataset {version}, expected {layout.VERSION} (lerobot converts older ones)"
            )
        if self.fps != layout.FPS:
            raise BagError(f"{root}: has {self.fps} frames per second, expected {layout.FPS}")
        self._tasks = {row[layout.TASK]: next(v for v in row.values() if isinstance(v, str)) for row in tasks}

    @property
    def name(self) -> str:
        """Of the folder, as part of a file name."""
        return self._root.resolve().name.lstrip(".")

    def episodes(self) -> Iterator[dict[str, Any]]:
        """The rows about the episodes, without their statistics."""
        files = sorted((self._root / "meta" / "episodes").rglob("*.parquet"))
        for file in files:
            names = [name for name in parquet.read_schema(file).names if not name.startswith("stats/")]
            yield from parquet.read_table(file, columns=names).to_pylist()

    def instruction(self, columns: Columns) -> str:
        """The language instruction of an episode's frames."""
        return self._tasks[int(columns[layout.TASK][0])]

    def frames(self, row: dict[str, Any]) -> Columns:
        """The frames of an episode: ``(N, ...)`` by column, cameras as uint8 RGB ``(N, H, W, 3)``."""
        file = self._root / self._data_path.format(
            chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
        )
        index = int(row["episode_index"])
        table = parquet.read_table(file, filters=[(layout.EPISODE, "=", index)]).sort_by(layout.FRAME)
        if table.num_rows != row["length"]:
            raise BagError(f"{file}: has {table.num_rows} frames of it, expected {row['length']}")
        columns: Columns = {}
        for name in table.column_names:
            values = table[name].to_pylist()
            columns[name] = np.stack([_decoded(v) for v in values]) if name in self.images else np.array(values)
        for name, feature in self.images.items():
            if feature["dtype"] == "video":
                columns[name] = self._video(name, row)
        return columns

    def _video(self, name: str, row: dict[str, Any]) -> NDArray[np.uint8]:
        file = self._root / str(self.info["video_path"]).format(
            video_key=name, chunk_index=row[f"videos/{name}/chunk_index"], file_index=row[f"videos/{name}/file_index"]
        )
        return read_frames(file, float(row[f"videos/{name}/from_timestamp"]), int(row["length"]), layout.FPS)


def _decoded(value: dict[str, Any]) -> NDArray[np.uint8]:
    if not value["bytes"]:
        raise BagError("an image is not in the file")
    return np.asarray(Image.open(io.BytesIO(value["bytes"])).convert("RGB"))


def _images(columns: Columns, index: int) -> dict[str, NDArray[np.uint8]]:
    prefix = layout.IMAGE_PREFIX
    return {name.removeprefix(prefix): values[index] for name, values in columns.items() if name.startswith(prefix)}


def _own_episode(source: _Dataset, columns: Columns, own: dict[str, Any]) -> Episode:
    """The episode that was exported."""
    c = {name.removeprefix("conrft."): values for name, values in columns.items()}
    observations = [
        Observation(
            stamp_ns=int(c["stamp_ns"][i]),
            episode=int(own["number"]),
            step=int(c["step"][i]),
            images=_images(columns, i),
            tcp_pose=c["tcp_pose"][i],
            reset_pose=c["reset_pose"][i],
            tcp_twist=c["tcp_twist"][i],
            tcp_wrench=c["tcp_wrench"][i],
            gripper_opening=float(c["gripper_opening"][i]),
        )
        for i in range(len(c["step"]))
    ]
    final_step, reasons = int(own["final_step"]), own["hold_reasons"]
    commands = [
        Command(
            action=columns[layout.ACTION][i].astype(np.float32),
            source=ActionSource(int(c["source"][i])),
            proposal=c["proposal"][i].astype(np.float32) if c["has_proposal"][i] else None,
            reason=reasons.get(str(i), ""),
        )
        for i in range(final_step + 1)
    ]
    verdicts = {
        int(c["step"][i]): Verdict(
            probability=float(c["probability"][i]),
            gates_passed=bool(c["gates_passed"][i]),
            success=bool(c["success"][i]),
        )
        for i in np.flatnonzero(c["has_verdict"])
    }
    return Episode(
        episode_id=str(own["episode_id"]),
        task=str(own["task"]),
        instruction=source.instruction(columns),
        mode=Mode[own["mode"]],
        outcome=Outcome[own["outcome"]],
        recorded_outcome=Outcome[own["recorded_outcome"]],
        final_step=final_step,
        observations=observations[: final_step + 1],
        commands=commands,
        tail=observations[final_step + 1 :],
        verdicts=verdicts,
    )


def _foreign_episode(
    source: _Dataset, columns: Columns, index: int, task: TaskConfig | None, outcome: Outcome | None
) -> Episode:
    """An episode of a dataset that another program wrote."""
    if task is None:
        raise BagError("was not exported by this suite: name its task (--task-file)")
    actions = columns[layout.ACTION].astype(np.float32)
    if actions.shape[1:] != (ACTION_DIM,):
        raise BagError(f"{layout.ACTION}: expected {ACTION_DIM} numbers, got {actions.shape[1:]}")
    states = _ordered_states(source, columns[layout.STATE].astype(np.float64))
    reset = np.concatenate([task.reset.position, rotations.from_euler_xyz(task.reset.euler_xyz)])
    _check_cameras(columns, task)
    last = len(actions) - 1
    return Episode(
        episode_id=f"{source.name}-demonstration-{index + 1:06d}",
        task=task.name,
        instruction=source.instruction(columns),
        mode=Mode.DEMONSTRATION,
        outcome=_told_outcome(columns, outcome),
        recorded_outcome=_told_outcome(columns, outcome),
        final_step=last,
        observations=[_observation(states[i], _images(columns, i), reset, index + 1, i) for i in range(last + 1)],
        commands=[Command(action=action, source=ActionSource.OPERATOR) for action in actions],
    )


def _ordered_states(source: _Dataset, states: NDArray[np.float64]) -> NDArray[np.float64]:
    """States ``(N, 19)`` in the suite's order, which names may change."""
    if states.shape[1:] != (PROPRIOCEPTION_DIM,):
        raise BagError(
            f"{layout.STATE}: expected the {PROPRIOCEPTION_DIM} numbers {', '.join(layout.STATE_NAMES)}, "
            f"got {states.shape[1:]}"
        )
    names = source.names[layout.STATE]
    if isinstance(names, list) and set(names) == set(layout.STATE_NAMES):
        return states[:, [names.index(name) for name in layout.STATE_NAMES]]
    return states


def _check_cameras(columns: Columns, task: TaskConfig) -> None:
    for name, camera in task.cameras.items():
        key = f"{layout.IMAGE_PREFIX}{name}"
        if key not in columns:
            raise BagError(f"has no camera {key}, which task {task.name} needs")
        height, width = columns[key].shape[1:3]
        if (width, height) != (camera.width, camera.height):
            raise BagError(f"{key}: has {width}x{height} pixels, expected {camera.width}x{camera.height}")


def _told_outcome(columns: Columns, outcome: Outcome | None) -> Outcome:
    """What the dataset says, or what the person said."""
    for name in (layout.SUCCESS, layout.REWARD):
        if name in columns:
            return Outcome.SUCCESS if float(np.max(columns[name])) > 0 else Outcome.TIMEOUT
    if outcome is None:
        raise BagError(f"has neither {layout.SUCCESS} nor {layout.REWARD}: say how its episodes ended (--outcome)")
    return outcome


def _observation(
    state: NDArray[np.float64], images: dict[str, NDArray[np.uint8]], reset: NDArray[np.float64], number: int, step: int
) -> Observation:
    """The observation whose proprioception is ``state`` ``(19,)``, with the task's reset pose ``(7,)``."""
    turned = rotations.multiply(reset[3:], rotations.from_euler_xyz(state[7:10]))
    position = reset[:3] + rotations.rotate(reset[3:], state[4:7])
    return Observation(
        stamp_ns=(1 + step) * _TICK_NS,
        episode=number,
        step=step,
        images=images,
        tcp_pose=np.concatenate([position, turned]),
        reset_pose=reset,
        tcp_twist=rotations.rotate_blocks(turned, state[13:19]),
        tcp_wrench=np.concatenate([state[1:4], state[10:13]]),
        gripper_opening=float(state[0]),
    )
