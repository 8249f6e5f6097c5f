"""Which goal a gripper that is driven by actions gets next: one at a time, one for each wish, the newest wish first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class Step(Enum):
    """What has to be done now."""

    NOTHING = "nothing"
    SEND = "send"
    CANCEL = "cancel"


@dataclass(slots=True)
class _Goal:
    number: int
    opening: float
    since_wall_s: float
    cancelled: bool = False


class GripperGoals:
    """Turns wanted openings into goals.

    The same opening is never sent twice in a row: not while its goal is under way, and not after it was reached. A
    goal that failed is not repeated by itself; the next wish is tried, whatever it is. All times are monotonic wall
    time: a gripper's fingers do not know of a simulator's clock.

    Attributes:
        problem: why the gripper is not where it should be; empty when it is, or is on its way.
    """

    def __init__(self, timeout_s: float, patience_s: float) -> None:
        """Starts without a wish.

        Args:
            timeout_s: a goal that did not end by then is cancelled.
            patience_s: a wish that finds no action server for so long is dropped, so that the gripper does not move
                unexpectedly when the server comes back. Before it was ever there a wish waits: the driver is starting.
        """
        self.problem = ""
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._wish: tuple[float, float] | None = None
        self._goal: _Goal | None = None
        self._reached: float | None = None
        self._number = 0
        self._server_seen = False

    @property
    def goal(self) -> float | None:
        """The opening that is under way, 0 closed .. 1 open."""
        return self._goal.opening if self._goal else None

    @property
    def wish(self) -> float | None:
        """The opening that waits to be sent."""
        return self._wish[0] if self._wish else None

    @property
    def cancelled(self) -> bool:
        """Whether the goal under way has been overtaken or given up."""
        return self._goal is None or self._goal.cancelled

    @property
    def number(self) -> int:
        """Of the goal that was sent last."""
        return self._number

    def want(self, opening: float, wall_s: float) -> None:
        """The gripper shall open to ``opening``, 0 closed .. 1 open; raises ValueError at any other number."""
        if not (math.isfinite(opening) and 0.0 <= opening <= 1.0):
            raise ValueError(f"gripper: the opening must be in 0 .. 1, got {opening}")
        on_its_way = self._goal is not None and not self._goal.cancelled and self._goal.opening == opening
        there = self._goal is None and self._reached == opening
        self._wish = None if on_its_way or there else (opening, wall_s)

    def forget(self) -> None:
        """A person has looked after the gripper: what went wrong is over, and nobody knows where the fingers are."""
        self.problem, self._reached = "", None

    def step(self, wall_s: float, *, server_is_there: bool) -> tuple[Step, float]:
        """What to do now, and the opening of a goal that has to be sent."""
        self._server_seen = self._server_seen or server_is_there
        if self._goal is not None:
            return self._watch(self._goal, wall_s), 0.0
        if self._wish is None:
            return Step.NOTHING, 0.0
        opening, since = self._wish
        if server_is_there:
            self._wish, self._reached = None, None
            self._number += 1
            self._goal = _Goal(self._number, opening, wall_s)
            return Step.SEND, opening
        if self._server_seen and wall_s - since > self._patience_s:
            self._wish = None
            self.problem = f"gripper: no action server for {self._patience_s:.1f} s, opening {opening:.2f} was dropped"
        return Step.NOTHING, 0.0

    def ended(self, number: int, error: str) -> None:
        """Goal ``number`` has ended; ``error`` is empty when the gripper is where the goal wanted it."""
        goal = self._goal
        if goal is None or goal.number != number:
            return  # of a goal that was given up
        self._goal = None
        if not error:
            self._reached, self.problem = goal.opening, ""
        elif not goal.cancelled:
            self.problem = f"gripper: opening {goal.opening:.2f} failed: {error}"

    def _watch(self, goal: _Goal, wall_s: float) -> Step:
        """Cancels a goal that takes too long, or that a newer wish has overtaken."""
        if goal.cancelled:
            if wall_s - goal.since_wall_s > self._timeout_s:
                self._goal = None
                self.problem = f"gripper: opening {goal.opening:.2f} was cancelled and did not end"
            return Step.NOTHING
        late = wall_s - goal.since_wall_s > self._timeout_s
        if not late and self._wish is None:
            return Step.NOTHING
        if late:
            self.problem = f"gripper: opening {goal.opening:.2f} did not end within {self._timeout_s:.1f} s"
        goal.cancelled, goal.since_wall_s = True, wall_s
        return Step.CANCEL
