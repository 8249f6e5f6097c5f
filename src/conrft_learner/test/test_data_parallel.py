"""Several processes train as one: each on its share of the same batches, with the same parameters at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from conrft_data.bags import write_episode
from conrft_data.types import Episode, Mode
from conrft_learner import data_parallel
from conrft_learner.checkpoints import read_newest
from conrft_learner.data_parallel import DataParallel, own_device
from conrft_learner.presets import Preset

SCRIPT = Path(__file__).with_name("offline_process.py")
TASK_FILE = Path(__file__).parents[2] / "conrft_bringup" / "config" / "tasks" / "pick_banana.yaml"
LAUNCHERS = {
    "one": [sys.executable],
    "two": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
}


def with_cameras(episode: Episode, **changes: object) -> Episode:
    rng = np.random.default_rng(len(episode))
    images = {name: rng.integers(0, 255, (size, size, 3), np.uint8) for name, size in (("side", 256), ("wrist", 128))}
    observations = [replace(observation, images=images) for observation in episode.observations]
    return replace(episode, observations=observations, **changes)


def assert_one_and_two_agree(folder: Path, script: Path, arguments: Callable[[str], list[object]]) -> None:
    """Runs the script as one process and as two, each with the arguments for its name; compares their checkpoints."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
    }
    running = {
        name: subprocess.Popen([*launcher, script, *map(str, arguments(name))], env=environment)
        for name, launcher in LAUNCHERS.items()
    }
    assert [process.wait() for process in running.values()] == [0, 0]
    states = {}
    for name in running:
        found = read_newest(folder / name / "checkpoints", print)
        assert found is not None
        states[name] = found[1]
    assert states["one"].keys() == states["two"].keys()
    for name, value in states["one"].items():
        torch.testing.assert_close(states["two"][name], value, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert not (folder / "two" / "process-1" / "checkpoints").exists(), "only the first process writes checkpoints"


COUPLED = {"cql_states": 0.5, "bc_successes_only": True, "critic_subset": 1, "max_grad_norm": 1.0}
"""What couples the rows of a batch."""


def test_two_processes_have_the_parameters_of_one(
    make_episode: Callable[..., Episode], preset: Preset, tmp_path: Path
) -> None:
    for number in (1, 2):
        episode = with_cameras(make_episode(number, mode=Mode.DEMONSTRATION, length=4), embeddings=None)
        write_episode(tmp_path / "demos", episode)
    preset_file = tmp_path / "preset.yaml"
    preset_file.write_text(yaml.safe_dump((preset.model_copy(update=COUPLED)).model_dump(mode="json")))
    command = [
        "train",
        "offline",
        "--demos",
        tmp_path / "demos",
        "--task-file",
        TASK_FILE,
        "--preset-file",
        preset_file,
    ]
    assert_one_and_two_agree(tmp_path, SCRIPT, lambda name: [*command, "--out", tmp_path / name])


@pytest.mark.parametrize("critic", ["light", "paper"])
def test_two_processes_have_the_parameters_of_one_after_the_online_stage(
    make_episode: Callable[..., Episode], preset: Preset, tmp_path: Path, critic: str
) -> None:
    for number, mode in ((1, Mode.DEMONSTRATION), (2, Mode.TRAINING), (3, Mode.TRAINING)):
        bags = tmp_path / ("demos" if mode is Mode.DEMONSTRATION else "episodes")
        write_episode(bags, with_cameras(make_episode(number, mode=mode, length=4, operator=(1,))))
    settings = COUPLED | {"critic": critic, "resnet_weights": "random", "crop_bank": 2, "n_step": 2}
    preset_file = tmp_path / "preset.yaml"
    preset_file.write_text(yaml.safe_dump((preset.model_copy(update=settings)).model_dump(mode="json")))
    assert_one_and_two_agree(
        tmp_path,
        SCRIPT.with_name("stages_process.py"),
        lambda name: [TASK_FILE, preset_file, tmp_path, tmp_path / name, "backbone of the tests", 12],
    )


def test_rows_that_cannot_be_shared_out_evenly_are_an_error() -> None:
    with pytest.raises(ValueError, match="15 rows cannot be shared out evenly to 2 processes"):
        DataParallel(0, 2).shard(15)


def test_shares_of_random_numbers_are_those_that_one_process_draws() -> None:
    def sample(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))

    whole = DataParallel().draw(sample, (6, 2))
    shares = [DataParallel(rank, 3).draw(sample, (2, 2)) for rank in range(3)]
    torch.testing.assert_close(torch.cat(shares), whole)


@pytest.mark.parametrize(("asked", "own"), [("cuda", "cuda:1"), ("cuda:0", "cuda:0"), ("cpu", "cpu")])
def test_each_process_has_the_gpu_of_its_place_on_the_machine(
    monkeypatch: pytest.MonkeyPatch, asked: str, own: str
) -> None:
    assert own_device(asked) == torch.device(asked), "not started by torchrun"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device(asked) == torch.device(own)


def test_the_process_group_is_of_that_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(data_parallel.distributed, "init_process_group", calls.append)
    monkeypatch.setattr(data_parallel.distributed, "get_rank", lambda: 1)
    assert data_parallel.join("cuda").device == torch.device("cuda", 1)
    assert calls == [torch.device("cuda", 1), "nccl"]


def test_figures_are_exchanged_on_the_device_of_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    exchanged: list[torch.Tensor] = []
    monkeypatch.setattr(data_parallel.distributed, "all_reduce", exchanged.append)
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: [0.0] * tensor.numel())  # there are no numbers on it
    DataParallel(0, 2, "meta").figures({"td_loss": 1.0, "q_data": 2.0})
    assert [tensor.device.type for tensor in exchanged] == ["meta"]
