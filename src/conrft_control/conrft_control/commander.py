"""What the arm is told: Actions in an episode, the way home between two, and to hold whenever something is wrong."""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass, field

from conrft_control.reset_motion import ResetMotion, ResetTolerance, not_arrived
from conrft_data.config import TaskConfig
from conrft_data.reference_pose import ReferencePose
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import ActionSource, Command, Float64, Phase

TICK_NS = 100_000_000

# Half a second of a 1 kHz pose broadcaster.
_REMEMBERED_POSES = 512

# A clock that goes back by more than this belongs to a simulator that was started again.
_CLOCK_RESTART_NS = 1_000_000_000

_UNUSABLE = "current_pose: not a finite pose, the arm holds"

# The gripper's own hysteresis: between these two an action means "as it is".
_CLOSE_BELOW, _OPEN_ABOVE = -0.5, 0.5


@dataclass(frozen=True, kw_only=True)
class CommanderSettings:
    """Limits of the commander.

    Attributes:
        lockstep: the simulator waits for one target of each tick's stamp.
        action_timeout_s: real time: without an Action for so long the arm holds.
        state_timeout_s: real time: a measured pose older than this is stale.
    """

    lockstep: bool = False
    action_timeout_s: float = 0.15
    state_timeout_s: float = 0.1
    tolerance: ResetTolerance = field(default_factory=ResetTolerance)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A target for the impedance controller.

    Attributes:
        stamp_ns: of the tick that it answers.
        pose: ``(7,)`` base frame.
    """

    stamp_ns: int
    pose: Float64


@dataclass(frozen=True, slots=True)
class _Pose:
    stamp_ns: int
    pose: Float64


class GripperCommand:
    """The opening that the gripper was told last.

    Commands go out on change only, because each is a goal that takes the gripper a second.
    """

    def __init__(self) -> None:
        self.wanted: float | None = None
        self._sent: float | None = None

    def want(self, action: float) -> None:
        """An action's gripper number: closes, opens, or leaves the gripper as it is."""
        if action <= _CLOSE_BELOW:
            self.wanted = 0.0
        elif action >= _OPEN_ABOVE:
            self.wanted = 1.0

    @property
    def due(self) -> float | None:
        """The opening that has to be sent, None when there is nothing new."""
        return self.wanted if self.wanted != self._sent else None

    def sent(self) -> None:
        """What was due is under way; to be called only when somebody was there to receive it."""
        self._sent = self.wanted


