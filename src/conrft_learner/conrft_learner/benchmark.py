"""How fast the learner is on this machine: ``conrft bench learner`` and ``conrft bench replay``.

Each prints one JSON object on the last line of its output.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from conrft_data.types import ACTION_DIM, PROPRIOCEPTION_DIM
from conrft_learner.agent import HilConRFT, Objective
from conrft_learner.networks import Networks
from conrft_learner.presets import Preset
from conrft_learner.replay import Replay
from conrft_learner.transitions import EpisodeFrames, Labels
from conrft_policy.consistency_head import HeadConfig

BATCH = 256
EPISODES = 60
EPISODE_LENGTH = 50
WARM_UP = 100  # updates: how much work the Monte-Carlo bound saves depends on how far the critic is


def learner(argv: list[str]) -> int:
    """Measures critic-and-actor updates at batch 256 on the light critic, with the losses of each preset.

    The headline is ``stable``, which the demo runs with.
    """
    args = _arguments("conrft bench learner", argv)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        replay = _filled(Path(folder), args.embedding_dim)
        cases = {
            "stable": _updates(args, replay, cql_alpha=0.1, cql_actions=4, cql_states=0.5),
            "paper_online": _updates(args, replay, cql_alpha=0.0),
            "paper_offline": _updates(args, replay, cql_alpha=0.01, cql_actions=10),
        }
    rates = {name: round(1.0 / seconds, 1) for name, seconds in cases.items()}
    _print(args, f"updates/s at batch {BATCH}, {args.threads} thread(s): {rates}")
    print(json.dumps({"updates_per_s": rates["stable"], "batch": BATCH, "threads": args.threads, "cases": rates}))
    return 0


def replay(argv: list[str]) -> int:
    """Measures drawing and gathering a batch of 256, half demonstrations."""
    args = _arguments("conrft bench replay", argv)
    with tempfile.TemporaryDirectory() as folder:
        store = _filled(Path(folder), args.embedding_dim)
        batch, rng = store.batch(BATCH), np.random.default_rng(0)
        seconds = _median_s(lambda: store.gather(store.draw(BATCH, 0.5, rng), batch), args.seconds)
    _print(args, f"one batch of {BATCH}: {1e3 * seconds:.3f} ms")
    print(json.dumps({"sample_ms": round(1e3 * seconds, 4), "batch": BATCH}))
    return 0


def _arguments(name: str, argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: %(default)s)")
    parser.add_argument("--embedding-dim", type=int, default=128, help="of the backbone (default: %(default)s)")
    return parser.parse_args(argv)


def _print(args: argparse.Namespace, line: str) -> None:
    if not args.json:
        print(line)


def _filled(folder: Path, embedding_dim: int) -> Replay:
    """A replay of noise, half of it demonstrations."""
    store = Replay(folder, capacity=EPISODES * (EPISODE_LENGTH + 1), embedding_dim=embedding_dim)
    rng = np.random.default_rng(0)
    length = EPISODE_LENGTH
    for number in range(EPISODES):
        returns = (10 * 0.98 ** np.arange(length, 0, -1)).astype(np.float32)
        rewards = np.full(length, -0.05, dtype=np.float32)
        store.add(
            EpisodeFrames(
                episode_id=f"noise-{number}",
                demonstration=number % 2 == 0,
                embeddings=rng.normal(size=(length + 1, embedding_dim)).astype(np.float32),
                proprio=rng.normal(size=(length + 1, PROPRIOCEPTION_DIM)).astype(np.float32),
                actions=rng.uniform(-1, 1, (length, ACTION_DIM)).astype(np.float32),
                interventions=np.zeros(length, dtype=np.bool_),
                labels=Labels(
                    rewards=rewards, terminated=np.arange(length) == length - 1, returns=returns, bounds=returns
                ),
            )
        )
    return store


def _updates(args: argparse.Namespace, store: Replay, *, cql_alpha: float, **settings: float) -> float:
    """Seconds of one critic-and-actor update, draws included."""
    preset = Preset.model_validate({"name": "bench", "target_return_bound": True, "normalise_q": True, **settings})
    head = HeadConfig(embedding_dim=args.embedding_dim)
    stage = HilConRFT(Networks(preset, head, seed=0), preset, 0.98, torch.Generator().manual_seed(0))
    objective = Objective(bc_weight=0.5, q_weight=0.5, cql_alpha=cql_alpha)
    batch, rng = store.batch(BATCH), np.random.default_rng(0)

    def update() -> None:
        stage.update(stage.transitions(store.gather(store.draw(BATCH, 0.5, rng), batch)), objective)

    for _ in range(WARM_UP):
        update()
    return _median_s(update, args.seconds)


def _median_s(action: Callable[[], object], duration_s: float) -> float:
    times = []
    end = time.perf_counter() + duration_s
    while time.perf_counter() < end:
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
