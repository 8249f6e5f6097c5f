"""``conrft bench safety``: what makes the arm hold and what bounds its motion, brought about in the running nodes.

Observer, intervention mux, commander and supervisor (and for one part the policy) run in one process; robot, cameras,
SpaceMouse, policy and reward are played. ROS time is played too and goes on in steps of 10 ms, after everybody had
time to answer: what is measured are the deadlines and watchdogs of the nodes, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from conrft_bringup.chaos.kept_limits import SLOW, KeptLimit, measure_places, measure_speeds
from conrft_bringup.chaos.stopping_times import StoppingTime, causes, measure_stop
from conrft_bringup.chaos.watched_loop import WatchedLoop
from conrft_bringup.chaos.weights_sanity import PolicyLoop, WeightsVerdict, measure_weights
from conrft_bringup.demo.graph_run import graph_environment
from conrft_bringup.launch_runner.ament_index import package_share


def safety(argv: Sequence[str]) -> int:
    """Measures and prints tables; the last line of stdout is one JSON object. Fails at a limit that is not kept."""
    parser = argparse.ArgumentParser(prog="conrft bench safety", description=__doc__)
    parser.add_argument("--robot", default="fr3", help="name in config/robots (default: %(default)s)")
    parser.add_argument("--task", default="pick_banana", help="name in config/tasks (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="only the JSON object")
    args = parser.parse_args(argv)
    # No other graph may hear any of this.
    os.environ.update(graph_environment())
    config = package_share("conrft_bringup", os.environ) / "config"
    task_file, robot_file = config / f"tasks/{args.task}.yaml", config / f"robots/{args.robot}.yaml"
    with closing(WatchedLoop(task_file, robot_file)) as loop:
        stops = [measure_stop(loop, cause) for cause in causes(loop)]
        limits = measure_places(loop)
    with closing(WatchedLoop(task_file, robot_file, SLOW)) as loop:
        limits += measure_speeds(loop)
    with (
        tempfile.TemporaryDirectory(prefix="conrft_safety_") as folder,
        closing(PolicyLoop(Path(folder), task_file, robot_file)) as policy_loop,
    ):
        verdicts = measure_weights(policy_loop)
    if not args.json:
        print("\n\n".join((_stops_table(stops), _limits_table(limits), _weights_table(verdicts))))
    figures = {
        "robot": args.robot,
        "task": args.task,
        "stopping_times": [asdict(stop) for stop in stops],
        "limits": [asdict(limit) for limit in limits],
        "weights": [asdict(verdict) for verdict in verdicts],
    }
    print(json.dumps(figures))
    wrong = [stop.cause for stop in stops if not stop.in_time]
    wrong += [limit.limit for limit in limits if not limit.kept]
    if wrong:
        print(f"conrft bench safety: too late, or a limit exceeded: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def _table(header: str, rows: Sequence[Sequence[object]]) -> str:
    columns = header.count("|") - 1
    lines = ["| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |" for row in rows]
    return "\n".join([header, "|" + "---|" * columns, *lines])


def _stops_table(stops: Sequence[StoppingTime]) -> str:
    header = "| cause | detected, ms | last motion, ms | from detection, ms | first word |"
    return _table(header, [(t.cause, t.detected_ms, t.last_motion_ms, t.from_detection_ms, t.word) for t in stops])


def _limits_table(limits: Sequence[KeptLimit]) -> str:
    header = "| limit | who asks for more | allowed | asked for | most seen | last motion outward, ms |"
    rows = [
        (x.limit, x.how, f"{x.bound:.4g} {x.unit}", f"{x.asked:.3g}", f"{x.seen:.4g}", x.last_outward_ms)
        for x in limits
    ]
    return _table(header, rows)


def _weights_table(verdicts: Sequence[WeightsVerdict]) -> str:
    header = "| outputs shifted by | told, ms of wall time | next actions by them | the policy's word |"
    return _table(header, [(v.shift, v.told_ms, v.acted, v.word or "none") for v in verdicts])
