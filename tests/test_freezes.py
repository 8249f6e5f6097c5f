"""A node that stands still and goes on: the arm is held, somebody names the node, and the graph goes on by itself."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ARM, WORD, DIED = 1, 2, 4  # columns of the bench's table


def test_a_frozen_node_holds_the_arm_and_is_named_and_the_graph_goes_on_after_it(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "bench/disturb_each_node.py"), "--how=freeze", "--seconds=10"]
    command += ["--nodes", "observer", "policy", f"--out={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    # 0: after each of them an episode ran from beginning to end, and no process died.
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if line[:1] == "|"
    ]
    assert [row[0] for row in rows[2:]] == ["observer", "policy"]
    for row in rows[2:]:
        assert row[ARM] != "went on"
        assert f"{row[0]}: silent for" in row[WORD]
        assert row[DIED] == "none"
