"""Episodes as LeRobotDataset v3 and back; everything that training uses stays as it was."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as parquet
import pytest

from conrft_data import cli
from conrft_data.bags import BagError, list_episodes, read_episode, relabel, write_episode
from conrft_data.config import TaskConfig
from conrft_data.lerobot import export_dataset, import_dataset, layout
from conrft_data.lerobot.video import read_frames
from conrft_data.types import ActionSource, Episode, Mode, Outcome, proprioception

EpisodeMaker = Callable[..., Episode]


@pytest.fixture
def bags(tmp_path: Path, make_episode: EpisodeMaker) -> list[Path]:
    """A success with a tail, one that was taken back, and an abort of another instruction."""
    made = [make_episode(number=1, tail=3), make_episode(number=2, final_step=4)]
    made.append(replace(make_episode(number=3, outcome=Outcome.ABORTED, final_step=2), instruction="open the drawer"))
    paths = [write_episode(tmp_path / "bags", replace(episode, embeddings=None)) for episode in made]
    relabel(paths[1], Outcome.TIMEOUT, "it fell down")
    return paths


@pytest.fixture
def dataset(tmp_path: Path, bags: list[Path]) -> Path:
    export_dataset(bags, tmp_path / "dataset")
    return tmp_path / "dataset"


def task(sizes: dict[str, tuple[int, int]] | None = None) -> TaskConfig:
    cameras = {
        name: {"width": w, "height": h} for name, (w, h) in (sizes or {"side": (24, 16), "wrist": (16, 16)}).items()
    }
    return TaskConfig.model_validate(
        {
            "name": "wipe_board",
            "instruction": "wipe the board",
            "action_dim": 7,
            "max_steps": 100,
            "cameras": cameras,
            "reset": {"position": [0.4, 0.1, 0.3], "euler_xyz": [3.1, 0.1, 0.7], "kind": "human"},
            "workspace": {"low": [0.2, -0.5, 0.0], "high": [0.7, 0.5, 0.6]},
        }
    )


def frames(dataset: Path) -> dict[str, np.ndarray]:
    table = parquet.read_table(dataset / "data/chunk-000/file-000.parquet")
    return {name: np.array(table[name].to_pylist()) for name in table.column_names if "images" not in name}


def assert_the_same(a: Episode, b: Episode) -> None:
    for field in ("episode_id", "task", "instruction", "mode", "outcome", "recorded_outcome", "final_step", "verdicts"):
        assert getattr(a, field) == getattr(b, field), field
    for x, y in zip([*a.observations, *a.tail], [*b.observations, *b.tail], strict=True):
        assert (x.stamp_ns, x.episode, x.step, x.gripper_opening) == (y.stamp_ns, y.episode, y.step, y.gripper_opening)
        np.testing.assert_array_equal(proprioception(x), proprioception(y))
        for field in ("tcp_twist", "tcp_wrench"):
            np.testing.assert_array_equal(getattr(x, field), getattr(y, field), field)
        for field in ("tcp_pose", "reset_pose"):  # reading a bag scales the quaternion to unit length once more
            np.testing.assert_allclose(getattr(x, field), getattr(y, field), rtol=0, atol=4e-16)
        assert list(x.images) == list(y.images)
        for name in x.images:
            np.testing.assert_array_equal(x.images[name], y.images[name])
    for c, d in zip(a.commands, b.commands, strict=True):
        assert (c.source, c.reason, c.proposal is None) == (d.source, d.reason, d.proposal is None)
        np.testing.assert_array_equal(c.action, d.action)
        if c.proposal is not None:
            np.testing.assert_array_equal(c.proposal, d.proposal)


def test_what_is_exported_comes_back_as_it_was(tmp_path: Path, bags: list[Path], dataset: Path) -> None:
    result = import_dataset(dataset, tmp_path / "back")
    assert result.problems == []
    assert [made.path.name for made in result.episodes] == [bag.name for bag in bags]
    for bag in bags:
        assert_the_same(read_episode(bag), read_episode(tmp_path / "back" / bag.name))
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [bag.name for bag in bags]


def test_many_episodes_take_several_files(tmp_path: Path, bags: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "DATA_FILE_MIB", 0)
    monkeypatch.setattr(layout, "FILES_IN_CHUNK", 2)
    export_dataset(bags, tmp_path / "dataset")
    written = sorted(
        str(path.relative_to(tmp_path / "dataset/data")) for path in (tmp_path / "dataset/data").rglob("*.parquet")
    )
    assert written == [f"chunk-{n // 2:03d}/file-{n % 2:03d}.parquet" for n in range(3)]
    assert len(import_dataset(tmp_path / "dataset", tmp_path / "back").episodes) == 3


def test_a_frame_holds_state_action_and_time_as_lerobot_names_them(bags: list[Path], dataset: Path) -> None:
    first = read_episode(bags[0])
    columns = frames(dataset)
    np.testing.assert_array_equal(
        columns[layout.STATE][:10].astype(np.float32),
        np.stack([proprioception(observation) for observation in [*first.observations, *first.tail]]),
    )
    np.testing.assert_array_equal(columns[layout.ACTION][:6].astype(np.float32), first.actions())
    assert not columns[layout.ACTION][7:10].any()
    lengths = [10, 5, 3]
    np.testing.assert_array_equal(columns[layout.FRAME], np.concatenate([np.arange(n) for n in lengths]))
    np.testing.assert_array_equal(columns[layout.EPISODE], np.repeat(range(3), lengths))
    np.testing.assert_array_equal(columns[layout.INDEX], np.arange(18))
    np.testing.assert_allclose(columns[layout.TIMESTAMP], columns[layout.FRAME] / 10, atol=1e-6)
    assert len(layout.STATE_NAMES) == 19


def test_success_rewards_the_transition_that_reached_it(dataset: Path) -> None:
    columns = frames(dataset)
    assert columns[layout.REWARD][:10].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert columns[layout.DONE][:10].tolist() == [False] * 5 + [True] * 5
    assert not columns[layout.SUCCESS][10:].any() and not columns[layout.REWARD][10:].any()


def test_the_tables_tell_tasks_and_boundaries(dataset: Path) -> None:
    info = json.loads((dataset / layout.INFO).read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"]) == ("v3.0", 10, 18)
    assert info["features"]["observation.images.side"] == {
        "dtype": "image", "shape": [16, 24, 3], "names": ["height", "width", "channels"],
    }  # fmt: skip
    tasks = parquet.read_table(dataset / layout.TASKS)
    assert tasks.to_pylist() == [
        {"task_index": 0, "__index_level_0__": "pick up the banana"},
        {"task_index": 1, "__index_level_0__": "open the drawer"},
    ]
    rows = parquet.read_table(dataset / layout.EPISODES.format(chunk_index=0, file_index=0)).to_pylist()
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [(0, 10), (10, 15), (15, 18)]
    assert [row["tasks"] for row in rows] == [["pick up the banana"]] * 2 + [["open the drawer"]]


def test_statistics_are_those_of_the_frames(bags: list[Path], dataset: Path) -> None:
    statistics = json.loads((dataset / layout.STATISTICS).read_text())
    states = frames(dataset)[layout.STATE]
    np.testing.assert_allclose(statistics[layout.STATE]["std"], states.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics[layout.STATE]["q90"], np.quantile(states, 0.9, axis=0), rtol=1e-6)
    episodes = [read_episode(bag) for bag in bags]
    pixels = np.stack([o.images["side"] for e in episodes for o in [*e.observations, *e.tail]]).reshape(-1, 3) / 255
    image = statistics["observation.images.side"]
    assert np.array(image["mean"]).shape == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(image["mean"]), pixels.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(np.ravel(image["std"]), pixels.std(axis=0), rtol=1e-9)
    np.testing.assert_allclose(np.ravel(image["q10"]), np.quantile(pixels, 0.1, axis=0, method="inverted_cdf"))


def test_another_programs_dataset_becomes_demonstrations(tmp_path: Path, dataset: Path) -> None:
    (dataset / layout.OWN).unlink()
    result = import_dataset(dataset, tmp_path / "back", task())
    assert result.problems == []
    assert [(e.path.name, e.outcome, e.final_step) for e in result.episodes] == [
        ("dataset-demonstration-000001", Outcome.SUCCESS, 9),
        ("dataset-demonstration-000002", Outcome.TIMEOUT, 4),
        ("dataset-demonstration-000003", Outcome.TIMEOUT, 2),
    ]
    columns, episode = frames(dataset), read_episode(result.episodes[0].path)
    assert (episode.task, episode.instruction, episode.mode) == ("wipe_board", "pick up the banana", Mode.DEMONSTRATION)
    assert {command.source for command in episode.commands} == {ActionSource.OPERATOR}
    states = np.stack([proprioception(observation) for observation in episode.observations])
    np.testing.assert_allclose(states, columns[layout.STATE][:10], atol=2e-6)
    np.testing.assert_array_equal(episode.actions(), columns[layout.ACTION][:9].astype(np.float32))


def change_info(dataset: Path, **changes: Any) -> None:
    file = dataset / layout.INFO
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_states_of_another_order_are_put_in_order_by_their_names(tmp_path: Path, dataset: Path) -> None:
    (dataset / layout.OWN).unlink()
    features = json.loads((dataset / layout.INFO).read_text())["features"]
    features[layout.STATE]["names"] = [*layout.STATE_NAMES[1:], layout.STATE_NAMES[0]]
    change_info(dataset, features=features)
    result = import_dataset(dataset, tmp_path / "back", task())
    read = read_episode(result.episodes[0].path)
    np.testing.assert_allclose(read.observations[0].gripper_opening, frames(dataset)[layout.STATE][0, -1], atol=1e-6)


def test_a_dataset_that_does_not_fit_is_refused_with_the_reason(tmp_path: Path, dataset: Path) -> None:
    own = dataset / layout.OWN
    own.unlink()
    for given, complaint in (
        (None, "name its task"),
        (task({"front": (24, 16)}), "no camera observation.images.front"),
        (task({"side": (24, 18)}), "side: has 24x16 pixels, expected 24x18"),
    ):
        result = import_dataset(dataset, tmp_path / "back", given)
        assert result.episodes == [] and len(result.problems) == 3
        assert complaint in str(result.problems[0])
    change_info(dataset, fps=30)
    with pytest.raises(BagError, match="has 30 frames per second, expected 10"):
        import_dataset(dataset, tmp_path / "back", task())
    change_info(dataset, codebase_version="v2.1")
    with pytest.raises(BagError, match=r"is a LeRobotDataset v2.1, expected v3.0"):
        import_dataset(dataset, tmp_path / "back", task())
    with pytest.raises(BagError, match="is no LeRobotDataset"):
        import_dataset(tmp_path, tmp_path / "back", task())


def test_an_episode_that_cannot_be_used_leaves_nothing_behind(tmp_path: Path, dataset: Path) -> None:
    (dataset / layout.OWN).unlink()
    file = dataset / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(file)
    actions = np.array(table[layout.ACTION].to_pylist())
    actions[12, 3] = 1.5
    column = type(table[layout.ACTION].chunk(0)).from_arrays(actions.astype(np.float32).ravel(), 7)
    parquet.write_table(table.set_column(table.column_names.index(layout.ACTION), layout.ACTION, column), file)
    result = import_dataset(dataset, tmp_path / "back", task())
    assert len(result.episodes) == 2
    assert "episode 1: action: action: expected numbers in [-1, 1]" in str(result.problems[0])
    assert len(list((tmp_path / "back").iterdir())) == 2


def test_importing_twice_overwrites_nothing(tmp_path: Path, dataset: Path) -> None:
    import_dataset(dataset, tmp_path / "back")
    again = import_dataset(dataset, tmp_path / "back")
    assert again.episodes == [] and "exists already" in str(again.problems[0])


def test_an_export_never_replaces_what_is_there(tmp_path: Path, bags: list[Path], make_episode: EpisodeMaker) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(BagError, match="exists already"):
        export_dataset(bags, tmp_path / "there")
    other = write_episode(tmp_path / "bags", make_episode(number=9, final_step=1, sizes={"side": (20, 16)}))
    with pytest.raises(BagError, match="has cameras"):
        export_dataset([*bags, other], tmp_path / "new")
    assert not list(tmp_path.glob("*new*"))


def test_the_commands_export_and_import(tmp_path: Path, bags: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    import argparse

    def conrft(*words: object) -> int:
        parser = argparse.ArgumentParser()
        cli.register(parser.add_subparsers(required=True))
        arguments = parser.parse_args(["demos", *map(str, words)])
        return int(arguments.run(arguments))

    folder = bags[0].parent
    assert conrft("export", folder, tmp_path / "dataset", "--format", "lerobot") == 0
    assert "3 episodes, 18 frames" in capsys.readouterr().out
    assert conrft("import", tmp_path / "dataset", tmp_path / "back", "--format", "lerobot") == 0
    assert "3 imported, 0 not" in capsys.readouterr().out
    assert len(list_episodes(tmp_path / "back")) == 3
    assert conrft("export", bags[2], tmp_path / "pictures") == 0
    assert len(list((tmp_path / "pictures").iterdir())) == 3


def test_frames_of_a_video_are_found_by_their_time(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.gop_size = 7
        for level in range(25):
            image = np.full((64, 64, 3), level * 10, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    shown = read_frames(tmp_path / "film.mp4", 0.9, 12, 10)
    assert shown.shape == (12, 64, 64, 3)
    np.testing.assert_array_equal(np.round(shown.mean(axis=(1, 2, 3)) / 10), np.arange(9, 21))
    with pytest.raises(BagError, match="ends after 3 of 5 frames"):
        read_frames(tmp_path / "film.mp4", 2.2, 5, 10)


# Run by an interpreter that has lerobot, which asks for another torch than this workspace.
GENUINE = """
import json, sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

