"""A node under test and a fake for the rest of the graph, in one executor (pytest fixture ``graph_of``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile


class Peer(Node):
    """Stands for all other nodes: keeps what it hears, says what a test tells it."""

    def __init__(self) -> None:
        super().__init__("peer")
        self.heard: dict[str, list[Any]] = {}

    def listen(self, kind: type, topic: str, quality: QoSProfile | int) -> None:
        self.heard[topic] = []
        self.create_subscription(kind, topic, self.heard[topic].append, quality)


class Graph:
    """The node under test and its peer."""

    def __init__(self, node: Node) -> None:
        self.node, self.peer = node, Peer()
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._executor.add_node(self.peer)

    def wait(self, until: Callable[[], object], longest_s: float = 60.0) -> bool:
        """Spins until something holds; returns whether it did."""
        end = time.monotonic() + longest_s
        while time.monotonic() < end:
            if until():
                return True
            self._executor.spin_once(timeout_sec=0.02)
        return bool(until())

    def pause(self, seconds: float) -> None:
        """Spins for a while."""
        self.wait(lambda: False, seconds)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self.peer.destroy_node()


@contextmanager
def _graph_of(make_node: Callable[[], Node], *parameters: str) -> Iterator[Graph]:
    """The graph with parameters given as on the command line, ``name:=value``."""
    words = [word for parameter in parameters for word in ("-p", parameter)]
    rclpy.init(args=["--ros-args", *words])
    try:
        graph = Graph(make_node())
        try:
            yield graph
        finally:
            graph.close()
    finally:
        rclpy.try_shutdown()


@pytest.fixture
def graph_of() -> Callable[..., AbstractContextManager[Graph]]:
    """``graph_of(make_node, "parameter:=value", ...)`` is a context with the graph."""
    return _graph_of
