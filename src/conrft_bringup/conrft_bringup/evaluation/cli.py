"""``conrft evaluate``: trials of a policy without intervention, their figures, and the proof that nobody intervened."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conrft_bringup.evaluation.result import EvaluationSettings

_DESCRIPTION = """\
Runs trials in which nobody intervenes, from start states that are a function of the seed and the trial's number
alone: the same for every policy. The recordings prove that the policy alone moved the arm; a trial in which anybody
else did is void, and the command fails. In simulation the ground truth says what a success is; on a robot a person is
asked after each trial. The same command with the same --out goes on where it was broken off. The last line of the
output is one JSON object, also in evaluation.json."""


class EvaluationError(ValueError):
    """Something that the command was given cannot be."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``evaluate``."""
    parser = subparsers.add_parser(
        "evaluate",
        help="trials of a policy without intervention",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", metavar="TASK", help="in config/tasks")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help="policy.safetensors, or the folder that holds it"
    )
    parser.add_argument("--trials", type=_positive, default=20, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2_000_000, help="of the start states (default: %(default)s)")
    parser.add_argument("--backbone", default="octo-nano", help="of the policy (default: %(default)s)")
    parser.add_argument(
        "--perturbation",
        default="none",
        metavar="KINDS",
        help="disturbs the simulation: none, all, or of lighting,camera,distractors,friction; a strength in (0, 1] "
        "after a colon (default: %(default)s)",
    )
    parser.add_argument("--robot", default="sim", help="in config/robots (default: %(default)s, the simulator)")
    parser.add_argument(
        "--judge", choices=("simulator", "person"), help="who says what a success is (default: the simulator with sim)"
    )
    parser.add_argument(
        "--classifier", type=Path, metavar="FILE", help="success classifier, to be compared with the truth"
    )
    parser.add_argument(
        "--films", choices=("all", "failures", "none"), default="all", help="mp4 of which trials (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of everything (default: runs/evaluation-TIME)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the trials: 0 done, 1 the graph failed or a trial is void, 2 wrong arguments, 130 interrupted."""
    from conrft_bringup.demo.graph_run import Interrupted, StageFailed
    from conrft_bringup.evaluation.run import run_evaluation
    from conrft_data.bags import BagError
    from conrft_data.config import ConfigError
    from conrft_reward.classifier import ClassifierError

    now = datetime.datetime.now().astimezone()
    out = (args.out or Path("runs") / now.strftime("evaluation-%Y%m%d-%H%M%S")).absolute()
    try:
        task_file = _configuration("tasks", args.task)
        settings = _settings(args)
        _begin(out, settings)
        result = run_evaluation(out, settings, task_file, args.classifier, args.films)
    except (EvaluationError, ConfigError, ClassifierError) as error:
        print(f"conrft evaluate: {error}", file=sys.stderr)
        return 2
    except (StageFailed, BagError) as error:
        print(f"conrft evaluate: {error}\nto go on from there: the same command with --out {out}", file=sys.stderr)
        return 1
    except Interrupted:
        print(f"interrupted; to go on: the same command with --out {out}", file=sys.stderr)
        return 130
    print(f"\n{(out / 'table.txt').read_text(encoding='utf-8')}\neverything is in {out}")
    print(json.dumps(result.as_dict()))
    for number, why in sorted(result.void.items()):
        print(f"conrft evaluate: trial {number} is void: {why}", file=sys.stderr)
    if result.void:
        print(f"to run what is void again: the same command with --out {out}", file=sys.stderr)
    return 1 if result.void else 0


def _settings(args: argparse.Namespace) -> EvaluationSettings:
    from conrft_bringup.evaluation.checkpoint import checkpoint_file, sha256_of
    from conrft_bringup.evaluation.result import EvaluationSettings

    _configuration("robots", args.robot)
    perturbation = _perturbation(args)
    judge = args.judge or ("simulator" if args.robot == "sim" else "person")
    if judge == "simulator" and args.robot != "sim":
        raise EvaluationError(f"on {args.robot} there is no simulator that knows the truth: --judge person")
    if args.classifier is not None and not args.classifier.is_file():
        raise EvaluationError(f"{args.classifier} does not exist")
    try:
        checkpoint = checkpoint_file(args.checkpoint)
    except FileNotFoundError as error:
        raise EvaluationError(str(error)) from error
    return EvaluationSettings(
        task=args.task,
        checkpoint=str(checkpoint),
        checkpoint_sha256=sha256_of(checkpoint),
        backbone=args.backbone,
        robot=args.robot,
        judge=judge,
        perturbation=perturbation,
        seed=args.seed,
        trials=args.trials,
    )


def _perturbation(args: argparse.Namespace) -> str:
    from conrft_sim.perturbation import Perturbation

    try:
        perturbation = Perturbation.parse(args.perturbation)
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    if perturbation.kinds and args.robot != "sim":
        raise EvaluationError(f"only the simulator takes a perturbation, not {args.robot}")
    return str(perturbation)


def _configuration(kind: str, name: str) -> Path:
    from conrft_bringup.launch_runner.ament_index import package_share

    folder = package_share("conrft_bringup", os.environ) / "config" / kind
    if not (folder / f"{name}.yaml").is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise EvaluationError(f"config/{kind} holds no '{name}'; known: {known}")
    return folder / f"{name}.yaml"


def _begin(out: Path, settings: EvaluationSettings) -> None:
    """Makes the folder, or takes an evaluation of the same settings up again."""
    import yaml

    from conrft_bringup.demo.run_folder import write_yaml

    config = out / "config.yaml"
    if not config.is_file():
        out.mkdir(parents=True, exist_ok=True)
        write_yaml(config, asdict(settings))
        return
    before, now = yaml.safe_load(config.read_text(encoding="utf-8")) or {}, asdict(settings)
    changed = [f"{key} {before.get(key)}, not {now[key]}" for key in now if before.get(key) != now[key]]
    if changed:
        raise EvaluationError(f"{out} holds an evaluation with other settings ({', '.join(changed)})")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value
