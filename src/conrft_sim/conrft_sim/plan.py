"""What a scripted operator wants at a moment, by task: the interface of every task's plan, and the servo they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from conrft_data import rotations
from conrft_data.config import TaskConfig
from conrft_sim.scene_snapshot import SceneSnapshot

Float64 = NDArray[np.float64]
Gripper = Literal["open", "close", "keep"]
Point = tuple[float, float, float]

HALF_TURN = math.pi


@dataclass(frozen=True, kw_only=True)
class PlanStep:
    """What the plan wants now.

    Attributes:
        phase: one of the plan's ``phases``.
        twist: ``(6,)`` base frame, in units of full actions, translation and rotation each at most 1 long.
        gripper: what the gripper should do; ``keep`` where the task has no gripper action.
        ticks_to_go: rough number of ticks to success at full speed; falls while the task advances.
    """

    phase: str
    twist: Float64
    gripper: Gripper
    ticks_to_go: float


class Plan(ABC):
    """State feedback that solves one task: a function of the scene alone, so it goes on from anything left behind.

    Attributes:
        phases: every phase that ``step`` may name, in their usual order.
        aimed: objects whose place a person misjudges by a few millimetres.
        held_opening: largest opening, 0..1, of a closed hand that holds what the task is about.
        astray: corners of a box around its place, m: an object that was put there has the task nearly done.
        look_low, look_high: corners of a box, base frame, m, in which the hand moves freely and touches nothing.
    """

    phases: ClassVar[tuple[str, ...]]
    aimed: tuple[str, ...]
    held_opening: float = 0.47
    astray: tuple[Point, Point] = ((-0.06, -0.06, 0.0), (0.06, 0.06, 0.0))
    look_low: Point
    look_high: Point

    def __init__(self, servo: Servo | None = None) -> None:
        self.servo = servo or Servo()

    @abstractmethod
    def step(self, scene: SceneSnapshot) -> PlanStep:
        """The plan's wish for this moment."""


@dataclass(frozen=True, kw_only=True)
class Servo:
    """Proportional motion towards a place, in units of full actions.

    Attributes:
        translation_scale, rotation_scale: what a full action means for one tick, m and rad.
        gain: share of the remaining error that is asked for in one tick; below 1 because the arm lags behind its
            target.
        max_yaw: how far the hand may turn away from its upright orientation, rad.
    """

    translation_scale: float = 0.03
    rotation_scale: float = 0.15
    gain: float = 0.55
    max_yaw: float = math.inf

    @classmethod
    def for_task(cls, task: TaskConfig) -> Servo:
        """Stays within what the commander lets through."""
        return cls(
            translation_scale=task.action_scale.translation,
            rotation_scale=task.action_scale.rotation,
            max_yaw=0.9 * task.workspace.max_tilt,
        )

    def twist(self, error: Float64, tcp: Float64, yaw_error: float = 0.0) -> Float64:
        """Twist (6,) that takes out a share of the position error (3,) m, the tilt of the hand and the yaw error, rad.

        ``tcp`` (7,) is the tool centre point; the hand is upright when its z axis points down.
        """
        linear = at_most_one(self.gain * error / self.translation_scale)
        tool_axis = rotations.rotate(tcp[3:], [0.0, 0.0, 1.0])
        tilt = np.cross(tool_axis, [0.0, 0.0, -1.0])
        angular = at_most_one(self.gain * (tilt + np.array([0.0, 0.0, yaw_error])) / self.rotation_scale)
        return np.concatenate([linear, angular])

    def yaw_error(self, tcp: Float64, along: Float64, *, symmetry: float = HALF_TURN) -> float:
        """``turn_to`` the x axis of the pose ``along`` (7,)."""
        return self.turn_to(tcp, rotations.rotate(along[3:], [1.0, 0.0, 0.0]), symmetry=symmetry)

    def turn_to(self, tcp: Float64, wanted: Float64, *, symmetry: float = HALF_TURN) -> float:
        """Smallest turn about the vertical, rad, that lays the hand's x axis along the direction ``wanted`` (3,).

        A turn by ``symmetry`` makes no difference to the grasp. The hand stays within ``max_yaw`` of its upright
        orientation, and does not turn far beyond a quarter turn.
        """
        hand = rotations.rotate(tcp[3:], [1.0, 0.0, 0.0])
        hand_yaw, wanted_yaw = math.atan2(hand[1], hand[0]), math.atan2(wanted[1], wanted[0])
        error = (wanted_yaw - hand_yaw + symmetry / 2) % symmetry - symmetry / 2
        if abs(hand_yaw + error) > 0.6 * HALF_TURN:
            error -= math.copysign(symmetry, error)
        return min(self.max_yaw, max(-self.max_yaw, hand_yaw + error)) - hand_yaw


def ideal_action(plan: Plan, scene: SceneSnapshot) -> NDArray[np.float32]:
    """Noise-free action ``(7,)`` in [-1, 1] for this moment, end-effector frame; gripper -1 closed, 1 open, 0 kept."""
    wish = plan.step(scene)
    body = rotations.rotate_blocks(rotations.inverse(scene.tcp_pose[3:]), wish.twist)
    gripper = {"close": -1.0, "open": 1.0, "keep": 0.0}[wish.gripper]
    return np.array([*np.clip(body, -1.0, 1.0), gripper], dtype=np.float32)


def at_most_one(vector: Float64) -> Float64:
    """The vector, shortened to length 1 where it is longer."""
    length = float(np.linalg.norm(vector))
    return vector if length <= 1.0 else vector / length
