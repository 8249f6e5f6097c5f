"""A scripted person at the SpaceMouse: a plan that acts from any state, and human habits around it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from conrft_data import rotations
from conrft_data.config import TaskConfig
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.tasks.pick_banana import BANANA_RADIUS, CLEAR_HEIGHT, PLATE_THICKNESS

Float64 = NDArray[np.float64]
OperatorMode = Literal["demonstrate", "intervene", "judge"]

_HALF_TURN = math.pi


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """How the plan moves. Lengths in metres, angles in radians.

    Attributes:
        translation_scale, rotation_scale: what a full action means for one tick.
        gain: share of the remaining error that is asked for in one tick; below 1 because the arm lags behind its
            target.
        hover: height above the grasp at which the hand flies while it is not yet above the banana.
        carry: height of the carried banana above its place on the plate.
        aligned: horizontal distance below which the hand goes straight down.
        grasp_tolerance, height_tolerance, yaw_tolerance: how exactly the hand is placed before it closes.
        place_radius: distance from the plate's middle within which the banana is let go.
        held_opening: largest opening of a hand that holds the banana; empty_opening: smallest.
        retreat: height of the tool centre point at which the hand has left.
        max_yaw: how far the hand may turn away from its upright orientation; a banana turned farther is gripped askew.
    """

    translation_scale: float = 0.03
    rotation_scale: float = 0.15
    gain: float = 0.55
    hover: float = 0.07
    carry: float = 0.055
    aligned: float = 0.015
    grasp_tolerance: float = 0.010
    height_tolerance: float = 0.008
    yaw_tolerance: float = 0.12
    place_radius: float = 0.035
    held_opening: float = 0.47
    empty_opening: float = 0.30
    retreat: float = CLEAR_HEIGHT + 0.03
    max_yaw: float = math.inf

    @classmethod
    def for_task(cls, task: TaskConfig) -> PlanSettings:
        """Settings that stay within what the commander lets through, and clear the task's gates."""
        return cls(
            translation_scale=task.action_scale.translation,
            rotation_scale=task.action_scale.rotation,
            retreat=max(task.reward.min_tcp_height, 0.0) + 0.03,
            max_yaw=0.9 * task.workspace.max_tilt,
        )


@dataclass(frozen=True, kw_only=True)
class PlanStep:
    """What the plan wants now.

    Attributes:
        phase: ``reach``, ``carry``, ``release``, ``retreat`` or ``done``.
        twist: ``(6,)`` base frame, in units of full actions, translation and rotation each at most 1 long.
        close: whether the gripper should be closed, otherwise open.
        ticks_to_go: rough number of ticks to success at full speed; falls while the task advances.
    """

    phase: str
    twist: Float64
    close: bool
    ticks_to_go: float


