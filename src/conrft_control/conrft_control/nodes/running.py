"""How each node of this package is declared, spun and stopped."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import rclpy
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from conrft_data.config import ConfigError, RobotConfig, TaskConfig, load_config


class StopRequested(Exception):
    """Ends ``spin`` from inside a callback."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def declare(
    node: Node,
    name: str,
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    constraints: str = "",
) -> Any:
    """Declares a read-only parameter and returns its value.

    All parameters of the loop are read-only: none may change in the middle of an episode. ``low`` and ``high`` bound a number; both or neither.
    """
    descriptor = ParameterDescriptor(
        name=name, description=description, read_only=True, additional_constraints=constraints
    )
    if low is not None and high is not None:
        if isinstance(default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
            ]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return node.declare_parameter(name, default, descriptor).value


def declare_task(node: Node) -> TaskConfig:
    """The task's configuration, from the file that parameter ``task_file`` names; raises ConfigError."""
    return load_config(TaskConfig, declare(node, "task_file", "", "YAML file of the task"))


def declare_robot(node: Node) -> RobotConfig:
    """The robot's configuration, from the file that parameter ``robot_file`` names; raises ConfigError."""
    return load_config(RobotConfig, declare(node, "robot_file", "", "YAML file of the robot"))


def declare_lockstep(node: Node) -> bool:
    """Whether simulated time waits for each tick's target pose; the same for the whole graph."""
    return bool(
        declare(
            node, "lockstep", False, "simulated time waits for each tick's target pose; the same for the whole graph"
        )
    )


def run(make_node: Callable[[], Node], args: Sequence[str] | None = None) -> int:
    """Runs one node until it is told to stop; returns the exit code: 0 after SIGINT or SIGTERM, however often they come.

    A configuration or parameter that is wrong ends the node with code 2 and a sentence. A node with a method ``stop`` gets it called last, while ROS still works.
    """
    stopping = _stop_signals()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node: Node | None = None
    try:
        node = make_node()
        exit_code = _spin(node, stopping)
        if (stop := getattr(node, "stop", None)) is not None:
            stop()
        return exit_code
    except (ConfigError, ValueError, ParameterException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


def _spin(node: Node, stopping: _Stopping) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    stopping.wake = executor.wake
    try:
        while not stopping.requested:
            executor.spin_once()
    except StopRequested as request:
        return request.exit_code
    finally:
        stopping.wake = None
        executor.shutdown(timeout_sec=0)
    return 0


@dataclass
class _Stopping:
    requested: bool = False
    wake: Callable[[], None] | None = None


def _stop_signals() -> _Stopping:
    """Notes SIGINT and SIGTERM in a thread of their own, from now on.

    A Python signal handler would run only when the executor's wait returns, and could break off a callback or the node's last words. A blocked signal does neither.
    """
    stopping = _Stopping()
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def wait() -> None:
        signal.sigwait(signals)
        stopping.requested = True
        if (wake := stopping.wake) is not None:
            wake()

    threading.Thread(target=wait, name="stop signals", daemon=True).start()
    return stopping
