"""Pictures of recorded episodes: contact sheets of camera frames, and curves of what was commanded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from conrft_data.source_colours import SOURCE_COLOURS
from conrft_data.types import Episode

Frame = NDArray[np.uint8]

_GAP = 4  # pixels between the frames of a sheet
_CAPTION = 16  # pixels of height for the text above a frame
_INK = (235, 235, 235)
_PAPER = (24, 26, 30)

_XYZ_COLOURS = {"x": "#CC3311", "y": "#117733", "z": "#4477AA"}
_AXES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


def contact_sheet(frames: Sequence[Sequence[Frame]], labels: Sequence[Sequence[str]], path: Path | str) -> Path:
    """Draws a grid of frames with a caption above each and writes it as PNG.

    Args:
        frames: rows of uint8 RGB ``(H, W, 3)``; rows may differ in length, frames in size.
        labels: caption of each frame.
        path: of the PNG.

    Returns:
        ``path``.

    Raises:
        ValueError: there is no frame, or a frame has no caption.
    """
    if not any(len(row) for row in frames):
        raise ValueError("a contact sheet needs at least one frame")
    if [len(row) for row in frames] != [len(row) for row in labels]:
        raise ValueError("every frame of a contact sheet needs one label")
    columns = max(len(row) for row in frames)
    widths = [max((row[c].shape[1] for row in frames if c < len(row)), default=0) for c in range(columns)]
    heights = [max((frame.shape[0] for frame in row), default=0) for row in frames]
    size = (sum(widths) + _GAP * (columns + 1), sum(h + _CAPTION for h in heights) + _GAP * (len(frames) + 1))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=11)
    top = _GAP
    for row, captions, height in zip(frames, labels, heights, strict=True):
        left = _GAP
        for frame, caption, width in zip(row, captions, widths, strict=False):
            draw.text((left, top), _fitted(caption, width, font), fill=_INK, font=font)
            sheet.paste(Image.fromarray(np.ascontiguousarray(frame)), (left, top + _CAPTION))
            left += width + _GAP
        top += height + _CAPTION + _GAP
    return _saved(sheet, path)


def episode_sheet(episode: Episode, path: Path | str, columns: int = 10) -> Path:
    """A contact sheet of one episode.

    A row for each camera, ``columns`` moments from the first to the last observation.
    """
    last = len(episode.observations) - 1
    steps = sorted({round(last * k / max(1, columns - 1)) for k in range(columns)})
    cameras = list(episode.observations[0].images)
    frames = [[episode.observations[step].images[camera] for step in steps] for camera in cameras]
    labels = [[f"{camera} {step} {episode.commands[step].source.name.lower()}" for step in steps] for camera in cameras]
    return contact_sheet(frames, labels, path)


def action_curves(episode: Episode, path: Path | str) -> Path:
    """Draws the executed actions ``(T+1, 7)`` over the steps, coloured by who moved the arm, and writes a PNG."""
    actions = np.stack([command.action for command in episode.commands])
    sources = np.array([command.source for command in episode.commands])
    figure, panels = _panels(episode, len(_AXES))
    for row, (axes, name) in enumerate(zip(panels, _AXES, strict=True)):
        axes.plot(actions[:, row], color="#cccccc", linewidth=1, zorder=1)
        for source, colour in SOURCE_COLOURS.items():
            steps = np.flatnonzero(sources == source)
            axes.scatter(steps, actions[steps, row], s=8, color=colour, label=source.name.lower(), zorder=2)
        axes.set_ylim(-1.1, 1.1)
        axes.set_ylabel(name)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return _drawn(figure, path)


def wrench_curves(episode: Episode, path: Path | str) -> Path:
    """Draws force, torque, gripper opening and, where a classifier judged, success probability, and writes a PNG.

    The background of a tick says who moved the arm.
    """
    observations = episode.observations
    wrench = np.stack([observation.tcp_wrench for observation in observations])
    judged = [step for step in episode.verdicts if step <= episode.final_step]
    figure, panels = _panels(episode, 4 if judged else 3)
    for axes, columns, label in ((panels[0], slice(0, 3), "force, N"), (panels[1], slice(3, 6), "torque, N m")):
        for values, (name, colour) in zip(wrench[:, columns].T, _XYZ_COLOURS.items(), strict=True):
            axes.plot(values, linewidth=1, label=name, color=colour)
        axes.set_ylabel(label)
        axes.legend(loc="upper right", ncols=3, fontsize="small")
    panels[2].plot([observation.gripper_opening for observation in observations], color="#333333", linewidth=1)
    panels[2].set_ylabel("gripper opening")
    if judged:
        panels[3].plot(judged, [episode.verdicts[step].probability for step in judged], color="#333333", linewidth=1)
        panels[3].set_ylabel("success probability")
    for axes in panels[2:]:
        axes.set_ylim(-0.05, 1.05)
    for axes in panels:
        for step, command in enumerate(episode.commands):
            axes.axvspan(step - 0.5, step + 0.5, color=SOURCE_COLOURS[command.source], alpha=0.12, linewidth=0)
    shades = [Patch(color=colour, alpha=0.3, label=source.name.lower()) for source, colour in SOURCE_COLOURS.items()]
    figure.legend(handles=shades, loc="outside lower center", ncols=3, fontsize="small")
    return _drawn(figure, path)


def _panels(episode: Episode, count: int) -> tuple[Figure, Any]:
    """A figure with ``count`` panels above each other over the steps of the episode."""
    figure = Figure(figsize=(9, 1.2 * count + 1.5 if count > 4 else 2 * count + 1), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{episode.episode_id}: {episode.outcome.name.lower()} after {episode.final_step} steps")
    panels = figure.subplots(count, 1, sharex=True)
    panels[-1].set_xlabel("step (10 Hz)")
    return figure, panels


def _drawn(figure: Figure, path: Path | str) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=100)
    return target


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of the caption as fits over its frame."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text


def _saved(sheet: Image.Image, path: Path | str) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target)
    return target
