"""The visualiser serves a running graph and a played-back bag alike, and listens only while somebody looks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from recorded_runs import DOWN, observation, record
from sensor_msgs.msg import Image
from std_msgs.msg import String
from visualization_msgs.msg import Marker, MarkerArray

from conrft_bringup.visualisation.nodes.bag_player_node import BagPlayerNode
from conrft_bringup.visualisation.nodes.visualiser_node import VisualiserNode
from conrft_data import topics
from conrft_data.conversion import command_to_msg, observation_to_msg
from conrft_data.images import image_to_rgb
from conrft_data.node_process import StopRequested
from conrft_data.ticks import Tick
from conrft_data.types import ActionSource, Command, Outcome
from conrft_msgs.msg import Action, Observation

PACKAGE = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


class Graph:
    """Nodes in one executor, and what a viewer receives."""

    def __init__(self) -> None:
        self.executor = SingleThreadedExecutor()
        self.viewer = self.add(Node("viewer"))
        self.received: dict[str, list[Any]] = {}

    def add(self, node: Any) -> Any:
        self.executor.add_node(node)
        return node

    def look(self, kind: type, topic: str, quality: Any = topics.COMMAND) -> Any:
        messages = self.received.setdefault(topic, [])
        return self.viewer.create_subscription(kind, topic, messages.append, quality)

    def until(self, condition: Callable[[], object], step: Callable[[], None] = lambda: None) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "nothing came"
            step()
            self.executor.spin_once(timeout_sec=0.02)


@pytest.fixture
def graph() -> Iterator[Graph]:
    made = Graph()
    yield made
    for node in made.executor.get_nodes():
        node.destroy_node()
    made.executor.shutdown()


def visualiser(**parameters: Any) -> VisualiserNode:
    files = {
        "task_file": str(PACKAGE / "config/tasks/pick_banana.yaml"),
        "robot_file": str(PACKAGE / "config/robots/sim.yaml"),
        "robot_description_file": str(PACKAGE / "urdf/fr3.urdf"),
    }
    return VisualiserNode(parameter_overrides=[Parameter(n, value=v) for n, v in {**files, **parameters}.items()])


def player(bag: Path, **parameters: Any) -> BagPlayerNode:
    values = {"bag": str(bag), "loop": False, **parameters}
    return BagPlayerNode(parameter_overrides=[Parameter(name, value=value) for name, value in values.items()])


def names(array: MarkerArray) -> set[str]:
    return {marker.ns for marker in array.markers if marker.action == Marker.ADD}


def test_a_bag_is_shown_with_markers_poses_and_images(graph: Graph, tmp_path: Path) -> None:
    bag = tmp_path / record(tmp_path, 4, outcome=Outcome.SUCCESS, sources="ppoop")
    for kind, topic in (
        (MarkerArray, "view/markers"),
        (PoseStamped, "view/measured_pose"),
        (Image, "view/wrist/image"),
    ):
        graph.look(kind, topic)
    graph.add(visualiser(source="playback"))
    # Again and again: on a machine without time to spare a viewer misses ticks.
    graph.add(player(bag, loop=True))
    scenes, poses = graph.received["view/markers"], graph.received["view/measured_pose"]
    everything = {"workspace", "hand", "measured pose", "reference pose", "trace", "state"}
    graph.until(lambda: scenes and everything <= names(scenes[-1]))
    graph.until(lambda: scenes and "ENDED SUCCESS" in text(scenes[-1]))
    graph.until(lambda: poses and graph.received["view/wrist/image"])
    assert (poses[-1].header.frame_id, poses[-1].pose.position.z) == ("base", DOWN[2])
    shown = {int(image_to_rgb(image)[0, 0, 0]) for image in graph.received["view/wrist/image"]}
    assert shown <= {255 - step for step in range(6)}


def test_a_bag_that_is_played_once_ends_the_player(graph: Graph, tmp_path: Path) -> None:
    bag = tmp_path / record(tmp_path, 1, outcome=Outcome.SUCCESS, sources="pp")
    graph.look(Action, "playback/action", topics.TICK)
    node = graph.add(player(bag, rate=5.0))
    with pytest.raises(StopRequested) as end:
        graph.until(lambda: False)
    assert end.value.exit_code == 0
    graph.executor.remove_node(node)  # it would ask for its end again
    graph.until(lambda: [action.step for action in graph.received["playback/action"]] == [0, 1, 2])
    node.destroy_node()


def test_a_player_that_was_held_up_goes_on_where_it_was(graph: Graph, tmp_path: Path) -> None:
    bag = tmp_path / record(tmp_path, 1, outcome=Outcome.SUCCESS, sources="p" * 40)
    graph.look(Action, "playback/action", topics.TICK)
    graph.add(player(bag))
    actions = graph.received["playback/action"]
    graph.until(lambda: len(actions) >= 2)
    before, began = len(actions), time.monotonic()
    time.sleep(1.5)
    stalled = time.monotonic() - began
    while time.monotonic() - began < stalled + 0.3:
        graph.executor.spin_once(timeout_sec=0.02)
    on_time = (time.monotonic() - began - stalled) / 0.1
    assert len(actions) - before <= on_time + 3, "as one burst it would be lost"


def text(array: MarkerArray) -> str:
    return "".join(marker.text for marker in array.markers)


def test_a_recorded_action_never_reaches_the_graphs_own_topic(graph: Graph, tmp_path: Path) -> None:
    bag = tmp_path / record(tmp_path, 1, outcome=Outcome.SUCCESS, sources="pp")
    graph.add(player(bag))
    commanders = [graph.viewer.count_publishers(f"/{name}") for name in (topics.ACTION, topics.OBSERVATION)]
    assert commanders == [0, 0]
    with pytest.raises(ValueError, match="into is empty"):
        player(bag, into="/")


def test_without_a_viewer_it_does_not_even_listen(graph: Graph) -> None:
    node = graph.add(visualiser())
    graph.until(lambda: node.count_publishers("view/markers"))
    for _ in range(30):
        graph.executor.spin_once(timeout_sec=0.02)
    assert node.count_subscribers(topics.OBSERVATION) == 0
    looking = graph.look(MarkerArray, "view/markers")
    graph.until(lambda: node.count_subscribers(topics.OBSERVATION) == 1)
    graph.viewer.destroy_subscription(looking)
    graph.until(lambda: node.count_subscribers(topics.OBSERVATION) == 0)


def test_a_running_graph_is_shown_with_the_commanders_reference_pose(graph: Graph) -> None:
    graph.add(visualiser())
    source = graph.add(Node("source"))
    observations = source.create_publisher(Observation, topics.OBSERVATION, topics.TICK)
    actions = source.create_publisher(Action, topics.ACTION, topics.TICK)
    reference = source.create_publisher(PoseStamped, "target_pose", topics.COMMAND)
    graph.look(PoseStamped, "view/reference_pose")
    target = PoseStamped()
    target.pose.position.x = 0.61
    hold = Command(action=np.zeros(7, np.float32), source=ActionSource.HOLD, reason="late")
    steps = itertools.cycle(range(200))

    def tick() -> None:
        seen = observation(1, next(steps))
        reference.publish(target)
        observations.publish(observation_to_msg(seen))
        actions.publish(command_to_msg(hold, Tick(seen.stamp_ns, 1, seen.step)))

    received = graph.received["view/reference_pose"]
    graph.until(lambda: received and received[-1].pose.position.x == 0.61, step=tick)


def test_a_late_viewer_gets_the_robot_model(graph: Graph) -> None:
    graph.add(visualiser())
    graph.look(String, "robot_description", topics.LATCHED)
    graph.until(lambda: graph.received["robot_description"])
    assert graph.received["robot_description"][0].data == (PACKAGE / "urdf/fr3.urdf").read_text()


@pytest.mark.parametrize(("bag", "complaint"), [("nowhere", "nowhere cannot be played"), ("", "cannot be played")])
def test_a_bag_that_cannot_be_played_is_told(tmp_path: Path, bag: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        player(tmp_path / bag)
