"""``conrft up``: runs a launch file as ``ros2 launch`` would."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from conrft_bringup.launch_runner.actions import DeclareArgument
from conrft_bringup.launch_runner.errors import LaunchError
from conrft_bringup.launch_runner.output import LaunchOutput, default_log_file
from conrft_bringup.launch_runner.process_supervisor import GracePeriods
from conrft_bringup.launch_runner.runner import (
    find_launch_file,
    find_package_launch_file,
    launch_arguments,
    run_launch_file,
)
from conrft_bringup.launch_runner.substitutions import Substitution, Template


def register(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``up``."""
    parser = subparsers.add_parser(
        "up",
        help="run a launch file, as ros2 launch does",
        description="Runs a YAML launch file of the subset that conrft_bringup/launch_runner/launch_file.py documents. "
        "Ctrl-C asks every process to end; a second and a third one insist.",
    )
    parser.add_argument(
        "file", help="path of a launch file, its name in conrft_bringup, or a package followed by a name"
    )
    parser.add_argument("rest", nargs="*", metavar="name:=value", help="arguments of the launch file")
    parser.add_argument("-s", "--show-args", action="store_true", help="show the arguments of the launch file and end")
    parser.add_argument(
        "--log-file", type=Path, help="where to write the log (default: below ROS_LOG_DIR or ~/.ros/log)"
    )
    parser.add_argument(
        "--grace", type=_seconds, default=5.0, metavar="S", help="s from SIGINT to SIGTERM, and on to SIGKILL"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs ``conrft up`` and gives its exit code."""
    try:
        path, words = _find(args.file, args.rest)
        if args.show_args:
            print(describe_arguments(launch_arguments(path, os.environ)))
            return 0
        arguments = parse_arguments(words)
        log_file = args.log_file or default_log_file(os.environ)
        output = LaunchOutput(log_file)
        try:
            output.info("launch", f"log file: {log_file}")
            return run_launch_file(path, arguments, output, grace=GracePeriods(args.grace, args.grace)).exit_code
        finally:
            output.close()
    except LaunchError as error:
        print(f"conrft up: {error}", file=sys.stderr)
        return 2


def parse_arguments(words: list[str]) -> dict[str, str]:
    """Reads ``name:=value``; the last one of a name wins, as with ``ros2 launch``. Raises LaunchError."""
    arguments: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition(":=")
        if not sign or not name:
            raise LaunchError(f"'{word}' is no argument of the form name:=value")
        arguments[name] = value
    return arguments


def describe_arguments(arguments: list[DeclareArgument]) -> str:
    """The text of ``--show-args``."""
    lines = ["Arguments (pass arguments as '<name>:=<value>'):"]
    for argument in arguments:
        lines += ["", f"    '{argument.name}':", f"        {argument.description or 'no description given'}"]
        if argument.choices:
            lines.append(f"        one of: {', '.join(argument.choices)}")
        lines.append(
            "        (required)" if argument.default is None else f"        (default: '{_source(argument.default)}')"
        )
    return "\n".join(lines if arguments else [*lines, "", "    none"])


def _source(template: Template) -> str:
    """A template as one would write it."""
    return "".join(part if isinstance(part, str) else _substitution_source(part) for part in template.parts)


def _substitution_source(substitution: Substitution) -> str:
    return f"$({' '.join([substitution.name, *map(_source, substitution.arguments)])})"


def _find(file: str, rest: list[str]) -> tuple[Path, list[str]]:
    if rest and ":=" not in rest[0] and not Path(file).is_file():
        return find_package_launch_file(file, rest[0], os.environ), rest[1:]
    return find_launch_file(file, os.environ), rest


def _seconds(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be more than 0 s, got {text}")
    return value
