"""``conrft bench suite``: demonstrations, reward, offline, online and evaluation, unattended, for many tasks."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conrft_bringup.suite.suite_folder import METHODS, SuiteFolder, SuiteSettings


class SuiteError(ValueError):
    """Something that the command was given cannot be."""


def suite(argv: Sequence[str]) -> int:
    """Runs the suite: 0 done, 1 a run has failed, 2 wrong arguments, 130 interrupted; the last line is JSON."""
    from conrft_bringup.demo.graph_run import Interrupted
    from conrft_bringup.demo.run_folder import RunFolderError
    from conrft_bringup.launch_runner.ament_index import package_share
    from conrft_bringup.suite.suite_run import run_suite

    args = _arguments(argv)
    share = package_share("conrft_bringup", os.environ)
    folder = SuiteFolder(args.out)
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        try:
            tasks = _chosen_tasks(args.tasks, share)
            _begin(args, folder, tasks, share)
            failures = run_suite(
                folder,
                _settings(args),
                share,
                tasks,
                list(range(1, args.seeds + 1)),
                drop_recordings=args.drop_recordings,
                after_each=lambda: print(_write_results(folder, share)[0], flush=True),
            )
        except (SuiteError, RunFolderError) as error:
            print(f"conrft bench suite: {error}", file=sys.stderr)
            return 2
        except (Interrupted, KeyboardInterrupt):
            print("interrupted; to go on: the same command", file=sys.stderr)
            return 130
    table, content = _write_results(folder, share, failures)
    if not args.json:
        print(f"\n{table}\n\neverything is in {folder.root}")
    print(json.dumps(content))
    for name, why in failures.items():
        print(f"conrft bench suite: {name} has failed: {why}", file=sys.stderr)
    return 1 if failures else 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    default = SuiteSettings()
    parser = argparse.ArgumentParser(
        prog="conrft bench suite",
        description="Runs a method on many tasks and seeds, through the real graph in lockstep. The same command goes "
        "on where it was broken off; several at once with the same --out share the runs. A run that fails is named and "
        "the others go on. The last line of the output is one JSON object.",
    )
    parser.add_argument("--tasks", default="all", help="all, or names in config/tasks with commas (default: all)")
    parser.add_argument("--method", default=default.method, help=f"{' or '.join(METHODS)} (default: %(default)s)")
    parser.add_argument("--seeds", type=_positive, default=3, help="so many, from 1 (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/suite"), metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("--preset", default=default.preset, help="in config/presets (default: %(default)s)")
    parser.add_argument("--backbone", default=default.backbone, help="of the policy (default: %(default)s)")
    parser.add_argument("--demonstrations", type=_positive, help="of each task (default: as many as the task asks for)")
    parser.add_argument(
        "--episodes", type=_positive, default=default.episodes, help="of online training (default: %(default)s)"
    )
    parser.add_argument(
        "--trials", type=_positive, default=default.trials, help="of each evaluation (default: %(default)s)"
    )
    parser.add_argument(
        "--drop-recordings", action="store_true", help="delete a run's episodes (2 GB) once its figures are written"
    )
    parser.add_argument("--json", action="store_true", help="only the JSON object on stdout, progress on stderr")
    return parser.parse_args(argv)


def _settings(args: argparse.Namespace) -> SuiteSettings:
    names = ("method", "preset", "backbone", "demonstrations", "episodes", "trials")
    return SuiteSettings(**{name: getattr(args, name) for name in names})


def _chosen_tasks(text: str, share: Path) -> list[str]:
    """The tasks in the paper's order, any others after them; raises SuiteError."""
    from conrft_bringup.suite.suite_results import paper_figures

    known = sorted(path.stem for path in (share / "config/tasks").glob("*.yaml"))
    order = list(paper_figures(share)["tasks"])
    known.sort(key=lambda task: order.index(task) if task in order else len(order))
    if text == "all":
        return known
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    if not chosen or set(chosen) - set(known):
        wrong = ", ".join(sorted(set(chosen) - set(known))) or "nothing"
        raise SuiteError(f"config/tasks holds no '{wrong}'; known: {', '.join(known)}")
    return list(dict.fromkeys(chosen))


def _begin(args: argparse.Namespace, folder: SuiteFolder, tasks: list[str], share: Path) -> None:
    """Refuses what cannot work before hours are spent."""
    from conrft_data.config import TaskConfig, load_config
    from conrft_policy.backbone import BackboneError, load_backbone

    if args.method not in METHODS:
        raise SuiteError(f"no method is called '{args.method}'; known: {', '.join(METHODS)}")
    if not (share / "config/presets" / f"{args.preset}.yaml").is_file():
        known = ", ".join(sorted(path.stem for path in (share / "config/presets").glob("*.yaml")))
        raise SuiteError(f"config/presets holds no '{args.preset}'; known: {known}")
    for task in tasks:
        try:
            load_backbone(args.backbone, load_config(TaskConfig, share / "config/tasks" / f"{task}.yaml").instruction)
        except BackboneError as error:
            raise SuiteError(f"{task}: {error}") from error
    folder.begin(_settings(args))
    missing = [(task, seed) for seed in range(1, args.seeds + 1) for task in tasks if not folder.done(task, seed)]
    if problem := folder.room_for(1 if args.drop_recordings else len(missing)) if missing else "":
        raise SuiteError(problem)


def _write_results(
    folder: SuiteFolder, share: Path, failures: dict[str, str] | None = None
) -> tuple[str, dict[str, Any]]:
    """Writes table, plots and suite.json from every finished run; gives the table and what is in suite.json."""
    from conrft_bringup.demo.run_folder import write_json
    from conrft_bringup.suite.suite_curves import draw_suite_curves
    from conrft_bringup.suite.suite_results import paper_figures, read_results
    from conrft_bringup.suite.suite_table import suite_table

    paper = paper_figures(share)
    results = read_results(folder, list(paper["tasks"]))
    table = suite_table(results, paper)
    folder.table.write_text(table + "\n", encoding="utf-8")
    titles = {task: figures["title"] for task, figures in paper["tasks"].items()}
    draw_suite_curves(results, titles, folder.root / "learning_curves.png", "episodes")
    draw_suite_curves(results, titles, folder.root / "learning_curves_time.png", "minutes")
    content = {
        "source": paper["source"],
        "tasks": {result.task: {**result.as_dict(), "paper": paper["tasks"].get(result.task)} for result in results},
        "failures": failures or {},
    }
    write_json(folder.results, content)
    return table, content


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value
