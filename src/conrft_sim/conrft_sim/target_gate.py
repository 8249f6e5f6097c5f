"""Which target poses the simulated impedance controller takes, and when simulated time may go on."""

from __future__ import annotations

from enum import Enum


class Judgement(Enum):
    """What to do with a target pose that has arrived."""

    FOLLOW = "follow"
    SEVERAL_PUBLISHERS = "more than one node publishes the target"
    OTHER_TICK = "its stamp is not that of the tick that waits"


class TargetGate:
    """Judges targets as crisp_controllers does, and in lockstep lets exactly one through for each tick.

    In lockstep a tick is opened with its stamp; the first target with that very stamp closes it. In real time every
    target of a
    single publisher is followed.
    """

    def __init__(self, *, lockstep: bool) -> None:
        self.lockstep = lockstep
        self._open_ns: int | None = None

    def open(self, stamp_ns: int) -> None:
        """A tick was published and waits for its target."""
        self._open_ns = stamp_ns

    def judge(self, stamp_ns: int, publishers: int) -> Judgement:
        """Judges a target with this stamp; ``publishers`` is the number of nodes that publish the topic."""
        if publishers > 1:
            return Judgement.SEVERAL_PUBLISHERS
        if self.lockstep:
            if stamp_ns != self._open_ns:
                return Judgement.OTHER_TICK
            self._open_ns = None
        return Judgement.FOLLOW
