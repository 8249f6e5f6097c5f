"""Which action wins: exactly one for each Observation, from the policy, from the operator, or HOLD."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from conrft_control.operator_input import (
    KEEP,
    DeviceSettings,
    OperatorDevice,
    Takeover,
    TakeoverSettings,
    end_effector_action,
)
from conrft_data.ticks import Tick
from conrft_data.types import ACTION_DIM, ActionSource, Command, Float32

_REMEMBERED_PROPOSALS = 16
_REMEMBERED_TICKS = 4096

# How far a measured orientation may be from unit length before it is a defect and not rounding.
_QUATERNION_TOLERANCE = 1e-2

# A stamp that runs ahead of ROS time by more than two machines' clocks may differ says nothing about the present.
_FUTURE_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class MuxSettings:
    """How long the mux waits, and for whom.

    Attributes:
        policy_expected: a policy proposes actions; without one only the operator moves the arm.
        operator_expected: somebody holds the device. In lockstep each tick waits for the buttons of that tick.
        reward_expected: a reward node judges every tick. In lockstep each tick waits for it, so that the simulator
            cannot run away from it.
        lockstep: ROS time stands still while the tick is decided, so the deadline is the wall-clock guard.
        deadline_s: ROS time after the Observation's stamp.
        guard_s: wall time after the Observation, for when ROS time stands still.
        reward_timeout_s: real time: a policy that nobody has judged for so long is not followed.
        short_guard_s: the guard while somebody is known to be silent.
        overshoot: how far beyond [-1, 1] a proposal is still clipped rather than refused.
        fixed_gripper: the task's gripper stays as it is: every action keeps it, whatever policy or buttons say.
    """

    policy_expected: bool = True
    operator_expected: bool = True
    reward_expected: bool = False
    lockstep: bool = False
    deadline_s: float = 0.08
    guard_s: float = 10.0
    short_guard_s: float = 0.1
    reward_timeout_s: float = 1.0
    overshoot: float = 0.05
    fixed_gripper: bool = False
    takeover: TakeoverSettings = field(default_factory=TakeoverSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)


class Decision(NamedTuple):
    """What was decided for one tick.

    Attributes:
        tick: key of the Observation.
        command: what to do.
        fault: the arm holds because something is wrong, not because nobody wants to move it.
    """

    tick: Tick
    command: Command
    fault: bool


@dataclass(slots=True)
class _OpenTick:
    tick: Tick
    orientation: np.ndarray
    opened_wall_s: float


class InterventionMux:
    """Decides each Observation exactly once, however late, doubled or out of order everything else comes.

    Every method returns the decisions that it led to, oldest first. ``wall_s`` is a monotonic clock, ``now_ns`` ROS
    time.
    """

    def __init__(self, settings: MuxSettings) -> None:
        self.settings = settings
        self.device = OperatorDevice(settings.device)
        self.takeover = Takeover(settings.takeover)
        self._open: _OpenTick | None = None
        self._proposals: OrderedDict[Tick, np.ndarray] = OrderedDict()
        self._decided: set[Tick] = set()
        self._decided_order: deque[Tick] = deque()
        self._episode = -1
        self._episode_ns = 0
        self._rewarded_ns = -1
        self._silent: set[str] = set()

    @property
    def silent(self) -> frozenset[str]:
        """Who let the wall-clock guard pass and has not been heard since: policy, operator, reward."""
        return frozenset(self._silent)

    @property
    def deadline_ns(self) -> int | None:
        """ROS time at which the open tick must be decided; None: no tick is open, or in lockstep."""
        if self._open is None or self.settings.lockstep:
            return None
        return self._open.tick.stamp_ns + round(self.settings.deadline_s * 1e9)

    @property
    def guard_wall_s(self) -> float | None:
        """Wall time at which the open tick must be decided; None: no tick is open."""
        if self._open is None:
            return None
        quick = self._silent.intersection(self._awaited())
        return self._open.opened_wall_s + (self.settings.short_guard_s if quick else self.settings.guard_s)

    def observe(self, tick: Tick, orientation: ArrayLike, now_ns: int, wall_s: float) -> list[Decision]:
        """An Observation came, with the measured orientation ``(4,)`` of the tool centre point."""
        if tick in self._decided or (self._open is not None and self._open.tick == tick):
            return []
        decisions = []
        if self._open is not None:
            if tick.stamp_ns < self._open.tick.stamp_ns:
                return [self._hold(tick, "the Observation came out of order")]
            decisions.append(
                self._hold(self._open.tick, f"{self._awaited_text()} did not answer before the next Observation")
            )
        if tick.episode != self._episode:
            self._episode, self._episode_ns = tick.episode, tick.stamp_ns
            self.takeover.reset()
        measured = np.asarray(orientation, dtype=np.float64)
        if not abs(float(np.linalg.norm(measured)) - 1.0) < _QUATERNION_TOLERANCE:  # also true for NaN
            return [*decisions, self._hold(tick, "the Observation's orientation is no unit quaternion")]
        self._open = _OpenTick(tick, measured, wall_s)
        if not self.settings.lockstep and tick.stamp_ns - now_ns > _FUTURE_NS:
            ahead_s = (tick.stamp_ns - now_ns) / 1e9
            return [*decisions, self._hold(tick, f"the Observation is stamped {ahead_s:.1f} s in the future")]
        if self.deadline_ns is not None and now_ns > self.deadline_ns:
            age_ms = (now_ns - tick.stamp_ns) / 1e6
            return [*decisions, self._hold(tick, f"the Observation came {age_ms:.0f} ms after its stamp")]
        return decisions + self.expire(now_ns, wall_s)

    def propose(self, tick: Tick, action: ArrayLike, now_ns: int, wall_s: float) -> list[Decision]:
        """The policy answered; what it says of any tick but the open one (or one still to come) does not count."""
        self._silent.discard("policy")
        if tick in self._decided or tick in self._proposals:
            return []
        self._proposals[tick] = np.asarray(action, dtype=np.float64)
        while len(self._proposals) > _REMEMBERED_PROPOSALS:
            self._proposals.popitem(last=False)
        return self.expire(now_ns, wall_s)

    def operate(self, buttons: list[int], stamp_ns: int, now_ns: int, wall_s: float) -> list[Decision]:
        """The operator's buttons came; their stamp says that the twist of that tick has come too."""
        self._silent.discard("operator")
        self.device.deadman.put(buttons, now_ns)
        # One false stamp must not answer for all ticks to come.
        self.device.put_buttons(buttons, stamp_ns if stamp_ns - now_ns <= _FUTURE_NS else -1)
        return self.expire(now_ns, wall_s)

    def rewarded(self, stamp_ns: int, now_ns: int, wall_s: float) -> list[Decision]:
        """The reward node has judged the tick at ``stamp_ns``."""
        self._silent.discard("reward")
        if stamp_ns - now_ns <= _FUTURE_NS:
            self._rewarded_ns = max(self._rewarded_ns, stamp_ns)
        return self.expire(now_ns, wall_s)

    def expire(self, now_ns: int, wall_s: float) -> list[Decision]:
        """Decides the open tick if everybody has answered or its time is over."""
        if self._open is None:
            return []
        awaited = self._awaited()
        if not awaited:
            return [self._decide(now_ns)]
        if self.deadline_ns is not None and now_ns >= self.deadline_ns:
            return [self._decide_late(now_ns, f"no answer within {self.settings.deadline_s * 1e3:.0f} ms")]
        if self.guard_wall_s is not None and wall_s >= self.guard_wall_s:
            waited = wall_s - self._open.opened_wall_s
            self._silent.update(awaited)
            return [self._decide_late(now_ns, f"silent for {waited:.1f} s of wall time")]
        return []

    def _awaited(self) -> list[str]:
        """Who has to answer the open tick and has not."""
        assert self._open is not None
        tick, settings = self._open.tick, self.settings
        awaited = []
        if settings.policy_expected and tick not in self._proposals:
            awaited.append("policy")
        if settings.lockstep and settings.operator_expected and self.device.buttons_stamp_ns < tick.stamp_ns:
            awaited.append("operator")
        if settings.lockstep and settings.reward_expected and self._rewarded_ns < tick.stamp_ns:
            awaited.append("reward")
        return awaited

    def _awaited_text(self) -> str:
        return " and ".join(self._awaited()) or "nobody"

    def _decide_late(self, now_ns: int, how: str) -> Decision:
        """The time is over: a hand that drives needs no policy, everything else holds."""
        assert self._open is not None
        reason = f"{self._awaited_text()}: {how}"
        return self._decide(now_ns, reason) if self._awaited() == ["policy"] else self._hold(self._open.tick, reason)

    def _decide(self, now_ns: int, late: str = "") -> Decision:
        """Operator before policy before HOLD. ``late``: why there is no proposal although one was expected."""
        assert self._open is not None
        tick = self._open.tick
        proposal, refusal = self._checked_proposal(tick)
        if released := self.device.deadman.released(now_ns):
            return self._hold(tick, released, proposal, fault=False)
        axes = self.device.axes(now_ns)
        if not np.isfinite(axes).all():
            return self._hold(tick, "operator: the twist is not finite", proposal)
        axes = self.takeover.without_noise(axes)
        button = self.device.take_gripper()
        if self.takeover.update(axes, KEEP if self.settings.fixed_gripper else button):
            action = end_effector_action(axes, self._open.orientation, self.takeover.gripper).astype(np.float32)
            return self._close(
                Decision(tick, Command(action=action, source=ActionSource.OPERATOR, proposal=proposal), False)
            )
        if proposal is not None:
            if unjudged := self._unjudged(tick):
                return self._hold(tick, unjudged, proposal)
            return self._close(
                Decision(tick, Command(action=proposal, source=ActionSource.POLICY, proposal=proposal), False)
            )
        if self.settings.policy_expected:
            return self._hold(tick, late or refusal)
        return self._hold(tick, "the operator's hand rests", fault=False)

    def _checked_proposal(self, tick: Tick) -> tuple[Float32 | None, str]:
        """The clipped proposal for ``tick``, or None and why it is refused."""
        proposal = self._proposals.get(tick)
        if proposal is None:
            return None, "policy: no proposal"
        if proposal.shape != (ACTION_DIM,) or not np.isfinite(proposal).all():
            return None, f"policy: the proposal is not {ACTION_DIM} finite numbers"
        largest = float(np.max(np.abs(proposal)))
        if largest > 1.0 + self.settings.overshoot:
            return None, f"policy: the proposal reaches {largest:.3g}, beyond [-1, 1]"
        proposal = np.clip(proposal, -1.0, 1.0).astype(np.float32)
        if self.settings.fixed_gripper:
            proposal[-1] = KEEP
        return proposal, ""

    def _unjudged(self, tick: Tick) -> str:
        """Real time: why the policy must wait for the reward node; empty when it need not."""
        settings = self.settings
        silence_s = (tick.stamp_ns - max(self._rewarded_ns, self._episode_ns)) / 1e9
        if settings.lockstep or not settings.reward_expected or silence_s <= settings.reward_timeout_s:
            return ""
        return f"reward: silent for {silence_s:.1f} s"

    def _hold(self, tick: Tick, reason: str, proposal: Float32 | None = None, *, fault: bool = True) -> Decision:
        command = Command(
            action=np.zeros(ACTION_DIM, np.float32), source=ActionSource.HOLD, proposal=proposal, reason=reason
        )
        return self._close(Decision(tick, command, fault))

    def _close(self, decision: Decision) -> Decision:
        if self._open is not None and self._open.tick == decision.tick:
            self._open = None
        self._proposals.pop(decision.tick, None)
        self._decided.add(decision.tick)
        self._decided_order.append(decision.tick)
        if len(self._decided_order) > _REMEMBERED_TICKS:
            self._decided.discard(self._decided_order.popleft())
        return decision
