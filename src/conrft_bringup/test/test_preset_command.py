"""``conrft preset`` as a person types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conrft_bringup.command import main
from conrft_data.config import load_config
from conrft_learner.presets import Preset

PRESETS = Path(__file__).parents[1] / "config" / "presets"


def test_the_list_names_and_describes_every_shipped_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preset", "list"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines == {path.stem: load_config(Preset, path).description for path in PRESETS.glob("*.yaml")}


@pytest.mark.parametrize("name", ["stable", "paper", "official_code"])
def test_what_is_shown_is_the_same_preset(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preset", "show", name]) == 0
    (tmp_path / "own.yaml").write_text(capsys.readouterr().out)
    assert load_config(Preset, tmp_path / "own.yaml") == load_config(Preset, PRESETS / f"{name}.yaml")


def test_each_setting_is_shown_with_description_range_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preset", "show", str(PRESETS / "stable.yaml")]) == 0
    shown = capsys.readouterr().out
    for text in (
        "# rate of the target critic; (0, 1]; default 0.005\ntau: 0.01\n",
        "# updates for each transition ingested; (0, 100]\nupdates_per_tick: 1.0\n",
        "# members drawn for each TD target (REDQ); none: all; [1, 20]\ncritic_subset: null\n",
        "# widths of the head's hidden layers; 1 to 4 numbers in [8, 4096]\nhead_hidden: [256, 256]\n",
    ):
        assert text in shown


def test_an_unknown_preset_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preset", "show", "stabel"]) == 2
    assert capsys.readouterr().err == (
        "conrft preset: there is no preset 'stabel'; shipped: official_code, paper, stable\n"
    )
