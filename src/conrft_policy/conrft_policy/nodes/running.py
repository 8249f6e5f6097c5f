"""How the nodes of the policy and of the reward start, report and stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

LEVELS = {
    "ok": DiagnosticStatus.OK,
    "warn": DiagnosticStatus.WARN,
    "error": DiagnosticStatus.ERROR,
}


def run(make_node: Callable[[], Node], name: str, arguments: Sequence[str] | None = None) -> int:
    """Spins one node until it is told to stop; returns the process's exit code.

    A ValueError while the node is made is a wrong configuration: it is logged as one sentence, and the code is 1.
    """
    # rclpy stops the executor at SIGINT; Python must not raise KeyboardInterrupt beside it, or a second SIGINT would
    # break the clean-up.
    signal.signal(signal.SIGINT, lambda *_: None)
    rclpy.init(args=arguments)
    executor = SingleThreadedExecutor()
    node: Node | None = None
    try:
        node = make_node()
        executor.add_node(node)
        executor.spin()
    except ExternalShutdownException:
        pass
    except ValueError as error:
        if node is not None:
            raise
        rclpy.logging.get_logger(name).fatal(str(error))
        return 1
    finally:
        executor.shutdown()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def described(
    description: str,
    *,
    integers: tuple[int, int] | None = None,
    numbers: tuple[float, float] | None = None,
) -> ParameterDescriptor:
    """Descriptor of a parameter that is set at the start and stays, with its allowed range."""
    descriptor = ParameterDescriptor(description=description, read_only=True)
    if integers is not None:
        descriptor.integer_range = [IntegerRange(from_value=integers[0], to_value=integers[1], step=1)]
    if numbers is not None:
        descriptor.floating_point_range = [FloatingPointRange(from_value=numbers[0], to_value=numbers[1])]
    return descriptor


def diagnostic_array(node: Node, level: str, message: str, values: Mapping[str, object]) -> DiagnosticArray:
    """One status of this node, stamped now; ``level`` is ok, warn or error."""
    status = DiagnosticStatus(level=LEVELS[level], name=node.get_fully_qualified_name(), message=message)
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    array = DiagnosticArray(status=[status])
    array.header.stamp = node.get_clock().now().to_msg()
    return array
