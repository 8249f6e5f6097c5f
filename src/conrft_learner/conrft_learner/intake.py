"""How episodes get into the trainer: finished bags in two folders, each once; and labels that change afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conrft_data.bags import BagError, read_episode, read_label
from conrft_data.bags.label import LABEL_FILE
from conrft_data.bags.listing import METADATA_FILE
from conrft_data.types import Episode, Float32, Image
from conrft_learner.embedding_cache import cached
from conrft_learner.trainer import EpisodeRefused, Trainer
from conrft_policy.backbone import BackboneError


class EpisodeEncoder(Protocol):
    """The part of a backbone that embeds a whole episode."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that it reads."""
        ...

    def encode_episode(self, images: dict[str, NDArray[np.uint8]]) -> Float32:
        """Images ``(T, H, W, 3)`` by camera to embeddings ``(T, D)``."""
        ...


class EpisodeIntake:
    """Watches the folders of demonstrations and of online episodes.

    Attributes:
        refused: why an episode was not taken, by its name; it is not tried again before its label changes.
        empty: names of the episodes that ended at their first observation: there is nothing to take, and nothing wrong.
        unread: why the newest label of an episode is not known, by its name; it is tried again.
        last_handled: the online episode that was taken or refused last, but never an older one of the same session.
    """

    def __init__(self, trainer: Trainer, backbone: EpisodeEncoder, demos_dir: Path | None, episodes_dir: Path | None):
        """A folder that does not exist yet is empty; None: there is none."""
        self._trainer = trainer
        self._backbone = backbone
        self._demos_dir, self._episodes_dir = demos_dir, episodes_dir
        self._labels: dict[Path, int] = {}
        self.refused: dict[str, str] = {}
        self.empty: set[str] = set()
        self.unread: dict[str, str] = {}
        self.last_handled = trainer.last_online_episode

    def waiting_demonstrations(self) -> list[Path]:
        """Finished demonstrations that were not taken yet, by name."""
        return self._new(self._demos_dir)

    def waiting_episodes(self) -> list[Path]:
        """Finished online episodes that were not taken yet, by name."""
        return self._new(self._episodes_dir)

    def take(self, bag: Path) -> bool:
        """Reads a bag into the trainer; false when there is nothing in it, or it was refused, as ``refused`` says."""
        self._note_handled(bag)
        self._labels[bag] = label_time(bag)  # before it is read: a label that comes meanwhile is seen as a new one
        try:
            episode = read_episode(bag, self._trainer.task)
            if not len(episode):
                self.empty.add(bag.name)
                return False
            self._trainer.check_learnable(episode)  # before minutes go into embeddings that nobody reads
            self._trainer.ingest(episode, self._embeddings(bag, episode))
        except (BagError, EpisodeRefused, BackboneError) as error:
            self.refused[bag.name] = str(error)
            self._trainer.report(f"refused: {error}")
            return False
        return True

    def _note_handled(self, bag: Path) -> None:
        # After a restart old episodes are refused once more: who waits for the newest must not lose sight of it.
        same_session = bag.name.rpartition("-")[0] == self.last_handled.rpartition("-")[0]
        if bag.parent == self._episodes_dir and not (same_session and bag.name < self.last_handled):
            self.last_handled = bag.name

    def apply_labels(self) -> list[str]:
        """Brings labels written after their episode was taken into the replay; returns the names of those episodes.

        A refused episode that was labelled since is tried again by whoever asks for those that wait.
        """
        changed = []
        for folder in (self._demos_dir, self._episodes_dir):
            for name in folder_names(folder):
                bag = Path(folder or "") / name
                time = label_time(bag)
                if time == self._labels.get(bag, 0):
                    continue
                self.refused.pop(name, None)
                if self._apply(bag, time):
                    changed.append(name)
        return changed

    def _apply(self, bag: Path, time: int) -> bool:
        """Whether the label, written at ``time``, changes anything; one that cannot be read is not done with."""
        try:
            label = read_label(bag)
        except BagError as error:
            if self.unread.get(bag.name) != str(error):
                self._trainer.report(str(error))
            self.unread[bag.name] = str(error)
            return False
        changes = label is not None and self._trainer.relabel(bag.name, label.outcome)
        self.unread.pop(bag.name, None)
        self._labels[bag] = time
        return changes

    def _new(self, folder: Path | None) -> list[Path]:
        known = (set(self._trainer.journal) - self._trainer.lost) | set(self.refused) | self.empty
        names = sorted(name for name in folder_names(folder) if name not in known)
        return [bag for name in names if (bag := Path(folder or "") / name, (bag / METADATA_FILE).is_file())[1]]

    def _embeddings(self, bag: Path, episode: Episode) -> Float32 | None:
        """Those in the bag where this run's backbone made them, else computed; None where the frames are known."""
        if episode.episode_id in self._trainer.replay:
            return None
        made = self._trainer.usable_embeddings(episode)
        if made is not None or not episode.observations:
            return made
        images = {name: frames_of(episode, name) for name in self._backbone.cameras}

        def compute() -> Float32:
            return self._backbone.encode_episode(images)

        if bag.parent != self._demos_dir:
            return compute()
        return cached(bag, self._trainer.backbone_fingerprint, len(episode.observations), compute)


def frames_of(episode: Episode, camera: str) -> Image:
    """Images ``(T+1, H, W, 3)`` of one camera; raises EpisodeRefused when it recorded none."""
    try:
        return np.stack([observation.images[camera] for observation in episode.observations])
    except KeyError:
        raise EpisodeRefused(f"episode {episode.episode_id} has no images of camera {camera}") from None


def folder_names(folder: Path | None) -> list[str]:
    """Names of the folders in a folder, without hidden ones, which are bags in the making."""
    if folder is None or not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]


def label_time(bag: Path) -> int:
    """When the bag's label was written, ns; 0 without a label."""
    try:
        return (bag / LABEL_FILE).stat().st_mtime_ns
    except OSError:
        return 0
