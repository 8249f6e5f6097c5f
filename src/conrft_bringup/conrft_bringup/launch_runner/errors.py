"""What is wrong with a launch file, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Location:
    """A place in a launch file; ``line`` counts from 1."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class LaunchError(Exception):
    """The launch cannot go on; the text is one sentence for the person who typed the command."""


class LaunchFileError(LaunchError):
    """A launch file holds something that the runner does not know or cannot do; names file, line and key."""

    def __init__(self, location: Location, key: str, problem: str) -> None:
        super().__init__(f"{location}: {key}: {problem}")
        self.location = location
        self.key = key
        self.problem = problem
