"""What a check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor.

    Attributes:
        check: what was looked at, a short name.
        level: an error means: do not let the arm move.
        told: what was found, with its figure.
        cure: what a person does about it; empty when all is well.
    """

    check: str
    level: Level
    told: str
    cure: str = ""

    def as_json(self) -> dict[str, str]:
        """For ``--json``."""
        return {**asdict(self), "level": self.level.value}


def ok(check: str, told: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, told)


def warning(check: str, told: str, cure: str) -> Finding:
    """It works, but not as well or not as safely as it could."""
    return Finding(check, Level.WARNING, told, cure)


def error(check: str, told: str, cure: str) -> Finding:
    """The arm must not move."""
    return Finding(check, Level.ERROR, told, cure)
