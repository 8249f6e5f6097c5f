"""Replay: memory-mapped, each frame stored once, episode boundaries explicit.

A transition is the index of its frame: its successor is the next row, its predecessor (for the stacked proprioception)
the row before, unless the frame begins the episode. An episode lies in one piece, and its last frame is never drawn, so
that neither ever crosses a boundary.

The folder holds ``layout.json`` (fields and capacity), one file for each field, and ``episodes.json`` (where each
episode lies, with a checksum). It is a cache: everything in it can be had again from the episode bags.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from conrft_data import durable_files
from conrft_learner.transitions import EpisodeFrames, Labels

Indices = NDArray[np.int64]
Array = NDArray[Any]
Pool = Literal["demonstrations", "online"]


class ReplayError(ValueError):
    """The replay is full of demonstrations, or its folder belongs to other settings; the text says which."""


@dataclass(frozen=True)
class FrameField:
    """A further field stored with each frame, such as an image or a frozen feature map.

    Attributes:
        shape: of one frame's value.
        dtype: name of its type; float16 becomes float32 in a batch.
        bank: versions that are stored of each frame (random crops); a batch takes one of them for each sample.
    """

    shape: tuple[int, ...]
    dtype: str
    bank: int = 1

    @property
    def in_batch(self) -> np.dtype[Any]:
        """Type in a batch."""
        return np.dtype(np.float32 if self.dtype == "float16" else self.dtype)


@dataclass
class StoredEpisode:
    """Where an episode lies: frames ``start .. start + length`` (inclusive), ``length`` transitions."""

    episode_id: str
    start: int
    length: int
    demonstration: bool
    checksum: int

    @property
    def end(self) -> int:
        """One past its last frame."""
        return self.start + self.length + 1


class Batch:
    """Preallocated arrays of one batch, filled by :meth:`Replay.gather`.

    Fields: embedding, next_embedding ``(B, D)``; proprio, next_proprio ``(B, 2 P)``, the older frame first; action
    ``(B, A)``; reward, mask, mc_return, bound ``(B,)``; operator ``(B,)``, whether a person drove (in demonstrations
    always); further fields and ``next_`` further fields by name.
    """

    def __init__(self, size: int, fields: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> None:
        """``fields``: shape and type of one row by name."""
        self.size = size
        self.arrays: dict[str, Array] = {
            name: np.zeros((size, *shape), dtype) for name, (shape, dtype) in fields.items()
        }

    def __getitem__(self, name: str) -> Array:
        """The array of one field."""
        return self.arrays[name]


class Replay:
    """Frames of demonstrations and online episodes, and seeded draws from them."""

    def __init__(
        self,
        folder: Path,
        *,
        capacity: int,
        embedding_dim: int,
        proprio_dim: int = 19,
        action_dim: int = 7,
        extra: Mapping[str, FrameField] | None = None,
        extra_fingerprint: str = "",
        n_step: int = 1,
        discount: float = 1.0,
    ) -> None:
        """Opens or creates the folder.

        Args:
            folder: of the memory-mapped files.
            capacity: frames; the oldest online episodes make room, demonstrations stay.
            embedding_dim: D.
            proprio_dim: P, of one frame.
            action_dim: A.
            extra: further fields stored with each frame, by name.
            extra_fingerprint: of what made them; a folder of another one is refused.
            n_step: transitions that a reward is summed over before the value of the state reached is taken.
            discount: gamma, within these steps.

        Raises:
            ReplayError: the folder was made with other settings.
        """
        self.folder = folder
        self.capacity = capacity
        self.extra = dict(extra or {})
        self._extra_fingerprint = extra_fingerprint
        self._n_step, self._discount = n_step, discount
        self._fields: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "embedding": ((embedding_dim,), np.dtype(np.float32)),
            "proprio": ((proprio_dim,), np.dtype(np.float32)),
            "action": ((action_dim,), np.dtype(np.float32)),
            "reward": ((), np.dtype(np.float32)),
            "mc_return": ((), np.dtype(np.float32)),
            "bound": ((), np.dtype(np.float32)),
            "terminated": ((), np.dtype(np.bool_)),
            "intervention": ((), np.dtype(np.bool_)),
            "first": ((), np.dtype(np.bool_)),
        }
        self._fields |= {
            name: ((field.bank, *field.shape), np.dtype(field.dtype)) for name, field in self.extra.items()
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._check_layout()
        self._store = {name: self._map(name, shape, dtype) for name, (shape, dtype) in self._fields.items()}
        self._episodes: dict[str, StoredEpisode] = {}
        self._places: dict[str, int] = {}  # in order: first frames of the episodes that were there at a checkpoint
        self._pools: dict[Pool, Indices] | None = None
        self._left = np.zeros(capacity, dtype=np.int32)  # transitions from a frame until another hand drives, or none
        self._operator = np.zeros(capacity, dtype=np.bool_)
        self._scratch: dict[str, Array] = {}
        self._load_episodes()

    def __contains__(self, episode_id: str) -> bool:
        """Whether the episode is stored."""
        return episode_id in self._episodes

    @property
    def episode_ids(self) -> list[str]:
        """Stored episodes in the order of their ingestion."""
        return list(self._episodes)

    @property
    def places(self) -> list[tuple[str, int]]:
        """Stored episodes in the order of their ingestion, each with its first frame."""
        return [(name, stored.start) for name, stored in self._episodes.items()]

    def count(self, pool: Pool) -> int:
        """Transitions that can be drawn from a pool. Interventions are in both."""
        return len(self._pool(pool))

    def add(self, episode: EpisodeFrames, extra: Mapping[str, Array] | None = None) -> None:
        """Stores an episode; one that is there already is left alone.

        Args:
            episode: rows of the usual fields.
            extra: rows ``(T+1, bank, ...)`` of each further field.

        Raises:
            ReplayError: it cannot fit, because demonstrations fill the replay or it is longer than the whole; the
                replay is as it was.
            OSError: the disk is full; the replay is as it was.
        """
        if episode.episode_id in self:
            return
        old_place = self._old_place(episode)
        start, leaving = self._room(len(episode) + 1) if old_place is None else (old_place, [])
        self._reserve(start, len(episode) + 1)
        for name in leaving:
            del self._episodes[name]
        rows = slice(start, start + len(episode) + 1)
        transitions = slice(start, start + len(episode))
        self._store["embedding"][rows] = episode.embeddings
        self._store["proprio"][rows] = episode.proprio
        self._store["action"][transitions] = episode.actions
        self._store["action"][rows.stop - 1] = 0.0
        self._store["intervention"][transitions] = episode.interventions
        self._store["intervention"][rows.stop - 1] = False
        self._store["first"][rows] = False
        self._store["first"][start] = True
        for name, values in (extra or {}).items():
            self._store[name][rows] = values
        self._write_labels(start, episode.labels)
        stored = StoredEpisode(episode.episode_id, start, len(episode), episode.demonstration, 0)
        stored.checksum = self._checksum(stored)
        self._episodes[episode.episode_id] = stored
        if old_place is not None:
            self._restore_order()
        self._pools = None
        self._save_episodes()

    def relabel(self, episode_id: str, labels: Labels) -> None:
        """Replaces rewards, returns and terminal flags of a stored episode, for example after an operator's veto."""
        stored = self._episodes[episode_id]
        self._write_labels(stored.start, labels)
        stored.checksum = self._checksum(stored)
        self._save_episodes()

    def remove(self, episode_id: str) -> None:
        """Forgets a stored episode."""
        del self._episodes[episode_id]
        self._pools = None
        self._save_episodes()

    def is_demonstration(self, episode_id: str) -> bool:
        """Whether all of the stored episode counts as demonstration."""
        return self._episodes[episode_id].demonstration

    def interventions(self, episode_id: str) -> NDArray[np.bool_]:
        """``(T,)``: true where the operator moved the arm."""
        stored = self._episodes[episode_id]
        return np.array(self._store["intervention"][stored.start : stored.start + stored.length])

    def is_success(self, episode_id: str) -> bool:
        """Whether the stored episode ends in a terminal state."""
        stored = self._episodes[episode_id]
        return bool(self._store["terminated"][stored.start + stored.length - 1])

    def go_back(self, places: list[tuple[str, int]]) -> list[str]:
        """Goes back to the episodes that :attr:`places` told of; returns those that are not there any more.

        Every other episode is dropped. One that is not there gets its place back when it is added again.
        """
        self._places = dict(places)
        self._episodes = {
            name: self._episodes[name] for name, start in places if name in self and self._episodes[name].start == start
        }
        self._pools = None
        self._save_episodes()
        return [name for name, _ in places if name not in self]

    def batch(self, size: int) -> Batch:
        """An empty batch of ``size`` rows for :meth:`gather`."""
        (embedding, f32), (proprio, _) = self._fields["embedding"], self._fields["proprio"]
        stacked = (2 * proprio[0],)
        fields = {
            "embedding": (embedding, f32),
            "next_embedding": (embedding, f32),
            "proprio": (stacked, f32),
            "next_proprio": (stacked, f32),
        }
        fields |= {"action": self._fields["action"], "operator": self._fields["intervention"]}
        fields |= dict.fromkeys(("reward", "mask", "mc_return", "bound"), ((), f32))
        for name, field in self.extra.items():
            fields |= dict.fromkeys((name, f"next_{name}"), (field.shape, field.in_batch))
        return Batch(size, fields)

    def draw(self, size: int, demonstration_share: float, rng: np.random.Generator) -> Indices:
        """``(size,)`` transitions, that share of them from demonstrations and interventions.

        All are from one pool where the other is empty.

        Raises:
            ReplayError: there is nothing to draw from.
        """
        demonstrations, online = self._pool("demonstrations"), self._pool("online")
        if not len(demonstrations) and not len(online):
            raise ReplayError("the replay is empty: nothing to train on")
        wanted = round(size * demonstration_share)
        if not len(online):
            wanted = size
        elif not len(demonstrations):
            wanted = 0
        chosen = [
            pool[rng.integers(len(pool), size=n)]
            for pool, n in ((demonstrations, wanted), (online, size - wanted))
            if n
        ]
        return np.concatenate(chosen)

    def draw_versions(self, size: int, rng: np.random.Generator) -> dict[str, Indices]:
        """``(size,)`` for each further field of the batch that is stored in several versions: which of them to take."""
        return {
            key: rng.integers(field.bank, size=size)
            for name, field in self.extra.items()
            if field.bank > 1
            for key in (name, f"next_{name}")
        }

    def gather(self, indices: Indices, batch: Batch, versions: Mapping[str, Indices] | None = None) -> Batch:
        """Fills the batch with transitions, of further fields the given version (the first, where none is given)."""
        versions = versions or {}
        self._pool("online")  # brings up to date who drove, and where n steps end
        following = self._gather_outcomes(indices, batch)
        previous = indices - ~self._store["first"][indices]
        half = self._fields["proprio"][0][0]
        self._take("embedding", indices, batch["embedding"])
        self._take("embedding", following, batch["next_embedding"])
        current = self._store["proprio"][indices]
        batch["proprio"][:, :half] = self._store["proprio"][previous]
        batch["proprio"][:, half:] = current
        batch["next_proprio"][:, :half] = current if self._n_step == 1 else self._store["proprio"][following - 1]
        batch["next_proprio"][:, half:] = self._store["proprio"][following]
        for name in ("action", "mc_return", "bound"):
            self._take(name, indices, batch[name])
        np.take(self._operator, indices, out=batch["operator"], mode="clip")
        for name in self.extra:
            self._take_version(name, indices, versions.get(name), batch[name])
            self._take_version(name, following, versions.get(f"next_{name}"), batch[f"next_{name}"])
        return batch

    def _gather_outcomes(self, indices: Indices, batch: Batch) -> Indices:
        """Fills reward and mask; returns the frames that the transitions lead to.

        With n steps the reward is the discounted sum of the next n, fewer where the episode ends or another hand drives
        before, and the mask carries the discount of all steps but one, which the TD target applies itself.
        """
        if self._n_step == 1:
            self._take("reward", indices, batch["reward"])
            np.logical_not(self._store["terminated"][indices], out=batch["mask"], casting="unsafe")
            return indices + 1
        steps = np.minimum(self._left[indices], self._n_step)
        total = np.zeros(len(indices), dtype=np.float32)
        for i in range(self._n_step):
            within = i < steps
            rewards = self._store["reward"][np.where(within, indices + i, indices)]
            total += np.float32(self._discount**i) * within * rewards
        batch["reward"][:] = total
        bootstraps = ~self._store["terminated"][indices + steps - 1]
        batch["mask"][:] = bootstraps * self._discount ** (steps - 1.0)
        return indices + steps

    def frames(self, *, demonstrations: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embeddings ``(N, D)`` and proprioception ``(N, P)`` of every frame of demonstrations, or of the others."""
        rows = [np.arange(e.start, e.end) for e in self._episodes.values() if e.demonstration == demonstrations]
        index = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        return np.array(self._store["embedding"][index]), np.array(self._store["proprio"][index])

    def flush(self) -> None:
        """Writes everything to the disk."""
        for store in self._store.values():
            store.flush()

    def _take(self, name: str, indices: Indices, out: Array) -> None:
        # "clip" spares numpy the copy that it makes to be able to raise; the indices are our own.
        np.take(self._store[name], indices, axis=0, out=out, mode="clip")

    def _take_version(self, name: str, indices: Indices, versions: Indices | None, out: Array) -> None:
        """One stored version of a further field for each sample."""
        field = self.extra[name]
        rows = indices * field.bank if versions is None else indices * field.bank + versions
        store = self._store[name].reshape(-1, *field.shape)
        if store.dtype == out.dtype:
            np.take(store, rows, axis=0, out=out, mode="clip")
            return
        # torch widens half precision several times faster than numpy, and both let other threads run meanwhile.
        if name not in self._scratch or self._scratch[name].shape != out.shape:
            self._scratch[name] = np.empty(out.shape, store.dtype)
        np.take(store, rows, axis=0, out=self._scratch[name], mode="clip")
        torch.from_numpy(out).copy_(torch.from_numpy(self._scratch[name]))

    def _reserve(self, start: int, frames: int) -> None:
        """Asks the disk for the rows' blocks: a write to a mapped hole of a full disk would kill the process."""
        if not hasattr(os, "posix_fallocate"):
            return
        for name, store in self._store.items():
            row = store.nbytes // self.capacity
            with (self.folder / f"{name}.bin").open("r+b") as file:
                os.posix_fallocate(file.fileno(), start * row, frames * row)

    def _map(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.memmap[Any, Any]:
        path = self.folder / f"{name}.bin"
        mode: Literal["r+", "w+"] = "r+" if path.exists() else "w+"
        return np.memmap(path, dtype=dtype, mode=mode, shape=(self.capacity, *shape))

    def _check_layout(self) -> None:
        path = self.folder / "layout.json"
        layout: dict[str, Any] = {
            "capacity": self.capacity,
            "fields": {name: [list(shape), dtype.str] for name, (shape, dtype) in self._fields.items()},
        }
        if self._extra_fingerprint:
            layout["features"] = self._extra_fingerprint
        if path.exists():
            if json.loads(path.read_text()) != layout:
                raise ReplayError(
                    f"{self.folder} was made for another backbone or other settings: use another run folder"
                )
            return
        durable_files.write_text(path, json.dumps(layout))

    def _load_episodes(self) -> None:
        path = self.folder / "episodes.json"
        if not path.exists():
            return
        for item in json.loads(path.read_text()):
            stored = StoredEpisode(**item)
            if self._checksum(stored) == stored.checksum:
                self._episodes[stored.episode_id] = stored

    def _save_episodes(self) -> None:
        durable_files.write_text(
            self.folder / "episodes.json", json.dumps([asdict(e) for e in self._episodes.values()])
        )

    def _checksum(self, stored: StoredEpisode) -> int:
        """Of all its rows in all fields."""
        checksum = 0
        for store in self._store.values():
            rows = np.ascontiguousarray(store[stored.start : stored.end])
            checksum = zlib.crc32(rows.data.cast("B"), checksum)
        return checksum

    def _write_labels(self, start: int, labels: Labels) -> None:
        rows = slice(start, start + len(labels.rewards))
        self._store["reward"][rows] = labels.rewards
        self._store["terminated"][rows] = labels.terminated
        self._store["mc_return"][rows] = labels.returns
        self._store["bound"][rows] = labels.bounds

    def _old_place(self, episode: EpisodeFrames) -> int | None:
        """Where the episode lay at the checkpoint that was gone back to; None where it was not, or that is taken."""
        start = self._places.get(episode.episode_id)
        if start is None or any(e.start <= start + len(episode) and start < e.end for e in self._episodes.values()):
            return None
        return start

    def _restore_order(self) -> None:
        """The episodes of the checkpoint come first, in their order: draws depend on it."""
        rank = {name: number for number, name in enumerate(self._places)}
        self._episodes = dict(sorted(self._episodes.items(), key=lambda item: rank.get(item[0], len(rank))))

    def _room(self, frames: int) -> tuple[int, list[str]]:
        """First frame of a free piece, and the oldest online episodes that must go for it; none has gone yet."""
        staying, leaving = dict(self._episodes), list[str]()
        while True:
            free = 0
            for stored in sorted(staying.values(), key=lambda e: e.start):
                if stored.start - free >= frames:
                    return free, leaving
                free = stored.end
            if self.capacity - free >= frames:
                return free, leaving
            oldest = next((e.episode_id for e in staying.values() if not e.demonstration), None)
            if oldest is None:
                raise ReplayError(
                    f"no room for {frames} frames: the replay holds {self.capacity}, and demonstrations stay in it"
                )
            del staying[oldest]
            leaving.append(oldest)

    def _pool(self, pool: Pool) -> Indices:
        if self._pools is None:
            demonstrations, online = [], []
            for stored in self._episodes.values():
                rows = np.arange(stored.start, stored.start + stored.length, dtype=np.int64)
                interventions = self._store["intervention"][rows]
                self._operator[rows] = interventions | stored.demonstration
                self._left[rows] = transitions_of_one_hand(self._operator[rows])
                if stored.demonstration:
                    demonstrations.append(rows)
                else:
                    online.append(rows)
                    demonstrations.append(rows[interventions])
            empty = [np.zeros(0, dtype=np.int64)]
            self._pools = {
                "demonstrations": np.concatenate(demonstrations or empty),
                "online": np.concatenate(online or empty),
            }
        return self._pools[pool]


def transitions_of_one_hand(operator: NDArray[np.bool_]) -> NDArray[np.int32]:
    """``(T,)``: how many transitions of an episode there are from each one on before policy and operator change places.

    What the other hand earns must not be summed up for this one: a policy that stalls would be paid for the rescue.
    """
    ends = np.append(np.flatnonzero(operator[1:] != operator[:-1]) + 1, len(operator))
    rows = np.arange(len(operator))
    return (ends[np.searchsorted(ends, rows, side="right")] - rows).astype(np.int32)
