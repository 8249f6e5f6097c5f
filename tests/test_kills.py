"""Processes that are killed in the middle of online training cost no finished episode and no trained step."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conrft_data.types import ActionSource

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from kill_at_random import Kill, Move

ROOT = Path(__file__).parents[1]
KILLS = 4  # each victim once


def test_training_goes_on_by_itself_after_kills_and_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "bench/kill_at_random.py"), f"--kills={KILLS}", "--seed=1"]
    done = subprocess.run([*command, f"--out={tmp_path / 'run'}"], capture_output=True, text=True, timeout=900)
    assert done.stdout.rstrip().endswith("}"), done.stdout + done.stderr
    account = json.loads(done.stdout[done.stdout.index("\n{") :])
    assert (account["problems"], account["kills"], account["launches"]) == ([], KILLS, 1), done.stdout
    assert account["learned"] >= KILLS
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("before", "after", "moved_for_s"),
    [
        ((3, ActionSource.POLICY), (3, ActionSource.POLICY), 7.0),
        ((3, ActionSource.POLICY), (3, ActionSource.HOLD), 7.0),
        ((3, ActionSource.POLICY), (3, ActionSource.OPERATOR), 0.0),
        ((3, ActionSource.POLICY), (4, ActionSource.HOLD), 0.0),  # the simulator put the arm back
        (None, (4, ActionSource.HOLD), 0.0),
    ],
)
def test_only_what_the_arm_does_within_an_episode_and_by_no_hand_counts_as_its_move(
    before: tuple[int, int] | None, after: tuple[int, int], moved_for_s: float
) -> None:
    kill = Kill("policy", 0.0, moves=[Move(1, 2, 7.0)], back_s=9.0)
    kill.ticks = {2: after} if before is None else {1: before, 2: after}
    assert kill.moved_for_s == moved_for_s
    kill.back_s = 6.0
    assert kill.moved_for_s == 0.0
