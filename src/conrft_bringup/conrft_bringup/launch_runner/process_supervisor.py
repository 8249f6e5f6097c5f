"""Runs the processes of a launch in one thread: starts them, gives on their output, restarts and ends them."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from conrft_bringup.launch_runner import orphan_guard
from conrft_bringup.launch_runner.child_process import ChildProcess
from conrft_bringup.launch_runner.errors import LaunchError
from conrft_bringup.launch_runner.expansion import EndLaunch, LogMessage, Request, StartProcess, StartTimer
from conrft_bringup.launch_runner.output import LaunchOutput, LineBuffer

_POLL = 0.05  # s; SIGCHLD and output wake the loop earlier


@dataclass(frozen=True)
class GracePeriods:
    """Seconds from SIGINT to SIGTERM, and from SIGTERM to SIGKILL; the defaults are those of ``ros2 launch``."""

    terminate: float = 5.0
    kill: float = 5.0


@dataclass
class LaunchResult:
    """How a launch ended.

    Attributes:
        reason: why it was ended; empty: every process had ended by itself.
        interrupted: by a signal.
        failed: label and exit code of each process that failed before the launch was being ended, and was not started
            again.
        required_failed: whether a process with ``on_exit: shutdown`` is among them.
        deaths: how often each process failed before the launch was being ended, those that were started again included.
    """

    reason: str = ""
    interrupted: bool = False
    failed: list[tuple[str, int]] = field(default_factory=list)
    required_failed: bool = False
    deaths: Counter[str] = field(default_factory=Counter)

    @property
    def exit_code(self) -> int:
        """1 if a required process failed, or if the launch ended by itself and any process had failed; else 0."""
        return int(self.required_failed or (not self.reason and bool(self.failed)))


@dataclass
class _Running:
    label: str
    child: ChildProcess
    open_pipes: int = 2


class ProcessSupervisor:
    """Carries out requests until no process and no timer is left, or the launch is ended.

    Args:
        output: gets the processes' lines.
        expand_later: gives the requests of a timer that has run out.
        idle: called about every ``idle_period`` seconds, between other work, with this supervisor.
    """

    def __init__(
        self,
        output: LaunchOutput,
        *,
        expand_later: Callable[[StartTimer], Iterable[Request]],
        grace: GracePeriods | None = None,
        idle: Callable[[ProcessSupervisor], None] | None = None,
        idle_period: float = 0.5,
    ) -> None:
        self.result = LaunchResult()
        self._output = output
        self._expand_later = expand_later
        self._grace = grace or GracePeriods()
        self._idle, self._idle_period = idle, idle_period
        self._selector = selectors.DefaultSelector()
        self._running: dict[int, _Running] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers, self._order = itertools.count(1), itertools.count()
        self._stage = 0  # signals sent so far on the way down: 0 none, 1 SIGINT, 2 SIGTERM, 3 SIGKILL
        self._interrupts: list[str] = []
        self._guard: subprocess.Popen[str] | None = None

    def run(self, requests: Iterable[Request]) -> LaunchResult:
        """Carries out ``requests`` and everything that follows from them. Whatever happens, no process is left."""
        self._start_guard()
        try:
            if self._idle is not None:
                self._after(self._idle_period, self._call_idle)
            for request in requests:
                self._carry_out(request)
            while self._running or (self._stage == 0 and self._work_is_waiting()):
                self._step()
        finally:
            self._kill_everything()
            self._stop_guard()
            self._selector.close()
        return self.result

    def shut_down(self, reason: str, *, interrupted: bool = False) -> None:
        """Asks every process to end: SIGINT now, SIGTERM and SIGKILL after the grace periods.

        Called again, it sends the next signal at once.
        """
        self.result.interrupted |= interrupted
        if self._stage == 0:
            self.result.reason = reason
            self._output.info("launch", f"shutting down: {reason}")
        self._escalate(from_stage=self._stage)

    def interrupt(self, name: str) -> None:
        """As ``shut_down``, but safe in a signal handler: it takes effect at the next turn of the loop."""
        self._interrupts.append(name)

    def running(self) -> dict[str, int]:
        """Process ids of the running processes, by label with number."""
        return {running.label: running.child.pid for running in self._running.values()}

    def _work_is_waiting(self) -> bool:
        # The idle call does not keep a launch alive; timers and respawns do.
        return any(call != self._call_idle for _, _, call in self._due)

    def _carry_out(self, request: Request) -> None:
        if self._stage:
            return
        match request:
            case StartProcess():
                self._start(request, f"{request.label}-{next(self._numbers)}")
            case StartTimer():
                self._after(request.period, lambda: self._timer_has_run_out(request))
            case LogMessage():
                self._output.info("launch.user", request.message)
            case EndLaunch():
                self.shut_down(request.reason)

    def _timer_has_run_out(self, timer: StartTimer) -> None:
        try:
            requests = [] if self._stage else list(self._expand_later(timer))
        except LaunchError as error:
            self._output.error("launch", str(error))
            self.result.required_failed = True
            self.shut_down("an action of a timer cannot be carried out")
            return
        for request in requests:
            self._carry_out(request)

    def _start(self, request: StartProcess, label: str) -> None:
        if self._stage:
            return
        try:
            child = ChildProcess(request)
        except OSError as error:
            self._output.error(label, f"cannot be started: {error}")
            self._failed(request, label, 127)
            return
        self._tell_guard(f"+{child.pid}")
        self._output.info(label, f"process started with pid [{child.pid}]")
        running = _Running(label, child)
        self._running[child.pid] = running
        for pipe, shown in zip(child.pipes, (request.output != "log", True), strict=True):
            buffer = LineBuffer(lambda text, shown=shown: self._output.line(label, text, shown=shown))  # type: ignore[misc]
            self._selector.register(pipe, selectors.EVENT_READ, (running, buffer))

    def _step(self) -> None:
        """Waits for output, an exit or a due time, and deals with it."""
        wait = _POLL
        if self._due:
            wait = min(wait, max(0.0, self._due[0][0] - time.monotonic()))
        ready = self._selector.select(wait)
        while self._interrupts:
            self.shut_down(f"received {self._interrupts.pop(0)}", interrupted=True)
        for key, _ in ready:
            self._read(key.fileobj, *key.data)  # type: ignore[arg-type]
        for running in list(self._running.values()):
            code = running.child.reap()
            if code is not None:
                self._ended(running, code)
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()

    def _read(self, pipe: IO[bytes], running: _Running, buffer: LineBuffer) -> None:
        try:
            data = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return
        if data:
            buffer.feed(data)
        else:
            buffer.flush()
            self._selector.unregister(pipe)
            running.open_pipes -= 1

    def _ended(self, running: _Running, code: int) -> None:
        child, label = running.child, running.label
        self._drain(child)
        del self._running[child.pid]
        self._tell_guard(f"-{child.pid}")
        if code == 0:
            self._output.info(label, f"process has finished cleanly [pid {child.pid}]")
        else:
            command = " ".join(child.request.command)
            self._output.error(label, f"process has died [pid {child.pid}, exit code {code}, cmd '{command}'].")
        if self._stage:
            return
        self.result.deaths[label] += code != 0
        request = child.request
        if request.respawn and not request.required:
            # As with ros2 launch, a respawned process keeps its number.
            self._after(request.respawn_delay, lambda: self._start(request, label))
        elif code != 0:
            self._failed(request, label, code)
        elif request.required:
            self.shut_down(f"required process [{label}] has finished")

    def _failed(self, request: StartProcess, label: str, code: int) -> None:
        self.result.failed.append((label, code))
        if request.required:
            self.result.required_failed = True
            self.shut_down(f"required process [{label}] has died with exit code {code}")

    def _drain(self, child: ChildProcess) -> None:
        """Reads what an ended process has left in its pipes."""
        for pipe in child.pipes:
            key = self._selector.get_map().get(pipe)
            while key is not None:
                before = key.data[0].open_pipes
                try:
                    data = os.read(pipe.fileno(), 65536)
                except BlockingIOError:  # somebody who left the group still holds the pipe
                    data = b""
                if not data:
                    key.data[1].flush()
                    self._selector.unregister(pipe)
                    key.data[0].open_pipes = before - 1
                    break
                key.data[1].feed(data)
            pipe.close()

    def _escalate(self, from_stage: int) -> None:
        """Sends the next signal on the way down, unless somebody else has done so since."""
        if self._stage != from_stage or from_stage >= 3:
            return
        self._stage += 1
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[self._stage - 1]
        for running in self._running.values():
            if self._stage > 1:
                self._output.error(running.label, f"has not ended yet, sending {number.name}")
            running.child.signal_group(number)
        if self._stage < 3:
            wait = self._grace.terminate if self._stage == 1 else self._grace.kill
            stage = self._stage
            self._after(wait, lambda: self._escalate(from_stage=stage))

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), call))

    def _call_idle(self) -> None:
        assert self._idle is not None
        self._idle(self)
        self._after(self._idle_period, self._call_idle)

    def _kill_everything(self) -> None:
        """Leaves nothing behind when the loop ended by an exception."""
        for running in list(self._running.values()):
            running.child.signal_group(signal.SIGKILL)
        while self._running:
            self._step()

    def _start_guard(self) -> None:
        command = [sys.executable, "-I", "-S", str(Path(orphan_guard.__file__))]
        quiet = subprocess.DEVNULL
        self._guard = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, text=True, start_new_session=True
        )

    def _tell_guard(self, line: str) -> None:
        assert self._guard is not None and self._guard.stdin is not None
        try:
            self._guard.stdin.write(line + "\n")
            self._guard.stdin.flush()
        except BrokenPipeError:
            self._output.error("launch", "the orphan guard has died; if this launch is killed, its processes may stay")

    def _stop_guard(self) -> None:
        assert self._guard is not None and self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.close()
        self._guard.wait()
