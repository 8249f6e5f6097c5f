"""``conrft report``: table and plots of a run, or of a learner alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``report``."""
    parser = subparsers.add_parser(
        "report",
        help="table and plots of a run",
        description="Reads the bags of a run, and the figures that its learner wrote, again.",
    )
    parser.add_argument(
        "run_name", metavar="RUN", help="folder of a run or of a learner, or the name of a run below --runs"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs lie (default: %(default)s)"
    )
    parser.add_argument("--no-plots", action="store_true", help="figures and table only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs ``conrft report`` and gives its exit code."""
    from conrft_bringup.demo.run_folder import RunFolder, RunFolderError
    from conrft_bringup.report.learner_curves import metrics_files
    from conrft_bringup.report.run_report import report

    root = Path(args.run_name)
    if not _is_run(root):
        root = args.runs / args.run_name
    if not (root / "config.yaml").is_file() and metrics_files(root):
        print(_report_learner(root, plots=not args.no_plots))
        return 0
    folder = RunFolder(root)
    try:
        folder.settings()
    except RunFolderError as error:
        print(f"conrft report: {error}", file=sys.stderr)
        return 2
    print(report(folder, plots=not args.no_plots))
    return 0


def _is_run(root: Path) -> bool:
    from conrft_bringup.report.learner_curves import metrics_files

    return (root / "config.yaml").is_file() or bool(metrics_files(root))


def _report_learner(root: Path, *, plots: bool) -> str:
    from conrft_bringup.report.learner_curves import draw_learner_curves, learner_summary, metrics_files

    files = metrics_files(root)
    drawn = root / "learner_curves.png"
    if plots and draw_learner_curves(files, drawn):
        return f"{learner_summary(files)}\n{drawn}"
    return learner_summary(files)
