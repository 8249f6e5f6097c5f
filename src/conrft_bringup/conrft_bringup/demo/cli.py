"""``conrft demo``: the whole loop, from demonstrations to the evaluation of a trained policy."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from pathlib import Path

from conrft_bringup.demo.run_folder import DemoSettings, RunFolder, RunFolderError


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``demo``."""
    default = DemoSettings()
    parser = subparsers.add_parser(
        "demo",
        help="run the whole loop in simulation",
        description="Runs the whole loop in simulation with the real ROS graph: demonstrations, reward classifier, "
        "offline training, online training with interventions, and an evaluation after each training. "
        "A run that was broken off goes on when its name is given again.",
    )
    parser.add_argument("--seed", type=_count, default=default.seed, help="of everything random (default: %(default)s)")
    parser.add_argument("--run", dest="run_name", metavar="NAME", help="name of the run (default: demo and the time)")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs lie (default: %(default)s)"
    )
    parser.add_argument("--task", default=default.task, help="in config/tasks (default: %(default)s)")
    parser.add_argument("--preset", default=default.preset, help="in config/presets (default: %(default)s)")
    parser.add_argument("--backbone", default=default.backbone, help="of the policy (default: %(default)s)")
    parser.add_argument(
        "--demonstrations", type=_positive, default=default.demonstrations, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--episodes", type=_positive, default=default.episodes, help="of online training (default: %(default)s)"
    )
    parser.add_argument(
        "--trials", type=_positive, default=default.trials, help="of each evaluation (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=_seconds, help="end online training early, so that the run takes about so long"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the demo: 0 done, 1 a stage failed, 2 wrong arguments, 130 interrupted."""
    from conrft_bringup.demo.graph_run import Interrupted, StageFailed
    from conrft_bringup.demo.pipeline import run_demo

    begin = time.monotonic()
    try:
        demo = _make_run(args, begin)
    except (RunFolderError, LookupError) as error:
        print(f"conrft demo: {error}", file=sys.stderr)
        return 2
    folder, name = demo.folder.root, demo.folder.root.name
    print(f"run folder: {folder}")
    try:
        table = run_demo(demo)
    except StageFailed as error:
        print(
            f"conrft demo: {error}\nto go on from there: conrft demo --run {name} with the same options",
            file=sys.stderr,
        )
        return 1
    except (Interrupted, KeyboardInterrupt):
        print(f"interrupted; to go on: conrft demo --run {name} with the same options", file=sys.stderr)
        return 130
    print(f"\n{table}\n\neverything is in {folder}, this took {time.monotonic() - begin:.0f} s")
    return 0


def _make_run(args: argparse.Namespace, begin: float):  # type: ignore[no-untyped-def]  # Run, imported late
    from conrft_bringup.demo.stages import Run
    from conrft_bringup.launch_runner.ament_index import package_share

    names = ("seed", "task", "preset", "backbone", "demonstrations", "episodes", "trials", "seconds")
    settings = DemoSettings(**{name: getattr(args, name) for name in names})
    name = args.run_name or datetime.datetime.now().astimezone().strftime("demo-%Y%m%d-%H%M%S")
    if Path(name).name != name:
        raise RunFolderError(f"'{name}' is no name of a run; --runs says where runs lie")
    share = package_share("conrft_bringup", os.environ)
    for kind, chosen in (("tasks", args.task), ("presets", args.preset)):
        if not (share / "config" / kind / f"{chosen}.yaml").is_file():
            known = ", ".join(sorted(path.stem for path in (share / "config" / kind).glob("*.yaml")))
            raise RunFolderError(f"config/{kind} holds no '{chosen}'; known: {known}")
    _check_backbone(args.backbone)
    folder = RunFolder(args.runs / name)
    folder.begin(settings)
    return Run(folder=folder, settings=settings, share=share, ends_at=begin + args.seconds if args.seconds else None)


def _check_backbone(name: str) -> None:
    """Refuses an unknown backbone before minutes are spent; says loudly what a run without weights is worth."""
    from conrft_policy.backbone import BackboneError, backbone_folder, read_config

    try:
        config = read_config(backbone_folder(name))
    except BackboneError as error:
        raise RunFolderError(str(error)) from error
    if config.get("weights") == "random":
        warning = f"WARNING: {name} has random weights: the pipeline runs, but no policy on it will be any good"
        print(warning, file=sys.stderr)


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value < 1_000_000:
        raise argparse.ArgumentTypeError(f"must be 0 to 999999, got {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be more than 0 s, got {text}")
    return value