class PickAndPlacePlan:
    """State feedback for "put the banana on the plate".

    The phase is read from the scene, so the plan goes on from anything that a policy left behind.
    """

    def __init__(self, settings: PlanSettings | None = None) -> None:
        self.settings = settings or PlanSettings()

    def step(self, scene: SceneSnapshot) -> PlanStep:
        """The plan's wish for this moment."""
        s, tcp, banana, plate = self.settings, scene.tcp_pose, scene.objects["banana"], scene.objects["plate"]
        rest = plate[2] + PLATE_THICKNESS + BANANA_RADIUS  # height of the banana when it lies on the plate
        to_plate = float(np.linalg.norm(banana[:2] - plate[:2]))
        to_tool = float(np.linalg.norm(banana[:3] - tcp[:3]))
        if (
            to_plate < s.place_radius + (0.025 if scene.gripper_opening > s.held_opening else 0.0)
            and banana[2] < rest + 0.010
        ):
            return self._leave(scene, beside=to_tool < 0.06)
        if to_tool < 0.035 and s.empty_opening < scene.gripper_opening < s.held_opening:
            return self._carry(scene, rest)
        return self._reach(scene, to_plate)

    def _reach(self, scene: SceneSnapshot, to_plate: float) -> PlanStep:
        """Fly above the banana, turn with it, sink and close."""
        s, tcp, banana = self.settings, scene.tcp_pose, scene.objects["banana"]
        yaw_error = _yaw_to_banana(tcp, banana, s.max_yaw)
        away = float(np.linalg.norm(banana[:2] - tcp[:2]))
        above = tcp[2] - banana[2]
        near = away < s.grasp_tolerance and above < s.height_tolerance and abs(yaw_error) < s.yaw_tolerance
        closing = scene.gripper_opening < 0.97 and away < 2 * s.grasp_tolerance and above < 2 * s.height_tolerance
        close = near or (closing and scene.gripper_opening > s.empty_opening and abs(yaw_error) < 2 * s.yaw_tolerance)
        # A funnel: the farther from the spot above the banana, the higher; and wide open before going in.
        unready = max(0.0, away - s.aligned) + 0.12 * max(0.0, abs(yaw_error) - s.yaw_tolerance)
        opening_left = 0.0 if close else max(0.0, 0.9 - scene.gripper_opening)
        height = min(s.hover, 1.2 * unready + 0.08 * opening_left)
        goal = np.array([banana[0], banana[1], banana[2] + height])
        error = goal - tcp[:3]
        if above < 0.5 * s.hover and away > 0.05:
            error[:2] *= 0.15  # rise first: the way is not free down here
        path = away + abs(above - height) + height + to_plate + 2 * s.carry + s.retreat
        ticks = path / s.translation_scale + 9.0 + 8.0 * opening_left + abs(yaw_error) / s.rotation_scale
        return PlanStep(phase="reach", twist=self._twist(error, tcp, yaw_error), close=close, ticks_to_go=ticks)

    def _carry(self, scene: SceneSnapshot, rest: float) -> PlanStep:
        """Lift, move above the plate and lower."""
        s, tcp, banana, plate = self.settings, scene.tcp_pose, scene.objects["banana"], scene.objects["plate"]
        offset = plate[:2] - banana[:2]
        away = float(np.linalg.norm(offset))
        height = min(s.carry, 1.2 * max(0.0, away - s.aligned))
        up = rest + height - banana[2]
        error = np.array([*offset, up])
        free = np.clip((banana[2] - rest + 0.002) / 0.03, 0.0, 1.0) if away > s.place_radius else 1.0
        error[:2] *= free  # no dragging along the table or against the rim
        lift_left = max(0.0, height + rest - banana[2])
        ticks = (away + lift_left + max(0.0, banana[2] - rest) + s.retreat) / s.translation_scale + 4.0
        return PlanStep(phase="carry", twist=self._twist(error, tcp, 0.0), close=True, ticks_to_go=ticks)

    def _leave(self, scene: SceneSnapshot, *, beside: bool) -> PlanStep:
        """Open where the banana lies well, then go straight up."""
        s, tcp = self.settings, scene.tcp_pose
        up = s.retreat - tcp[2]
        ticks = max(0.0, up) / s.translation_scale + 5.0 * max(0.0, 0.9 - scene.gripper_opening)
        if scene.success and up <= 0.01:
            return PlanStep(phase="done", twist=np.zeros(6), close=False, ticks_to_go=0.0)
        if beside and scene.gripper_opening < 0.62:
            return PlanStep(
                phase="release", twist=self._twist(np.zeros(3), tcp, 0.0), close=False, ticks_to_go=ticks + 1.0
            )
        return PlanStep(
            phase="retreat",
            twist=self._twist(np.array([0.0, 0.0, up + 0.02]), tcp, 0.0),
            close=False,
            ticks_to_go=ticks,
        )

    def _twist(self, error: Float64, tcp: Float64, yaw_error: float) -> Float64:
        """Twist (6,) of full actions that takes out a share of the position error (3,), the tilt and the yaw error."""
        s = self.settings
        linear = _at_most_one(s.gain * error / s.translation_scale)
        tool_axis = rotations.rotate(tcp[3:], [0.0, 0.0, 1.0])
        tilt = np.cross(tool_axis, [0.0, 0.0, -1.0])
        angular = _at_most_one(s.gain * (tilt + np.array([0.0, 0.0, yaw_error])) / s.rotation_scale)
        return np.concatenate([linear, angular])


