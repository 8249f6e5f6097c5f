"""From a probability to the binary reward: the task's gates, the threshold, and so many ticks in a row."""

from __future__ import annotations

from conrft_data.config import RewardConfig
from conrft_data.types import Observation, Verdict


def gates_hold(observation: Observation, reward: RewardConfig) -> bool:
    """Whether the gripper is open enough and the tool centre point high enough for success to be possible at all."""
    open_enough = observation.gripper_opening >= reward.min_gripper_opening
    return bool(open_enough and observation.tcp_pose[2] >= reward.min_tcp_height)


class SuccessDecision:
    """Judges one tick after another; one frame that only looks like success decides nothing."""

    def __init__(self, reward: RewardConfig, threshold: float) -> None:
        """``threshold`` is of the classifier; the task's is a lower bound for it."""
        self._reward = reward
        self.threshold = max(threshold, reward.threshold)
        self._episode: int | None = None
        self._step = -1
        self._in_a_row = 0

    def judge(self, observation: Observation, probability: float) -> Verdict:
        """The verdict on this frame; a new episode, a missed step or a failed gate begins the count anew."""
        follows = observation.episode == self._episode and observation.step == self._step + 1
        self._episode, self._step = observation.episode, observation.step
        gates_passed = gates_hold(observation, self._reward)
        counts = gates_passed and probability >= self.threshold
        self._in_a_row = (self._in_a_row if follows else 0) + 1 if counts else 0
        return Verdict(
            probability=probability,
            gates_passed=gates_passed,
            success=self._in_a_row >= self._reward.consecutive,
        )
