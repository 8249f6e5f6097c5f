"""A process that has no business in the graph: it floods what one node hears, or makes ROS time leap.

python bench/stranger.py flood NODE --task-file FILE --robot-file FILE [--seconds 5]
python bench/stranger.py leap --by SECONDS [--seconds 5]

It says "begins" when it does, and at the end how many messages it has sent on each topic, as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from collections import Counter, deque
from pathlib import Path

import numpy as np
import rclpy
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy
from rosgraph_msgs.msg import Clock

from conrft_bringup.chaos.message_mix import MessageMix
from conrft_bringup.chaos.valid_messages import ValidMessages
from conrft_data import topics
from conrft_data.config import RobotConfig, TaskConfig, load_config
from conrft_data.conversion import ns_to_stamp, tick_of
from conrft_data.ticks import Tick
from conrft_msgs.msg import Action

DISCOVERY_S = 15.0
POOL = 64  # newest messages of a topic, any of which may be sent again
CREDIBLE_NS = 10_000_000_000
BURST = 8  # messages from the pool for each new one


class Stranger(Node):
    """Follows the ticks, so that what it says looks as if it belonged here."""

    def __init__(self) -> None:
        super().__init__("stranger")
        self.tick = Tick(0, 0, 0)
        self.create_subscription(Action, topics.ACTION, self._on_action, topics.TICK)

    def listen(self) -> None:
        """Hears what has come."""
        rclpy.spin_once(self, timeout_sec=0.0)

    def subscriptions_of(self, victim: str) -> list[str]:
        """The topics that ``victim`` hears; waits until they are known."""
        until = time.monotonic() + DISCOVERY_S
        while time.monotonic() < until:
            rclpy.spin_once(self, timeout_sec=0.1)
            if victim in self.get_node_names() and self.tick.stamp_ns:
                return [name for name, _ in self.get_subscriber_names_and_types_by_node(victim, "/")]
        raise SystemExit(f"stranger: no {victim} within {DISCOVERY_S:.0f} s, or no Action")

    def _on_action(self, message: Action) -> None:
        tick = tick_of(message)
        # It hears itself too, and must not believe in the other times that it makes up.
        if not self.tick.stamp_ns or abs(tick.stamp_ns - self.tick.stamp_ns) < CREDIBLE_NS:
            self.tick = tick


def flood(node: Stranger, victim: str, valid: ValidMessages, seconds: float, seed: int) -> Counter[str]:
    """Sends on all topics of ``victim`` as fast as it can."""
    heard = {topic.lstrip("/") for topic in node.subscriptions_of(victim)}
    own = [topic for topic in valid.topics if topic.lstrip("/") in heard]
    senders = {topic: make_sender(node, topic, valid) for topic in own}
    mix, dice = MessageMix(valid, np.random.default_rng(seed), seed), random.Random(seed)
    pools: dict[str, deque[bytes]] = {topic: deque(maxlen=POOL) for topic in own}
    sent: Counter[str] = Counter()
    while not all(sender.get_subscription_count() for sender in senders.values()):
        node.listen()
    print("begins", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        node.listen()
        for topic, sender in senders.items():
            pools[topic].append(mix.serialized(mix.make(topic, node.tick)))
            for raw in (pools[topic][-1], *dice.choices(pools[topic], k=BURST)):
                # Where a subscriber that acknowledges does not follow, the middleware refuses to send more.
                with contextlib.suppress(rclpy_implementation.RCLError):
                    sender.publish(raw)
                    sent[topic] += 1
    return sent


def make_sender(node: Stranger, topic: str, valid: ValidMessages) -> Publisher:
    """A publisher that matches every subscription of ``topic``."""
    latched = DurabilityPolicy.TRANSIENT_LOCAL
    wanted = {subscription.qos_profile.durability for subscription in node.get_subscriptions_info_by_topic(topic)}
    profile = topics.LATCHED if latched in wanted else topics.TICK
    return node.create_publisher(type(valid.make(topic, node.tick)), topic, profile)


def leap(node: Stranger, by_s: float, seconds: float) -> Counter[str]:
    """Says again and again that it is another time; whoever makes the time contradicts with each tick."""
    sender = node.create_publisher(Clock, "/clock", 10)
    while not (sender.get_subscription_count() and node.tick.stamp_ns):
        rclpy.spin_once(node, timeout_sec=0.1)
    print("begins", flush=True)
    sent: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        node.listen()
        sender.publish(Clock(clock=ns_to_stamp(max(0, node.tick.stamp_ns + round(by_s * 1e9)))))
        sent["/clock"] += 1
        time.sleep(0.005)
    return sent


def main() -> int:
    """Does one of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    flooding, leaping = commands.add_parser("flood"), commands.add_parser("leap")
    flooding.add_argument("node")
    flooding.add_argument("--task-file", type=Path, required=True)
    flooding.add_argument("--robot-file", type=Path, required=True)
    flooding.add_argument("--seed", type=int, default=0)
    leaping.add_argument("--by", type=float, required=True, help="s, negative: backwards")
    for command in (flooding, leaping):
        command.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    rclpy.init()
    node = Stranger()
    if args.what == "flood":
        valid = ValidMessages(load_config(TaskConfig, args.task_file), load_config(RobotConfig, args.robot_file), 0)
        sent = flood(node, args.node, valid, args.seconds, args.seed)
    else:
        sent = leap(node, args.by, args.seconds)
    print(json.dumps(sent), flush=True)
    node.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
