"""The ``conrft`` command. Each subcommand lives in the package it belongs to, and only that package is imported."""

from __future__ import annotations

import argparse
import importlib
import sys

# name: (module with a function `register(subparsers)`, what the overview says)
SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("conrft_bringup.demo.cli", "run the whole loop in simulation, from demonstrations to a trained policy"),
    "up": ("conrft_bringup.launch_runner.cli", "run a launch file, as ros2 launch does"),
    "demos": ("conrft_bringup.demos_cli", "record, list, show, export, import and salvage episodes"),
    "reward": ("conrft_reward.cli", "train and evaluate the success classifier"),
    "train": ("conrft_learner.cli", "train a policy offline"),
    "preset": ("conrft_bringup.preset_cli", "list the learner's presets, or show one with every setting described"),
    "evaluate": ("conrft_bringup.evaluation.cli", "trials of a policy without intervention"),
    "episode": ("conrft_bringup.episode_cli", "end the running episode, or veto the last one"),
    "view": (
        "conrft_bringup.visualisation.view_cli",
        "show the running graph or a recorded episode in rviz or a picture",
    ),
    "report": ("conrft_bringup.report.cli", "table and plots of a run"),
    "backbone": ("conrft_policy.cli", "import and inspect backbones of the policy"),
    "policy": ("conrft_policy.cli", "inspect trained policies"),
    "doctor": ("conrft_bringup.doctor.cli", "look at machine, robot, cameras and policy before the arm moves"),
    "bench": (
        "conrft_bringup.bench_cli",
        "measure speed: tick, sim, learner, policy, replay; or a method: suite",
    ),
}

_OVERVIEW = """usage: conrft [-h] COMMAND ...

Teaches a robot's vision-language-action policy by demonstrations and interventions.

commands:"""


def main(argv: list[str] | None = None) -> int:
    """Runs ``conrft`` with ``argv`` (default: the command line) and gives the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0 if words else 2
    name = words[0]
    if name not in SUBCOMMANDS:
        print(f"conrft: there is no command '{name}'\n\n{overview()}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="conrft")
    importlib.import_module(SUBCOMMANDS[name][0]).register(parser.add_subparsers(required=True))
    args = parser.parse_args(words)
    return int(args.run(args) or 0)


def overview() -> str:
    """What ``conrft --help`` prints; imports nothing, so that it is there at once."""
    width = max(map(len, SUBCOMMANDS)) + 2
    lines = [f"  {name:<{width}}{text}" for name, (_, text) in SUBCOMMANDS.items()]
    return "\n".join([_OVERVIEW, *lines, "\n`conrft COMMAND --help` tells more."])
