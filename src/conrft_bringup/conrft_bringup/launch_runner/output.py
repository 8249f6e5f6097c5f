"""What a launch writes: ``[node-1] line`` as ``ros2 launch`` does, on the screen and in a log file."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO


class LaunchOutput:
    """The screen and the log file of one launch.

    Args:
        log_file: gets every line with a time stamp; None: none is written.
        screen: gets the lines meant for the person; None: standard output.
        quiet: nothing goes to the screen.
        listener: is given each line that a process writes, with the process's name.
    """

    def __init__(
        self,
        log_file: Path | None,
        *,
        screen: TextIO | None = None,
        quiet: bool = False,
        listener: Callable[[str, str], None] | None = None,
    ) -> None:
        self._listener = listener
        self._screen = None if quiet else (screen or sys.stdout)
        self._log: TextIO | None = None
        if log_file is not None:
            try:
                log_file.parent.mkdir(parents=True, exist_ok=True)
                self._log = log_file.open("a", encoding="utf-8")
            except OSError as error:
                self._go_on_without_log(error)

    def close(self) -> None:
        """Closes the log file."""
        if self._log is not None:
            with contextlib.suppress(OSError):  # every line has been flushed
                self._log.close()
            self._log = None

    def info(self, who: str, text: str) -> None:
        """Something that the launch did."""
        self._write(f"[INFO] [{who}]: {text}", shown=True)

    def error(self, who: str, text: str) -> None:
        """Something that went wrong."""
        self._write(f"[ERROR] [{who}]: {text}", shown=True)

    def line(self, who: str, text: str, *, shown: bool) -> None:
        """One line that a process wrote."""
        self._write(f"[{who}] {text}", shown=shown)
        if self._listener is not None:
            self._listener(who, text)

    def _write(self, text: str, *, shown: bool) -> None:
        if self._log is not None:
            now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
            try:
                self._log.write(f"{now} {text}\n")
                self._log.flush()
            except OSError as error:
                self._go_on_without_log(error)
        if shown:
            self._show(text)

    def _go_on_without_log(self, error: OSError) -> None:
        """A full disk must not end the nodes: the arm goes on, only the log ends here, and that is said once."""
        self.close()
        self._show(f"[ERROR] [launch]: the log is not written any more: {error}")

    def _show(self, text: str) -> None:
        if self._screen is None:
            return
        try:
            self._screen.write(text + "\n")
            self._screen.flush()
        except (BrokenPipeError, OSError):
            # The reader has gone (``conrft up ... | head``, a closed terminal); the nodes must not suffer.
            if self._screen is sys.stdout:
                _discard_standard_output()
            self._screen = None


def _discard_standard_output() -> None:
    """Sends what is still in its buffer nowhere: Python would end with code 120, because nobody takes it."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def default_log_file(environment: Mapping[str, str]) -> Path:
    """``launch.log`` in a new folder below ROS_LOG_DIR, ROS_HOME/log or ~/.ros/log, as ``ros2 launch`` names it."""
    base = Path(environment.get("ROS_LOG_DIR") or Path(environment.get("ROS_HOME") or "~/.ros") / "log")
    stamp = datetime.datetime.now().astimezone().strftime("%Y-%m-%d-%H-%M-%S-%f")
    return base.expanduser() / f"{stamp}-{socket.gethostname()}-{os.getpid()}" / "launch.log"


class LineBuffer:
    """Cuts the bytes of a pipe into lines."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Takes what was read, gives on each line that is complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._emit(line.rstrip(b"\r").decode(errors="replace"))

    def flush(self) -> None:
        """Gives on the last line, which had no end."""
        if self._rest:
            self._emit(self._rest.decode(errors="replace"))
            self._rest = b""