def ideal_action(scene: SceneSnapshot, settings: PlanSettings | None = None) -> NDArray[np.float32]:
    """Noise-free action ``(7,)`` in [-1, 1] for this moment, end-effector frame, gripper -1 closed or 1 open."""
    wish = PickAndPlacePlan(settings).step(scene)
    body = rotations.rotate_blocks(rotations.inverse(scene.tcp_pose[3:]), wish.twist)
    return np.array([*np.clip(body, -1.0, 1.0), -1.0 if wish.close else 1.0], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class OperatorHabits:
    """How a person differs from the plan, and when the person takes over.

    Attributes:
        speed_low, speed_high: share of full speed, drawn anew for every episode.
        noise: standard deviation of the hand's smooth error, in full actions; noise_ticks: its correlation time, ticks.
        aim_spread: standard deviation of the misjudged position of banana and plate, m, drawn for every episode.
        pause_probability: of starting a pause at a tick; pause_ticks: longest pause.
        stall_ticks: ticks without progress before a take-over; progress: smallest gain, ticks to go, that counts as
            progress.
        lost_ticks: a rise of the ticks to go above the best so far at which the operator takes over at once.
        max_ticks, min_ticks: longest and shortest take-over, ticks.
        gain_ticks: the operator lets go after min_ticks when the task has advanced by so many ticks to go.
        negative_episodes: the first so many demonstrations are none: the hand looks about, touches nothing and aborts
            after look_about_ticks; they show the reward classifier what no success looks like.
        look_low, look_high: corners of the box in which the hand looks about, base frame, m.
        hold_buttons: whether the gripper button stays pressed while the operator moves, so that every tick says what
            the gripper should do.
    """

    speed_low: float = 0.50
    speed_high: float = 0.80
    noise: float = 0.20
    noise_ticks: float = 4.0
    aim_spread: float = 0.003
    pause_probability: float = 0.03
    pause_ticks: int = 3
    stall_ticks: int = 12
    progress: float = 0.7
    lost_ticks: float = 12.0
    max_ticks: int = 30
    min_ticks: int = 8
    gain_ticks: float = 14.0
    hold_buttons: bool = True
    negative_episodes: int = 0
    look_about_ticks: int = 60
    look_low: tuple[float, float, float] = (0.35, -0.20, CLEAR_HEIGHT + 0.02)
    look_high: tuple[float, float, float] = (0.60, 0.20, CLEAR_HEIGHT + 0.14)


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorInput:
    """One moment of the device.

    Attributes:
        twist: ``(6,)`` base frame, in [-1, 1]; 1 is a full action.
        close, open, success, abort: whether the button is pressed.
    """

    twist: Float64 = field(default_factory=lambda: np.zeros(6))
    close: bool = False
    open: bool = False
    success: bool = False
    abort: bool = False

    @property
    def active(self) -> bool:
        """Whether the hand moves the device or works the gripper."""
        return bool(self.twist.any()) or self.close or self.open


class ScriptedOperator:
    """Drives (``demonstrate``), watches and takes over (``intervene``), or only judges (``judge``).

    What it does is a function of (seed, episode) and of what it sees.
    """

    def __init__(
        self,
        mode: OperatorMode,
        seed: int = 0,
        *,
        habits: OperatorHabits | None = None,
        settings: PlanSettings | None = None,
    ) -> None:
        if mode not in ("demonstrate", "intervene", "judge"):
            raise ValueError(f"operator mode must be demonstrate, intervene or judge, got {mode!r}")
        self.mode = mode
        self.habits = habits or OperatorHabits()
        self._plan = PickAndPlacePlan(settings)
        self._seed = seed
        self.reset(0)

    def reset(self, episode: int) -> None:
        """Forgets the last episode and draws this one's habits."""
        h = self.habits
        self._rng = np.random.default_rng([self._seed, episode, 1])
        self._episode, self._ticks, self._shown = episode, 0, False
        self._look_at: Float64 | None = None
        self._speed = float(self._rng.uniform(h.speed_low, h.speed_high))
        self._aim = {name: self._rng.normal(0.0, h.aim_spread, 2) for name in ("banana", "plate")}
        self._hand_error = np.zeros(6)
        self._pause = 0
        self._best = math.inf
        self._stalled = 0
        self._driving = 0
        self._start_ticks = 0.0

    @property
    def intervening(self) -> bool:
        """Whether a take-over is going on."""
        return self._driving > 0

    def act(self, scene: SceneSnapshot) -> OperatorInput:
        """The device's state for this tick."""
        if self.mode == "judge":
            return OperatorInput(success=scene.success)
        if self.mode == "demonstrate":
            return self._demonstrate(scene)
        return self._watch(scene)

    def _demonstrate(self, scene: SceneSnapshot) -> OperatorInput:
        """Drives until success; then shows it from everywhere, with the button pressed."""
        self._ticks += 1
        if 1 <= self._episode <= self.habits.negative_episodes:
            return OperatorInput(twist=self._look_about(scene), abort=self._ticks > self.habits.look_about_ticks)
        self._shown = self._shown or scene.success
        return OperatorInput(twist=self._look_about(scene), success=True) if self._shown else self._drive(scene)

    def _look_about(self, scene: SceneSnapshot) -> Float64:
        """Twist (6,) towards one random point after another above the scene.

        So the reward classifier learns where the objects are, not where the hand is.
        """
        h = self.habits
        if self._look_at is None or np.linalg.norm(self._look_at - scene.tcp_pose[:3]) < 0.04:
            self._look_at = self._rng.uniform(h.look_low, h.look_high)
        towards = (self._look_at - scene.tcp_pose[:3]) / self._plan.settings.translation_scale
        return np.concatenate([_at_most_one(towards), np.zeros(3)])

    def _watch(self, scene: SceneSnapshot) -> OperatorInput:
        """Takes over when the task stalls or is thrown back, lets go when it advances again."""
        h, to_go = self.habits, self._plan.step(scene).ticks_to_go
        if scene.success:
            self._driving = 0
            return OperatorInput()
        if self._driving:
            advanced = self._start_ticks - to_go >= h.gain_ticks and self._driving >= h.min_ticks
            if advanced or self._driving >= h.max_ticks:
                self._driving, self._stalled, self._best = 0, 0, to_go
                return OperatorInput()
            self._driving += 1
            return self._drive(scene)
        self._stalled = 0 if to_go < self._best - h.progress else self._stalled + 1
        lost = to_go > self._best + h.lost_ticks
        self._best = min(self._best, to_go) if self._stalled == 0 else self._best
        if self._stalled >= h.stall_ticks or lost:
            self._driving, self._start_ticks, self._pause = 1, to_go, 0
            return self._drive(scene)
        return OperatorInput()

    def _drive(self, scene: SceneSnapshot) -> OperatorInput:
        """The plan, as a hand carries it out."""
        h = self.habits
        wish = self._plan.step(self._misjudged(scene))
        keep = math.exp(-1.0 / h.noise_ticks)
        spread = np.repeat([h.noise, 0.4 * h.noise], 3) * math.sqrt(1 - keep * keep)
        self._hand_error = keep * self._hand_error + spread * self._rng.normal(size=6)
        if self._pause == 0 and self._rng.random() < h.pause_probability:
            self._pause = int(self._rng.integers(1, h.pause_ticks + 1))
        effort = float(np.linalg.norm(wish.twist[:3]))
        twist = self._speed * wish.twist + self._hand_error * (0.3 + 0.7 * effort)  # a slow hand is a steady hand
        if self._pause:
            self._pause -= 1
            twist = np.zeros(6)
        opening = scene.gripper_opening
        settled = opening > 0.95 if not wish.close else opening < self._plan.settings.held_opening
        press = h.hold_buttons or not settled
        twist[:3], twist[3:] = _at_most_one(twist[:3]), _at_most_one(twist[3:])
        return OperatorInput(twist=twist, close=press and wish.close, open=press and not wish.close)

    def _misjudged(self, scene: SceneSnapshot) -> SceneSnapshot:
        """The scene as this person sees it: objects a little beside where they are."""
        objects = {
            name: np.array([*(pose[:2] + self._aim.get(name, 0.0)), *pose[2:]]) for name, pose in scene.objects.items()
        }
        return SceneSnapshot(
            stamp_ns=scene.stamp_ns,
            task=scene.task,
            tcp_pose=scene.tcp_pose,
            gripper_opening=scene.gripper_opening,
            objects=objects,
            success=scene.success,
        )


def _yaw_to_banana(tcp: Float64, banana: Float64, max_yaw: float) -> float:
    """Smallest turn about the vertical, rad, that lays the hand's x axis along the banana, either way round.

    The hand stays within ``max_yaw`` of its upright orientation, and does not turn far beyond a quarter turn.
    """
    hand = rotations.rotate(tcp[3:], [1.0, 0.0, 0.0])
    along = rotations.rotate(banana[3:], [1.0, 0.0, 0.0])
    hand_yaw, banana_yaw = math.atan2(hand[1], hand[0]), math.atan2(along[1], along[0])
    error = (banana_yaw - hand_yaw + _HALF_TURN / 2) % _HALF_TURN - _HALF_TURN / 2
    if abs(hand_yaw + error) > 0.6 * _HALF_TURN:
        error -= math.copysign(_HALF_TURN, error)
    return min(max_yaw, max(-max_yaw, hand_yaw + error)) - hand_yaw


def _at_most_one(vector: Float64) -> Float64:
    length = float(np.linalg.norm(vector))
    return vector if length <= 1.0 else vector / length
