"""How each node of this package is spun and stopped."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from conrft_data.config import ConfigError


class StopRequested(Exception):
    """Ends ``spin`` from inside a callback."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def run(make_node: Callable[[], Node], args: Sequence[str] | None = None) -> int:
    """Runs one node until it is told to stop; returns the exit code, 0 after SIGINT or SIGTERM however often they come.

    A configuration or parameter that is wrong ends the node with code 2 and a sentence. A node with a method ``stop``
    gets it called last, while ROS still works.
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
    wakeup: socket.socket | None = None  # Python's signal handler writes into it as long as it is open


def _stop_signals() -> _Stopping:
    """Notes SIGINT and SIGTERM from now on, whichever thread the kernel hands them to.

    Python's own handlers run only when the executor's wait returns, so they do nothing here. The C handler below them
    writes the signal's number into a socket at once; a thread reads it there and wakes the executor. (Blocking the
    signals instead would miss those that a library's thread from before, OpenBLAS's for one, takes.)
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    stopping = _Stopping(wakeup=writer)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        reader.recv(1)
        stopping.requested = True
        if (wake := stopping.wake) is not None:
            wake()

    threading.Thread(target=wait, name="stop signals", daemon=True).start()
    return stopping
