"""The witness of a launch has left the graph before the processes of the launch leave it."""

import sys
from pathlib import Path

from rclpy.node import Node

from conrft_bringup.launch_runner.process_supervisor import ProcessSupervisor

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from watched_launch import LaunchWitness, watched_launch

PROCESS = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(print("goes")))
print("is there", flush=True)
time.sleep(60)
"""


class Witness(LaunchWitness):
    """Ends the launch as soon as its process is there."""

    def __init__(self, node: Node) -> None:
        self.said: list[tuple[str, bool]] = []  # lines, and whether the witness was in the graph then
        self._node = node

    def look(self, supervisor: ProcessSupervisor) -> None:
        if self.said:
            supervisor.shut_down("seen enough")

    def hear(self, process: str, line: str) -> None:
        if process.startswith("python"):
            self.said.append((line.strip(), self._node.context.ok()))


def test_the_witness_goes_first(tmp_path: Path) -> None:
    (tmp_path / "process.py").write_text(PROCESS)
    launch = tmp_path / "one.launch.yaml"
    launch.write_text(f"launch:\n  - executable: {{cmd: {sys.executable} {tmp_path}/process.py, name: python}}\n")
    witness, result = watched_launch(str(launch), {}, tmp_path / "log", Witness, period_s=0.02)
    assert result.reason == "seen enough"
    assert witness.said == [("is there", True), ("goes", False)], (tmp_path / "log").read_text()
