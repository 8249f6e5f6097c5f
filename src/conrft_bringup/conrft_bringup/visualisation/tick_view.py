"""Keeps what is known of the present tick, from messages that may come in any order, late or not at all."""

from __future__ import annotations

from conrft_bringup.visualisation.marker_scene import Moment
from conrft_data.reference_pose import MotionLimits, ReferencePose
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import ActionSource, Command, Float64, Phase, Verdict


class TickView:
    """The moment that is shown.

    A bag of an episode holds no reference pose. There it is computed from the Actions by the commander's own
    arithmetic, until somebody publishes one.
    """

    def __init__(self, limits: MotionLimits) -> None:
        self.moment = Moment()
        self._reference = ReferencePose(limits)
        self._told_reference = False
        self._episode: int | None = None
        self._last_step = -1

    def on_observation(self, tick: Tick, measured: Float64, gripper_opening: float) -> None:
        """A new tick begins; ``measured`` is the tool centre point's pose ``(7,)``."""
        if tick.episode != self._episode or tick.step < self._last_step:
            self._begin(tick.episode)
        self._last_step = tick.step
        moment = self.moment
        moment.step, moment.measured, moment.gripper_opening = tick.step, measured, gripper_opening
        if not self._reference.started or tick.step == 0:
            self._reference.start(measured)
        if not self._told_reference:
            moment.reference = self._reference.pose

    def on_command(self, tick: Tick, command: Command) -> None:
        """What is executed at ``tick``."""
        moment = self.moment
        moment.command, moment.proposal = command, command.proposal
        if moment.measured is None or tick.episode != self._episode:
            return
        moment.trace.append((moment.measured[:3], command.source))
        if not self._told_reference and command.source is not ActionSource.HOLD:
            moment.reference = self._reference.apply(command.action, moment.measured)

    def on_verdict(self, verdict: Verdict) -> None:
        """The success classifier's word."""
        self.moment.verdict = verdict

    def on_value(self, value: float) -> None:
        """Q of the executed action."""
        self.moment.value = value

    def on_status(self, status: EpisodeStatus) -> None:
        """The episode's state."""
        self.moment.status = status
        if status.phase is Phase.RUNNING and status.episode != self._episode:
            self._begin(status.episode)

    def on_reference(self, reference: Float64) -> None:
        """The commander's own reference pose ``(7,)``."""
        self._told_reference = True
        self.moment.reference = reference

    def on_joints(self, positions: dict[str, float]) -> None:
        """Positions of the arm's joints by the robot model's names, rad."""
        self.moment.joints = positions

    def _begin(self, episode: int) -> None:
        """Forgets what belonged to the episode before."""
        self._episode, self._last_step = episode, -1
        self.moment.trace.clear()
        self.moment.command = self.moment.proposal = self.moment.verdict = self.moment.value = None
