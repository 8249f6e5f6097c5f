"""What an observation, an action, a transition and an episode are.

Units are SI, frames follow REP-103; poses are ``(7,)`` float64 x, y, z, qx, qy, qz, qw in the robot's base frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from conrft_data import rotations

ACTION_DIM = 7
PROPRIOCEPTION_DIM = 19
MESSAGE_VERSION = 1
CAMERAS = ("side", "wrist")

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Image = NDArray[np.uint8]


class ActionSource(IntEnum):
    """Who moved the arm; the numbers are those of ``conrft_msgs/Action``."""

    HOLD = 0
    POLICY = 1
    OPERATOR = 2


class Outcome(IntEnum):
    """How an episode ended; the numbers are those of ``conrft_msgs/EpisodeState``."""

    NONE = 0
    SUCCESS = 1
    TIMEOUT = 2
    ABORTED = 3
    FAULT = 4


class Mode(IntEnum):
    """Why an episode is run; the numbers are those of ``conrft_msgs/EpisodeState``."""

    DEMONSTRATION = 0
    TRAINING = 1
    EVALUATION = 2


class Phase(IntEnum):
    """State of the episode supervisor; the numbers are those of ``conrft_msgs/EpisodeState``."""

    RESETTING = 0
    READY = 1
    RUNNING = 2
    ENDED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What the robot saw and felt at one tick.

    Attributes:
        stamp_ns: ROS time of the tick.
        episode: number of the episode in its session, from 1.
        step: tick of the episode, from 0.
        images: uint8 RGB ``(H, W, 3)`` by camera name.
        tcp_pose: ``(7,)`` measured tool centre point, base frame.
        reset_pose: ``(7,)`` measured tool centre point at step 0.
        tcp_twist: ``(6,)`` linear m/s, angular rad/s, base frame.
        tcp_wrench: ``(6,)`` force N, torque N m, stiffness frame.
        gripper_opening: 0 closed .. 1 open.
    """

    stamp_ns: int
    episode: int
    step: int
    images: Mapping[str, Image]
    tcp_pose: Float64
    reset_pose: Float64
    tcp_twist: Float64
    tcp_wrench: Float64
    gripper_opening: float


def proprioception(observation: Observation) -> Float32:
    """Proprioceptive state ``(19,)`` in the official code's alphabetical order.

    Gripper opening 1, tcp force 3, tcp pose 6 (xyz and euler xyz relative to the reset pose), tcp torque 3, tcp
    velocity 6 (in the end-effector frame). The pose is ``inv(T_reset) T``, so that the policy does not depend on where
    in the workspace the task stands.
    """
    pose = rotations.relative_pose(observation.reset_pose, observation.tcp_pose)
    velocity = rotations.rotate_blocks(rotations.inverse(observation.tcp_pose[3:]), observation.tcp_twist)
    return np.concatenate(
        [
            [observation.gripper_opening],
            observation.tcp_wrench[:3],
            pose[:3],
            rotations.to_euler_xyz(pose[3:]),
            observation.tcp_wrench[3:],
            velocity,
        ]
    ).astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What was commanded at one tick.

    Attributes:
        action: ``(7,)`` in [-1, 1], translation and rotation in the end-effector frame, gripper last; as executed.
        source: who moved the arm.
        proposal: ``(7,)`` what the policy wanted, None when it did not answer in time.
        reason: why the arm held still; empty unless source is HOLD.
    """

    action: Float32
    source: ActionSource
    proposal: Float32 | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The success classifier's judgement of one frame: probability 0..1, whether the gates hold, and the decision."""

    probability: float
    gates_passed: bool
    success: bool


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One recorded episode with final step T: T transitions between T+1 observations.

    Attributes:
        episode_id: unique name, also the name of the bag.
        task: name of the task.
        instruction: the task's language instruction.
        mode: why it was run.
        outcome: how it ended, after relabelling.
        final_step: T, the step of the last observation that belongs to a transition.
        observations: T+1 observations, steps 0..T.
        commands: T+1 commands, one for each observation; the last one leads nowhere.
        tail: observations after the final step, which show its outcome only.
        verdicts: by step, where a reward node judged.
        embeddings: ``(T+1, D)`` of the acting policy's backbone, or None.
        embedding_fingerprint: of the backbone that made them; empty without embeddings.
        recorded_outcome: how it ended before relabelling.
        weights_versions: by step, version of the policy's weights, where a policy proposed.
    """

    episode_id: str
    task: str
    instruction: str
    mode: Mode
    outcome: Outcome
    final_step: int
    observations: list[Observation]
    commands: list[Command]
    tail: list[Observation] = field(default_factory=list)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    embeddings: Float32 | None = None
    embedding_fingerprint: str = ""
    recorded_outcome: Outcome = Outcome.NONE
    weights_versions: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of transitions."""
        return self.final_step

    def rewards(self, success: float, step: float) -> Float32:
        """Rewards ``(T,)`` of the transitions: ``success`` for the one that reached it, ``step`` for all others."""
        rewards = np.full(self.final_step, step, dtype=np.float32)
        if self.outcome is Outcome.SUCCESS and self.final_step:
            rewards[-1] = success
        return rewards

    def terminated(self) -> NDArray[np.bool_]:
        """``(T,)``: true only where success ended the episode; any other end is a truncation and bootstraps."""
        terminated = np.zeros(self.final_step, dtype=np.bool_)
        if self.outcome is Outcome.SUCCESS and self.final_step:
            terminated[-1] = True
        return terminated

    def actions(self) -> Float32:
        """Executed actions ``(T, 7)``."""
        return np.stack([c.action for c in self.commands[: self.final_step]]).astype(np.float32)

    def interventions(self) -> NDArray[np.bool_]:
        """``(T,)``: true where the operator moved the arm."""
        return np.array([c.source is ActionSource.OPERATOR for c in self.commands[: self.final_step]], dtype=np.bool_)
