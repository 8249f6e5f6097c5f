"""``conrft evaluate``: trials of a policy without intervention, in simulation, with their confidence interval."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``evaluate``."""
    parser = subparsers.add_parser(
        "evaluate",
        help="trials of a policy without intervention",
        description="Runs trials in simulation; the simulator's ground truth says what a success is. "
        "The last line of the output is one JSON object.",
    )
    parser.add_argument("checkpoint", type=Path, help="policy.safetensors, or the folder that holds it")
    parser.add_argument("--trials", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2_000_000, help="of the start states (default: %(default)s)")
    parser.add_argument("--task", default="pick_banana", help="in config/tasks (default: %(default)s)")
    parser.add_argument("--backbone", default="octo-nano", help="of the policy (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the recorded trials (default: runs/evaluation-TIME)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the trials: 0 done, 1 the graph failed, 2 wrong arguments, 130 interrupted."""
    from conrft_bringup.demo.graph_run import Interrupted, StageFailed, run_trials
    from conrft_bringup.demo.progress_line import ProgressLine
    from conrft_bringup.episode_figures import outcomes
    from conrft_bringup.result_table import result_table
    from conrft_bringup.trials import summarise

    if not args.checkpoint.exists():
        print(f"conrft evaluate: {args.checkpoint} does not exist", file=sys.stderr)
        return 2
    now = datetime.datetime.now().astimezone()
    out = (args.out or Path("runs") / now.strftime("evaluation-%Y%m%d-%H%M%S")).absolute()
    line = ProgressLine("evaluation")
    arguments = {
        "task": args.task,
        "backbone": args.backbone,
        "checkpoint": str(args.checkpoint.absolute()),
        "seed": str(args.seed),
    }
    try:
        line.finish(run_trials(arguments, args.trials, out / "episodes", out / "evaluate.log", line))
    except StageFailed as error:
        line.break_off()
        print(f"conrft evaluate: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        line.break_off()
        return 130
    summary = summarise(outcomes(out / "episodes"))
    print(f"\n{result_table({str(args.checkpoint): summary}, [])}\n\nthe trials are in {out / 'episodes'}")
    print(json.dumps(summary.as_dict()))
    return 0
