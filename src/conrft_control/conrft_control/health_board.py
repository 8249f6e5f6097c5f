"""What the nodes of the loop say about themselves on /diagnostics, and which of them say nothing any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """Levels of ``diagnostic_msgs/DiagnosticStatus``."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


def node_of(status_name: str) -> tuple[str, str]:
    """Namespace and name of a diagnostic status's node: ``/robot/observer: tick`` is ``("robot", "observer")``'s."""
    namespace, _, node = status_name.split(":")[0].strip().rpartition("/")
    return namespace.strip("/"), node


def _is_name(node: str) -> bool:
    """Whether ROS allows a node to be called so, and a person can read it."""
    return node.isascii() and node.isidentifier() and len(node) <= _LONGEST_NAME


# A stranger that invents names for itself must not fill the memory.
_MOST_REPORTS, _LONGEST_NAME = 256, 100

# The board's owner comes round fifty times a second; when it did not for so long, nobody could be heard.
_DEAF_S = 0.5


@dataclass(slots=True)
class _Report:
    level: Level
    message: str
    heard_wall_s: float
    bad_since_wall_s: float | None
    stopped: bool


class HealthBoard:
    """Keeps the last word of each required node, and of each other one of this suite.

    All times are monotonic wall time: a simulator's clock may stand still.
    """

    def __init__(self, required: Sequence[str], silence_s: float, namespace: str = "/") -> None:
        """``required``: node names; ``silence_s``: a node that said nothing for so long has died or hangs.

        ``namespace``: of the robot. Another robot's nodes share /diagnostics, and must not hide that one of these died.
        """
        self._required = tuple(required)
        self._namespace = namespace.strip("/")
        self._silence_s = silence_s
        self._reports: dict[str, _Report] = {}
        self._listened_wall_s: float | None = None

    def listen(self, wall_s: float) -> None:
        """To be called in every turn: while the caller itself stood still, no node counts as silent."""
        deaf_s = 0.0 if self._listened_wall_s is None else wall_s - self._listened_wall_s
        self._listened_wall_s = wall_s
        if deaf_s > _DEAF_S:
            for report in self._reports.values():
                report.heard_wall_s += deaf_s

    def put(
        self,
        status_name: str,
        level: Level,
        message: str,
        wall_s: float,
        *,
        own: bool = False,
        stopped: bool = False,
    ) -> None:
        """One diagnostic status came; ``own``: from a node of this suite, whose name then has its namespace.

        ``stopped``: an episode under way cannot go on, so that patience is of no use. Passed over are strangers that
        are not required, what cannot be a node's name, and nodes of another namespace. diagnostic_updater leaves the
        namespace out, so a stranger's name without one may be that of a required node.
        """
        namespace, node = node_of(status_name)
        if node not in self._required and not (own and _is_name(node)):
            return
        if namespace != self._namespace and (own or namespace):
            return
        if len(self._reports) >= _MOST_REPORTS and node not in self._reports and node not in self._required:
            return
        before = self._reports.get(node)
        bad_since = None
        if level >= Level.ERROR:
            bad_since = (
                before.bad_since_wall_s if before is not None and before.bad_since_wall_s is not None else wall_s
            )
        self._reports[node] = _Report(level, message, wall_s, bad_since, stopped)

    def not_ready(self, wall_s: float) -> list[str]:
        """Why an episode must not begin: one sentence for each required node that is missing, silent or in error."""
        missing = [f"{node}: has not reported yet" for node in self._required if node not in self._reports]
        return missing + self.failed(wall_s, 0.0)

    def silent(self, wall_s: float, *, required: bool = True) -> list[str]:
        """Which nodes have reported once and say nothing any more; ``required``: only the required ones."""
        silences = {node: wall_s - report.heard_wall_s for node, report in self._reports.items()}
        return [
            f"{node}: silent for {silence:.1f} s"
            for node, silence in silences.items()
            if silence > self._silence_s and (node in self._required or not required)
        ]

    def failed(self, wall_s: float, patience_s: float, among: Sequence[str] | None = None) -> list[str]:
        """Which required nodes fell silent, or have been in error for at least ``patience_s``.

        ``among``: those whose errors count; None: all of them.
        """
        bad = [
            f"{node}: {report.message}"
            for node, report in self._reports.items()
            if node in (self._required if among is None else among)
            and wall_s - report.heard_wall_s <= self._silence_s
            and report.bad_since_wall_s is not None
            and (report.stopped or wall_s - report.bad_since_wall_s >= patience_s)
        ]
        return self.silent(wall_s) + bad
