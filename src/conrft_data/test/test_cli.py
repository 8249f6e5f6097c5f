"""``conrft demos`` tells a person what is in a folder of episodes."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conrft_data import cli
from conrft_data.bags import list_episodes, read_label, relabel, write_episode
from conrft_data.bags.label import Label
from conrft_data.plots import contact_sheet
from conrft_data.types import Episode, Outcome

EpisodeMaker = Callable[..., Episode]


def conrft(*arguments: object) -> int:
    parser = argparse.ArgumentParser(prog="conrft")
    cli.register(parser.add_subparsers(required=True))
    parsed = parser.parse_args([str(argument) for argument in arguments])
    return int(parsed.run(parsed))


def test_list_has_a_line_for_each_episode(
    tmp_path: Path, make_episode: EpisodeMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        bag = write_episode(tmp_path, make_episode(number=number, final_step=number))
    relabel(bag, Outcome.TIMEOUT)
    assert conrft("demos", "list", tmp_path) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("s1-training-000001  pick_banana  training") and first.endswith("success")
    assert "2 steps" in second and second.endswith("timeout (was success)")
    assert last == "2 episodes: 1 success, 1 timeout"


def test_list_tells_a_bad_bag_and_fails(
    tmp_path: Path, make_episode: EpisodeMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_episode(tmp_path, make_episode(final_step=1))
    (bag / "metadata.yaml").write_text("")
    assert conrft("demos", "list", tmp_path) == 1
    assert "s1-training-000001" in capsys.readouterr().err


def test_show_writes_the_pictures(
    tmp_path: Path, make_episode: EpisodeMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_episode(tmp_path, make_episode(final_step=6))
    assert conrft("demos", "show", bag, "--output", tmp_path / "pictures") == 0
    assert "hold 2, policy 2, operator 2" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == [f"{bag.name}_{what}.png" for what in ("actions", "contact_sheet", "wrench")]


def test_show_of_what_is_no_episode_fails_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert conrft("demos", "show", tmp_path) == 1
    assert "has no metadata.yaml" in capsys.readouterr().err


def test_relabel_changes_how_an_episode_counts_and_mends_a_label_that_nobody_can_read(
    tmp_path: Path, make_episode: EpisodeMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_episode(tmp_path, make_episode(final_step=1))
    (bag / "label.json").write_bytes(b"\xff")
    assert conrft("demos", "relabel", bag, "timeout", "--reason", "it had slipped") == 0
    assert capsys.readouterr().out.endswith("timeout (was success)\n")
    assert read_label(bag) == Label(outcome=Outcome.TIMEOUT, reason="it had slipped")
    assert conrft("demos", "relabel", tmp_path / "nobody", "timeout") == 1
    assert "is not a finished episode bag" in capsys.readouterr().err


def test_salvage_and_import_work_from_the_command_line(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_episode(tmp_path / "a", make_episode())
    assert conrft("demos", "import", bag, tmp_path / "b") == 0
    bag.rename(tmp_path / "a" / "moved")
    (tmp_path / "a" / f".tmp-{bag.name}").mkdir()
    (tmp_path / "a" / "moved").rename(tmp_path / "a" / f".tmp-{bag.name}" / bag.name)
    assert conrft("demos", "salvage", tmp_path / "a") == 0
    assert [info.final_step for info in (*list_episodes(tmp_path / "a"), *list_episodes(tmp_path / "b"))] == [6, 6]


def test_a_contact_sheet_shows_every_frame_unchanged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [[rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(3)] for _ in range(2)]
    frames.append([rng.integers(0, 256, (12, 40, 3), dtype=np.uint8)])
    labels = [[f"frame {i} {k}" for k in range(len(row))] for i, row in enumerate(frames)]
    sheet = np.asarray(Image.open(contact_sheet(frames, labels, tmp_path / "new" / "sheet.png")))
    for row in frames:
        for frame in row:
            found = np.argwhere((sheet[:-1, :-1] == frame[0, 0]).all(axis=2))
            cuts = [sheet[y : y + frame.shape[0], x : x + frame.shape[1]] for y, x in found]
            assert any(np.array_equal(cut, frame) for cut in cuts)


def test_a_contact_sheet_needs_frames_and_a_label_for_each(tmp_path: Path) -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="at least one frame"):
        contact_sheet([[]], [[]], tmp_path / "a.png")
    with pytest.raises(ValueError, match="one label"):
        contact_sheet([[frame]], [[]], tmp_path / "a.png")
