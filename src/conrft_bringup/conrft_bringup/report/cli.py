"""``conrft report``: table and plots of a run, once more."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``report``."""
    parser = subparsers.add_parser(
        "report", help="table and plots of a run", description="Reads the bags of a run again."
    )
    parser.add_argument("run_name", metavar="RUN", help="folder of a run, or its name below --runs")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs lie (default: %(default)s)"
    )
    parser.add_argument("--no-plots", action="store_true", help="figures and table only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs ``conrft report`` and gives its exit code."""
    from conrft_bringup.demo.run_folder import RunFolder, RunFolderError
    from conrft_bringup.report.run_report import report

    root = Path(args.run_name)
    folder = RunFolder(root if (root / "config.yaml").is_file() else args.runs / args.run_name)
    try:
        folder.settings()
    except RunFolderError as error:
        print(f"conrft report: {error}", file=sys.stderr)
        return 2
    print(report(folder, plots=not args.no_plots))
    return 0
