"""Everybody around the nodes under test: robot, cameras, SpaceMouse, policy and reward, and ROS time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool

from conrft_bringup.chaos.valid_messages import EPISODE, ValidMessages
from conrft_data import topics
from conrft_data.conversion import ns_to_stamp, pose_from_msg, stamp_to_ns, tick_of
from conrft_data.ticks import Tick
from conrft_data.types import ActionSource, Float64, Phase
from conrft_msgs.msg import Action, EpisodeState, Observation

STEP_NS = 10_000_000
DEADMAN_BUTTON = 5
_ABORT_BUTTON = 3  # the supervisor's default
_MS = 1_000_000
_ANSWER_NS = 20 * _MS  # the played policy and reward take so long
_MOVED_M = 1e-6
_WAY = 0.05  # m to either side of the reset pose


@dataclass(frozen=True, slots=True)
class SeenTarget:
    """A target ``(7,)``: when it came and what time it is for, ROS time, ns, and where the arm was measured then."""

    at_ns: int
    stamp_ns: int
    pose: Float64
    measured: Float64


class PlayedWorld(Node):
    """Its attributes are what can go wrong.

    Attributes:
        push: the first six numbers of what the policy proposes; None: it goes to and fro along x.
        hand: twist ``(6,)`` of the SpaceMouse.
        blocked: something holds the arm where it is.
        moves: ROS time, ns, and way ``(3,)``, m, of each target that led the arm on.
        targets: all of them.
        actions: when each Action came, its stamp, both ROS time, ns, and its source.
        words: ROS time, ns, and reason of each HOLD and each warning or error on /diagnostics.
    """

    def __init__(self, valid: ValidMessages, *, plays_policy: bool = True) -> None:
        """``plays_policy``: false where a real policy node takes part."""
        super().__init__("played_world")
        self.valid, self._plays_policy = valid, plays_policy
        self.now_ns = time.time_ns() // STEP_NS * STEP_NS
        self.silent: set[str] = set()
        self.force_n = self.torque_nm = 0.0
        self.deadman = True
        self.abort = self.blocked = False
        self.bad_pose = self.bad_wrench = self.bad_proposal = False
        self.push: Float64 | None = None
        self.hand = np.zeros(6)
        self.phase: Phase | None = None
        self.moves: list[tuple[int, Float64]] = []
        self.targets: list[SeenTarget] = []
        self.actions: list[tuple[int, int, ActionSource]] = []
        self.words: list[tuple[int, str]] = []
        self.followed = self.observed = 0
        self.waits = self.mux_frozen = False
        self._target = valid.pose.copy()
        self._home = valid.pose.copy()
        self._forwards = 1.0
        self._due: list[tuple[int, Tick]] = []
        self._connect()

    def _connect(self) -> None:
        robot = self.valid.robot
        self._periods = {
            **dict.fromkeys([robot.current_pose, robot.twist, robot.wrench, robot.gripper_state], 10 * _MS),
            **dict.fromkeys([camera.topic for camera in robot.cameras.values()], 50 * _MS),
            **dict.fromkeys([topics.SPACENAV_TWIST, topics.SPACENAV_JOY], 30 * _MS),
        }
        self._answers = [topics.REWARD, *([topics.POLICY_OUTPUT] if self._plays_policy else [])]
        probe = Tick(0, EPISODE, 0)
        self._senders = {
            topic: self.create_publisher(
                type(self.valid.make(topic, probe)), topic, topics.TICK if topic in self._answers else 10
            )
            for topic in [*self._periods, *self._answers]
        }
        self._clock = self.create_publisher(Clock, "/clock", 10)
        self.emergency = self.create_publisher(Bool, topics.EMERGENCY_STOP, topics.LATCHED)
        self.create_subscription(PoseStamped, robot.target_pose, self._on_target, topics.TICK)
        self.create_subscription(EpisodeState, topics.EPISODE_STATE, self._on_state, topics.EVERY_STATE)
        self.create_subscription(Observation, topics.OBSERVATION, self._on_observation, topics.TICK)
        self.create_subscription(Action, topics.ACTION, self._on_action, topics.TICK)
        self.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, 100)

    def advance(self) -> None:
        """ROS time goes on by a step; what is due is sent."""
        self.now_ns += STEP_NS
        self._clock.publish(Clock(clock=ns_to_stamp(self.now_ns)))
        if not self.blocked:
            # The arm is where it was told to be, one step later.
            self.valid.pose = self._target
        for topic, period in self._periods.items():
            if topic not in self.silent and self.now_ns % period == 0:
                self._senders[topic].publish(self._spoilt(topic, self.valid.make(topic, Tick(self.now_ns, EPISODE, 0))))
        due, self._due = [t for at, t in self._due if at <= self.now_ns], [d for d in self._due if d[0] > self.now_ns]
        for tick in due:
            self._answer(tick)

    def bring(self, way: Float64) -> None:
        """Somebody takes the arm to another place, ``(3,)`` m from here."""
        self.valid.pose = self.valid.pose + np.concatenate([way, np.zeros(4)])
        self._target = self.valid.pose

    def forget(self) -> None:
        """What is recorded from now on counts."""
        for record in (self.moves, self.actions, self.words):
            record.clear()
        del self.targets[:-1]  # the next motion begins there
        self.followed = 0

    def _spoilt(self, topic: str, message: Any) -> Any:
        robot = self.valid.robot
        if topic == robot.wrench:
            message.wrench.force.z = math.nan if self.bad_wrench else self.force_n
            message.wrench.torque.x = self.torque_nm
        elif topic == robot.current_pose and self.bad_pose:
            message.pose.position.x = math.nan
        elif topic == topics.SPACENAV_TWIST:
            message.linear.x, message.linear.y, message.linear.z = self.hand[:3].tolist()
            message.angular.x, message.angular.y, message.angular.z = self.hand[3:].tolist()
        elif topic == topics.SPACENAV_JOY:
            held = {DEADMAN_BUTTON} if self.deadman else set()
            held |= {_ABORT_BUTTON} if self.abort else set()
            message.buttons = [int(index in held) for index in range(DEADMAN_BUTTON + 1)]
        return message

    def _answer(self, tick: Tick) -> None:
        messages = {topic: self.valid.make(topic, tick) for topic in self._answers if topic not in self.silent}
        if topics.POLICY_OUTPUT in messages:
            messages[topics.POLICY_OUTPUT].action = self._proposal()
        for topic, message in messages.items():
            self._senders[topic].publish(message)
        if self._plays_policy:
            self.waits = topics.POLICY_OUTPUT in messages and not self.mux_frozen

    def _proposal(self) -> list[float]:
        """An action ``(7,)``; the gripper stays open."""
        if self.bad_proposal:
            return [math.nan] * 7
        if self.push is not None:
            return [*self.push.tolist(), 1.0]
        away = self.valid.pose[0] - self._home[0]
        self._forwards = -1.0 if away > _WAY else 1.0 if away < -_WAY else self._forwards
        return [0.3 * self._forwards, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]

    def _on_observation(self, message: Observation) -> None:
        self.observed += 1
        self.waits = self.waits or not self._plays_policy
        self._due.append((stamp_to_ns(message.header.stamp) + _ANSWER_NS, tick_of(message)))

    def _on_target(self, message: PoseStamped) -> None:
        target = pose_from_msg(message.pose, "target_pose")
        if np.linalg.norm(target[:3] - self._target[:3]) > _MOVED_M:
            self.moves.append((self.now_ns, target[:3] - self._target[:3]))
        stamp_ns = stamp_to_ns(message.header.stamp)
        self.targets.append(SeenTarget(self.now_ns, stamp_ns, target, self.valid.pose))
        self._target = target

    def _on_state(self, message: EpisodeState) -> None:
        self.phase = Phase(message.state)

    def _on_action(self, message: Action) -> None:
        self.waits = False
        source = ActionSource(message.source)
        self.followed += source is ActionSource.POLICY
        self.actions.append((self.now_ns, stamp_to_ns(message.header.stamp), source))
        if source is ActionSource.HOLD:
            self.words.append((self.now_ns, f"HOLD: {message.reason}"))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.level[0] in (1, 2):
                self.words.append((self.now_ns, f"{status.name}: {status.message}"))