class Commander:
    """Turns Actions into targets.

    Every method returns the target to publish now, or None; ``problem`` says why the arm holds.
    """

    def __init__(self, task: TaskConfig, settings: CommanderSettings) -> None:
        self.settings = settings
        self.gripper = GripperCommand()
        self.problem = ""
        self._reference = ReferencePose(task.motion_limits())
        self._reset_motion = ResetMotion(task.reset, task.action_scale.leash)
        self._has_gripper = task.action_dim == 7
        self._status: EpisodeStatus | None = None
        self._poses: deque[_Pose] = deque(maxlen=_REMEMBERED_POSES)
        self._opening: tuple[int, float] | None = None
        self._held: Float64 | None = None
        self._answered: Target | None = None
        self._waiting: tuple[Tick, Command] | None = None
        self._early: tuple[Tick, Command] | None = None
        self._done = Tick(-1, -1, -1)
        self._last_action_ns: int | None = None
        self._arrived = False
        self._unusable = False
        self._gripper_problem = ""

    @property
    def phase(self) -> Phase | None:
        """State of the supervisor, None before it has spoken."""
        return self._status.phase if self._status else None

    def on_status(self, status: EpisodeStatus, now_ns: int) -> Target | None:
        """The supervisor has spoken."""
        entered = self._status is None or (self._status.phase, self._status.episode) != (status.phase, status.episode)
        self._status = status
        if not entered:
            return None
        self.problem = ""
        if status.phase is Phase.RESETTING:
            self._arrived, self._held = False, None
            if self._has_gripper:
                self.gripper.want(1.0)
            return self._reset_step()
        if status.phase is Phase.RUNNING:
            self._held = None
            # The first Action may take one tick longer: its Observation waits for the next tick.
            self._last_action_ns = now_ns + TICK_NS
            if self._early is not None:
                early, self._early = self._early, None
                return self.on_action(*early, now_ns)
        return None

    def on_pose(self, stamp_ns: int, pose: Float64 | None) -> Target | None:
        """A measured pose ``(7,)``; None where it could not be used."""
        if self._unusable and pose is not None and self.problem == _UNUSABLE:
            self.problem = ""
        self._unusable = pose is None
        if pose is None:
            self.problem = _UNUSABLE
            return (
                None
                if self.settings.lockstep or self.phase is None or not self._is_due(stamp_ns)
                else self._hold(stamp_ns)
            )
        if self._poses and stamp_ns < self._poses[-1].stamp_ns - _CLOCK_RESTART_NS:
            self._poses.clear()
        if self._poses and stamp_ns < self._poses[-1].stamp_ns:
            return None
        self._poses.append(_Pose(stamp_ns, pose))
        if self._answered is not None and self._answered.stamp_ns == stamp_ns and self.settings.lockstep:
            # The simulator asks again: it did not get the answer.
            return self._answered
        if self._waiting is not None:
            return self.on_action(*self._waiting, stamp_ns)
        if self.phase is Phase.RESETTING:
            return self._reset_step()
        if self.phase in (Phase.READY, Phase.ENDED) and not self.settings.lockstep:
            return self._hold(stamp_ns) if self._is_due(stamp_ns) else None
        if self.phase is Phase.RUNNING and self._held is not None and self.problem and not self.settings.lockstep:
            return self._hold(stamp_ns) if self._is_due(stamp_ns) else None
        return None

    def on_unusable_gripper(self, reason: str) -> None:
        """The gripper's state came and could not be used."""
        self.problem = self._gripper_problem = reason

    def on_gripper(self, stamp_ns: int, opening: float) -> Target | None:
        """The gripper's measured opening, 0 closed .. 1 open."""
        if self.problem == self._gripper_problem:
            self.problem = ""
        self._opening = (stamp_ns, opening)
        return self._reset_step() if self.phase is Phase.RESETTING else None

    def on_action(self, tick: Tick, command: Command, now_ns: int) -> Target | None:
        """An Action for ``tick``; one of another episode, or of a tick that was answered, does not count."""
        if not self._counts(tick):
            if self.settings.lockstep and self._is_early(tick):
                self._early = (tick, command)
            return None
        if self.settings.lockstep and (not self._poses or self._poses[-1].stamp_ns < tick.stamp_ns):
            self._waiting = (tick, command)
            return None
        self._waiting, self._done, self._last_action_ns = None, tick, now_ns
        measured = self._measured_at(tick.stamp_ns)
        self.problem = self._unfit(measured, now_ns)
        if measured is None or self.problem:
            return self._hold(tick.stamp_ns)
        if self._held is None:
            self._held = self._reference.start(measured.pose)
        if command.source is not ActionSource.HOLD:
            try:
                self._held = self._reference.apply(command.action, measured.pose)
            except ValueError as error:
                self.problem = f"action: {error}, the arm holds"
                return self._hold(tick.stamp_ns)
            if self._has_gripper:
                self.gripper.want(float(command.action[6]))
        return self._hold(tick.stamp_ns)

    def on_unusable_action(self, tick: Tick, reason: str, now_ns: int) -> Target | None:
        """An Action that must not be followed: the arm holds for this tick."""
        if not self._counts(tick):
            return None
        self._done, self._last_action_ns, self.problem = tick, now_ns, reason
        return self._hold(tick.stamp_ns)

    def on_time(self, now_ns: int) -> Target | None:
        """The watchdog (real time): without Actions, or without a measured pose, the arm holds."""
        if self.settings.lockstep or self.phase is None:
            return None
        problem = self._unfit(self._poses[-1] if self._poses else None, now_ns)
        if not problem and self.phase is Phase.RUNNING and self._last_action_ns is not None:
            silence = now_ns - self._last_action_ns
            if silence > self.settings.action_timeout_s * 1e9:
                problem = f"action: none for {silence / 1e9:.2f} s, the arm holds"
        began, self.problem = bool(problem) and not self.problem, problem
        return self._hold(now_ns) if began and self._poses else None

    def _counts(self, tick: Tick) -> bool:
        status = self._status
        if status is None or tick.episode != status.episode or tick == self._done:
            return False
        if tick.episode == self._done.episode and tick.step <= self._done.step and tick.stamp_ns <= self._done.stamp_ns:
            return False
        # The Action of the final step may come after the news that the episode has ended.
        return status.phase is Phase.RUNNING or (status.phase is Phase.ENDED and tick.step <= status.final_step)

    def _is_early(self, tick: Tick) -> bool:
        """Whether the Action has overtaken the news that its episode runs. In lockstep nobody would send it again."""
        status = self._status
        if status is None or tick.episode > status.episode:
            return True
        return tick.episode == status.episode and status.phase in (Phase.RESETTING, Phase.READY)

    def _measured_at(self, stamp_ns: int) -> _Pose | None:
        """The pose that was the newest at the tick: the one that its Observation shows."""
        index = bisect.bisect_right(self._poses, stamp_ns, key=lambda pose: pose.stamp_ns)
        if not self._poses:
            return None
        return self._poses[max(0, index - 1)]

    def _unfit(self, measured: _Pose | None, now_ns: int) -> str:
        """Why nothing may be built on the measured pose; empty when something may."""
        if measured is None:
            return "current_pose: nothing received yet, the arm holds"
        if self._unusable:
            return _UNUSABLE
        age = now_ns - self._poses[-1].stamp_ns
        if not self.settings.lockstep and age > self.settings.state_timeout_s * 1e9:
            return f"current_pose: stale, {age / 1e9:.2f} s old, the arm holds"
        return ""

    def _reset_step(self) -> Target | None:
        """One step home, in answer to the newest measured pose."""
        assert self._status is not None
        if not self._poses or self._opening is None:
            return None
        measured, (opening_ns, opening) = self._poses[-1], self._opening
        if self.settings.lockstep:
            if measured.stamp_ns < self._status.stamp_ns or opening_ns != measured.stamp_ns or self._arrived:
                return None
            # The supervisor judges the same two numbers alike, so both know at which tick the arm has arrived, and
            # simulated time stands still there.
            tolerance = self.settings.tolerance
            opening = opening if self._has_gripper else 1.0
            self._arrived = not not_arrived(measured.pose, opening, self._reset_motion.goal, tolerance)
            if self._arrived or (self._answered is not None and self._answered.stamp_ns == measured.stamp_ns):
                return None
        elif not self._is_due(measured.stamp_ns):
            return None
        elapsed = TICK_NS if self._answered is None else min(TICK_NS, measured.stamp_ns - self._answered.stamp_ns)
        start = measured.pose if self._held is None else self._held
        self._held = self._reset_motion.next_target(start, measured.pose, max(0, elapsed) / 1e9)
        return self._hold(measured.stamp_ns)

    def _is_due(self, stamp_ns: int) -> bool:
        """Whether a tick has passed since the last target."""
        return self._answered is None or not 0 <= stamp_ns - self._answered.stamp_ns < TICK_NS

    def _hold(self, stamp_ns: int) -> Target | None:
        """The present target again, under a new stamp; where the arm is, when there is none yet."""
        if self._held is None:
            if not self._poses:
                return None
            self._held = self._poses[-1].pose.copy()
            self._reference.start(self._held)
        self._answered = Target(stamp_ns=stamp_ns, pose=self._held.copy())
        return self._answered
