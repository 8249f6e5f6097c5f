"""Limits of the commanded motion that are never exceeded: whoever drives asks for more in the running loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from conrft_bringup.chaos.played_world import SeenTarget
from conrft_bringup.chaos.watched_loop import WatchedLoop
from conrft_data import rotations
from conrft_data.types import ActionSource, Float64

# Below what full actions ask for, so that the limits have something to do.
SLOW: dict[str, object] = {
    "commander:linear_speed": 0.1,
    "commander:angular_speed": 0.4,
    "commander:linear_acceleration": 0.5,
    "commander:angular_acceleration": 2.0,
}
_MS = 1_000_000
_TICK_S = 0.1
_PUSH_S = 1.2  # from home to each wall, and on
_REVERSALS = 4
_ROUNDING = 1e-7  # of poses that went through messages

# Of a target and the measured pose, both (7,): how far the target reaches towards a limit.
Reach = Callable[[Float64, Float64], float]


@dataclass(frozen=True, slots=True)
class KeptLimit:
    """What came of asking for more than a limit allows.

    Attributes:
        limit: its name.
        how: who asked for more.
        unit: of the next three.
        bound: the limit.
        asked: what the actions would have led to.
        seen: the most that any target had.
        last_outward_ms: ROS time from the first action that asked for more to the last target that led farther towards
            the limit; 0: that action's own target, cut off at the limit, was the last. None: for a speed.
    """

    limit: str
    how: str
    unit: str
    bound: float
    asked: float
    seen: float
    last_outward_ms: float | None = None

    @property
    def kept(self) -> bool:
        """Whether no target was beyond the limit, although the actions asked for it."""
        return self.seen <= self.bound + _ROUNDING < self.asked


@dataclass(frozen=True, slots=True)
class _Push:
    """In one direction, ``step`` a tick, by the policy's ``action`` or the ``hand``; ``blocked``: the arm stays."""

    limit: str
    how: str
    unit: str
    bound: float
    step: float
    reach: Reach
    action: Float64 | None = None
    hand: Float64 | None = None
    blocked: bool = False


def measure_places(loop: WatchedLoop) -> list[KeptLimit]:
    """Policy and hand push against workspace box, tilt limit and leash."""
    limits = loop.task.motion_limits()
    step, turn = limits.translation_scale, limits.rotation_scale
    forwards, down, turning = np.eye(6)[0], -np.eye(6)[2], np.eye(6)[5]
    # Those that lead the arm far away come last: between two the arm goes home.
    pushes = [
        _Push("leash", "policy, the arm is blocked", "m", limits.leash, step, _ahead, forwards, blocked=True),
        _Push("tilt", "policy, turning", "rad", limits.max_tilt, turn, _turned(loop), turning),
        _Push("workspace box, x", "policy, forwards", "m", limits.box_high[0], step, _forwards, forwards),
        _Push("workspace box, -z", "hand, to the table", "m", -limits.box_low[2], step, _down, hand=down),
    ]
    return [_push(loop, push) for push in pushes]


def measure_speeds(loop: WatchedLoop) -> list[KeptLimit]:
    """The policy goes to and fro with full actions; the loop was built with the limits ``SLOW``."""
    scale = loop.task.action_scale
    found = []
    for axes, full, quantity, unit in (
        (slice(0, 3), scale.translation, "linear", "m"),
        (slice(3, 6), scale.rotation, "angular", "rad"),
    ):
        loop.new_episode()
        push = np.zeros(6)
        push[axes] = 1.0
        # One tick longer than an acceleration from standing to full speed takes.
        for sign in [1.0, -1.0] * (_REVERSALS // 2):
            loop.world.push = sign * push
            loop.until_driven(4)
        loop.world.push = None
        speeds, gains = speeds_of(loop.world.targets, loop.world.actions, angular=quantity == "angular")
        speed, gain = (float(str(SLOW[f"commander:{quantity}_{name}"])) for name in ("speed", "acceleration"))
        asked = math.sqrt(3) * full / _TICK_S
        how = "policy, full actions on three axes, to and fro"
        found.append(KeptLimit(f"{quantity} speed", how, f"{unit}/s", speed, asked, max(speeds)))
        asked_gain = 2 * asked / _TICK_S
        found.append(KeptLimit(f"{quantity} acceleration", how, f"{unit}/s²", gain, asked_gain, max(gains)))
    return found


def _push(loop: WatchedLoop, push: _Push) -> KeptLimit:
    """Pushes from home on, and reads off the targets what came of it."""
    world = loop.world
    loop.new_episode()
    world.push, world.blocked = push.action, push.blocked
    world.hand = np.zeros(6) if push.hand is None else push.hand
    loop.go_on(_PUSH_S)
    world.push, world.hand, world.blocked = None, np.zeros(6), False
    reached = [(seen.at_ns, push.reach(seen.pose, seen.measured)) for seen in world.targets]
    # From here on every action asks for more than the limit.
    near_ns, near = next((at, value) for at, value in reached if value + push.step > push.bound + _ROUNDING)
    beyond = [at for at, _, source in world.actions if at > near_ns and source is not ActionSource.HOLD]
    farther = [at for (_, last), (at, value) in pairwise(reached) if value > last + _ROUNDING]
    return KeptLimit(
        limit=push.limit,
        how=push.how,
        unit=push.unit,
        bound=push.bound,
        asked=near + push.step * len(beyond),
        seen=max(value for _, value in reached),
        last_outward_ms=max(0.0, (farther[-1] - beyond[0]) / _MS),
    )


def speeds_of(
    targets: list[SeenTarget], actions: list[tuple[int, int, ActionSource]], *, angular: bool
) -> tuple[list[float], list[float]]:
    """Speeds and gains of speed of the targets that answer an Action; after a HOLD the motion begins at none.

    Both as the played world records them. Of several targets for the same time the last is the answer: the commander
    may hold before the Action comes.
    """
    followed = {stamp for _, stamp, source in actions if source is not ActionSource.HOLD}
    answers = {seen.stamp_ns: seen for seen in targets if seen.stamp_ns in followed}
    speeds, gains, present, last_ns = [], [], np.zeros(3), 0
    for before, after in pairwise(targets):
        if answers.get(after.stamp_ns) is not after:
            present = np.zeros(3)
            continue
        elapsed_s = min(_TICK_S, (after.stamp_ns - last_ns) / 1e9)
        way = _turn(before.pose[3:], after.pose[3:]) if angular else after.pose[:3] - before.pose[:3]
        velocity = way / elapsed_s
        speeds.append(float(np.linalg.norm(velocity)))
        if speeds[-1] > _ROUNDING:  # a stop is never delayed
            gains.append(float(np.linalg.norm(velocity - present)) / elapsed_s)
        # Where the arm turns round it may stand still for one target, which takes its time as any other.
        present, last_ns = velocity, after.stamp_ns
    return speeds, gains


def _forwards(target: Float64, measured: Float64) -> float:
    return float(target[0])


def _down(target: Float64, measured: Float64) -> float:
    return -float(target[2])


def _ahead(target: Float64, measured: Float64) -> float:
    return float(np.linalg.norm(target[:3] - measured[:3]))


def _turned(loop: WatchedLoop) -> Reach:
    home = rotations.from_euler_xyz(loop.task.reset.euler_xyz)

    def turned(target: Float64, measured: Float64) -> float:
        return float(np.linalg.norm(_turn(home, target[3:])))

    return turned


def _turn(before: Float64, after: Float64) -> Float64:
    return rotations.to_rotation_vector(rotations.multiply(after, rotations.inverse(before)))
