"""Updates on stored features beside the same updates with the frozen features recomputed, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from conrft_data.types import ACTION_DIM, PROPRIOCEPTION_DIM, Float32
from conrft_learner.agent import HilConRFT, Objective
from conrft_learner.image_features import MAP_SHAPE, MAP_TYPE, Frames, ImageFeatures, Maps
from conrft_learner.networks import Networks
from conrft_learner.presets import Preset
from conrft_learner.recomputed_features import RecomputedEmbeddings, RecomputedFeatures, RecomputedMaps
from conrft_learner.replay import FrameField, Replay
from conrft_learner.resnet10 import random_resnet10
from conrft_learner.transitions import EpisodeFrames, Labels
from conrft_policy.backbone import load_backbone
from conrft_policy.consistency_head import HeadConfig

CAMERAS = {"side": 256, "wrist": 128}  # pixels, square
CROP_BANK = 2
LEAST_UPDATES = 3  # on stored features, in each round
CRITIC = Objective(bc_weight=0.5, q_weight=0.5, cql_alpha=0.0, actor=False)
OBJECTIVES = {
    "critic": CRITIC,
    "critic_calql": Objective(bc_weight=0.5, q_weight=0.5, cql_alpha=0.01, actor=False),
    "critic_and_actor": Objective(bc_weight=0.5, q_weight=0.5, cql_alpha=0.0),
}
"""The online critic's update (TD, the headline), the offline critic's (10 actions of each kind), and with the actor."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of one comparison: episodes and their length, batch, rounds, and seconds on stored features in each round."""

    episodes: int
    length: int
    batch: int
    rounds: int
    seconds: float


class Duration(NamedTuple):
    """Of an update; its CPU time is what other processes on a busy machine disturb least."""

    wall_s: float
    cpu_s: float


class Comparison:
    """One critic, with its features stored and recomputed; both sides train the same networks on the same losses."""

    def __init__(self, stage: HilConRFT, replay: Replay, recomputed: RecomputedFeatures, sizes: Sizes) -> None:
        """``recomputed`` gives the features of the replay's frames from their images."""
        self._stage, self._replay, self._recomputed, self._sizes = stage, replay, recomputed, sizes
        self._batch = replay.batch(sizes.batch)
        self._rng = np.random.default_rng(0)

    def run(self) -> dict[str, Any]:
        """Updates/s on stored and on recomputed features and their ratio, of the critic and in all cases."""
        cases = {name: self._case(objective) for name, objective in OBJECTIVES.items()}
        return cases["critic"] | {"cases": cases}

    def _case(self, objective: Objective) -> dict[str, float]:
        stored: list[Duration] = []
        recomputed: list[Duration] = []
        self._update(objective, recompute=False)
        for _ in range(self._sizes.rounds):
            recomputed.append(duration(lambda: self._update(objective, recompute=True)))
            end = time.perf_counter() + self._sizes.seconds
            least = len(stored) + LEAST_UPDATES
            while time.perf_counter() < end or len(stored) < least:
                stored.append(duration(lambda: self._update(objective, recompute=False)))
        fast, slow = median(stored), median(recomputed)
        return {
            "updates_per_s": round(1 / fast.wall_s, 2),
            "reference_updates_per_s": round(1 / slow.wall_s, 4),
            "ratio": round(slow.wall_s / fast.wall_s, 1),
            "cpu_s": round(fast.cpu_s, 4),
            "reference_cpu_s": round(slow.cpu_s, 3),
            "cpu_ratio": round(slow.cpu_s / fast.cpu_s, 1),
        }

    def _update(self, objective: Objective, *, recompute: bool) -> None:
        indices = self._replay.draw(self._sizes.batch, 0.5, self._rng)
        versions = self._replay.draw_versions(self._sizes.batch, self._rng)
        batch = self._replay.gather(indices, self._batch, versions)
        if recompute:
            self._recomputed.fill(indices, batch)
        self._stage.update(self._stage.transitions(batch), objective)


