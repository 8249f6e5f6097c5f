"""Node ``reward``: judges each Observation with the success classifier."""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from conrft_data import topics
from conrft_data.config import ConfigError, TaskConfig, load_config
from conrft_data.conversion import MessageError, observation_from_msg, tick_of, verdict_to_msg
from conrft_data.node_process import described, diagnostic_array, run
from conrft_data.types import Image
from conrft_msgs.msg import Observation, Reward
from conrft_reward.classifier import SuccessClassifier, camera_sizes
from conrft_reward.decision import SuccessDecision

DIAGNOSTICS_PERIOD_S = 1.0


class RewardNode(Node):
    """Subscribes ``observation``, publishes ``reward``.

    The classifier runs on every frame, not only where the gates hold: it costs about 3 ms on one core, and a person who
    watches the probability rise and fall sees a false positive coming before it ends an episode.
    """

    def __init__(self) -> None:
        super().__init__("reward")
        self._declare_parameters()
        self._task = self._load_task()
        if self._value("threads"):
            torch.set_num_threads(self._value("threads"))
        self._classifier = SuccessClassifier.load(self._value("classifier"))
        self._classifier.check_task(self._task)
        self._classifier.to(self._value("device") or torch.get_default_device())
        threshold = self._value("threshold") or self._classifier.config.threshold
        self._decision = SuccessDecision(self._task.reward, threshold)
        self._times_s: deque[float] = deque(maxlen=100)
        self._reason = ""
        self._unanswered = 0
        self._warm_up()
        self._connect()
        self.get_logger().info(f"judges with threshold {self._decision.threshold:.3f}")

    def _declare_parameters(self) -> None:
        declare = self.declare_parameter
        declare("task_file", "", described("YAML file of the task"))
        declare("classifier", "", described("safetensors file of the success classifier"))
        raised = "probability that counts as success; never below the task's; 0: the classifier's own"
        declare("threshold", 0.0, described(raised, numbers=(0.0, 1.0)))
        declare("device", "", described("torch device, such as cpu or cuda:0; empty: torch's default"))
        declare("threads", 1, described("threads of torch on the CPU; 0: torch's default", integers=(0, 256)))

    def _connect(self) -> None:
        self._rewards = self.create_publisher(Reward, topics.REWARD, topics.TICK)
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
        # All ticks, in order: a missed one would break the count of successes in a row.
        self.create_subscription(Observation, topics.OBSERVATION, self._on_observation, topics.TICK)
        # Steady time, because simulated time may stand still while somebody wants to know why.
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._report()

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _load_task(self) -> TaskConfig:
        for name in ("task_file", "classifier"):
            if not self._value(name):
                raise ConfigError(f"parameter {name} is empty: it must name a file")
        return load_config(TaskConfig, Path(self._value("task_file")))

    def _warm_up(self) -> None:
        sizes = camera_sizes(self._task)
        black: dict[str, Image] = {name: np.zeros((h, w, 3), dtype=np.uint8) for name, (w, h) in sizes.items()}
        self._classifier.probabilities(torch.from_numpy(self._classifier.thumbnails(black))[None])

    def _on_observation(self, message: Observation) -> None:
        start = time.perf_counter()
        try:
            observation = observation_from_msg(message, camera_sizes(self._task))
        except MessageError as error:
            self._unanswered += 1
            if str(error) != self._reason:
                self._reason = str(error)
                self.get_logger().error(f"no verdict: {error}")
                self._report()
            return
        self._reason = ""
        verdict = self._decision.judge(observation, self._classifier.probability(observation))
        self._rewards.publish(verdict_to_msg(verdict, tick_of(message), message.header.frame_id))
        self._times_s.append(time.perf_counter() - start)

    def _report(self) -> None:
        values = {
            "threshold": f"{self._decision.threshold:.3f}",
            "unanswered_observations": self._unanswered,
            "judging_ms_median": f"{1e3 * statistics.median(self._times_s):.1f}" if self._times_s else "",
            "judging_ms_max": f"{1e3 * max(self._times_s):.1f}" if self._times_s else "",
        }
        sentence = f"no verdict: {self._reason}" if self._reason else "judges every tick"
        level = DiagnosticStatus.ERROR if self._reason else DiagnosticStatus.OK
        self._diagnostics.publish(diagnostic_array(self, level, sentence, values))


def main() -> None:
    """Entry point."""
    sys.exit(run(RewardNode, "reward"))


if __name__ == "__main__":
    main()
