"""Where figures are shown beside ``metrics.jsonl``: TensorBoard, Weights & Biases. Each is imported only here."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol


class FigureSink(Protocol):
    """Something that shows figures."""

    name: str

    def add(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Takes figures of one stage after ``step`` updates."""
        ...

    def close(self) -> None:
        """Writes what is left."""
        ...


def open_sinks(folder: Path, *, tensorboard: bool, wandb_project: str, config: Mapping[str, Any]) -> list[FigureSink]:
    """The sinks of a run in ``folder``.

    Args:
        folder: of the run; TensorBoard's files are in ``tensorboard/``, those of Weights & Biases in ``wandb/``.
        tensorboard: whether to write TensorBoard files.
        wandb_project: of Weights & Biases; empty: none.
        config: what the run was made with, for Weights & Biases.

    Raises:
        ValueError: a package is missing, or Weights & Biases refuses.
    """
    sinks: list[FigureSink] = [TensorBoard(folder / "tensorboard")] if tensorboard else []
    return [*sinks, WeightsAndBiases(wandb_project, folder, config)] if wandb_project else sinks


class TensorBoard:
    """Event files for ``tensorboard --logdir``."""

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        """The file begins with the first figure; ValueError where TensorBoard is missing."""
        if find_spec("tensorboard") is None:
            raise ValueError("TensorBoard is not installed: pip install tensorboard")
        self._folder = folder
        self._writer: Any = None

    def add(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Writes each figure under ``stage/name``."""
        # A writer whose disk was full once writes nothing more: the next figures begin another file.
        writer, self._writer = self._writer, None
        if writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # A run that goes on from a checkpoint does some updates again: theirs replace the old ones.
            writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in figures.items():
            writer.add_scalar(f"{stage}/{name}", value, step)
        self._writer = writer

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; the variable WANDB_MODE=offline keeps it on this machine."""

    name = "Weights & Biases"

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Begins the run, or goes on with the one that ``folder`` had; ValueError where it cannot."""
        try:
            import wandb
        except ImportError as error:
            raise ValueError("Weights & Biases is not installed: pip install wandb") from error
        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(console="off")  # the progress line rewrites itself
        try:
            self._run = wandb.init(
                project=project,
                dir=str(folder),
                id=_run_id(folder),
                resume="allow",
                config=dict(config),
                settings=settings,
            )
        except (wandb.Error, OSError) as error:
            raise ValueError(f"Weights & Biases cannot begin (WANDB_MODE=offline needs no account): {error}") from error
        # Not their own step, which may only grow: a run that goes on from a checkpoint does some updates again.
        self._run.define_metric("*", step_metric="update")

    def add(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Logs each figure under ``stage/name``, with ``update`` beside them."""
        self._run.log({"update": step} | {f"{stage}/{name}": value for name, value in figures.items()})

    def close(self) -> None:
        """Waits until everything is written or sent."""
        self._run.finish()


def _run_id(folder: Path) -> str:
    """The id of the run in ``folder``, drawn once."""
    file = folder / "wandb_run_id"
    if not file.is_file():
        file.write_text(secrets.token_hex(8), encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()
