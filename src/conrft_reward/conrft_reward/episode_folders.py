"""Reading the episodes that teach the classifier, one at a time: a whole recording of images would fill the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from conrft_data.bags import BagError, list_episodes, read_episode
from conrft_data.config import TaskConfig
from conrft_data.types import Episode


def recorded_episodes(folders: Sequence[Path], task: TaskConfig) -> Iterator[Episode]:
    """All finished episodes of the folders, by folder and name.

    Raises:
        BagError: a folder holds no episode, or a recording is damaged or of another task.
    """
    for folder in folders:
        listed = list_episodes(folder)
        if not listed:
            raise BagError(f"{folder}: holds no recorded episode")
        for info in listed:
            yield read_episode(info.path, task)
