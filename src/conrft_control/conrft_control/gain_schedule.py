"""Which of the controller's gains belong to a phase, and whether the controller has taken them."""

from __future__ import annotations

from enum import Enum

from conrft_data.types import Phase


class GainSet(Enum):
    """Two sets of gains."""

    RESET = "reset"
    CONTACT = "contact"


class GainSchedule:
    """Stiff on the way home, soft from the moment the arm stands ready: never a change of gains while it moves.

    A refusal stands until the next phase asks for other gains. All times are monotonic wall time.

    Attributes:
        problem: why the controller does not have the phase's gains; empty when it has or is being told.
    """

    def __init__(self, timeout_s: float) -> None:
        """``timeout_s``: for the controller to take a set."""
        self.problem = ""
        self._timeout_s = timeout_s
        self._wanted: GainSet | None = None
        self._taken: GainSet | None = None
        self._sent: GainSet | None = None
        self._since_wall_s = 0.0

    @property
    def taken(self) -> GainSet | None:
        """What the controller has."""
        return self._taken

    @property
    def settled(self) -> bool:
        """Whether the controller has what the phase wants."""
        return self._taken is not None and self._taken is self._wanted

    def enter(self, phase: Phase, wall_s: float) -> None:
        """The supervisor is in ``phase``; the end of an episode changes nothing, the arm may be in contact."""
        wanted = {Phase.RESETTING: GainSet.RESET, Phase.READY: GainSet.CONTACT, Phase.RUNNING: GainSet.CONTACT}
        new = wanted.get(phase, self._wanted)
        if new is not self._wanted:
            self._wanted, self._sent, self._since_wall_s, self.problem = new, None, wall_s, ""

    def due(self, wall_s: float, *, server_is_there: bool) -> GainSet | None:
        """The set to send now, at most once for each change."""
        if self._wanted is None or self.settled or self.problem:
            return None
        if wall_s - self._since_wall_s > self._timeout_s:
            why = "no answer from the controller" if self._sent else "the controller is not there"
            self.problem = f"gains: {why} within {self._timeout_s:.1f} s, wanted those of {self._wanted.value}"
            return None
        if self._sent is not None or not server_is_there:
            return None
        self._taken, self._sent = None, self._wanted
        return self._sent

    def answered(self, gains: GainSet, refusal: str) -> None:
        """The controller has taken ``gains``, or says why not."""
        if gains is not self._sent:
            return
        if refusal:
            self.problem = f"gains of {gains.value}: {refusal}"
        else:
            self._taken = gains
            self.problem = ""
