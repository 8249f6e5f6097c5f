"""``conrft bench soak``: the loop at 10 Hz in real time beside a training learner, for as long as you like.

Missed ticks, the latency from Observation to Action, and how the memory of every node grows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from conrft_bringup.demo.graph_run import StageFailed
from conrft_bringup.process_memory import ProcessMemory
from conrft_bringup.tick_benchmark import measure

_TICKS_PER_MINUTE = 600


def soak(argv: Sequence[str]) -> int:
    """Measures and prints; the last line of stdout is one JSON object."""
    parser = argparse.ArgumentParser(prog="conrft bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of ticks (default: %(default)s)")
    parser.add_argument("--preset", default="stable", help="of the learner (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="only the JSON object")
    args = parser.parse_args(argv)
    memory = ProcessMemory()
    with tempfile.TemporaryDirectory(prefix="conrft_soak_") as folder:
        try:
            ticks = max(1, round(args.minutes * _TICKS_PER_MINUTE))
            figures = measure(Path(folder), ticks, args.preset, lambda graph: memory.look(graph.running()))
        except StageFailed as error:
            print(f"conrft bench soak: {error}", file=sys.stderr)
            return 1
    growth = memory.figures()
    if not args.json:
        print(f"missed {figures['missed']} of {figures['ticks']} ticks, p99 {figures['latency_ms_p99']} ms")
        for name, of_node in growth.items():
            print(f"{name:<24} {of_node['last_mib']:>8} MiB, {of_node['slope_mib_per_hour']:>+8} MiB an hour")
    missed_percent = round(100 * figures["missed"] / figures["ticks"], 3)
    print(json.dumps({**figures, "missed_percent": missed_percent, "memory": growth}))
    return 0
