"""Node ``critic``: tells the value of every executed action, while somebody listens. Nothing acts on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from conrft_data import topics
from conrft_data.config import ConfigError, TaskConfig, load_config
from conrft_data.conversion import (
    MessageError,
    command_from_msg,
    observation_from_msg,
    proposal_from_msg,
    tick_of,
)
from conrft_data.node_process import described, diagnostic_array, run
from conrft_data.ticks import Proposal, Tick
from conrft_data.types import Float32, proprioception
from conrft_learner.checkpoints import checkpoints
from conrft_learner.critic_value import CriticValue
from conrft_msgs.msg import Action, Observation, PolicyOutput, Value

_ATTENTION_S = 0.5
_TICKS_KEPT = 20  # for messages of a tick that come in another order

# Best effort: the loop must not send anything twice for this. Not only the newest, because the three messages of one
# tick must meet.
_JOINED = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)


class CriticNode(Node):
    """Joins observation, policy output and action of a tick; a demonstration has no policy output, so no value."""

    def __init__(self, **options: Any) -> None:
        """``options`` go to rclpy's Node."""
        super().__init__("critic", **options)
        task_file = self.declare_parameter("task_file", "", described("YAML file of the task")).value
        about = "run folder of a learner; its newest checkpoint is used"
        run_dir = self.declare_parameter("run_dir", "", described(about)).value
        about = "namespace of the topics, relative to this node's; empty: its own"
        source = self.declare_parameter("source", "", described(about)).value.strip("/")
        if not task_file or not run_dir:
            raise ConfigError(
                "parameters task_file and run_dir must name the task's YAML file and the learner's folder"
            )
        torch.set_num_threads(1)
        self._task = load_config(TaskConfig, Path(task_file))
        self._checkpoints = Path(run_dir).expanduser() / "checkpoints"
        self._prefix = f"{source}/" if source else ""
        self._critic: CriticValue | None = None
        self._loaded: Path | None = None
        self._problem = self._told = ""
        self._proprio: dict[Tick, Float32] = {}
        self._proposals: dict[Tick, Proposal] = {}
        self._listening: list[Subscription] = []
        self._value = self.create_publisher(Value, f"{self._prefix}{topics.VALUE}", topics.TICK)
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
        self.create_timer(_ATTENTION_S, self._attend, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _attend(self) -> None:
        """Listens, and keeps the newest critic, while somebody listens to the value."""
        wanted = bool(self._value.get_subscription_count())
        if wanted:
            self._load_newest()
        if wanted and not self._listening:
            for kind, name, callback in (
                (Observation, topics.OBSERVATION, self._on_observation),
                (PolicyOutput, topics.POLICY_OUTPUT, self._on_proposal),
                (Action, topics.ACTION, self._on_action),
            ):
                topic = f"{self._prefix}{name}"
                self._listening.append(self.create_subscription(kind, topic, callback, _JOINED))
        elif not wanted:
            for subscription in self._listening:
                self.destroy_subscription(subscription)
            self._listening.clear()
        self._report()

    def _load_newest(self) -> None:
        newest = next(reversed(checkpoints(self._checkpoints)), None)
        if newest is None or newest == self._loaded:
            self._problem = "" if newest else f"{self._checkpoints} holds no checkpoint"
            return
        self._loaded = newest
        try:
            self._critic, self._problem = CriticValue(newest, self._task), ""
        except (ValueError, KeyError, RuntimeError) as error:
            self._problem = str(error)

    def _on_observation(self, message: Observation) -> None:
        try:
            self._keep(self._proprio, tick_of(message), proprioception(observation_from_msg(message, {})))
        except MessageError as error:
            self._problem = str(error)

    def _on_proposal(self, message: PolicyOutput) -> None:
        try:
            self._keep(self._proposals, tick_of(message), proposal_from_msg(message))
        except MessageError as error:
            self._problem = str(error)

    def _on_action(self, message: Action) -> None:
        tick = tick_of(message)
        now, proposal = self._proprio.get(tick), self._proposals.get(tick)
        if self._critic is None or now is None or proposal is None:
            return
        if not self._critic.sees(proposal.embedding_fingerprint):
            self._problem = "the policy's embeddings are of another backbone than the critic's"
            return
        before = next(
            (p for t, p in self._proprio.items() if (t.episode, t.step) == (tick.episode, tick.step - 1)), now
        )
        try:
            action = command_from_msg(message).action
        except MessageError as error:
            self._problem = str(error)
            return
        value = Value(header=message.header, episode=tick.episode, step=tick.step, updates=self._critic.updates)
        value.value = self._critic.value(proposal.embedding, np.concatenate([before, now]), action)
        self._value.publish(value)

    @staticmethod
    def _keep(ticks: dict[Tick, Any], tick: Tick, item: object) -> None:
        ticks[tick] = item
        while len(ticks) > _TICKS_KEPT:
            del ticks[next(iter(ticks))]

    def _report(self) -> None:
        if self._problem not in ("", self._told):
            self.get_logger().warning(self._problem)
        self._told = self._problem
        if self._problem:
            level, sentence = DiagnosticStatus.WARN, self._problem
        elif not self._listening:
            level, sentence = DiagnosticStatus.OK, "nobody listens"
        else:
            level, sentence = (
                DiagnosticStatus.OK,
                f"tells values after {self._critic.updates if self._critic else 0} updates",
            )
        self._diagnostics.publish(diagnostic_array(self, level, sentence, {"checkpoint": self._loaded or ""}))


def main() -> None:
    """Entry point."""
    sys.exit(run(CriticNode, "critic"))


if __name__ == "__main__":
    main()
