"""``conrft demos``: ``record`` runs the graph, everything else is conrft_data's."""

from __future__ import annotations

import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``demos`` with ``record`` and what conrft_data has."""
    from conrft_data.cli import register_demos

    demos = subparsers.add_parser("demos", help="record, list, show, export, import and salvage episodes")
    commands = demos.add_subparsers(dest="demos_command", required=True, metavar="COMMAND")
    record = commands.add_parser(
        "record", help="record demonstrations: conrft up record_demos, with the same arguments"
    )
    record.add_argument("rest", nargs="*", metavar="name:=value", help="arguments of record_demos.launch.yaml")
    record.set_defaults(run=run_record)
    register_demos(commands)


def run_record(args: argparse.Namespace) -> int:
    """Runs the launch file in which the operator demonstrates."""
    from conrft_bringup.command import main

    return main(["up", "record_demos", *args.rest])
