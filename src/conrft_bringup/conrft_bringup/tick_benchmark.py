"""``conrft bench tick``: from Observation to Action at 10 Hz in the real graph, while the learner trains."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from conrft_bringup.demo.episode_count import EpisodeCount
from conrft_bringup.demo.graph_run import StageFailed, Watch, failure, graph_environment, run_command, run_graph
from conrft_bringup.demo.progress_line import ProgressLine
from conrft_bringup.launch_runner.ament_index import package_share
from conrft_bringup.launch_runner.output import LaunchOutput
from conrft_bringup.launch_runner.process_supervisor import ProcessSupervisor
from conrft_bringup.launch_runner.runner import find_launch_file, run_launch_file

_DEMONSTRATIONS = 3
# Short offline training, and then more work than the learner can do while the ticks are measured.
_PRESET = {"offline_bc_steps": 20, "offline_critic_steps": 10, "offline_steps": 0, "updates_per_tick": 100.0}


def tick(argv: Sequence[str]) -> int:
    """Measures and prints; the last line of stdout is one JSON object."""
    parser = argparse.ArgumentParser(prog="conrft bench tick", description=__doc__)
    parser.add_argument("--ticks", type=int, default=1000, help="(default: %(default)s, that is a good two minutes)")
    parser.add_argument("--preset", default="stable", help="of the learner (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="only the JSON object")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="conrft_tick_") as folder:
        try:
            figures = measure(Path(folder), args.ticks, args.preset)
        except StageFailed as error:
            print(f"conrft bench tick: {error}", file=sys.stderr)
            return 1
    if not args.json:
        print(f"missed {figures['missed']} of {figures['ticks']} ticks, p99 {figures['latency_ms_p99']} ms")
    print(json.dumps(figures))
    return 0


def measure(
    folder: Path, ticks: int, preset: str, watch_graph: Callable[[ProcessSupervisor], None] = lambda _: None
) -> dict[str, float]:
    """Measures ``ticks`` ticks beside a learner with ``preset``; ``watch_graph`` is called meanwhile."""
    config = package_share("conrft_bringup", os.environ) / "config"
    chosen = yaml.safe_load((config / "presets" / f"{preset}.yaml").read_text(encoding="utf-8"))
    (folder / "preset.yaml").write_text(yaml.safe_dump({**chosen, **_PRESET}), encoding="utf-8")
    line = ProgressLine("preparing", sys.stderr)
    demonstrations = folder / "demos"
    watch = Watch(EpisodeCount(demonstrations), _DEMONSTRATIONS, only_successes=True)
    arguments = {"episodes": str(_DEMONSTRATIONS), "demos_dir": str(demonstrations)}
    run_graph("record_demos", arguments, folder / "demos.log", line, watch)
    words = ["train", "offline", "--demos", str(demonstrations), "--out", str(folder / "offline")]
    words += ["--task-file", str(config / "tasks/pick_banana.yaml"), "--preset-file", str(folder / "preset.yaml")]
    run_command(words, folder / "offline.log", line)
    line.finish("done")
    return _run_probe(folder, ticks, watch_graph)


def _run_probe(folder: Path, ticks: int, watch_graph: Callable[[ProcessSupervisor], None]) -> dict[str, float]:
    environment, log = graph_environment(), folder / "tick.log"
    output = LaunchOutput(log, quiet=True)
    line = ProgressLine("measuring", sys.stderr)
    arguments = {"run_dir": str(folder), "python": sys.executable, "ticks": str(ticks)}

    def look(graph: ProcessSupervisor) -> None:
        line.show("")
        watch_graph(graph)

    try:
        path = find_launch_file("tick_benchmark", environment)
        result = run_launch_file(path, arguments, output, environment=environment, idle=look)
    finally:
        output.close()
    if result.exit_code or not (folder / "tick.json").is_file():
        raise failure(result.reason or "the graph has ended", log)
    line.finish("done")
    figures: dict[str, float] = json.loads((folder / "tick.json").read_text(encoding="utf-8"))
    return figures