def paper_comparison(folder: Path, sizes: Sizes) -> dict[str, Any]:
    """The paper's critic on ResNet-10 maps of two cameras. One episode is encoded and stored under many names."""
    rng = np.random.default_rng(0)
    encoder = random_resnet10()
    features = ImageFeatures(encoder, tuple(CAMERAS), crop_bank=CROP_BANK)
    images = {name: _noise(rng, sizes.length + 1, (size, size)) for name, size in CAMERAS.items()}
    start = time.perf_counter()
    maps = {name: features.encode("bench", name, frames) for name, frames in images.items()}
    encoding_s = time.perf_counter() - start
    replay = open_paper_replay(folder, sizes.episodes * (sizes.length + 1))
    for number in range(sizes.episodes):
        replay.add(noise_episode(rng, number, sizes.length, embedding_dim=1), maps)
    everywhere = {name: np.tile(frames, (sizes.episodes, 1, 1, 1)) for name, frames in images.items()}
    stage = _stage("paper", embedding_dim=1)
    comparison = Comparison(stage, replay, RecomputedMaps(encoder, everywhere, rng), sizes)
    return comparison.run() | {"feature_steps_per_s": round((sizes.length + 1) / encoding_s, 1)}


def light_comparison(folder: Path, sizes: Sizes, backbone_name: str) -> dict[str, Any]:
    """The light critic on a backbone's embeddings."""
    rng = np.random.default_rng(0)
    backbone = load_backbone(backbone_name, "pick_banana")
    images = {name: _noise(rng, sizes.length + 1, size) for name, size in backbone.image_sizes.items()}
    embeddings = backbone.encode_episode(images)
    replay = Replay(folder, capacity=sizes.episodes * (sizes.length + 1), embedding_dim=backbone.embedding_dim)
    for number in range(sizes.episodes):
        replay.add(noise_episode(rng, number, sizes.length, embeddings=embeddings))
    everywhere = {name: np.tile(frames, (sizes.episodes, 1, 1, 1)) for name, frames in images.items()}
    first = np.arange(replay.capacity) % (sizes.length + 1) == 0
    stage = _stage("light", embedding_dim=backbone.embedding_dim)
    return Comparison(stage, replay, RecomputedEmbeddings(backbone, everywhere, first), sizes).run()


def open_paper_replay(folder: Path, capacity: int, embedding_dim: int = 1) -> Replay:
    """A replay with two cameras' feature maps in a bank of crops."""
    field = FrameField(MAP_SHAPE, MAP_TYPE, CROP_BANK)
    return Replay(folder, capacity=capacity, embedding_dim=embedding_dim, extra=dict.fromkeys(CAMERAS, field))


def noise_maps(rng: np.random.Generator, frames: int) -> dict[str, Maps]:
    """Feature maps of noise by camera."""
    shape = (frames, CROP_BANK, *MAP_SHAPE)
    return {name: rng.random(shape, dtype=np.float32).astype(MAP_TYPE) for name in CAMERAS}


def noise_episode(
    rng: np.random.Generator,
    number: int,
    length: int,
    *,
    embedding_dim: int = 1,
    embeddings: Float32 | None = None,
) -> EpisodeFrames:
    """An episode of noise that ends in success; every second one is a demonstration."""
    returns = (10 * 0.98 ** np.arange(length, 0, -1)).astype(np.float32)
    rewards = np.full(length, -0.05, dtype=np.float32)
    if embeddings is None:
        embeddings = rng.normal(size=(length + 1, embedding_dim)).astype(np.float32)
    return EpisodeFrames(
        episode_id=f"noise-{number}",
        demonstration=number % 2 == 0,
        embeddings=embeddings,
        proprio=rng.normal(size=(length + 1, PROPRIOCEPTION_DIM)).astype(np.float32),
        actions=rng.uniform(-1, 1, (length, ACTION_DIM)).astype(np.float32),
        interventions=np.zeros(length, dtype=np.bool_),
        labels=Labels(rewards=rewards, terminated=np.arange(length) == length - 1, returns=returns, bounds=returns),
    )


def _stage(critic: str, embedding_dim: int) -> HilConRFT:
    preset = Preset.model_validate({"name": "bench", "critic": critic, "crop_bank": CROP_BANK})
    networks = Networks(preset, HeadConfig(embedding_dim=embedding_dim), seed=0, cameras=tuple(CAMERAS))
    return HilConRFT(networks, preset, 0.98, torch.Generator().manual_seed(0))


def _noise(rng: np.random.Generator, frames: int, size: tuple[int, int]) -> Frames:
    return rng.integers(0, 256, (frames, *size, 3), dtype=np.uint8)


def duration(action: Callable[[], object]) -> Duration:
    """Of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return Duration(time.perf_counter() - wall, time.process_time() - cpu)


def median(durations: list[Duration]) -> Duration:
    """Of wall and CPU time, each for itself."""
    return Duration(statistics.median(d.wall_s for d in durations), statistics.median(d.cpu_s for d in durations))
