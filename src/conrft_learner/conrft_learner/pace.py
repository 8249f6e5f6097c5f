"""Whether a learner keeps up with its update-to-data ratio."""

from __future__ import annotations

TICKS_PER_S = 10.0  # of the control loop


class Pace:
    """How fast updates are done while there are any to do.

    Attributes:
        updates_per_s: over the last payment that is finished, or the present one where it is the first; 0 before any.
    """

    def __init__(self) -> None:
        self.updates_per_s = 0.0
        self._updates = 0
        self._seconds = 0.0
        self._finished_one = False

    def add(self, updates: int, seconds: float, *, finished: bool) -> None:
        """Takes a piece of work; ``finished``: all updates that an episode owed are done."""
        self._updates += updates
        self._seconds += seconds
        if finished or not self._finished_one:
            self.updates_per_s = self._updates / max(self._seconds, 1e-9)
        if finished:
            self._updates, self._seconds, self._finished_one = 0, 0.0, True


def needed_updates_per_s(updates_per_tick: float) -> float:
    """Updates/s with which an episode is paid for in the time that it took."""
    return updates_per_tick * TICKS_PER_S
