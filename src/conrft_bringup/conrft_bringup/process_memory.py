"""Resident memory of processes over time, and how fast it grows."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


class ProcessMemory:
    """Samples the resident memory of named processes; a process that is started again goes on under its name."""

    def __init__(self, period_s: float = 2.0) -> None:
        """``period_s``: least time between two samples."""
        self._period_s = period_s
        self._last_s: float | None = None
        self._samples: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def look(self, processes: Mapping[str, int], now_s: float | None = None) -> None:
        """Samples each process, by name and id, if a period has passed; one that has just ended is passed over."""
        now_s = time.monotonic() if now_s is None else now_s
        if self._last_s is not None and now_s - self._last_s < self._period_s:
            return
        self._last_s = now_s
        for name, pid in processes.items():
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
            except (OSError, IndexError):
                continue
            self._samples[name].append((now_s, pages * _PAGE_MIB))

    def figures(self) -> dict[str, dict[str, float]]:
        """First, last and largest memory of each process, MiB, and the slope of its second half, MiB an hour.

        The second half, because what a process takes while it warms up is no growth.
        """
        return {name: _figures(np.array(samples)) for name, samples in sorted(self._samples.items())}


def _figures(samples: np.ndarray) -> dict[str, float]:
    times, memory = samples[:, 0] - samples[0, 0], samples[:, 1]
    half = times >= times[-1] / 2
    slope = float(np.polyfit(times[half], memory[half], 1)[0]) * 3600 if half.sum() > 2 else float("nan")
    return {
        "first_mib": round(float(memory[0]), 1),
        "last_mib": round(float(memory[-1]), 1),
        "largest_mib": round(float(memory.max()), 1),
        "slope_mib_per_hour": round(slope, 2),
    }
