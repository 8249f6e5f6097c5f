"""Processes that are killed in the middle of online training cost no finished episode and no trained step."""

import json
import subprocess
import sys
from pathlib import Path

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
