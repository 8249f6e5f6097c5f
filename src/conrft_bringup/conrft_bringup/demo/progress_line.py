"""One line of progress: rewritten in place on a terminal, and written now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_QUIET = 15.0  # s between lines where they cannot be rewritten


class ProgressLine:
    """The line of one stage.

    Args:
        title: what it begins with.
        stream: where it goes; default: standard output.
    """

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self._title = title
        self._stream = stream or sys.stdout
        self._in_place = self._stream.isatty()
        self._begin = time.monotonic()
        self._written = -_QUIET
        self._last = ""

    @property
    def seconds(self) -> float:
        """Since the line began."""
        return time.monotonic() - self._begin

    def show(self, text: str) -> None:
        """Shows how far it is."""
        line = f"{self._title}  {text}  {self.seconds:.0f} s"
        if self._in_place:
            self._stream.write(f"\r\x1b[K{line}")
        elif text != self._last and self.seconds - self._written >= _QUIET:
            self._stream.write(f"{line}\n")
            self._written, self._last = self.seconds, text
        self._stream.flush()

    def finish(self, text: str) -> None:
        """Writes the last state for good."""
        start = "\r\x1b[K" if self._in_place else ""
        self._stream.write(f"{start}{self._title}  {text}  {self.seconds:.0f} s\n")
        self._stream.flush()

    def break_off(self) -> None:
        """Leaves the line as it is, and begins a new one."""
        if self._in_place:
            self._stream.write("\n")
            self._stream.flush()
