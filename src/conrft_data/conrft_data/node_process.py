"""How the process of a node starts, declares its parameters, reports and stops."""

from __future__ import annotations

import faulthandler
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

# Of every diagnostic status of this suite.
HARDWARE_ID = "conrft"
# Key of a diagnostic value: why an episode under way cannot go on, so that waiting for the node is of no use.
STOPPED = "stopped"

# Longest time that destroying a node and leaving ROS may take: more than any node needs, a last checkpoint included.
END_TIMEOUT_S = 60.0

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(Exception):
    """Ends the node from inside a callback."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def run(make_node: Callable[[], Node], name: str, arguments: Sequence[str] | None = None) -> int:
    """Serves one node until it is told to stop; returns the process's exit code.

    It is 0 after SIGINT or SIGTERM, however often they come. A ValueError or a ParameterException while the node is
    made is a wrong configuration: logged under ``name`` as one sentence, and the code is 1. Any other exception is
    raised on.

    The node is made, served and destroyed in the calling thread, which must be the main one. A method ``stop`` of the
    node is called before it is destroyed, while ROS still works. Destroying it may take END_TIMEOUT_S.
    """
    stopping = _heed_stop_signals()
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    node: Node | None = None
    try:
        node = make_node()
        exit_code = _spin(node, stopping)
        if (stop := getattr(node, "stop", None)) is not None and rclpy.ok():
            stop()
        return exit_code
    except (ValueError, ParameterException) as error:
        if node is not None:
            raise
        rclpy.logging.get_logger(name).fatal(str(error))
        return 1
    finally:
        with ends_within(END_TIMEOUT_S):
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
        _ignore_stop_signals(stopping)


@contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    """Ends the process with code 1 where the block takes longer, and writes every thread's stack to stderr.

    For destroying nodes: Fast DDS 2.14 may deadlock when an endpoint is destroyed in the moment in which another
    process's lease runs out, and rclpy keeps Python's lock meanwhile, so that neither a signal nor a thread of Python's
    gets a word in. This watch is below Python. There is one for a process: the last that began counts.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def described(
    description: str,
    *,
    integers: tuple[int, int] | None = None,
    numbers: tuple[float, float] | None = None,
    constraints: str = "",
) -> ParameterDescriptor:
    """Descriptor of a parameter that is given at the start and stays; ``integers`` or ``numbers`` is its range."""
    descriptor = ParameterDescriptor(description=description, read_only=True, additional_constraints=constraints)
    if integers is not None:
        descriptor.integer_range = [IntegerRange(from_value=integers[0], to_value=integers[1], step=1)]
    if numbers is not None:
        low, high = numbers
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)]
    return descriptor


def diagnostic_array(node: Node, level: bytes, message: str, values: Mapping[str, object]) -> DiagnosticArray:
    """One status of ``node``, stamped with its clock; ``level`` is one of DiagnosticStatus' constants."""
    status = DiagnosticStatus(level=level, message=message, hardware_id=HARDWARE_ID)
    # As diagnostic_updater names it: without the leading slash.
    status.name = node.get_fully_qualified_name().lstrip("/")
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    array = DiagnosticArray(status=[status])
    array.header.stamp = node.get_clock().now().to_msg()
    return array


def _spin(node: Node, stopping: _Stopping) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    # It needs a callback: an executor that is only woken goes on waiting until something is due.
    guard = node.create_guard_condition(lambda: None)
    with stopping.lock:
        stopping.wake = guard.trigger
    try:
        while not stopping.requested:
            executor.spin_once()
    except StopRequested as request:
        return request.exit_code
    except Exception:
        # A signal leaves ROS up until the callback under way is through. Somebody else may have shut the context down:
        # that the executor, or a callback, then finds it gone is no fault.
        if rclpy.ok():
            raise
    finally:
        with stopping.lock:
            stopping.wake = None
        executor.shutdown(timeout_sec=0)
    return 0


@dataclass
class _Stopping:
    wakeup: socket.socket  # Python's signal handler writes into it as long as it is open
    requested: bool = False
    wake: Callable[[], None] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while `wake` is called: the node is alive
    reader: threading.Thread | None = None


def _heed_stop_signals() -> _Stopping:
    """Notes SIGINT and SIGTERM from now on, whichever thread the kernel hands them to.

    Python's own handlers run only when the executor's wait returns, so they do nothing here. The C handler below them
    writes the signal's number into a socket at once; a thread reads it there and wakes the executor. (Blocking the
    signals instead would miss those that a library's thread from before, OpenBLAS's for one, takes.)
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    stopping = _Stopping(wakeup=writer)
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        # Other signals that Python handles arrive here too. Nothing is received once the writer is closed.
        with reader:
            while received := reader.recv(1):
                with stopping.lock:
                    stopping.requested = stopping.requested or received[0] in _STOP_SIGNALS
                    if stopping.requested and stopping.wake is not None:
                        stopping.wake()

    stopping.reader = threading.Thread(target=wait, name="stop signals", daemon=True)
    stopping.reader.start()
    return stopping


def _ignore_stop_signals(stopping: _Stopping) -> None:
    """Ends the thread. While Python ends it takes its handlers away, and one more signal would kill the process."""
    _say_nothing_of_ignored_signals()
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    stopping.wakeup.shutdown(socket.SHUT_RDWR)  # a forked process may hold it open too
    stopping.wakeup.close()
    # A thread that is still there while Python ends is stopped by force, wherever it is.
    if stopping.reader is not None:
        stopping.reader.join()


def _say_nothing_of_ignored_signals() -> None:
    """For the rest of the process: a signal that came just before it was ignored was not needed.

    Python reports it as an OSError that nobody can catch, whenever the main thread next looks for signals: the C
    handler may have run in another thread, which does not make the main one look.
    """
    report = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, OSError) and str(error).endswith("ignored due to race condition")):
            report(unraisable)

    sys.unraisablehook = hook
