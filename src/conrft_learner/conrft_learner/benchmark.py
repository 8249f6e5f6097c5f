"""How fast the learner is on this machine: ``conrft bench learner`` and ``conrft bench replay``.

Each prints one JSON object on the last line of its output.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from conrft_learner import critic_comparison
from conrft_learner.agent import HilConRFT, Objective
from conrft_learner.critic_comparison import Duration, duration, median
from conrft_learner.heap import keep_freed_memory
from conrft_learner.ingest_benchmark import bag_ingest_steps_per_s
from conrft_learner.networks import Networks
from conrft_learner.presets import Preset
from conrft_learner.replay import Replay
from conrft_policy.consistency_head import HeadConfig

BATCH = 256
EPISODES = 60
EPISODE_LENGTH = 50
LONG_EPISODE = 499
WARM_UP = 100  # updates: how much work the Monte-Carlo bound saves depends on how far the critic is


def learner(argv: list[str]) -> int:
    """Measures critic-and-actor updates at batch 256 on the light critic, with the losses of each preset.

    The headline is ``stable``, which the demo runs with. ``paper`` and ``light`` compare each critic with the official
    way: the same losses with the frozen features recomputed in every update.
    """
    args = _arguments("conrft bench learner", argv)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        capacity = EPISODES * (EPISODE_LENGTH + 1)
        replay = Replay(Path(folder), capacity=capacity, embedding_dim=args.embedding_dim)
        _fill(replay, args.embedding_dim, EPISODES, EPISODE_LENGTH)
        cases = {
            "stable": _updates(args, replay, cql_alpha=0.1, cql_actions=4, cql_states=0.5),
            "paper_online": _updates(args, replay, cql_alpha=0.0),
            "paper_offline": _updates(args, replay, cql_alpha=0.01, cql_actions=10),
        }
    rates = {name: round(1.0 / seconds, 1) for name, seconds in cases.items()}
    _print(args, f"updates/s at batch {BATCH}, {args.threads} thread(s): {rates}")
    result = {"updates_per_s": rates["stable"], "batch": BATCH, "threads": args.threads, "cases": rates}
    if not args.no_reference:
        result |= _comparisons(args)
    print(json.dumps(result))
    return 0


def _comparisons(args: argparse.Namespace) -> dict[str, object]:
    sizes = critic_comparison.Sizes(
        episodes=EPISODES, length=EPISODE_LENGTH, batch=BATCH, rounds=args.rounds, seconds=args.seconds
    )
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        found["paper"] = critic_comparison.paper_comparison(Path(folder), sizes)
    with tempfile.TemporaryDirectory() as folder:
        light = critic_comparison.light_comparison(Path(folder), sizes, args.backbone)
    found["light"] = light | {"backbone": args.backbone}
    for name, comparison in found.items():
        _print(args, f"{name}, stored and recomputed features: {comparison}")
    return found


def replay(argv: list[str]) -> int:
    """Measures a batch of 256, half demonstrations, out of many frames, and storing episodes of 50 steps.

    All of it is with the feature maps of two cameras, but for ``light_sample_ms``. ``ingest_steps_per_s`` is storing
    alone, the maps given; ``ingest_bag_steps_per_s`` is the whole way from bags on the disk, for the light critic and
    for the paper's, whose maps are computed on it.
    """
    args = _arguments("conrft bench replay", argv)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    # Long episodes fill the replay faster; what is measured is stored behind them.
    long = max(0, math.ceil((args.frames - EPISODES * (EPISODE_LENGTH + 1)) / (LONG_EPISODE + 1)))
    capacity = long * (LONG_EPISODE + 1) + EPISODES * (EPISODE_LENGTH + 1)
    with tempfile.TemporaryDirectory() as folder:
        store = Replay(Path(folder), capacity=capacity, embedding_dim=args.embedding_dim)
        _fill(store, args.embedding_dim, capacity // (LONG_EPISODE + 1), LONG_EPISODE)
        light = _sample(args, store)
    with tempfile.TemporaryDirectory() as folder:
        store = critic_comparison.open_paper_replay(Path(folder), capacity, args.embedding_dim)
        _fill(store, args.embedding_dim, long, LONG_EPISODE)
        ingest_s = _fill(store, args.embedding_dim, EPISODES, EPISODE_LENGTH, first=long)
        sample = _sample(args, store)
    with tempfile.TemporaryDirectory() as folder:
        bags = bag_ingest_steps_per_s(Path(folder))
    result = {
        "sample_ms": round(1e3 * sample.wall_s, 3),
        "sample_cpu_ms": round(1e3 * sample.cpu_s, 3),
        "light_sample_ms": round(1e3 * light.wall_s, 4),
        "ingest_steps_per_s": round(EPISODE_LENGTH / statistics.median(ingest_s), 1),
        "ingest_bag_steps_per_s": bags,
        "batch": BATCH,
        "frames": capacity,
        "cameras": len(critic_comparison.CAMERAS),
        "crop_bank": critic_comparison.CROP_BANK,
    }
    _print(args, f"one batch of {BATCH} out of {capacity} frames: {1e3 * sample.wall_s:.2f} ms with two cameras")
    _print(args, f"and {1e3 * light.wall_s:.3f} ms without; storing them: {result['ingest_steps_per_s']} steps/s")
    _print(args, f"the whole way from bags, by critic: {bags} steps/s")
    print(json.dumps(result))
    return 0


def _fill(store: Replay, embedding_dim: int, episodes: int, length: int, *, first: int = 0) -> list[float]:
    """Stores episodes of noise, with feature maps where the replay has any; seconds of each."""
    rng = np.random.default_rng(0)
    maps = critic_comparison.noise_maps(rng, length + 1) if store.extra else None
    times = []
    for number in range(first, first + episodes):
        episode = critic_comparison.noise_episode(rng, number, length, embedding_dim=embedding_dim)
        start = time.perf_counter()
        store.add(episode, maps)
        times.append(time.perf_counter() - start)
    return times


def _sample(args: argparse.Namespace, store: Replay) -> Duration:
    batch, rng, durations = store.batch(BATCH), np.random.default_rng(0), list[Duration]()
    end = time.perf_counter() + args.seconds
    while time.perf_counter() < end:
        durations.append(
            duration(lambda: store.gather(store.draw(BATCH, 0.5, rng), batch, store.draw_versions(BATCH, rng)))
        )
    return median(durations)


def _arguments(name: str, argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="reference updates of each kind (default: %(default)s)")
    parser.add_argument("--backbone", default="octo-nano", help="recomputed for `light` (default: %(default)s)")
    parser.add_argument("--no-reference", action="store_true", help="leave the slow reference out")
    parser.add_argument("--frames", type=int, default=50_000, help="in the replay (default: %(default)s)")
    parser.add_argument("--embedding-dim", type=int, default=128, help="of the backbone (default: %(default)s)")
    return parser.parse_args(argv)


def _print(args: argparse.Namespace, line: str) -> None:
    if not args.json:
        print(line)


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
