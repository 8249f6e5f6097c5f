"""Batches made ahead by a thread: the same as those of a plain loop, and the thread always ends."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conrft_learner.batch_stream import BatchStream
from conrft_learner.replay import Batch, Replay, ReplayError
from conrft_learner.transitions import EpisodeFrames, Labels

SIZE = 6


@pytest.fixture
def replay(tmp_path: Path) -> Replay:
    replay = Replay(tmp_path, capacity=60, embedding_dim=1, proprio_dim=1)
    for number in (0, 1):
        zeros = np.zeros(20, np.float32)
        replay.add(
            EpisodeFrames(
                episode_id=str(number),
                demonstration=number == 0,
                embeddings=100 * number + np.arange(21, dtype=np.float32)[:, None],
                proprio=np.zeros((21, 1), np.float32),
                actions=np.zeros((20, 7), np.float32),
                interventions=np.zeros(20, bool),
                labels=Labels(rewards=zeros, terminated=zeros > 0, returns=zeros, bounds=zeros),
            )
        )
    return replay


def stream(replay: Replay, rng: np.random.Generator, *, buffers: int, count: int = 9, shard: slice | None = None):
    size = SIZE if shard is None else shard.stop - shard.start
    batches = [replay.batch(size) for _ in range(buffers)]
    return BatchStream(replay, rng, batches, size=SIZE, demonstration_share=0.5, count=count, shard=shard)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


@pytest.mark.parametrize("buffers", [2, 4])
def test_batches_made_ahead_are_those_of_a_plain_loop(replay: Replay, buffers: int) -> None:
    with stream(replay, np.random.default_rng(3), buffers=1) as plain:
        expected = [plain.next()["embedding"].copy() for _ in range(9)]
    with stream(replay, np.random.default_rng(3), buffers=buffers) as ahead:
        for batch in expected:
            np.testing.assert_array_equal(ahead.next()["embedding"], batch)
    assert not threads()


def test_the_random_state_is_that_of_the_batches_handed_out(replay: Replay) -> None:
    rng, plain = np.random.default_rng(3), np.random.default_rng(3)
    with stream(replay, rng, buffers=4) as ahead, stream(replay, plain, buffers=1) as loop:
        for _ in range(2):
            ahead.next()
            loop.next()
    assert rng.bit_generator.state == plain.bit_generator.state


def test_a_batch_is_left_alone_until_the_next_is_asked_for(replay: Replay) -> None:
    with stream(replay, np.random.default_rng(0), buffers=2) as ahead:
        first = ahead.next()
        kept = first["embedding"].copy()
        while ahead._drawn.empty():  # the thread has filled the other buffer
            threading.Event().wait(0.001)
        np.testing.assert_array_equal(first["embedding"], kept)


def test_leaving_early_or_by_an_error_ends_the_thread(replay: Replay) -> None:
    with pytest.raises(RuntimeError, match="update failed"), stream(replay, np.random.default_rng(0), buffers=3) as s:
        s.next()
        raise RuntimeError("update failed")
    assert not threads()


def test_what_drawing_raises_is_raised_where_the_batch_is_asked_for(tmp_path: Path) -> None:
    empty = Replay(tmp_path / "empty", capacity=60, embedding_dim=1, proprio_dim=1)
    with stream(empty, np.random.default_rng(0), buffers=2) as ahead, pytest.raises(ReplayError, match="empty"):
        ahead.next()
    assert not threads()


def test_shards_of_a_batch_make_the_whole_batch(replay: Replay) -> None:
    drawn = []
    for shard in (None, slice(0, 3), slice(3, 6)):
        with stream(replay, np.random.default_rng(1), buffers=2, shard=shard) as s:
            drawn.append(s.next()["embedding"].copy())
    np.testing.assert_array_equal(np.concatenate(drawn[1:]), drawn[0])


def test_the_thread_is_one_cores_work_and_leaves_the_others_to_training(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    gather = replay.gather

    def watched(*arguments: Any) -> Batch:
        seen.append(torch.get_num_threads())
        return gather(*arguments)

    monkeypatch.setattr(replay, "gather", watched)
    torch.set_num_threads(2)
    try:
        with stream(replay, np.random.default_rng(1), buffers=2) as ahead:
            ahead.next()
        assert (set(seen), torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(1)
