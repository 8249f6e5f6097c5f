"""Subcommands of ``conrft`` that concern the policy: ``conrft backbone`` and ``conrft policy``."""

from __future__ import annotations

import argparse
from pathlib import Path

from conrft_policy import backbone_cli


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``backbone`` and ``policy`` with their subcommands."""
    backbone_cli.register(subparsers)
    policy = subparsers.add_parser("policy", help="trained policies")
    commands = policy.add_subparsers(dest="policy_command", required=True, metavar="COMMAND")
    info = commands.add_parser("info", help="what a file of weights is, and whether it is whole")
    info.add_argument("file", type=Path, help="policy.safetensors, or the folder that holds it")
    info.set_defaults(run=run_info)


def run_info(args: argparse.Namespace) -> int:
    """Prints what a file of weights says about itself; returns 1 when it is damaged."""
    from conrft_policy.policy_weights import WeightsRefused, describe, load

    try:
        about = describe(load(args.file))
    except WeightsRefused as error:
        print(error)
        return 1
    for key, value in about.items():
        print(f"{key:12} {value}")
    return 0
