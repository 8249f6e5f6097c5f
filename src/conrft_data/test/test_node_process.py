"""The process of a node: how it stops, how it refuses a configuration, what it says of itself."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.exceptions import InvalidParameterValueException, ParameterImmutableException
from rclpy.node import Node
from rclpy.parameter import Parameter

from conrft_data.node_process import described, diagnostic_array

TIMEOUT_S = 120.0

# The body of ``__init__`` comes from the test. ``soon`` calls something once, from the executor.
PROGRAM = """
import os, signal, sys, threading, time
import rclpy
from rclpy.node import Node
from std_msgs.msg import String
from conrft_data.node_process import StopRequested, described, run

class Sleeper(Node):
    def __init__(self):
        super().__init__("sleeper")
        self.publisher = self.create_publisher(String, "word", 1)
{body}

    def soon(self, callback):
        self.timer = self.create_timer(0.01, lambda: (self.timer.cancel(), callback()))

    def ready(self):
        print("ready", flush=True)

    def work(self):
        self.ready()
        time.sleep(0.5)
        self.publisher.publish(String(data="done"))
        print("published", flush=True)

    def leave(self, code):
        raise StopRequested(code)

    def fail(self):
        raise ValueError("a fault")

    def stop(self):
        self.publisher.publish(String(data="good-bye"))
        print("stopped", flush=True)

    def destroy_node(self):
        print("destroyed by", threading.current_thread().name, flush=True)
        super().destroy_node()

sys.exit(run(Sleeper, "sleeper"))
"""


@pytest.fixture
def start() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []

    def begin(body: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM.format(body=textwrap.indent(body, " " * 8))]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, env=os.environ, text=True, **pipes))  # type: ignore[call-overload]
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str], *signals: signal.Signals) -> tuple[int, str, str]:
    """Sends ``signals`` once the node says that it is ready; returns exit code and outputs."""
    assert process.stdout is not None
    if signals:
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    for number in signals:
        process.send_signal(number)
    output, errors = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, output, errors


@pytest.mark.parametrize(
    "signals", [(signal.SIGINT,), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM,), (signal.SIGTERM, signal.SIGINT)]
)
def test_an_idle_node_stops_with_code_0(
    start: Callable[[str], subprocess.Popen[str]], signals: tuple[signal.Signals, ...]
) -> None:
    code, output, errors = finish(start("self.soon(self.ready)"), *signals)
    assert (code, output, errors) == (0, "stopped\ndestroyed by MainThread\n", "")


def test_a_node_that_cannot_be_destroyed_does_not_keep_its_process(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    body = """\
import ctypes, conrft_data.node_process
conrft_data.node_process.END_TIMEOUT_S = 0.5
self.destroy_node = lambda: ctypes.PyDLL(None).sleep(600)  # as a deadlock below rclpy: Python's lock is kept
self.soon(self.ready)
"""
    code, output, errors = finish(start(body), signal.SIGINT, signal.SIGINT)
    assert (code, output) == (1, "stopped\n")
    assert "in <lambda>" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_may_come_until_the_process_has_gone(
    start: Callable[[str], subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = start("self.soon(self.ready)")
    assert process.stdout is not None
    process.stdout.readline()
    while process.poll() is None:
        process.send_signal(number)
    assert process.communicate()[1] == ""
    assert process.returncode == 0


def test_a_signal_that_another_thread_took_just_before_it_was_ignored_is_not_reported(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    body = """\
import ctypes
libc = ctypes.CDLL(None)
libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
address = libc.signal(signal.SIGTERM, None)
libc.signal(signal.SIGTERM, address)
c_handler, set_wakeup_fd = ctypes.CFUNCTYPE(None, ctypes.c_int)(address), signal.set_wakeup_fd

def after_ignoring(fd):  # as a C handler that began before, in a thread that the kernel let wait
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    thread = threading.Thread(target=c_handler, args=[signal.SIGTERM])
    thread.start()
    thread.join()
    print("handled", flush=True)
    return set_wakeup_fd(fd)

