"""``conrft bench fuzz``: wrong, late, doubled and reordered messages on every topic of the loop, in one process."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conrft_bringup.demo.graph_run import graph_environment
from conrft_bringup.demo.progress_line import ProgressLine
from conrft_bringup.launch_runner.ament_index import package_share

# Without these nobody commands the arm: whatever else is sent, no target may move.
COMMANDS = frozenset({"observation", "policy_output", "action"})


def fuzz(argv: Sequence[str]) -> int:
    """Fuzzes and prints; the last line of stdout is one JSON object. Fails at an exception or a wrong motion."""
    parser = argparse.ArgumentParser(prog="conrft bench fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000, help="on each topic (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="only the JSON object")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="conrft_fuzz_") as folder:
        figures = run_fuzz(Path(folder), args.messages, args.seed)
    if not args.json:
        for failure, count in figures["failures"].items():
            print(f"{count:>6} times {failure}")
    print(json.dumps(figures))
    return 1 if figures["failures"] or figures["moved_without_command"] or figures["recovered_s"] is None else 0


def run_fuzz(folder: Path, messages: int, seed: int) -> dict[str, Any]:
    """``messages`` on each topic: a fifth while nobody commands the arm, the rest on all topics; then the recovery."""
    # No other graph may hear any of this.
    os.environ.update(graph_environment())
    from conrft_bringup.chaos.fuzzed_graph import FARTHEST_TARGET, FuzzedGraph

    config = package_share("conrft_bringup", os.environ) / "config"
    line, began = ProgressLine("fuzzing", sys.stderr), time.monotonic()
    graph = FuzzedGraph(folder, config / "tasks/pick_banana.yaml", config / "robots/sim.yaml", seed)
    try:
        graph.fuzz(messages // 5, COMMANDS)
        graph.fuzz(messages, progress=lambda number: line.show(f"{number} of {messages}"))
        farthest_m = graph.report.farthest_m
        line.finish("done")
        graph.recover()
        report = graph.report
    finally:
        graph.close()
    failures = dict(report.failures.most_common())
    if farthest_m > FARTHEST_TARGET:
        failures[f"a target was {farthest_m:.2f} m away from where the arm stood"] = 1
    return {
        "messages": dict(sorted(report.messages.items())),
        "failures": failures,
        "targets": report.targets,
        "farthest_target_m": round(farthest_m, 3),
        "moved_without_command": report.moved_without_command,
        "recovered_s": None if report.recovered_s is None else round(report.recovered_s, 2),
        "still_wrong": report.still_wrong,
        "seconds": round(time.monotonic() - began, 1),
    }
