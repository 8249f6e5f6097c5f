"""A scripted person at the SpaceMouse: human habits around the plan of any task."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from conrft_sim.plan import Plan, PlanStep, at_most_one
from conrft_sim.scene_snapshot import SceneSnapshot

Float64 = NDArray[np.float64]
OperatorMode = Literal["demonstrate", "intervene", "judge"]


@dataclass(frozen=True, kw_only=True)
class OperatorHabits:
    """How a person differs from the plan, and when the person takes over.

    Attributes:
        speed_low, speed_high: share of full speed, drawn anew for every episode.
        noise: standard deviation of the hand's smooth error, in full actions; noise_ticks: its correlation time, ticks.
        aim_spread: standard deviation of the misjudged position of what the plan aims at, m, drawn for every episode.
        pause_probability: of starting a pause at a tick; pause_ticks: longest pause.
        stall_ticks: ticks without progress before a take-over; progress: smallest gain, ticks to go, that counts as
            progress.
        lost_ticks: a rise of the ticks to go above the best so far at which the operator does not wait so long, but
            takes over when it has stood so for reaction_ticks.
        max_ticks, min_ticks: longest and shortest take-over, ticks.
        gain_ticks: the operator lets go after min_ticks when the task has advanced by so many ticks to go.
        distrust: with each further take-over of an episode max_ticks and gain_ticks are so many times longer: a policy
            that has spoilt it again gets it back later.
        call_ticks: ticks that a success has stood before the operator calls it, because nobody else has.
        negative_episodes: the first so many demonstrations are to fail; they show the reward classifier what no success
            looks like. The hand gives up, looks about for look_about_ticks and aborts: by turns before it has touched
            anything, and when the task is nearly done. A success by mistake is called one.
        give_up_share: of all ticks to go the share that is left when the hand gives up late, from and to;
        give_up_ticks: after so many it gives up in any case.
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
    stall_ticks: int = 20
    progress: float = 0.7
    lost_ticks: float = 12.0
    reaction_ticks: int = 3
    max_ticks: int = 30
    min_ticks: int = 8
    gain_ticks: float = 14.0
    distrust: float = 1.0
    call_ticks: int = 15
    hold_buttons: bool = True
    negative_episodes: int = 0
    look_about_ticks: int = 38
    give_up_share: tuple[float, float] = (0.10, 0.40)
    give_up_ticks: int = 58


_LETTING_GO_TICKS = 5  # in which the gripper opens before the hand moves away

