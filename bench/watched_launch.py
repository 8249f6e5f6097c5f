"""A launch file run with a node beside it that watches, kills, and ends the launch when it has seen enough."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import rclpy
from rclpy.node import Node

from conrft_bringup.demo.graph_run import graph_environment
from conrft_bringup.launch_runner.output import LaunchOutput
from conrft_bringup.launch_runner.process_supervisor import GracePeriods, LaunchResult, ProcessSupervisor
from conrft_bringup.launch_runner.runner import find_launch_file, run_launch_file
from conrft_data.node_process import END_TIMEOUT_S, ends_within


class LaunchWitness:
    """Who watches a launch."""

    def look(self, supervisor: ProcessSupervisor) -> None:
        """Called again and again until the launch is being ended; spins the witness's node and may end the launch."""
        raise NotImplementedError

    def hear(self, process: str, line: str) -> None:
        """A process, by name and number, has written a line."""


W = TypeVar("W", bound=LaunchWitness)


def watched_launch(
    launch_file: str, arguments: dict[str, str], log: Path, make_witness: Callable[[Node], W], *, period_s: float
) -> tuple[W, LaunchResult]:
    """Runs ``train`` or another launch file of the suite until the witness ends it or it ends by itself.

    The witness's node is gone before the launch's processes are: Fast DDS may deadlock in one that sees many others go
    (see ``ends_within``).

    Raises:
        KeyboardInterrupt: the person ended it.
    """
    environment = graph_environment()
    os.environ.update(environment)
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("witness", context=context)
    witness = make_witness(node)
    output = LaunchOutput(log, quiet=True, listener=witness.hear)

    def leave() -> None:
        if context.ok():
            with ends_within(END_TIMEOUT_S):
                node.destroy_node()
                rclpy.shutdown(context=context)

    def look(supervisor: ProcessSupervisor) -> None:
        if context.ok() and not supervisor.result.reason:
            witness.look(supervisor)
        if supervisor.result.reason:
            leave()

    try:
        path = find_launch_file(launch_file, environment)
        grace = GracePeriods(terminate=30.0, kill=5.0)
        result = run_launch_file(path, arguments, output, grace=grace, idle=look, idle_period=period_s)
    finally:
        output.close()
        leave()
    if result.interrupted:
        raise KeyboardInterrupt
    return witness, result
