"""``conrft reward train`` and ``evaluate`` on real episode bags."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import yaml
from drawn_episodes import QUICK, TASK, drawn_episode, observation

from conrft_data.bags import relabel, write_episode
from conrft_data.types import Outcome
from conrft_reward import training
from conrft_reward.classifier import SuccessClassifier
from conrft_reward.cli import register


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("episodes")
    (folder / "task.yaml").write_text(yaml.safe_dump(TASK.model_dump(mode="json")))
    for number in range(6):
        write_episode(folder / "demos", drawn_episode(number))
    for number in range(6, 8):
        write_episode(folder / "online", drawn_episode(number, success=False))
    return folder


def conrft(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers(required=True))
    args = parser.parse_args([str(argument) for argument in arguments])
    return int(args.run(args))


def test_train_writes_classifier_report_and_sheet(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "TrainingSettings", lambda: QUICK)
    out, task_file = tmp_path / "reward.safetensors", folders / "task.yaml"
    chosen = ["--demos", folders / "demos", "--extra", folders / "online", "--task-file", task_file, "--seed", 1]
    assert conrft("reward", "train", *chosen, "--out", out) == 0
    report = json.loads((tmp_path / "reward.report.json").read_text())
    assert report["seed"] == 1
    assert report["train"]["episodes"] + report["held_out"]["episodes"] == 8
    assert (tmp_path / "reward.errors.png").read_bytes().startswith(b"\x89PNG")
    assert SuccessClassifier.load(out).probability(observation(1, 0, thing=0.92)) > 0.9
    assert "held_out: " in capsys.readouterr().out

    vetoed = write_episode(tmp_path / "vetoed", drawn_episode(20))
    relabel(vetoed, Outcome.ABORTED, "the banana was not on the plate")
    judged = ["--classifier", out, "--episodes", tmp_path / "vetoed", "--task-file", task_file]
    assert conrft("reward", "evaluate", *judged, "--out", tmp_path / "vetoed.json") == 0
    errors = json.loads((tmp_path / "vetoed.report.json").read_text())["episodes"]
    assert errors["frames"]["positives"] == 0
    assert errors["decisions"]["false_successes"] == 1, "what the operator vetoed, the classifier believed"


def test_a_folder_without_episodes_is_one_sentence(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--demos", tmp_path / "absent", "--task-file", folders / "task.yaml", "--out", tmp_path / "r.safetensors"]
    assert conrft("reward", "train", *chosen) == 1
    assert "absent: holds no recorded episode that can be used" in capsys.readouterr().out
    assert not (tmp_path / "r.safetensors").exists()
