"""One process of a launch, in a process group of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable
from typing import IO

from conrft_bringup.launch_runner.expansion import StartProcess

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with(parent: int) -> Callable[[], None]:
    """Run in the child before the program: the kernel terminates it when the launch dies, even by SIGKILL."""

    def prepare() -> None:
        if hasattr(_LIBC, "prctl"):
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # the launch died between fork and prctl
                os._exit(1)

    return prepare


class ChildProcess:
    """A started process.

    The group makes it possible to signal what the process itself has started, and keeps a Ctrl-C in the terminal away
    from it: the launch decides who gets which signal and when.
    """

    def __init__(self, request: StartProcess) -> None:
        """Starts it; raises OSError."""
        self.request = request
        self._popen = subprocess.Popen(
            request.command,
            env=dict(request.environment),
            cwd=request.working_directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )
        self.pid = self._popen.pid
        for pipe in self.pipes:
            os.set_blocking(pipe.fileno(), False)

    @property
    def pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        """Its standard output and standard error."""
        assert self._popen.stdout is not None and self._popen.stderr is not None
        return self._popen.stdout, self._popen.stderr

    def signal_group(self, number: int) -> None:
        """Signals it and everything that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def reap(self) -> int | None:
        """Its exit code once it has ended (negative: the signal that killed it), else None.

        When it has ended, nothing of its group is left.
        """
        # WNOWAIT leaves it as a zombie: its group's number cannot belong to anybody else when the group is killed.
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        self.signal_group(signal.SIGKILL)
        return self._popen.wait()
