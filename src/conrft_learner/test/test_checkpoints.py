"""Checkpoints on disk: whatever a crash interrupts, the newest that was finished is there and is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conrft_learner import checkpoints


def write(folder: Path, step: int, note: str = "") -> Path:
    return checkpoints.write_checkpoint(folder, step, {"x": torch.tensor([float(step)])}, {"note": note}, {"p": b"p"})


def newest(folder: Path, **options: bool) -> tuple[str, str]:
    """Name and note of the newest whole checkpoint."""
    found = checkpoints.read_newest(folder, lambda sentence: None, **options)
    assert found is not None
    return found[0].name, found[2]["note"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(7))
def test_a_kill_while_a_checkpoint_of_the_same_step_is_replaced_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    write(tmp_path, 3)
    write(tmp_path, 5, "before")
    left = [moment]

    def dying(action: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **named: Any) -> Any:
            if not left[0]:
                raise Killed
            left[0] -= 1
            return action(*arguments, **named)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(Path, "mkdir", dying(Path.mkdir))
        patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
        patch.setattr(checkpoints, "sync_tree", dying(checkpoints.sync_tree))
        try:
            write(tmp_path, 5, "after")
            killed = False
        except Killed:
            killed = True
    assert killed == (moment < 6), "folder, folder, disk, old name, new name, removal: six moments"
    name, note = newest(tmp_path)
    assert name.removesuffix(".old") == "step-000000005"
    assert note == ("before" if moment < 5 else "after")
    write(tmp_path, 5, "again")
    assert newest(tmp_path) == ("step-000000005", "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000003", "step-000000005"]


def test_half_a_checkpoint_of_another_step_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".tmp-step-000000004").mkdir(parents=True)
    write(tmp_path, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000005"]


def test_a_damaged_checkpoint_is_kept_for_a_person_and_does_not_count_among_the_newest(tmp_path: Path) -> None:
    for step in (6, 8, 10):
        write(tmp_path, step)
    for step in (8, 10):
        (tmp_path / f"step-{step:09d}" / "state.safetensors").write_bytes(b"damaged")
    said: list[str] = []
    found = checkpoints.read_newest(tmp_path, said.append, set_aside=True)
    assert found is not None and found[0].name == "step-000000006"
    assert "step-000000010" in said[0] and "it is kept as .damaged-step-000000010" in said[0]
    write(tmp_path, 7)
    checkpoints.remove_old(tmp_path, keep=2)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [".damaged-step-000000008", ".damaged-step-000000010", "step-000000006", "step-000000007"]


def test_who_only_reads_moves_nothing(tmp_path: Path) -> None:
    for step in (6, 8):
        write(tmp_path, step)
    (tmp_path / "step-000000008" / "state.json").write_text("{}")
    assert newest(tmp_path)[0] == "step-000000006"
    assert (tmp_path / "step-000000008").is_dir()
