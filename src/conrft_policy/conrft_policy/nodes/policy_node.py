"""Node ``policy``: answers each Observation with the action of the newest weights."""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from pathlib import Path

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.timer import Timer

from conrft_data import topics
from conrft_data.config import ConfigError, TaskConfig, load_config
from conrft_data.conversion import MessageError, observation_from_msg, proposal_to_msg, tick_of
from conrft_data.node_process import described, diagnostic_array, run
from conrft_data.ticks import Proposal, Tick
from conrft_msgs.msg import LearnerStatus, Observation, PolicyOutput, Weights
from conrft_policy.acting import Actor, CannotAct, WeightsChange
from conrft_policy.backbone import load_backbone
from conrft_policy.policy_weights import PolicyWeights, WeightsRefused, load

DIAGNOSTICS_PERIOD_S = 1.0


class PolicyNode(Node):
    """Subscribes ``observation`` and ``weights``, publishes ``policy_output``. Without weights it publishes nothing."""

    def __init__(self) -> None:
        super().__init__("policy")
        self._declare_parameters()
        self._task = self._load_task()
        self._wait_s = self._value("wait_for_weights")
        if self._value("threads"):
            torch.set_num_threads(self._value("threads"))
        device = self._value("device") or None
        self._backbone = load_backbone(self._value("backbone"), self._task.instruction, device=device)
        self._actor = Actor(
            self._backbone,
            None,
            self._task,
            self._value("seed"),
            deterministic=self._value("deterministic"),
            allowed_change=WeightsChange(warn=self._value("weights_warn"), refuse=self._value("weights_refuse")),
            device=device,
        )
        self._last: Tick | None = None
        self._weights_sha256 = ""
        self._announced_version = 0
        # Steady time, because simulated time may stand still while somebody wants to know why.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._postponed: tuple[Observation, float] | None = None
        self._guard: Timer | None = None
        self._skipped = self._unanswered = 0
        self._reason = self._refusal = ""
        self._times_s: deque[float] = deque(maxlen=100)
        if self._value("checkpoint"):
            self._take(load(self._value("checkpoint")))
        self._actor.warm_up()
        self._connect()

    def _declare_parameters(self) -> None:
        declare = self.declare_parameter
        declare("task_file", "", described("YAML file of the task"))
        declare("backbone", "octo-nano", described("name of a shipped backbone, or folder of another"))
        declare("checkpoint", "", described("weights to start with: safetensors file or folder; empty: wait for them"))
        declare("seed", 0, described("of the action noise", integers=(0, 2**32 - 1)))
        declare("device", "", described("torch device, such as cpu or cuda:0; empty: torch's default"))
        declare("threads", 1, described("threads of torch on the CPU; 0: torch's default", integers=(0, 256)))
        declare("deterministic", False, described("act without noise; the published policy never does"))
        change, default = (
            "mean change of the newest actions, in full actions, beyond which new weights",
            WeightsChange(),
        )
        declare("weights_warn", default.warn, described(f"{change} are flagged", numbers=(0.001, 2.0)))
        declare("weights_refuse", default.refuse, described(f"{change} are refused", numbers=(0.001, 2.0)))
        wait = "hold an episode's first answer back until weights that the learner has announced are here, at most s"
        declare("wait_for_weights", 0.0, described(wait, numbers=(0.0, 60.0)))

    def _connect(self) -> None:
        self._output = self.create_publisher(PolicyOutput, topics.POLICY_OUTPUT, topics.TICK)
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
        # Weights before observations: where both wait, the executor takes them in this order.
        self.create_subscription(Weights, topics.WEIGHTS, self._on_weights, topics.LATCHED)
        self.create_subscription(LearnerStatus, topics.LEARNER_STATUS, self._on_learner_status, topics.LATCHED)
        # Reliable, because one lost fragment of an image costs a whole tick; depth one, because the answer to an old
        # observation is worth nothing: of two that wait, the older is dropped (and counted by its step).
        self.create_subscription(Observation, topics.OBSERVATION, self._on_observation, topics.COMMAND)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._report, clock=self._steady)
        self._report()

    def _value(self, name: str):  # type: ignore[no-untyped-def]  # the type is the parameter's
        return self.get_parameter(name).value

    def _load_task(self) -> TaskConfig:
        if not self._value("task_file"):
            raise ConfigError("parameter task_file is empty: it must name the YAML file of the task")
        return load_config(TaskConfig, Path(self._value("task_file")))

    def _on_weights(self, message: Weights) -> None:
        weights = PolicyWeights(
            version=message.version,
            fingerprint=message.fingerprint,
            sha256=message.sha256,
            data=bytes(message.data),
        )
        if weights.sha256 == self._weights_sha256:
            return
        try:
            self._take(weights)
        except WeightsRefused as error:
            self._refusal = str(error)
            self.get_logger().error(f"{error}; version {self._actor.weights_version} stays")
        self._answer_postponed()
        self._report()

    def _take(self, weights: PolicyWeights) -> None:
        """Swaps the weights: between two ticks, because one thread executes all callbacks. It takes about 4 ms."""
        self._actor.set_weights(weights)
        self._weights_sha256, self._refusal = weights.sha256, ""
        self.get_logger().info(f"acts with weights version {weights.version}")

    def _on_learner_status(self, message: LearnerStatus) -> None:
        self._announced_version = message.weights_version

    def _on_observation(self, message: Observation) -> None:
        self._answer_postponed()
        late = self._actor.weights_version < self._announced_version and not self._refusal
        if message.step == 0 and self._wait_s > 0 and late:
            self._postponed = (message, time.monotonic())
            self._guard = self.create_timer(self._wait_s, self._answer_postponed, clock=self._steady)
            return
        self._answer(message)

    def _answer_postponed(self) -> None:
        if self._postponed is None:
            return
        message, since = self._postponed
        self._postponed = None
        if self._guard is not None:
            self.destroy_timer(self._guard)
        waited = time.monotonic() - since
        if self._actor.weights_version < self._announced_version:
            self.get_logger().warning(f"weights version {self._announced_version} did not come within {waited:.1f} s")
        self._answer(message)

    def _answer(self, message: Observation) -> None:
        start = time.perf_counter()
        tick = tick_of(message)
        self._count_skipped(tick)
        try:
            cameras = {name: (camera.width, camera.height) for name, camera in self._task.cameras.items()}
            action, embedding = self._actor.act(observation_from_msg(message, cameras))
        except (CannotAct, MessageError) as error:
            self._unanswered += 1
            if str(error) != self._reason:
                self._reason = str(error)
                self.get_logger().error(f"no action, the arm holds: {error}")
                self._report()
            return
        self._reason = ""
        self._times_s.append(time.perf_counter() - start)
        proposal = Proposal(
            action=action,
            embedding=embedding,
            embedding_fingerprint=self._backbone.fingerprint,
            weights_version=self._actor.weights_version,
            inference_time=self._times_s[-1],
        )
        self._output.publish(proposal_to_msg(proposal, tick, message.header.frame_id))

    def _count_skipped(self, tick: Tick) -> None:
        """Counts observations that were replaced in the queue by a newer one of the same episode."""
        last = self._last
        if last is not None and last.episode == tick.episode and tick.step > last.step + 1:
            self._skipped += tick.step - last.step - 1
        self._last = tick

    def _report(self) -> None:
        level, sentence = self._health()
        values = {
            "weights_version": self._actor.weights_version,
            "announced_version": self._announced_version,
            "backbone": self._backbone.fingerprint,
            "refused_weights": self._refusal,
            "weights_change": f"{self._actor.last_change:.3f}",
            "skipped_observations": self._skipped,
            "unanswered_observations": self._unanswered,
            "inference_ms_median": f"{1e3 * statistics.median(self._times_s):.1f}" if self._times_s else "",
            "inference_ms_max": f"{1e3 * max(self._times_s):.1f}" if self._times_s else "",
        }
        self._diagnostics.publish(diagnostic_array(self, level, sentence, values))

    def _health(self) -> tuple[bytes, str]:
        if not self._actor.ready:
            return (
                DiagnosticStatus.ERROR,
                f"no weights: no action, the arm holds{self._refusal and ': ' + self._refusal}",
            )
        if self._reason:
            return DiagnosticStatus.ERROR, f"no action, the arm holds: {self._reason}"
        if self._refusal:
            return (
                DiagnosticStatus.WARN,
                f"acts with weights version {self._actor.weights_version}; refused: {self._refusal}",
            )
        if flagged := self._actor.flagged:
            return DiagnosticStatus.WARN, flagged
        return DiagnosticStatus.OK, f"acts with weights version {self._actor.weights_version}"


def main() -> None:
    """Entry point."""
    sys.exit(run(PolicyNode, "policy"))


if __name__ == "__main__":
    main()
