"""How soon the arm holds when something fails, each failure brought about in the running loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from conrft_bringup.chaos.played_world import SeenTarget
from conrft_bringup.chaos.watched_loop import WatchedLoop
from conrft_control.commander import CommanderSettings
from conrft_control.intervention_mux import MuxSettings
from conrft_data import topics
from conrft_data.types import Float64, Phase

_MS = 1_000_000
_STILL_NS, _LONGEST_NS = 400 * _MS, 4_000 * _MS
_TICKS_BEFORE = 8
_ONE_WAY = 5  # motions, farther than the retreat goes
_PARTS_HOME = 3  # motions of the way home, with as many still to come
_FORWARDS = np.array([1.0, 0, 0, 0, 0, 0])
ONE_TICK_MS = 100.0
_PASSED_ON_MS = 60.0  # what one node tells another takes so long at most, where each step of ROS time is 10 ms
_GRIPPER_TIMEOUT_S = 0.25  # the observer's own default


@dataclass(frozen=True, slots=True)
class StoppingTime:
    """What one cause led to; times in ROS time from the cause.

    Attributes:
        cause: what was done.
        detected_ms: until the first HOLD, or the first word of it on /diagnostics.
        last_motion_ms: until the last target that led the arm on; 0: there was none after the cause.
        from_detection_ms: from detection to that target; 0: it came before.
        allowed_ms: longest time until it is detected.
        word: what was said about it first.
        back_m: how far the target went back from where the arm had been stopped.
        back_speed: its greatest speed then, m/s.
    """

    cause: str
    detected_ms: float | None
    last_motion_ms: float
    from_detection_ms: float | None
    allowed_ms: float
    word: str
    back_m: float = 0.0
    back_speed: float = 0.0

    @property
    def in_time(self) -> bool:
        """Whether it was detected when its deadline says so, and the arm held within a tick from then on."""
        if self.detected_ms is None or self.from_detection_ms is None:
            return False
        return self.detected_ms <= self.allowed_ms and self.from_detection_ms <= ONE_TICK_MS


@dataclass(frozen=True, slots=True)
class Cause:
    """What can fail.

    Attributes:
        begin, end: what is done, and how it is taken back.
        timeout_s: after which it counts as failed.
        homewards: it happens while the arm is on its way home, not in an episode.
    """

    begin: Callable[[], Any]
    end: Callable[[], Any]
    timeout_s: float = 0.0
    homewards: bool = False


def measure_stop(loop: WatchedLoop, cause: str) -> StoppingTime:
    """Brings the cause about in the middle of a motion, waits until the arm stands, and takes it away again."""
    how = causes(loop)[cause]
    world = loop.world
    (go_home if how.homewards else drive)(loop)
    began_ns, direction, moves = world.now_ns, world.moves[-1][1], len(world.moves)
    del world.targets[:-1]
    world.words.clear()
    how.begin()
    loop.until(lambda: _stands(loop, began_ns), "", _LONGEST_NS)
    retreats = world.force_n > 0 or world.torque_nm > 0
    onwards = [at for at, move in world.moves[moves:] if not retreats or float(move @ direction) > 0]
    last_ns = max(onwards, default=began_ns)
    word_ns, word = world.words[0] if world.words else (None, "")
    back = _motions(_from(world.targets, word_ns or began_ns), -direction) if retreats else []
    how.end()
    loop.reset_stop()
    return StoppingTime(
        cause=cause,
        detected_ms=None if word_ns is None else (word_ns - began_ns) / _MS,
        last_motion_ms=(last_ns - began_ns) / _MS,
        from_detection_ms=None if word_ns is None else max(0.0, (last_ns - word_ns) / _MS),
        allowed_ms=1e3 * how.timeout_s + ONE_TICK_MS + _PASSED_ON_MS,
        word=word,
        back_m=sum(way for way, _ in back),
        back_speed=max((way / elapsed_s for way, elapsed_s in back), default=0.0),
    )


def _from(targets: list[SeenTarget], at_ns: int) -> list[SeenTarget]:
    """The last target that came until then, and those that followed."""
    return [target for target in targets if target.at_ns <= at_ns][-1:] + [t for t in targets if t.at_ns > at_ns]


def _motions(targets: list[SeenTarget], direction: Float64) -> list[tuple[float, float]]:
    """How far each target lies from the last one in a direction ``(3,)``, m, and the time between their stamps, s."""
    unit = direction / np.linalg.norm(direction)
    return [
        (float((after.pose[:3] - before.pose[:3]) @ unit), max(_MS, after.stamp_ns - before.stamp_ns) / 1e9)
        for before, after in pairwise(targets)
    ]


def causes(loop: WatchedLoop) -> dict[str, Cause]:
    """By name, what can fail."""
    world, robot, safety = loop.world, loop.robot, loop.robot.safety

    def silence(timeout_s: float, *names: str, homewards: bool = False) -> Cause:
        begin, end = partial(world.silent.update, names), partial(world.silent.difference_update, names)
        return Cause(begin, end, timeout_s, homewards)

    def setting(name: str, value: Any, *, homewards: bool = False) -> Cause:
        normal = getattr(world, name)
        begin, end = partial(setattr, world, name, value), partial(setattr, world, name, normal)
        return Cause(begin, end, homewards=homewards)

    def frozen(name: str) -> Cause:
        return Cause(partial(loop.freeze, name), partial(loop.thaw, name), robot.action_timeout)

    stop = (partial(loop.press_stop, True), partial(loop.press_stop, False))
    force, torque = 1.5 * safety.force, 1.2 * safety.torque
    camera = next(iter(robot.cameras.values())).topic
    mux, deadman_s = MuxSettings(), CommanderSettings().deadman_timeout_s
    return {
        "emergency stop pressed": Cause(*stop),
        "emergency stop pressed on the way home": Cause(*stop, homewards=True),
        f"force of {force:g} N, limit {safety.force:g} N": setting("force_n", force),
        f"torque of {torque:g} N m, limit {safety.torque:g} N m": setting("torque_nm", torque),
        "deadman button released": setting("deadman", False),
        "deadman button released on the way home": setting("deadman", False, homewards=True),
        "SpaceMouse silent, deadman button held before": silence(deadman_s, topics.SPACENAV_JOY, topics.SPACENAV_TWIST),
        "policy silent": silence(mux.deadline_s, topics.POLICY_OUTPUT),
        "policy proposes NaN": setting("bad_proposal", True),
        "reward node silent": silence(mux.reward_timeout_s, topics.REWARD),
        "camera silent": silence(robot.camera_timeout, camera),
        "measured pose silent": silence(robot.state_timeout, robot.current_pose),
        "measured pose silent on the way home": silence(robot.state_timeout, robot.current_pose, homewards=True),
        "measured pose NaN": setting("bad_pose", True),
        "measured wrench silent": silence(robot.state_timeout, robot.wrench),
        "measured wrench silent on the way home": silence(robot.state_timeout, robot.wrench, homewards=True),
        "measured wrench NaN": setting("bad_wrench", True),
        "measured twist silent": silence(robot.state_timeout, robot.twist),
        "gripper's state silent": silence(_GRIPPER_TIMEOUT_S, robot.gripper_state),
        "observer frozen: no Observation": frozen("ObserverNode"),
        "intervention mux frozen": frozen("InterventionMuxNode"),
    }


def drive(loop: WatchedLoop) -> None:
    """The policy drives; right after a motion, in the middle of the way: what leads back is no motion onwards."""
    world = loop.world
    loop.until_driven(_TICKS_BEFORE)
    world.moves.clear()
    loop.until(lambda: len(_one_way(loop)) >= _ONE_WAY, "the arm does not move")


def go_home(loop: WatchedLoop) -> None:
    """The arm is on its way home, from far away."""
    world = loop.world
    world.push = _FORWARDS
    loop.until_driven(_TICKS_BEFORE)
    world.push = None
    loop.abort_episode()
    world.moves.clear()
    loop.until(lambda: len(world.moves) >= _PARTS_HOME and world.phase is Phase.RESETTING, "the arm does not go home")


def _one_way(loop: WatchedLoop) -> list[Any]:
    """The newest motions, if they all went one way."""
    newest = [move for _, move in loop.world.moves[-_ONE_WAY:]]
    return newest if all(float(move @ newest[-1]) > 0 for move in newest) else []


def _stands(loop: WatchedLoop, began_ns: int) -> bool:
    """Whether the cause is known, and the arm has not been led anywhere for some time."""
    world = loop.world
    last_ns = max(began_ns, world.moves[-1][0])
    return bool(world.words) and world.now_ns - max(last_ns, world.words[0][0]) > _STILL_NS
