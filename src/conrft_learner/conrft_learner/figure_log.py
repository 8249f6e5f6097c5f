"""Figures of a run: one JSON object a line in ``metrics.jsonl``, and TensorBoard where it is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conrft_learner.objectives import Figures


class FigureLog:
    """Averages figures over a window of updates and writes them down."""

    def __init__(self, folder: Path, *, every: int, tensorboard: bool = True) -> None:
        """Appends to ``folder/metrics.jsonl``, one line every ``every`` updates."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        self._every = every
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._updates = 0
        self._board = _summary_writer(folder / "tensorboard") if tensorboard else None

    def add(self, stage: str, step: int, figures: Figures) -> None:
        """Takes the figures of one update; writes their means when the window is full."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._updates += 1
        if self._updates >= self._every:
            self.write(stage, step, self.means())
            self._sums, self._counts, self._updates = {}, {}, 0

    def means(self) -> Figures:
        """Means over the window so far."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def write(self, stage: str, step: int, figures: Mapping[str, Any]) -> None:
        """Writes one line at once."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "step": step, **figures}) + "\n")
        if self._board is not None:
            for name, value in figures.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(f"{stage}/{name}", float(value), step)

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
        """Closes TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def _summary_writer(folder: Path) -> Any | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
