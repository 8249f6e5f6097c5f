"""How the nodes of the simulation declare parameters, report, and stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node


def spin_until_shutdown(make_node: Callable[[], Node], name: str) -> int:
    """Makes a node and serves it until SIGINT or SIGTERM.

    Returns the exit code: 0, or 1 when the configuration is wrong.
    """
    # rclpy's handler stops the executor and then calls Python's, which would raise KeyboardInterrupt in the
    # middle of the
    # clean-up when a second SIGINT comes. A process group often gets two.
    signal.signal(signal.SIGINT, lambda *_: None)
    rclpy.init()
    executor, node = SingleThreadedExecutor(), None
    try:
        node = make_node()
        executor.add_node(node)
        executor.spin()
    except ExternalShutdownException:
        pass
    except Exception as error:
        if node is None and isinstance(error, ValueError):
            rclpy.logging.get_logger(name).fatal(str(error))
            return 1
        # A callback that was under way when the signal came finds its context gone: that is no fault.
        if rclpy.ok():
            raise
    finally:
        executor.shutdown()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def fixed(
    description: str, *, whole: tuple[int, int] | None = None, real: tuple[float, float] | None = None
) -> ParameterDescriptor:
    """Descriptor of a parameter that is given at the start; ``whole`` or ``real`` is its allowed range."""
    descriptor = ParameterDescriptor(description=description, read_only=True)
    if whole is not None:
        descriptor.integer_range = [IntegerRange(from_value=whole[0], to_value=whole[1], step=1)]
    if real is not None:
        descriptor.floating_point_range = [FloatingPointRange(from_value=real[0], to_value=real[1])]
    return descriptor


def status(node: Node, level: bytes, message: str, values: Mapping[str, object]) -> DiagnosticArray:
    """One diagnostic status of ``node``, stamped with its clock; ``level`` is one of DiagnosticStatus' constants."""
    entry = DiagnosticStatus(level=level, name=node.get_fully_qualified_name(), message=message)
    entry.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    array = DiagnosticArray(status=[entry])
    array.header.stamp = node.get_clock().now().to_msg()
    return array
