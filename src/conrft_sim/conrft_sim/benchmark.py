"""How many ticks a second the simulator node makes in lockstep, with a commander that answers at once."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import Image

from conrft_data import topics


class EchoCommander(Node):
    """Answers each tick, once both images and the pose of its stamp are here, with the pose itself as target."""

    def __init__(self, cameras: Sequence[str] = ("side", "wrist")) -> None:
        super().__init__("echo_commander")
        self.ticks = 0
        self._expected = len(cameras) + 1
        self._seen: dict[tuple[int, int], set[str]] = {}
        self._poses: dict[tuple[int, int], PoseStamped] = {}
        self._answered = (-1, -1)
        self._target = self.create_publisher(PoseStamped, "target_pose", topics.COMMAND)
        self.create_subscription(PoseStamped, "current_pose", self._on_pose, topics.SENSOR)
        for camera in cameras:
            callback = self._on_image(camera)
            self.create_subscription(Image, f"{camera}/color/image_raw", callback, topics.SENSOR)

    def _on_pose(self, message: PoseStamped) -> None:
        self._poses[_key(message)] = message
        self._arrived(_key(message), "pose")

    def _on_image(self, camera: str):  # type: ignore[no-untyped-def]  # a subscription callback
        return lambda message: self._arrived(_key(message), camera)

    def _arrived(self, key: tuple[int, int], what: str) -> None:
        if key <= self._answered:
            return
        seen = self._seen.setdefault(key, set())
        seen.add(what)
        if len(seen) == self._expected:
            self._answered = key
            self._target.publish(self._poses[key])
            self.ticks += 1
            self._seen.clear()
            self._poses.clear()


def measure(seconds: float, *, warm_up: float = 1.0) -> dict[str, float | int]:
    """Runs the simulator node for ``seconds`` after ``warm_up``; raises RuntimeError when no tick comes within 30 s."""
    rclpy.init()
    commander = EchoCommander()
    simulator = subprocess.Popen(
        [sys.executable, "-m", "conrft_sim.nodes.simulator_node", "--ros-args", "-p", "lockstep:=true"],
        stdout=sys.stderr,
    )
    try:
        _spin(commander, lambda: commander.ticks > 0, 30.0)
        if not commander.ticks:
            raise RuntimeError("the simulator made no tick within 30 s")
        _spin(commander, lambda: False, warm_up)
        first, start = commander.ticks, time.perf_counter()
        _spin(commander, lambda: False, seconds)
        elapsed = time.perf_counter() - start
        ticks = commander.ticks - first
    finally:
        simulator.terminate()
        simulator.wait(timeout=10)
        commander.destroy_node()
        rclpy.try_shutdown()
    return {"ticks_per_s": round(ticks / elapsed, 2), "ticks": ticks, "seconds": round(elapsed, 3)}


def _spin(node: Node, done, longest: float) -> None:  # type: ignore[no-untyped-def]  # done: () -> bool
    end = time.perf_counter() + longest
    while not done() and time.perf_counter() < end:
        rclpy.spin_once(node, timeout_sec=0.05)


def _key(message: PoseStamped | Image) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; the last line of stdout is one JSON object."""
    parser = argparse.ArgumentParser(prog="conrft bench sim", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the measurement, s")
    parser.add_argument("--json", action="store_true", help="only the JSON object")
    arguments = parser.parse_args(argv)
    # A graph of its own, so that nothing else answers: tests take domains from 60 on, and above 101 the ports may
    # be taken by outgoing connections.
    os.environ["ROS_DOMAIN_ID"] = str(2 + os.getpid() % 58)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    figures = measure(arguments.seconds)
    if not arguments.json:
        print(f"lockstep: {figures['ticks_per_s']} ticks/s, {figures['ticks_per_s'] / 10:.1f} times real time")
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
