"""What the arm is told: Actions in an episode, the way home between two, and to hold whenever something is wrong."""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from conrft_control.deadman import Deadman
from conrft_control.pose_plausibility import PosePlausibility
from conrft_control.protective_stop import ProtectiveStop
from conrft_control.reset_motion import ResetMotion, ResetTolerance, not_arrived
from conrft_data import rotations
from conrft_data.config import SafetyLimits, TaskConfig
from conrft_data.motion_limiter import MotionLimiter
from conrft_data.reference_pose import ReferencePose
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import ActionSource, Command, Float64, Outcome, Phase

TICK_NS = 100_000_000

# Half a second of a 1 kHz pose broadcaster.
_REMEMBERED_POSES = 512

# A clock that goes back by more than this belongs to a simulator that was started again.
_CLOCK_RESTART_NS = 1_000_000_000

_UNUSABLE = "current_pose: not a finite pose, the arm holds"

# A stopped arm is led to its measured pose over so many leashes at most: one, and what a contact pushed it back.
_STOP_REACH = 1.5

_ROUNDING_M = 1e-6

# An arm that is farther from the target that it is to hold than a leash and this, m and rad, for so long, has been
# taken elsewhere: at the end of its leash it may be in contact, and what it measures trembles.
_BEYOND_LEASH = (0.01, 0.05)
_TAKEN_AWAY_NS = 500_000_000

# The gripper's own hysteresis: between these two an action means "as it is".
_CLOSE_BELOW, _OPEN_ABOVE = -0.5, 0.5


@dataclass(frozen=True, kw_only=True)
class CommanderSettings:
    """Limits of the commander.

    Attributes:
        lockstep: the simulator waits for one target of each tick's stamp.
        action_timeout_s: real time: without an Action for so long the arm holds, and one that is older is not followed.
        state_timeout_s: real time: a measured pose, or a wrench, older than this is stale.
        safety: speeds, accelerations and forces.
        deadman_button: the arm moves only while this button is held; -1: none.
        deadman_timeout_s: real time: buttons that nobody has sent for so long are not held.
    """

    lockstep: bool = False
    action_timeout_s: float = 0.15
    state_timeout_s: float = 0.1
    tolerance: ResetTolerance = field(default_factory=ResetTolerance)
    safety: SafetyLimits = field(default_factory=SafetyLimits)
    deadman_button: int = -1
    deadman_timeout_s: float = 0.2


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

    def forget(self) -> None:
        """What is wanted has to be sent again: whoever received it may have been started anew, or may have failed."""
        self._sent = None