exported, made = sys.argv[1:]
dataset = LeRobotDataset("conrft/exported", root=exported)
rows = [dataset[i] for i in range(len(dataset))]
copy = LeRobotDataset.create("conrft/made", 10, root=made, use_videos=False, features={
    name: feature for name, feature in dataset.features.items()
    if name in ("observation.state", "action", "next.success") or "images" in name})
for row in rows:
    frame = {"task": row["task"], "next.success": np.array([bool(row["next.success"])])}
    for name in copy.features.keys() & row.keys() - frame.keys() - {
        "timestamp", "frame_index", "episode_index", "index", "task_index"}:
        value = row[name].numpy()
        frame[name] = (value * 255).round().astype(np.uint8).transpose(1, 2, 0) if "images" in name else value
    copy.add_frame(frame)
    last = row["index"] == dataset.meta.episodes[int(row["episode_index"])]["dataset_to_index"] - 1
    if last:
        copy.save_episode()
copy.finalize()
print(json.dumps({"episodes": dataset.num_episodes, "fps": dataset.fps, "tasks": [row["task"] for row in rows],
                  "state": [row["observation.state"].tolist() for row in rows],
                  "mean": dataset.meta.stats["action"]["mean"].tolist()}))
"""


@pytest.mark.skipif("LEROBOT_PYTHON" not in os.environ, reason="LEROBOT_PYTHON names no interpreter with lerobot")
def test_the_genuine_package_reads_the_export_and_writes_what_is_imported(tmp_path: Path, dataset: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    command = [os.environ["LEROBOT_PYTHON"], "-c", GENUINE, str(dataset), str(tmp_path / "made")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    columns = frames(dataset)
    assert (told["episodes"], told["fps"]) == (3, 10)
    assert told["tasks"] == ["pick up the banana"] * 15 + ["open the drawer"] * 3
    np.testing.assert_array_equal(np.float32(told["state"]), columns[layout.STATE].astype(np.float32))
    np.testing.assert_allclose(told["mean"], columns[layout.ACTION].mean(axis=0), rtol=1e-6)

    result = import_dataset(tmp_path / "made", tmp_path / "back", task())
    assert result.problems == []
    assert [(made.final_step, made.outcome.name) for made in result.episodes] == [
        (9, "SUCCESS"),
        (4, "TIMEOUT"),
        (2, "TIMEOUT"),
    ]
    bags = sorted((tmp_path / "bags").iterdir())
    for bag, made in zip(bags, result.episodes, strict=True):
        original, read = read_episode(bag), read_episode(made.path)
        for x, y in zip([*original.observations, *original.tail], read.observations, strict=True):
            assert all(np.array_equal(x.images[name], y.images[name]) for name in x.images)
            np.testing.assert_allclose(proprioception(x), proprioception(y), atol=2e-6)
        np.testing.assert_array_equal(original.actions(), read.actions()[: len(original)])
        assert read.instruction == original.instruction
