"""``conrft train offline`` and the benchmarks, as a person types them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conrft_data.bags import write_episode
from conrft_data.types import Episode, Mode
from conrft_learner import benchmark, checkpoints, cli
from conrft_learner.critic_comparison import noise_episode
from conrft_learner.presets import Preset
from conrft_learner.recomputed_features import RecomputedEmbeddings
from conrft_learner.replay import Replay
from conrft_policy.backbone import load_backbone
from conrft_policy.policy_weights import load, unpack

TASK_FILE = Path(__file__).parents[2] / "conrft_bringup" / "config" / "tasks" / "pick_banana.yaml"


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers(required=True))
    args = parser.parse_args(arguments)
    return args.run(args)


@pytest.fixture
def arguments(tmp_path: Path, preset: Preset) -> list[str]:
    preset_file = tmp_path / "preset.yaml"
    preset_file.write_text(yaml.safe_dump(preset.model_dump(mode="json")))
    folders = ["--demos", str(tmp_path / "demos"), "--out", str(tmp_path / "out")]
    return ["train", "offline", *folders, "--task-file", str(TASK_FILE), "--preset-file", str(preset_file)]


@pytest.fixture
def demonstration(make_episode: Callable[..., Episode]) -> Episode:
    images = {"side": np.zeros((256, 256, 3), np.uint8), "wrist": np.zeros((128, 128, 3), np.uint8)}
    episode = make_episode(1, mode=Mode.DEMONSTRATION, length=3)
    observations = [replace(observation, images=images) for observation in episode.observations]
    return replace(episode, observations=observations, embeddings=None)


def test_offline_training_leaves_a_policy_that_loads(
    arguments: list[str], demonstration: Episode, tmp_path: Path
) -> None:
    write_episode(tmp_path / "demos", demonstration)
    assert run(*arguments) == 0
    weights = load(tmp_path / "out")
    unpack(weights, backbone_fingerprint=load_backbone("octo-nano", "pick_banana").fingerprint)
    summary = json.loads((tmp_path / "out" / "offline.json").read_text())
    assert (summary["demonstrations"], summary["transitions"], summary["updates"]) == (1, 3, 10)
    assert weights.version == 10


def test_the_last_checkpoint_is_written_once(
    arguments: list[str], demonstration: Episode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = checkpoints.write_checkpoint

    def counted(folder: Path, step: int, *rest: Any) -> Path:
        written.append(step)
        return write(folder, step, *rest)

    monkeypatch.setattr(checkpoints, "write_checkpoint", counted)
    write_episode(tmp_path / "demos", demonstration)
    assert run(*arguments) == 0
    assert written == [5, 10]


def test_offline_training_without_demonstrations_says_so(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert f"{tmp_path / 'demos'} holds no demonstration" in capsys.readouterr().err


def test_bench_replay_ends_with_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.replay(["--json", "--seconds", "0.05", "--frames", "4000"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["batch"], result["cameras"], result["frames"]) == (256, 2, 4060)
    assert result["sample_ms"] > 5 * result["light_sample_ms"] > 0, "the headline is with the cameras' features"
    assert result["ingest_steps_per_s"] > result["ingest_bag_steps_per_s"]["light"] > 0
    assert result["ingest_bag_steps_per_s"]["light"] > result["ingest_bag_steps_per_s"]["paper"] > 0


def test_bench_learner_ends_with_one_json_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WARM_UP": 1, "BATCH": 4, "EPISODES": 2, "EPISODE_LENGTH": 2}.items():
        monkeypatch.setattr(benchmark, name, value)
    assert benchmark.learner(["--json", "--seconds", "0.01", "--rounds", "1", "--embedding-dim", "8"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["batch"] == 4 and result["updates_per_s"] > 0
    for name in ("paper", "light"):
        critic = result[name]
        assert critic["ratio"] == pytest.approx(critic["updates_per_s"] / critic["reference_updates_per_s"], rel=0.1)
        assert set(critic["cases"]) == {"critic", "critic_calql", "critic_and_actor"}


def test_recomputed_features_are_the_stored_ones(tmp_path: Path) -> None:
    backbone = load_backbone("octo-nano", "pick_banana")
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (4, *size, 3), dtype=np.uint8) for name, size in backbone.image_sizes.items()}
    replay = Replay(tmp_path, capacity=4, embedding_dim=backbone.embedding_dim)
    replay.add(noise_episode(rng, 0, 3, embeddings=backbone.encode_episode(images)))
    indices = np.array([0, 1, 2])
    stored, recomputed = (replay.gather(indices, replay.batch(3)) for _ in range(2))
    RecomputedEmbeddings(backbone, images, np.array([True, False, False, False])).fill(indices, recomputed)
    for name in ("embedding", "next_embedding"):
        np.testing.assert_allclose(recomputed[name], stored[name], rtol=1e-3, atol=1e-4)
