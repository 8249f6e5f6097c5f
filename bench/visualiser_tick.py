"""What a tick costs the visualiser's process while markers and both images are watched.

python bench/visualiser_tick.py EPISODE      an episode bag of the task pick_banana
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import rclpy
from ament_index_python.packages import get_package_share_directory
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, JointState
from visualization_msgs.msg import MarkerArray

from conrft_bringup.visualisation.nodes.visualiser_node import IMAGE, MARKERS, VisualiserNode
from conrft_data import topics
from conrft_data.bags import read_episode
from conrft_data.conversion import command_to_msg, observation_to_msg
from conrft_data.ticks import Tick
from conrft_msgs.msg import Action, Observation
from conrft_sim.kinematics import READY


def made_visualiser() -> VisualiserNode:
    """The node as view.launch.yaml starts it for the simulated robot."""
    share = Path(get_package_share_directory("conrft_bringup"))
    files = {
        "task_file": "config/tasks/pick_banana.yaml",
        "robot_file": "config/robots/sim.yaml",
        "robot_description_file": "urdf/fr3.urdf",
    }
    return VisualiserNode(
        parameter_overrides=[Parameter(name, value=str(share / file)) for name, file in files.items()]
    )


def tick_times_ms(bag: Path) -> list[float]:
    """Time of each tick: unpacking observation and action, markers, publishing all that is watched."""
    node, viewer = made_visualiser(), Node("viewer")
    kept = [viewer.create_subscription(MarkerArray, MARKERS, lambda _: None, topics.COMMAND)]
    for camera in ("side", "wrist"):
        kept.append(viewer.create_subscription(Image, IMAGE.format(camera=camera), lambda _: None, topics.COMMAND))
    while not all(publisher.get_subscription_count() for publisher in (node._markers, *node._images.values())):
        rclpy.spin_once(viewer, timeout_sec=0.05)
    joints = JointState(name=[f"fr3_joint{number}" for number in range(1, 8)], position=READY.tolist())
    episode, times = read_episode(bag), []
    for seen, command in zip(episode.observations, episode.commands, strict=True):
        tick = Tick(seen.stamp_ns, seen.episode, seen.step)
        observation = serialize_message(observation_to_msg(seen))
        action = serialize_message(command_to_msg(command, tick))
        start = time.perf_counter()
        node._on_observation(deserialize_message(observation, Observation))
        node._on_joints(joints)
        node._on_action(deserialize_message(action, Action))
        times.append(1e3 * (time.perf_counter() - start))
        rclpy.spin_once(viewer, timeout_sec=0)
    return times


def main() -> None:
    """Prints median and 99th percentile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("episode", type=Path)
    episode = parser.parse_args().episode
    rclpy.init()
    times = tick_times_ms(episode)
    rclpy.shutdown()
    print(f"{len(times)} ticks, ms: median {np.median(times):.2f}, 99th percentile {np.percentile(times, 99):.2f}")


if __name__ == "__main__":
    main()
