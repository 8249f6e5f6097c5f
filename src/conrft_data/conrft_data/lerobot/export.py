"""Writes episode bags as one LeRobotDataset v3 with images in PNG, so that nothing is lost."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray
from PIL import Image

from conrft_data import durable_files
from conrft_data.bags import BagError, read_episode
from conrft_data.lerobot import layout
from conrft_data.lerobot.layout import Feature
from conrft_data.lerobot.statistics import (
    Statistics,
    flattened,
    image_counts,
    image_statistics,
    number_statistics,
)
from conrft_data.types import ActionSource, Command, Episode, Observation, Outcome, proprioception

_ROBOT = "franka"
_TAIL = Command(action=np.zeros(7, np.float32), source=ActionSource.HOLD, reason="the episode ended")


class Exported(NamedTuple):
    """What a dataset holds."""

    episodes: int
    frames: int


def export_dataset(bags: Sequence[Path], target: Path) -> Exported:
    """Writes the episodes of ``bags`` into the new folder ``target``, which appears whole or not at all.

    A frame is an observation with the action executed on it. The last observation of a transition and the tail behind
    it are frames too, with ``next.done``; the tail's action is zero, because the arm held.

    Raises:
        BagError: there is no bag, one cannot be read or has other cameras than the first, or ``target`` exists.
    """
    if not bags:
        raise BagError(f"{target}: there is no episode to export")
    if target.exists():
        raise BagError(f"{target}: exists already")
    temporary = target.with_name(f".export-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _DatasetWriter(temporary) as writer:
            for bag in bags:
                writer.add(read_episode(bag))
            exported = writer.finish()
        durable_files.sync_tree(temporary)
        durable_files.publish(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return exported


class _DatasetWriter:
    """Appends episodes, and completes the tables at the end."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._features: dict[str, Feature] = {}
        self._data: parquet.ParquetWriter | None = None
        self._data_file = -1
        self._frames = 0
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._own: list[dict[str, Any]] = []
        self._numbers: dict[str, list[NDArray[Any]]] = {}
        self._levels: dict[str, NDArray[np.int64]] = {}

    def __enter__(self) -> _DatasetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_data()

    def add(self, episode: Episode) -> None:
        """Appends one episode."""
        sizes = {name: (image.shape[1], image.shape[0]) for name, image in episode.observations[0].images.items()}
        columns = layout.features(sizes)
        if not self._features:
            self._features = columns
        elif columns != self._features:
            raise BagError(f"{episode.episode_id}: has cameras {sizes}, others than the first episode of the dataset")
        values = self._columns(episode)
        length = len(values[layout.FRAME])
        statistics = self._take_statistics(values)
        place = self._write_frames(values)
        self._episodes.append(
            {
                "episode_index": len(self._episodes),
                "tasks": [episode.instruction],
                "length": length,
                **place,
                "dataset_from_index": self._frames,
                "dataset_to_index": self._frames + length,
                **flattened(statistics),
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        self._own.append(_own_entry(episode))
        self._frames += length

    def finish(self) -> Exported:
        """Writes the tables about the episodes."""
        self._close_data()
        count = len(self._episodes)
        _write_table(
            self._root / layout.EPISODES.format(chunk_index=0, file_index=0), pa.Table.from_pylist(self._episodes)
        )
        _write_table(self._root / layout.TASKS, _task_table(self._tasks))
        totals: dict[str, Statistics] = {
            name: number_statistics(np.concatenate(parts)) for name, parts in self._numbers.items()
        }
        totals |= {name: image_statistics(levels, self._frames) for name, levels in self._levels.items()}
        self._write_json(layout.STATISTICS, totals)
        self._write_json(layout.INFO, self._info(count))
        self._write_json(layout.OWN, {"episodes": self._own})
        return Exported(count, self._frames)

    def _columns(self, episode: Episode) -> dict[str, list[Any]]:
        """The frames of an episode by column: arrays of the feature's shape."""
        observations = [*episode.observations, *episode.tail]
        commands = [*episode.commands, *[_TAIL] * len(episode.tail)]
        task = self._tasks.setdefault(episode.instruction, len(self._tasks))
        rows = [
            {
                **_frame(observation, command),
                **_outcome(episode, index),
                **_verdict(episode, observation.step),
                layout.TIMESTAMP: index / layout.FPS,
                layout.FRAME: index,
                layout.EPISODE: len(self._episodes),
                layout.INDEX: self._frames + index,
                layout.TASK: task,
            }
            for index, (observation, command) in enumerate(zip(observations, commands, strict=True))
        ]
        return {name: [row[name] for row in rows] for name in self._features}

    def _take_statistics(self, values: dict[str, list[Any]]) -> dict[str, Statistics]:
        statistics = {}
        for name, feature in self._features.items():
            if feature.dtype == "image":
                levels = image_counts(values[name])
                self._levels[name] = self._levels.get(name, 0) + levels
                statistics[name] = image_statistics(levels, len(values[name]))
            else:
                numbers = np.array(values[name], dtype=feature.dtype).reshape(-1, *feature.shape)
                self._numbers.setdefault(name, []).append(numbers)
                statistics[name] = number_statistics(numbers)
        return statistics

    def _write_frames(self, values: dict[str, list[Any]]) -> dict[str, int]:
        """Appends a row group; returns where it is."""
        arrays = [_arrow(values[name], feature, name) for name, feature in self._features.items()]
        table = pa.Table.from_arrays(arrays, names=list(self._features))
        path = self._data_path()
        if self._data is None or path.stat().st_size >= layout.DATA_FILE_MIB * 2**20:
            self._close_data()
            self._data_file += 1
            path = self._data_path()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = parquet.ParquetWriter(path, table.schema)
        self._data.write_table(table)
        chunk, file = divmod(self._data_file, layout.FILES_IN_CHUNK)
        return {"data/chunk_index": chunk, "data/file_index": file}

    def _data_path(self) -> Path:
        chunk, file = divmod(self._data_file, layout.FILES_IN_CHUNK)
        return self._root / layout.DATA.format(chunk_index=chunk, file_index=file)

    def _close_data(self) -> None:
        if self._data is not None:
            self._data.close()
            self._data = None

    def _info(self, episodes: int) -> dict[str, Any]:
        return {
            "codebase_version": layout.VERSION,
            "robot_type": _ROBOT,
            "total_episodes": episodes,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": layout.FILES_IN_CHUNK,
            "data_files_size_in_mb": layout.DATA_FILE_MIB,
            "video_files_size_in_mb": layout.VIDEO_FILE_MIB,
            "fps": layout.FPS,
            "splits": {"train": f"0:{episodes}"},
            "data_path": layout.DATA,
            "video_path": None,
            "features": {name: feature.as_info() for name, feature in self._features.items()},
        }

    def _write_json(self, name: str, content: Any) -> None:
        (self._root / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _frame(observation: Observation, command: Command) -> dict[str, Any]:
    """One tick's columns that come from its observation and its command."""
    proposal = command.proposal
    return {
        layout.STATE: proprioception(observation),
        layout.ACTION: command.action,
        **{f"{layout.IMAGE_PREFIX}{name}": image for name, image in observation.images.items()},
        "conrft.stamp_ns": observation.stamp_ns,
        "conrft.step": observation.step,
        "conrft.tcp_pose": observation.tcp_pose,
        "conrft.reset_pose": observation.reset_pose,
        "conrft.tcp_twist": observation.tcp_twist,
        "conrft.tcp_wrench": observation.tcp_wrench,
        "conrft.gripper_opening": observation.gripper_opening,
        "conrft.source": int(command.source),
        "conrft.has_proposal": proposal is not None,
        "conrft.proposal": np.zeros(7, np.float32) if proposal is None else proposal,
    }


def _outcome(episode: Episode, index: int) -> dict[str, Any]:
    """Reward, end and success of the step from frame ``index`` on: 1 for the transition that succeeds, 0 otherwise."""
    last = episode.final_step - 1
    success = episode.outcome is Outcome.SUCCESS
    return {
        layout.REWARD: float(success and index == last),
        layout.DONE: index >= last,
        layout.SUCCESS: success and index >= last,
    }


def _verdict(episode: Episode, step: int) -> dict[str, Any]:
    verdict = episode.verdicts.get(step)
    return {
        "conrft.has_verdict": verdict is not None,
        "conrft.probability": 0.0 if verdict is None else verdict.probability,
        "conrft.gates_passed": verdict is not None and verdict.gates_passed,
        "conrft.success": verdict is not None and verdict.success,
    }


def _own_entry(episode: Episode) -> dict[str, Any]:
    """What an importer must know of the episode besides its frames."""
    return {
        "episode_id": episode.episode_id,
        "task": episode.task,
        "mode": episode.mode.name,
        "outcome": episode.outcome.name,
        "recorded_outcome": episode.recorded_outcome.name,
        "number": episode.observations[0].episode,
        "final_step": episode.final_step,
        "hold_reasons": {step: command.reason for step, command in enumerate(episode.commands) if command.reason},
    }


def _arrow(values: list[Any], feature: Feature, name: str) -> pa.Array:
    """A column as LeRobot's reader casts it: plain, a list of fixed size, or an encoded image."""
    if feature.dtype == "image":
        images = [{"bytes": _png(pixels), "path": None} for pixels in values]
        return pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    kind = pa.bool_() if feature.dtype == "bool" else pa.type_for_alias(feature.dtype)
    flat = np.array(values, dtype=feature.dtype)
    if feature.shape == (1,):
        return pa.array(flat.ravel(), kind)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel(), kind), feature.shape[0])


def _png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _task_table(tasks: dict[str, int]) -> pa.Table:
    """Instructions and their numbers; the instruction is the index of a pandas frame, as LeRobot reads it."""
    index = "__index_level_0__"
    pandas = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, field, kind, numpy in (
                ("task_index", "task_index", "int64", "int64"),
                (None, index, "unicode", "object"),
            )
        ],
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), index: pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
