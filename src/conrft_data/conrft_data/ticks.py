"""What the nodes say about one tick besides the observation, the command and the verdict.

Its key, the policy's proposal, the episode's state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from conrft_data.types import Float32, Mode, Outcome, Phase


class Tick(NamedTuple):
    """Key that everything said about one tick shares.

    Attributes:
        stamp_ns: ROS time of the observation.
        episode: number of the episode in its session, from 1.
        step: tick of the episode, from 0.
    """

    stamp_ns: int
    episode: int
    step: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What the policy proposes for one tick.

    Attributes:
        action: ``(7,)`` in [-1, 1].
        embedding: ``(D,)`` frozen backbone embedding that the action was computed from.
        embedding_fingerprint: of the backbone and the instruction.
        weights_version: of the trainable part.
        inference_time: s.
    """

    action: Float32
    embedding: Float32
    embedding_fingerprint: str
    weights_version: int
    inference_time: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeStatus:
    """State of the episode supervisor, as in ``conrft_msgs/EpisodeState``.

    Attributes:
        stamp_ns: when the state was entered, ROS time.
        phase, outcome, mode: where the episode is, how it ended, why it is run.
        episode: number in the session, from 1.
        final_step: last step that belongs to the transitions; 0 until the episode has ended.
        episode_id: unique name, also of the bag.
        task, instruction: name of the task and its language instruction.
        message_version: of the writer.
        reason: one sentence for a person, on an abort or a fault.
    """

    stamp_ns: int
    phase: Phase
    outcome: Outcome
    mode: Mode
    episode: int
    final_step: int
    episode_id: str
    task: str
    instruction: str
    message_version: int
    reason: str = ""
