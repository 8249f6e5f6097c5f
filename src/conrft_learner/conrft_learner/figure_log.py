"""Figures of a run: one JSON object a line in ``metrics.jsonl``, and wherever else they are to be seen."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from conrft_learner.figure_sinks import FigureSink
from conrft_learner.objectives import Figures


class FigureLog:
    """Averages figures over a window of updates and writes them down.

    Attributes:
        latest: means over the last full window.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int,
        sinks: Sequence[FigureSink] = (),
        report: Callable[[str], None] = print,
    ) -> None:
        """Appends to ``folder/metrics.jsonl``, one line every ``every`` updates.

        ``sinks`` are given every line too, and are closed with this; ``report`` is told when one of them begins to
        fail, which is tried again with each line.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        self._every = every
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._updates = 0
        self._sinks = list(sinks)
        self._failing: set[str] = set()
        self._report = report
        self.latest: Figures = {}

    def add(self, stage: str, step: int, figures: Figures) -> None:
        """Takes the figures of one update; writes their means when the window is full."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._updates += 1
        if self._updates >= self._every:
            means = {name: total / self._counts[name] for name, total in self._sums.items()}
            self.write(stage, step, means)
            self.latest = means
            self._sums, self._counts, self._updates = {}, {}, 0

    def write(self, stage: str, step: int, figures: Mapping[str, Any], *, shown: bool = True) -> None:
        """Writes one line at once; ``shown``: to the sinks too, what of it is a number."""
        self._append(json.dumps({"stage": stage, "step": step, **figures}) + "\n")
        if shown:
            numbers = {name: float(value) for name, value in figures.items() if isinstance(value, (int, float))}
            self._show(stage, step, numbers)

    def position(self) -> dict[str, Any]:
        """Where the file ends and what the window holds, for a checkpoint."""
        size = self._path.stat().st_size if self._path.exists() else 0
        return {"bytes": size, "sums": self._sums, "counts": self._counts, "updates": self._updates}

    def rewind(self, position: Mapping[str, Any]) -> None:
        """Goes back to a checkpoint, so that updates done twice are not written twice."""
        if self._path.exists() and self._path.stat().st_size > position["bytes"]:
            with self._path.open("r+b") as file:
                file.truncate(position["bytes"])
        self._sums, self._counts, self._updates = (
            dict(position["sums"]),
            dict(position["counts"]),
            int(position["updates"]),
        )

    def close(self) -> None:
        """Closes the sinks."""
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:  # as in `_show`
                self._report(f"{sink.name} has not got the last figures: {error}")
        self._sinks = []

    def _append(self, line: str) -> None:
        """All of the line or nothing of it: a full disk must not leave half a line in front of the next."""
        data = line.encode()
        with self._path.open("ab", buffering=0) as file:
            begin = file.seek(0, os.SEEK_END)
            try:
                if file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            except OSError:
                file.truncate(begin)
                raise

    def _show(self, stage: str, step: int, figures: Figures) -> None:
        for sink in self._sinks:
            try:
                sink.add(stage, step, figures)
                self._failing.discard(sink.name)
            except Exception as error:  # whatever it is: it must not stop the training
                if sink.name not in self._failing:
                    self._report(f"{sink.name} gets no figures: {error}")
                self._failing.add(sink.name)