# The plan itself: nobody who follows it is faster.
FLAWLESS = OperatorHabits(speed_low=1.0, speed_high=1.0, noise=0.0, aim_spread=0.0, pause_probability=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorInput:
    """One moment of the device.

    Attributes:
        twist: ``(6,)`` base frame, in [-1, 1]; 1 is a full action.
        close, open, success, abort, veto: whether the button is pressed.
    """

    twist: Float64 = field(default_factory=lambda: np.zeros(6))
    close: bool = False
    open: bool = False
    success: bool = False
    abort: bool = False
    veto: bool = False

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
        plan: Plan,
        seed: int = 0,
        *,
        habits: OperatorHabits | None = None,
    ) -> None:
        if mode not in ("demonstrate", "intervene", "judge"):
            raise ValueError(f"operator mode must be demonstrate, intervene or judge, got {mode!r}")
        self.mode = mode
        self.habits = habits or OperatorHabits()
        self._plan = plan
        self._seed = seed
        self.reset(0)

    def reset(self, episode: int) -> None:
        """Forgets the last episode and draws this one's habits."""
        h = self.habits
        self._rng = np.random.default_rng([self._seed, episode, 1])
        self._episode, self._ticks, self._shown = episode, 0, False
        self._look_at: Float64 | None = None
        self._speed = float(self._rng.uniform(h.speed_low, h.speed_high))
        self._aim = {name: np.array([*self._rng.normal(0.0, h.aim_spread, 2), 0.0]) for name in self._plan.aimed}
        self._give_up_share, self._whole_way, self._idle = 0.0, 0.0, 0
        self._astray, self._had_it = np.zeros(3), False
        if self.mode == "demonstrate" and 1 <= episode <= h.negative_episodes:
            self._choose_failure()
        self._hand_error = np.zeros(6)
        self._pause = 0
        self._best = math.inf
        self._stalled, self._lost, self._stood = 0, 0, 0
        self._driving, self._takeovers = 0, 0
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

    def disagrees(self, scene: SceneSnapshot) -> bool:
        """Whether a success that was called at ``scene`` is none, so that a person would take it back."""
        return self.mode == "intervene" and not scene.achieved

    def _demonstrate(self, scene: SceneSnapshot) -> OperatorInput:
        """Drives until success; then shows it from everywhere, with the button pressed."""
        self._ticks += 1
        self._shown = self._shown or scene.success
        if self._shown:
            return OperatorInput(twist=self._look_about(scene), success=True)
        wish = self._plan.step(self._misjudged(scene))
        return self._show_failure(scene, wish) if self._gives_up(scene, wish) else self._drive(scene)

    def _choose_failure(self) -> None:
        """Gives up at once, or in every second episode late, with the place for the object misjudged."""
        self._give_up_share = math.inf
        if self._episode % 2 == 0:
            self._give_up_share = float(self._rng.uniform(*self.habits.give_up_share))
            self._speed = self.habits.speed_high
            self._astray = self._rng.uniform(*self._plan.astray)
            self._aim = {self._plan.aimed[0]: self._aim[self._plan.aimed[0]]}

    def _gives_up(self, scene: SceneSnapshot, wish: PlanStep) -> bool:
        """Whether a demonstration that is to fail has come so far; from then on the hand works no more."""
        if self._astray.any() and wish.gripper == "close" and self._gripper_settled(wish, scene.gripper_opening):
            self._had_it = True
        if self._ticks == 1:
            self._whole_way = wish.ticks_to_go
        late = self._give_up_share > 0.0 and self._ticks > self.habits.give_up_ticks
        return self._idle > 0 or late or wish.ticks_to_go < self._give_up_share * self._whole_way

    def _show_failure(self, scene: SceneSnapshot, wish: PlanStep) -> OperatorInput:
        """Lets go of what is in the hand, looks about, and aborts."""
        self._idle += 1
        has_worked = self._ticks > self._idle
        if has_worked and wish.gripper != "keep" and self._idle <= _LETTING_GO_TICKS:
            return OperatorInput(open=True)
        return OperatorInput(twist=self._look_about(scene), abort=self._idle > self.habits.look_about_ticks)

    def _look_about(self, scene: SceneSnapshot) -> Float64:
        """Twist (6,) towards one random point after another above the scene, at first straight up to their height.

        So the reward classifier learns where the objects are, not where the hand is.
        """
        plan = self._plan
        if scene.tcp_pose[2] < plan.look_low[2] - 0.01:
            return np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
        if self._look_at is None or np.linalg.norm(self._look_at - scene.tcp_pose[:3]) < 0.04:
            self._look_at = self._rng.uniform(plan.look_low, plan.look_high)
        towards = (self._look_at - scene.tcp_pose[:3]) / plan.servo.translation_scale
        return np.concatenate([at_most_one(towards), np.zeros(3)])

    def _watch(self, scene: SceneSnapshot) -> OperatorInput:
        """Takes over when the task stalls or is thrown back, lets go when it advances again, calls a missed success."""
        h, to_go = self.habits, self._plan.step(scene).ticks_to_go
        self._stood = self._stood + 1 if scene.success else 0
        if scene.success:
            self._driving = 0
            return OperatorInput(success=self._stood > h.call_ticks)
        if self._driving:
            patience = 1.0 + h.distrust * (self._takeovers - 1)
            advanced = self._start_ticks - to_go >= patience * h.gain_ticks and self._driving >= h.min_ticks
            if advanced or self._driving >= patience * h.max_ticks:
                self._driving, self._stalled, self._lost, self._best = 0, 0, 0, to_go
                return OperatorInput()
            self._driving += 1
            return self._drive(scene)
        self._stalled = 0 if to_go < self._best - h.progress else self._stalled + 1
        self._lost = self._lost + 1 if to_go > self._best + h.lost_ticks else 0
        self._best = min(self._best, to_go) if self._stalled == 0 else self._best
        if self._stalled >= h.stall_ticks or self._lost >= h.reaction_ticks:
            self._driving, self._start_ticks, self._pause = 1, to_go, 0
            self._takeovers += 1
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
        press = h.hold_buttons or not self._gripper_settled(wish, scene.gripper_opening)
        twist[:3], twist[3:] = at_most_one(twist[:3]), at_most_one(twist[3:])
        close, open_ = (press and wish.gripper == word for word in ("close", "open"))
        return OperatorInput(twist=twist, close=close, open=open_)

    def _gripper_settled(self, wish: PlanStep, opening: float) -> bool:
        """Whether the gripper is where the plan wants it, so that a person would let go of the button."""
        return opening < self._plan.held_opening if wish.gripper == "close" else opening > 0.95

    def _misjudged(self, scene: SceneSnapshot) -> SceneSnapshot:
        """The scene as this person sees it: objects a little beside where they are.

        One who is to fail also takes an object that was in the hand for well placed, wherever it was let go.
        """
        objects = {
            name: np.array([*(pose[:3] + self._aim.get(name, self._astray)), *pose[3:]])
            for name, pose in scene.objects.items()
        }
        return replace(scene, objects=objects, achieved=scene.achieved or self._had_it)
