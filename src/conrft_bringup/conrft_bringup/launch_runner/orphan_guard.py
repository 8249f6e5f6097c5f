"""Kills what a launch started if the launch itself is killed.

Run as a program beside each launch: on its standard input it is told the process groups, ``+PGID`` when one starts and
``-PGID`` when it has ended. The end of the input means that the launch is gone, however it went; the groups that are
left are then asked to stop and, after a grace period, killed. The groups also hold what the nodes themselves have
started, which no parent-death signal would reach.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

GRACE = 3.0  # s between SIGTERM and SIGKILL


def main() -> None:
    """Reads process groups until the end of the input, then ends those that are left."""
    # A Ctrl-C or a closed terminal is the launch's business; the guard must outlive it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    _end(groups)


def _end(groups: set[int]) -> None:
    _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and _signal(groups, 0):
        time.sleep(0.05)
    _signal(groups, signal.SIGKILL)


def _signal(groups: set[int], number: int) -> bool:
    """Signals each group; whether any was still there."""
    found = False
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
            found = True
    return found


if __name__ == "__main__":
    main()
