"""Camera frames of a few episodes of a run on one sheet: one episode a row, in time from left to right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from conrft_data.bags import read_episode
from conrft_data.bags.errors import BagError

if TYPE_CHECKING:
    from conrft_bringup.demo.run_folder import RunFolder
    from conrft_bringup.episode_figures import EpisodeFigures
    from conrft_bringup.report.run_report import RunFigures

_COLUMNS = 8
_SIDE = 128  # pixels of a frame on the sheet
_TITLE = 18  # pixels of a row's title


def draw_contact_sheet(folder: RunFolder, figures: RunFigures, path: Path) -> None:
    """Writes the sheet as PNG: a demonstration, trials after each stage and an episode with interventions."""
    rows = []
    for title, episodes, where in (
        ("demonstration", figures.demonstrations, folder.demonstrations),
        ("after offline training", figures.offline, folder.offline_trials),
        ("online, with interventions", _with_interventions(figures.training), folder.episodes),
        ("after online training", figures.online, folder.online_trials),
    ):
        if episodes:
            episode = episodes[len(episodes) // 2]
            ending = "success" if episode.success else "failure"
            text = f"{title}: {episode.episode_id}, {episode.length} steps, {ending}"
            rows.append((where / episode.episode_id, text))
    draw_episodes(rows, path)


def draw_episodes(episodes: Iterable[tuple[Path, str]], path: Path) -> None:
    """Writes a sheet as PNG, one bag with its title a row; nothing where no bag can be read."""
    rows = [row for bag, title in episodes if (row := _row(bag, title)) is not None]
    if rows:
        Image.fromarray(np.concatenate(rows)).save(path)


def draw_frames(frames: Sequence[tuple[Mapping[str, NDArray[np.uint8]], str]], path: Path) -> None:
    """Writes a sheet as PNG of single frames, each with its cameras below each other and a title."""
    rows = []
    for first in range(0, len(frames), _COLUMNS):
        tiles = [_tile(images, title) for images, title in frames[first : first + _COLUMNS]]
        blank = np.full_like(tiles[0], 255)
        rows.append(np.concatenate([*tiles, *[blank] * (_COLUMNS - len(tiles))], axis=1))
    if rows:
        Image.fromarray(np.concatenate(rows)).save(path)


def _tile(images: Mapping[str, NDArray[np.uint8]], title: str) -> NDArray[np.uint8]:
    return np.concatenate([_title(title, _SIDE), *map(_frame, images.values())])


def _with_interventions(episodes: list[EpisodeFigures]) -> list[EpisodeFigures]:
    return [episode for episode in episodes if episode.take_overs > 0] or episodes


def _row(bag: Path, title: str) -> NDArray[np.uint8] | None:
    """Title, then side and wrist frames below each other; None when the bag cannot be read."""
    try:
        episode = read_episode(bag)
    except BagError:
        return None
    steps = np.linspace(0, len(episode.observations) - 1, _COLUMNS).round().astype(int)
    strips = [_title(title, _COLUMNS * _SIDE)]
    for camera in episode.observations[0].images:
        strips.append(np.concatenate([_frame(episode.observations[step].images[camera]) for step in steps], axis=1))
    return np.concatenate(strips)


def _frame(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame at the size of the sheet, ``(_SIDE, _SIDE, 3)``."""
    return np.asarray(Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))


def _title(text: str, width: int) -> NDArray[np.uint8]:
    strip = Image.new("RGB", (width, _TITLE), "white")
    ImageDraw.Draw(strip).text((4, 3), text, fill="black")
    return np.asarray(strip)
