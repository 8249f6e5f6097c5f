"""Batches from the replay, drawn and gathered by a thread while the update before them runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch

from conrft_learner.replay import Batch, Replay


@dataclass
class _Drawn:
    """A batch, or why there is none, and the random state after it was drawn."""

    batch: Batch | None
    state: Mapping[str, Any]
    error: BaseException | None = None


class BatchStream:
    """A known number of batches of one kind, in the order and with the draws of a plain loop.

    Whatever was drawn ahead, ``rng`` is always as if only the batches handed out had been drawn: a checkpoint taken
    between two of them continues with the next. The replay must not change while the stream is open; a batch is valid
    until the next one is asked for.
    """

    def __init__(
        self,
        replay: Replay,
        rng: np.random.Generator,
        buffers: list[Batch],
        *,
        size: int,
        demonstration_share: float,
        count: int,
        shard: slice | None = None,
    ) -> None:
        """The thread runs inside ``with``.

        Args:
            replay: to draw from.
            rng: source of the draws.
            buffers: batches to fill, the one in use included. A single one: no thread, and nothing is drawn ahead.
            size: of a batch, before it is shared out.
            demonstration_share: of each batch.
            count: of batches at most.
            shard: the rows of each batch that this process works on; None: all.
        """
        self._replay, self._rng = replay, rng
        self._share, self._count = demonstration_share, count
        self._size, self._shard = size, shard or slice(None)
        self._drawn: queue.SimpleQueue[_Drawn] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        for buffer in buffers:
            self._free.put(buffer)
        self._in_use: Batch | None = None
        ahead = len(buffers) > 1
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True) if ahead else None

    def __enter__(self) -> BatchStream:
        if self._thread is not None:
            torch.get_num_threads()  # settles this thread's own, before the other one sets its
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the thread, in the middle of its work too."""
        self._count = 0
        self._free.put(None)
        if self._thread is not None:
            self._thread.join()

    def next(self) -> Batch:
        """The next batch; raises what drawing it raised."""
        if self._in_use is not None:
            self._free.put(self._in_use)
        if self._thread is None:
            self._drawn.put(self._draw(self._rng, self._free.get()))
        drawn = self._drawn.get()
        if drawn.error is not None:
            raise drawn.error
        assert drawn.batch is not None
        self._rng.bit_generator.state = dict(drawn.state)
        self._in_use = drawn.batch
        return drawn.batch

    def _work(self) -> None:
        torch.set_num_threads(1)  # of this thread: it is one core's work
        rng = np.random.Generator(type(self._rng.bit_generator)())
        rng.bit_generator.state = self._rng.bit_generator.state
        made = 0
        while made < self._count:
            buffer = self._free.get()
            if buffer is None or made >= self._count:
                return
            drawn = self._draw(rng, buffer)
            self._drawn.put(drawn)
            if drawn.error is not None:
                return
            made += 1

    def _draw(self, rng: np.random.Generator, buffer: Batch | None) -> _Drawn:
        assert buffer is not None
        shard = self._shard
        try:
            indices = self._replay.draw(self._size, self._share, rng)
            versions = self._replay.draw_versions(self._size, rng)
            local = {name: rows[shard] for name, rows in versions.items()}
            batch = self._replay.gather(indices[shard], buffer, local)
        except Exception as error:
            return _Drawn(None, {}, error)
        return _Drawn(batch, rng.bit_generator.state)
