"""What the recorder says about the episodes, as far as the supervisor must know it: is the last one on the disk?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Keys of the recorder's diagnostic values.
SINCE, FINISHED, FAILED, FAILED_WHY = "since", "finished_episode", "failed_episode", "failed_because"


@dataclass(frozen=True, kw_only=True)
class RecorderReport:
    """The recorder's word.

    Attributes:
        since: when its process began; another value is another process.
        finished: the last episode that is on the disk, whole.
        failed: the last episode that is not, and ``reason`` why.
    """

    since: str
    finished: str = ""
    failed: str = ""
    reason: str = ""

    @classmethod
    def from_values(cls, values: Mapping[str, str]) -> RecorderReport | None:
        """From diagnostic values; None when they are not a recorder's."""
        if SINCE not in values:
            return None
        return cls(
            since=values[SINCE],
            finished=values.get(FINISHED, ""),
            failed=values.get(FAILED, ""),
            reason=values.get(FAILED_WHY, ""),
        )

    def values(self) -> dict[str, str]:
        """As diagnostic values."""
        return {SINCE: self.since, FINISHED: self.finished, FAILED: self.failed, FAILED_WHY: self.reason}


class RecordingWatch:
    """Follows one episode from its first tick to the recorder's verdict."""

    def __init__(self) -> None:
        """Nothing is awaited yet."""
        self._since = ""
        self._episode_id = ""
        self._ended = False
        self.problem = ""

    @property
    def awaited(self) -> str:
        """The ended episode that the recorder has not judged yet; empty: none."""
        return self._episode_id if self._ended else ""

    def begin(self, episode_id: str) -> None:
        """An episode begins."""
        self._episode_id, self._ended, self.problem = episode_id, False, ""

    def end(self) -> None:
        """It has ended; the recorder's verdict is awaited."""
        self._ended = True

    def forget(self) -> None:
        """Nobody waits for the verdict any more."""
        self._episode_id, self._ended, self.problem = "", False, ""

    def hear(self, report: RecorderReport) -> None:
        """The recorder spoke; ``problem`` is then set when the episode cannot become whole."""
        restarted = self._since not in ("", report.since)
        self._since = report.since
        if not self._episode_id:
            return
        if report.failed == self._episode_id:
            self.problem = f"not recorded whole: {report.reason}"
        elif self._ended and report.finished == self._episode_id:
            self.forget()
        elif restarted and not self._ended:
            self.problem = "the recorder was started again in the middle of the episode"