signal.set_wakeup_fd = after_ignoring
self.soon(self.ready)
"""
    code, output, errors = finish(start(body), signal.SIGTERM)
    assert (code, output, errors) == (0, "stopped\ndestroyed by MainThread\nhandled\n", "")


def test_a_callback_under_way_at_the_signal_finds_ros_still_up(start: Callable[[str], subprocess.Popen[str]]) -> None:
    code, output, errors = finish(start("self.soon(self.work)"), signal.SIGINT, signal.SIGINT)
    assert (code, errors) == (0, "")
    assert output.startswith("published\nstopped\n")


def test_a_callback_whose_context_was_shut_down_is_no_fault(start: Callable[[str], subprocess.Popen[str]]) -> None:
    code, _, errors = finish(start("self.soon(lambda: (rclpy.shutdown(), self.create_publisher(String, 'more', 1)))"))
    assert (code, errors) == (0, "")


def test_a_signal_while_the_node_is_made_is_heeded_then(start: Callable[[str], subprocess.Popen[str]]) -> None:
    code, output, errors = finish(start("self.ready(); time.sleep(0.5)"), signal.SIGINT, signal.SIGINT)
    assert (code, output, errors) == (0, "stopped\ndestroyed by MainThread\n", "")


def test_a_signal_that_a_thread_of_the_node_takes_is_heeded(start: Callable[[str], subprocess.Popen[str]]) -> None:
    body = """\
def take():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    threading.Event().wait()

self.soon(threading.Thread(target=take, daemon=True).start)
"""
    code, _, errors = finish(start(body))
    assert (code, errors) == (0, "")


def test_other_signals_that_the_program_handles_do_not_stop_it(start: Callable[[str], subprocess.Popen[str]]) -> None:
    body = """\
signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
self.soon(lambda: (os.kill(os.getpid(), signal.SIGUSR1), self.work(), self.soon(lambda: self.leave(3))))
"""
    code, output, _ = finish(start(body))
    assert code == 3
    assert output.startswith("handled\n")


@pytest.mark.parametrize("exit_code", [0, 1])
def test_a_callback_can_end_the_node_with_a_code(start: Callable[[str], subprocess.Popen[str]], exit_code: int) -> None:
    code, output, errors = finish(start(f"self.soon(lambda: self.leave({exit_code}))"))
    assert (code, output, errors) == (exit_code, "stopped\ndestroyed by MainThread\n", "")


@pytest.mark.parametrize(
    "wrong",
    ["raise ValueError('bad.yaml: no such key')", "self.declare_parameter('n', 5, described('n', integers=(0, 3)))"],
)
def test_a_wrong_configuration_is_one_fatal_sentence_and_code_1(
    start: Callable[[str], subprocess.Popen[str]], wrong: str
) -> None:
    code, output, errors = finish(start(wrong))
    assert (code, output) == (1, "")
    assert errors.startswith("[FATAL] [")
    assert "[sleeper]: " in errors
    assert errors.count("\n") == 1


def test_a_fault_in_a_callback_is_not_taken_for_a_wrong_configuration(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    code, output, errors = finish(start("self.soon(self.fail)"))
    assert (code, output) == (1, "destroyed by MainThread\n")
    assert "Traceback" in errors
    assert "FATAL" not in errors


@pytest.fixture
def node() -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context)
    made = Node("described", namespace="robot", context=context)
    yield made
    made.destroy_node()
    rclpy.shutdown(context=context)


def test_a_described_parameter_stays_as_it_was_given(node: Node) -> None:
    node.declare_parameter("seed", 3, described("of the noise"))
    assert node.describe_parameter("seed").description == "of the noise"
    (result,) = node.set_parameters([Parameter("seed", value=4)])
    assert not result.successful
    assert node.get_parameter("seed").value == 3
    with pytest.raises(ParameterImmutableException):
        node.undeclare_parameter("seed")


@pytest.mark.parametrize("given", [-1, 11])
def test_a_whole_number_has_a_range(node: Node, given: int) -> None:
    with pytest.raises(InvalidParameterValueException):
        node.declare_parameter("ticks", given, described("ticks", integers=(0, 10)))
    assert node.declare_parameter("ticks", 10, described("ticks", integers=(0, 10))).value == 10


@pytest.mark.parametrize("given", [-0.01, 1.01])
def test_a_number_has_a_range(node: Node, given: float) -> None:
    with pytest.raises(InvalidParameterValueException):
        node.declare_parameter("speed", given, described("share", numbers=(0, 1)))
    assert node.declare_parameter("speed", 0.37, described("share", numbers=(0, 1))).value == 0.37


def test_a_status_names_its_node_and_is_stamped_with_its_clock(node: Node) -> None:
    before = node.get_clock().now().nanoseconds
    array = diagnostic_array(node, DiagnosticStatus.WARN, "late", {"ticks": 3})
    stamp = array.header.stamp
    assert before <= stamp.sec * 10**9 + stamp.nanosec <= node.get_clock().now().nanoseconds
    (status,) = array.status
    assert (status.name, status.level, status.message) == ("robot/described", DiagnosticStatus.WARN, "late")
    assert [(value.key, value.value) for value in status.values] == [("ticks", "3")]
