"""A stop signal that comes while the modules of a node are still loaded."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LOADING = "import time; print('loading', flush=True); time.sleep(60)"


def begin(folder: Path, text: str) -> subprocess.Popen[str]:
    """Starts the process of a node whose module holds ``text``."""
    (folder / "some_node.py").write_text(text)
    command = [sys.executable, "-c", "from conrft_data.node_start import start; start('some_node')"]
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=pipe)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_the_process_quietly(tmp_path: Path, number: signal.Signals) -> None:
    process = begin(tmp_path, LOADING)
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(number)
    assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 0


def test_what_the_node_says_at_its_end_is_the_exit_code(tmp_path: Path) -> None:
    process = begin(tmp_path, "import sys\n\ndef main():\n    sys.exit(3)\n")
    assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 3


def test_an_import_that_fails_is_shown(tmp_path: Path) -> None:
    process = begin(tmp_path, "import no_such_module")
    assert "no_such_module" in process.communicate(timeout=120)[1]
    assert process.returncode == 1