class Commander:
    """Turns Actions into targets.

    Every method returns the target to publish now, or None; ``problem`` says why the arm holds.

    Attributes:
        stop: what keeps the arm from moving until a person allows it again.
        conflict: who else commands the arm; while anybody does, this one holds it.
        warning: what a person should know although nothing is wrong.
        deadman: in lockstep the mux alone heeds it in an episode, because only its Actions wait for the buttons.
    """

    def __init__(self, task: TaskConfig, settings: CommanderSettings) -> None:
        self.settings = settings
        self.gripper = GripperCommand()
        self.stop = ProtectiveStop(settings.safety)
        # In lockstep time stands still, and buttons do not grow old.
        self.deadman = Deadman(settings.deadman_button, 0.0 if settings.lockstep else settings.deadman_timeout_s)
        self.conflict = self.warning = ""
        self._problem = ""
        self._reference = ReferencePose(task.motion_limits())
        self._limiter = MotionLimiter(settings.safety.speed_limits())
        self._leash, self._leash_angle = task.motion_limits().leash, task.motion_limits().leash_angle
        self._away_ns = 0
        self._moved_ns: int | None = None
        self._wrench_ns: int | None = None
        self._bad_wrench = ""
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
        self._plausibility = PosePlausibility(may_leap=settings.lockstep)
        self._bad_pose = ""
        self._gripper_problem = ""

    @property
    def problem(self) -> str:
        """Why the arm holds although it should move; empty when nothing is wrong."""
        return self.stop.reason or self.conflict or self._problem

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
        self._problem = self.warning = ""
        self._away_ns = 0
        self._limiter.stop()
        if status.phase is Phase.RESETTING:
            self._arrived, self._held = False, None
            if self._has_gripper:
                self.gripper.want(1.0)
                self.gripper.forget()
            return self._reset_step(now_ns)
        if status.phase is Phase.RUNNING:
            # In real time the arm has been held up to now: the reference begins at that target, which no false pose can
            # have moved. In lockstep it begins where the simulator has put the arm.
            self._held = None if self.settings.lockstep or self._held is None else self._reference.start(self._held)
            # The first Action may take one tick longer: its Observation waits for the next tick.
            self._last_action_ns = now_ns + TICK_NS
            if self._early is not None:
                early, self._early = self._early, None
                return self.on_action(*early, now_ns)
        if status.phase is Phase.ENDED and status.outcome is Outcome.FAULT:
            return self._let_go(now_ns)
        return None

    def on_pose(self, stamp_ns: int, pose: Float64 | None) -> Target | None:
        """A measured pose ``(7,)``; None where it could not be used."""
        problem = _UNUSABLE if pose is None else self._plausibility.doubt(stamp_ns, pose)
        if self._bad_pose and not problem and self._problem == self._bad_pose:
            self._problem = ""
        self._bad_pose = problem
        if pose is None or problem:
            self._problem = problem
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
        self.stop.passed(pose)
        if self._answered is not None and self._answered.stamp_ns == stamp_ns and self.settings.lockstep:
            # The simulator asks again: it did not get the answer.
            return self._answered
        if self._waiting is not None:
            return self.on_action(*self._waiting, stamp_ns)
        if self.phase is Phase.RESETTING:
            return self._reset_step(stamp_ns)
        if self.phase in (Phase.READY, Phase.ENDED) and not self.settings.lockstep:
            self._follow_hand()
            return self._hold(stamp_ns) if self._is_due(stamp_ns) else None
        if self.phase is Phase.RUNNING and self._held is not None and self.problem and not self.settings.lockstep:
            return self._hold(stamp_ns) if self._is_due(stamp_ns) else None
        return None

    def on_unusable_gripper(self, reason: str) -> None:
        """The gripper's state came and could not be used."""
        self._problem = self._gripper_problem = reason

    def on_gripper(self, stamp_ns: int, opening: float) -> Target | None:
        """The gripper's measured opening, 0 closed .. 1 open."""
        if self._problem == self._gripper_problem:
            self._problem = ""
        self._opening = (stamp_ns, opening)
        return self._reset_step(self._poses[-1].stamp_ns) if self.phase is Phase.RESETTING and self._poses else None

    def on_wrench(self, stamp_ns: int, wrench: Float64 | None, now_ns: int) -> Target | None:
        """A measured wrench ``(6,)``; None where it could not be used."""
        self._bad_wrench = "wrench: not finite, the arm holds" if wrench is None else ""
        if wrench is None:
            self.stop.end_retreat()
            return None
        self._wrench_ns = stamp_ns
        return self._halt(now_ns) if self.stop.feel(wrench) else None

    def on_emergency_stop(self, pressed: bool, now_ns: int) -> Target | None:
        """The emergency stop was pressed, or let go: the latter alone does not let the arm move again."""
        return self._halt(now_ns) if self.stop.emergency(pressed) else None

    def on_stop_order(self, now_ns: int) -> Target | None:
        """A person has ordered a stop: as if a button had been pressed and let go, whatever the real ones do."""
        return self._halt(now_ns) if self.stop.order() else None

    def reset_stop(self) -> str:
        """A person allows motion again after a stop; returns why not, empty: granted."""
        refusal = self.stop.reset()
        if not refusal and self._held is not None and self._reference.started:
            self._reference.move_to(self._held, self._held)
        return refusal

    def on_action(self, tick: Tick, command: Command, now_ns: int) -> Target | None:
        """An Action for ``tick``; one of another episode, or of a tick that was answered, does not count."""
        if not self._counts(tick):
            if self.settings.lockstep and self._is_early(tick):
                self._early = (tick, command)
            return None
        if self.settings.lockstep and (not self._poses or self._poses[-1].stamp_ns < tick.stamp_ns):
            self._waiting = (tick, command)
            return None
        if untimely := self._untimely(tick, now_ns):
            self._problem = untimely
            return self._hold(now_ns)
        self._waiting, self._done, self._last_action_ns = None, tick, now_ns
        measured = self._measured_at(tick.stamp_ns)
        self._problem = self._unfit(measured, now_ns)
        if measured is None or self.problem:
            return self._hold(tick.stamp_ns)
        if self._held is None:
            self._held = self._reference.start(measured.pose)
        released = not self.settings.lockstep and self.deadman.released(now_ns)
        if command.source is ActionSource.HOLD or released:
            return self._hold(tick.stamp_ns)
        return self._follow(tick.stamp_ns, command, measured)

    def _follow(self, stamp_ns: int, command: Command, measured: _Pose) -> Target | None:
        """Moves the reference by an Action, as far as the limits allow."""
        last = self._last_target(measured.pose)
        try:
            self._held = self._reference.apply(command.action, measured.pose)
        except ValueError as error:
            self._problem = f"action: {error}, the arm holds"
            return self._hold(stamp_ns)
        limited = self._limiter.limited(last, self._held, self._elapsed_s(stamp_ns))
        if limited is not self._held:
            self._held = self._reference.move_to(limited, last)
        if self._has_gripper:
            self.gripper.want(float(command.action[6]))
        return self._answer(stamp_ns)

    def on_unusable_action(self, tick: Tick, reason: str, now_ns: int) -> Target | None:
        """An Action that must not be followed: the arm holds for this tick."""
        if not self._counts(tick):
            return None
        self._done, self._last_action_ns, self._problem = tick, now_ns, reason
        return self._hold(tick.stamp_ns)

    def on_time(self, now_ns: int) -> Target | None:
        """The watchdog (real time): without Actions, or without a measured pose, the arm holds."""
        if self.settings.lockstep:
            return None
        problem = self._unfit(self._poses[-1] if self._poses else None, now_ns)
        if not problem and self.phase is Phase.RUNNING and self._last_action_ns is not None:
            silence = now_ns - self._last_action_ns
            if silence > self.settings.action_timeout_s * 1e9:
                problem = f"action: none for {silence / 1e9:.2f} s, the arm holds"
        began, self._problem = bool(problem) and not self.problem, problem
        return self._hold(now_ns) if began and self._poses and self.phase is not None else None

    def _counts(self, tick: Tick) -> bool:
        status = self._status
        if status is None or tick.episode != status.episode or tick == self._done:
            return False
        if tick.episode == self._done.episode and tick.step <= self._done.step and tick.stamp_ns <= self._done.stamp_ns:
            return False
        if status.phase is Phase.RUNNING:
            return True
        # The Action of the final step may come after the news that the episode has ended. After a fault it is not
        # followed, but for lockstep, where each tick needs its answer.
        over = status.outcome is Outcome.FAULT and not self.settings.lockstep
        return status.phase is Phase.ENDED and tick.step <= status.final_step and not over

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

    def _untimely(self, tick: Tick, now_ns: int) -> str:
        """Real time: why an Action comes at the wrong time to be followed; empty when it does not."""
        age_s = (now_ns - tick.stamp_ns) / 1e9
        if self.settings.lockstep or abs(age_s) <= self.settings.action_timeout_s:
            return ""
        when = f"{age_s:.2f} s old" if age_s > 0 else f"stamped {-age_s:.2f} s in the future"
        return f"action: {when}, the arm holds"

    def _unfit(self, measured: _Pose | None, now_ns: int) -> str:
        """Why nothing may be built on the measured pose and wrench; empty when something may."""
        if measured is None:
            return "current_pose: nothing received yet, the arm holds"
        if self._bad_pose:
            return self._bad_pose
        if self._bad_wrench or self.settings.lockstep:
            return self._bad_wrench
        if self._wrench_ns is None:
            return "wrench: nothing received yet, the arm holds"
        # A stamp from the future says as little about the present as an old one.
        age, wrench_age = now_ns - self._poses[-1].stamp_ns, now_ns - self._wrench_ns
        if abs(age) > self.settings.state_timeout_s * 1e9:
            return f"current_pose: {_age(age)}, the arm holds"
        if abs(wrench_age) > self.settings.state_timeout_s * 1e9:
            return f"wrench: {_age(wrench_age)}, the arm holds"
        return ""

    def _reset_step(self, now_ns: int) -> Target | None:
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
        unfit = self._unfit(measured, now_ns)
        if self.problem or unfit or self.deadman.released(measured.stamp_ns):
            return None if self.settings.lockstep else self._hold(measured.stamp_ns)
        elapsed = TICK_NS if self._answered is None else min(TICK_NS, measured.stamp_ns - self._answered.stamp_ns)
        elapsed_s = max(0, elapsed) / 1e9
        start = measured.pose if self._held is None else self._held
        wanted = self._reset_motion.next_target(start, measured.pose, elapsed_s)
        self._held = self._limiter.limited(self._last_target(measured.pose), wanted, elapsed_s)
        return self._answer(measured.stamp_ns)

    def _last_target(self, measured: Float64) -> Float64:
        """Where the next motion begins: at the last target, unless the arm has been brought elsewhere since."""
        # A target at the end of the leash is not beyond it, whatever was rounded: it would fall back and come again.
        reach = self._leash + _ROUNDING_M
        if self._answered is None or np.linalg.norm(self._answered.pose[:3] - measured[:3]) > reach:
            return measured
        return self._answered.pose

    def _elapsed_s(self, stamp_ns: int) -> float:
        """Time in which the target may move on: since it did so last, a tick at most."""
        elapsed_ns = TICK_NS if self._moved_ns is None else min(TICK_NS, stamp_ns - self._moved_ns)
        self._moved_ns = stamp_ns
        return max(0, elapsed_ns) / 1e9

    def _is_due(self, stamp_ns: int) -> bool:
        """Whether a tick has passed since the last target."""
        return self._answered is None or not 0 <= stamp_ns - self._answered.stamp_ns < TICK_NS

    def _halt(self, now_ns: int) -> Target | None:
        """A stop: the target is where the arm is, so that it does not go on to where it was sent.

        A measured pose that is farther from the target than the leash lets the arm be is not led to: it may be false.
        """
        self._limiter.stop()
        if not self._poses:
            return None
        measured = self._poses[-1].pose
        if self._held is None and self._answered is not None and not self.settings.lockstep:
            self._held = self._answered.pose.copy()
        if self._held is None or np.linalg.norm(measured[:3] - self._held[:3]) <= _STOP_REACH * self._leash:
            self._held = measured.copy()
        return None if self.settings.lockstep or self.phase is None else self._answer(now_ns)

    def _follow_hand(self) -> None:
        """Between two episodes: an arm that was guided elsewhere while its controller was off is held there.

        The target that it left behind would pull it back as soon as the controller returns.
        """
        if self._held is None or len(self._poses) < 2:
            return
        before, measured, held = self._poses[-2], self._poses[-1], self._held
        distance = float(np.linalg.norm(measured.pose[:3] - held[:3]))
        angle = rotations.angle_between(measured.pose[3:], held[3:])
        if distance <= self._leash + _BEYOND_LEASH[0] and angle <= self._leash_angle + _BEYOND_LEASH[1]:
            self._away_ns = 0
            return
        # A gap, or a wrong stamp, counts no more than a tick.
        self._away_ns += min(TICK_NS, measured.stamp_ns - before.stamp_ns)
        if self._away_ns > _TAKEN_AWAY_NS:
            self.stop.end_retreat()
            self._held, self._away_ns = measured.pose.copy(), 0
            self.warning = f"the arm was moved by {distance:.2f} m by somebody else, and is held where it is now"

    def _let_go(self, now_ns: int) -> Target | None:
        """After a fault the arm neither goes on to where it was sent nor presses on what is in its way.

        Real time only: in lockstep nobody stands beside. A stop has let go before, and may be on its retreat. Where the
        newest measured pose is no good, the arm stays with its target.
        """
        newest = self._poses[-1] if self._poses else None
        if self.settings.lockstep or self.stop.reason or self._unfit(newest, now_ns):
            return None
        return self._halt(now_ns)

    def _hold(self, stamp_ns: int) -> Target | None:
        """The arm stands: the present target again, under a new stamp; where the arm is, when there is none yet.

        After a contact that was too hard it is the next target of the retreat.
        """
        if self._held is None:
            if not self._poses:
                return None
            self._held = self._poses[-1].pose.copy()
            self._reference.start(self._held)
        back = self._back(self._held, stamp_ns)
        if back is None:
            self._limiter.stop()
        self._held = self._held if back is None else back
        return self._answer(stamp_ns)

    def _back(self, held: Float64, stamp_ns: int) -> Float64 | None:
        """The target of the retreat that follows ``held``; None: the arm stands.

        It ends for good where nobody may let the arm move, or knows where it is and what it presses on.
        """
        if not self.stop.retreats or not self._poses:
            return None
        newest, since_ns = self._poses[-1], 0 if self._answered is None else stamp_ns - self._answered.stamp_ns
        # A tick may be older than the newest pose: that does not make the pose one of the future.
        if self._unfit(newest, max(stamp_ns, newest.stamp_ns)) or self.deadman.released(stamp_ns):
            self.stop.end_retreat()
            return None
        elapsed_s = min(TICK_NS, max(0, since_ns)) / 1e9
        return self._limiter.limited(held, self.stop.retreated(elapsed_s), elapsed_s)

    def _answer(self, stamp_ns: int) -> Target:
        assert self._held is not None
        self._answered = Target(stamp_ns=stamp_ns, pose=self._held.copy())
        return self._answered


def _age(age_ns: int) -> str:
    return f"stale, {age_ns / 1e9:.2f} s old" if age_ns > 0 else f"stamped {-age_ns / 1e9:.2f} s in the future"
