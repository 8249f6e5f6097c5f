"""``conrft bench NAME``: each measurement belongs to the package that it measures."""

from __future__ import annotations

import argparse
import importlib

# name: (module, function that takes the remaining arguments and returns an exit code, what is measured)
BENCHMARKS: dict[str, tuple[str, str, str]] = {
    "tick": ("conrft_bringup.tick_benchmark", "tick", "observation to action at 10 Hz while the learner trains"),
    "sim": ("conrft_sim.benchmark", "main", "ticks of the simulator in lockstep"),
    "operator": ("conrft_sim.operator_benchmark", "main", "how often and how fast the scripted operator succeeds"),
    "learner": ("conrft_learner.benchmark", "learner", "updates of critic and actor, also beside the official way"),
    "policy": ("conrft_bringup.policy_benchmark", "policy", "the backbone of an acting step, in float32 and in 8 bits"),
    "suite": ("conrft_bringup.suite.cli", "suite", "a method on all tasks: success and length beside the paper's"),
    "soak": ("conrft_bringup.soak_benchmark", "soak", "tick for an hour, and the memory of every node"),
    "safety": (
        "conrft_bringup.chaos.safety_benchmark",
        "safety",
        "how soon the arm holds, by cause; which limits hold",
    ),
    "fuzz": ("conrft_bringup.chaos.fuzz_benchmark", "fuzz", "wrong, late, doubled messages on every topic of the loop"),
    "replay": ("conrft_learner.benchmark", "replay", "drawing a batch of 256 from the replay, storing episodes"),
}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``bench``."""
    known = "\n".join(f"  {name:<9}{text}" for name, (_, _, text) in BENCHMARKS.items())
    parser = subparsers.add_parser(
        "bench",
        help="measure speed, the scripted operator, or a method on many tasks",
        description=f"The last line of the output is one JSON object.\n\nmeasurements:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=tuple(BENCHMARKS), help="what to measure")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="--json and options of the measurement (--help)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs one measurement."""
    module, function, _ = BENCHMARKS[args.name]
    return int(getattr(importlib.import_module(module), function)(args.rest) or 0)
