"""Reading the episodes that teach the classifier, one at a time: a whole recording of images would fill the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from conrft_data.bags import BagError, list_episodes, read_episode
from conrft_data.config import TaskConfig
from conrft_data.types import Episode


def recorded_episodes(
    folders: Sequence[Path], task: TaskConfig, report: Callable[[str], None] = print
) -> Iterator[Episode]:
    """All finished episodes of the folders, by folder and name; ``report`` takes a sentence for each one left out.

    Raises:
        BagError: a folder holds no episode that can be used.
    """
    for folder in folders:
        used = False
        for info in list_episodes(folder):
            try:
                episode = read_episode(info.path, task)
            except BagError as error:
                report(f"left out: {error}")
                continue
            used = True
            yield episode
        if not used:
            raise BagError(f"{folder}: holds no recorded episode that can be used")
