"""Training the success classifier from recorded episodes: split by episode, cautious on purpose."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from conrft_data.config import TaskConfig
from conrft_data.types import Episode
from conrft_reward.classifier import ClassifierConfig, SuccessClassifier, camera_sizes
from conrft_reward.evaluation import Report, evaluate
from conrft_reward.labelled_frames import LabelledFrames, labelled_frames
from conrft_reward.network import SuccessNetwork, normalised

# Of the held-out loss, nats: what is less is chance.
LEAST_GAIN = 5e-4

Progress = Callable[[str], None]
Thumbnails = NDArray[np.uint8]


class TrainingError(ValueError):
    """The episodes cannot teach a classifier; the text says what is missing."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the classifier is trained.

    Attributes:
        size: side of the thumbnails, pixels.
        members: networks in the ensemble.
        held_out: share of the episodes that training never sees.
        max_steps: of each network; check_every: steps between looks at the held-out loss; patience: looks without gain.
        batch: frames in a batch; positives: their share. Below a half: doubt is cheaper than a false success.
        learning_rate, weight_decay: of AdamW.
        shift: random shift of each image, pixels; brightness, contrast, noise: in units of the full range.
        mixed: share of the batch that shows a success to one camera and a failure to the other, labelled failure.
        erased: probability that a rectangle of an image is blanked.
        max_threshold: the threshold is raised above the worst held-out failure, but not beyond this.
    """

    size: int = 64
    members: int = 3
    held_out: float = 0.2
    max_steps: int = 250
    check_every: int = 25
    patience: int = 4
    batch: int = 64
    positives: float = 0.35
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    shift: int = 3
    brightness: float = 0.12
    contrast: float = 0.15
    noise: float = 0.02
    mixed: float = 0.1
    erased: float = 0.3
    max_threshold: float = 0.99


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A classifier, its errors as a report ready for JSON, and the frames that it was trained and judged on."""

    classifier: SuccessClassifier
    report: Report
    parts: dict[str, LabelledFrames]


def train_classifier(
    episodes: Iterable[Episode], task: TaskConfig, seed: int, settings: TrainingSettings | None = None
) -> tuple[SuccessClassifier, Report]:
    """The classifier and the report of ``train_and_inspect``."""
    trained = train_and_inspect(episodes, task, seed, settings)
    return trained.classifier, trained.report


def train_and_inspect(
    episodes: Iterable[Episode],
    task: TaskConfig,
    seed: int,
    settings: TrainingSettings | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Trains on most episodes and reports what happens on the others.

    Args:
        episodes: of one task, of any mode and outcome; read one at a time.
        task: its cameras, gates and threshold.
        seed: of everything random; the same seed and episodes give the same classifier on one machine.
        settings: None: the defaults.
        progress: is told one line now and then.

    Raises:
        TrainingError: there are too few episodes, or none that succeeded.
    """
    chosen, say, start = settings or TrainingSettings(), progress or (lambda _: None), time.monotonic()
    frames = labelled_frames(episodes, task, chosen.size)
    train, held_out = split_by_episode(frames, chosen.held_out, seed)
    say(f"{len(train)} frames to train on, {len(held_out)} held out, {frames.uncertain} of unknown label left out")
    with torch.random.fork_rng(devices=[]):  # initialisation and dropout draw from torch's global state
        networks = [_train_network(train, held_out, chosen, [seed, i], say) for i in range(chosen.members)]
    config = ClassifierConfig(
        task=task.name,
        cameras=camera_sizes(task),
        size=chosen.size,
        members=chosen.members,
        threshold=task.reward.threshold,
        seed=seed,
    )
    classifier = SuccessClassifier(config, networks)
    gated = classifier.probabilities(held_out.images)[held_out.gates]
    threshold = cautious_threshold(gated, held_out.labels[held_out.gates], task.reward.threshold, chosen.max_threshold)
    classifier.config = config.model_copy(update={"threshold": threshold})
    parts = {"train": train, "held_out": held_out}
    report = evaluate(classifier, task, parts)
    report |= {"seed": seed, "uncertain_frames": frames.uncertain, "wall_s": round(time.monotonic() - start, 2)}
    return Trained(classifier=classifier, report=report, parts=parts)


def split_by_episode(frames: LabelledFrames, share: float, seed: int) -> tuple[LabelledFrames, LabelledFrames]:
    """Training and held-out frames; frames of one episode are all in one of them, successes and failures each in both.

    Raises TrainingError unless at least two episodes succeeded.
    """
    successful = sorted(set(frames.episodes[frames.labels].tolist()))
    failed = sorted(set(range(len(frames.episode_ids))) - set(successful))
    if len(successful) < 2:
        raise TrainingError(
            f"a classifier needs at least 2 successful episodes, one of them held out; there are {len(successful)} "
            f"among {len(frames.episode_ids)}"
        )
    random = np.random.default_rng([seed, 0])
    held_out: set[int] = set()
    for group in (successful, failed):
        count = max(1, round(share * len(group))) if len(group) > 1 else 0
        held_out |= set(random.permutation(group)[:count].tolist())
    return frames.of_episodes({*successful, *failed} - held_out), frames.of_episodes(held_out)


def cautious_threshold(
    probabilities: NDArray[np.float32], labels: NDArray[np.bool_], lowest: float, highest: float
) -> float:
    """At least ``lowest``; where a held-out failure comes close, half-way from it to the weak successes.

    Args:
        probabilities: ``(N,)`` of held-out frames on which the gates hold.
        labels: ``(N,)`` true: success.
        lowest: the task's threshold.
        highest: no threshold lies above it, unless ``lowest`` does.
    """
    if labels.all() or not labels.any():
        return lowest
    worst_failure = float(probabilities[~labels].max())
    weak_success = float(np.quantile(probabilities[labels], 0.1))
    return float(np.clip((worst_failure + weak_success) / 2, lowest, max(lowest, highest)))


def _train_network(
    train: LabelledFrames, held_out: LabelledFrames, settings: TrainingSettings, seed: list[int], say: Progress
) -> SuccessNetwork:
    """One member, stopped where its held-out loss was lowest."""
    random = np.random.default_rng(seed)
    torch.manual_seed(int(random.integers(2**31)))
    network = SuccessNetwork(train.images.shape[1], settings.size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    sampler = _Sampler(train, settings, random)
    best, best_loss, without_gain = network, float("inf"), 0
    for step in range(1, settings.max_steps + 1):
        images, labels = sampler.batch()
        loss = binary_cross_entropy_with_logits(network.train()(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % settings.check_every:
            continue
        held_out_loss = balanced_loss(network, held_out)
        say(f"network {seed[-1] + 1}, step {step}: loss {loss.item():.4f}, held out {held_out_loss:.4f}")
        if held_out_loss < best_loss - LEAST_GAIN:
            best, best_loss, without_gain = copy.deepcopy(network), held_out_loss, 0
        else:
            without_gain += 1
            if without_gain >= settings.patience:
                break
    return best.eval()


def balanced_loss(network: SuccessNetwork, frames: LabelledFrames) -> float:
    """Cross-entropy, the mean of successes and of failures counting alike."""
    with torch.inference_mode():
        logits = torch.cat([network.eval()(normalised(part)) for part in frames.images.split(256)])
        labels = torch.from_numpy(frames.labels)
        losses = binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
        parts = [losses[group].mean() for group in (labels, ~labels) if group.any()]
    return float(torch.stack(parts).mean()) if parts else float("inf")


class _Sampler:
    """Draws augmented, balanced batches."""

    def __init__(self, frames: LabelledFrames, settings: TrainingSettings, random: np.random.Generator) -> None:
        self._images, self._settings, self._random = frames.images.numpy(), settings, random
        self._positive = np.flatnonzero(frames.labels)
        negative = ~frames.labels
        # Only frames with open gates are ever decided on, so half of the failures are of that kind.
        groups = [np.flatnonzero(negative & frames.gates), np.flatnonzero(negative)]
        self._negative = [group for group in groups if len(group)]
        if not len(self._positive) or not self._negative:
            raise TrainingError("the training episodes hold no frame of success, or none of failure")
        self._noise = torch.randn(settings.batch * self._images[0].size)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Images ``(B, cameras, 3, S, S)`` and labels ``(B,)``, successes first."""
        s = self._settings
        mixed = round(s.mixed * s.batch) if self._images.shape[1] > 1 else 0
        positives = round(s.positives * s.batch)
        groups = np.array_split(np.arange(s.batch - positives - mixed), len(self._negative))
        negatives = [self._random.choice(rows, len(group)) for rows, group in zip(self._negative, groups, strict=True)]
        plain = self._images[np.concatenate([self._random.choice(self._positive, positives), *negatives])]
        images = np.concatenate([plain, self._mixed(mixed)])
        labels = torch.zeros(len(images))
        labels[:positives] = 1
        return self._augmented(images), labels

    def _mixed(self, count: int) -> Thumbnails:
        """Frames on which one camera shows a success and another a failure: all cameras must agree, or it is none."""
        images = self._images[self._random.choice(self._positive, count)]
        failures = self._images[self._random.choice(self._negative[0], count)]
        rows, cameras = np.arange(count), self._random.integers(images.shape[1], size=count)
        images[rows, cameras] = failures[rows, cameras]
        return images

    def _augmented(self, images: Thumbnails) -> Tensor:
        """Shifted, partly hidden, relit and noisy images; each image of each camera differently."""
        s = self._settings
        flat = images.reshape(-1, *images.shape[2:])
        changed = torch.from_numpy(erased(shifted(flat, s.shift, self._random), s.erased, self._random))
        pixels = normalised(changed.unflatten(0, images.shape[:2]))
        batch = (*pixels.shape[:2], 1, 1, 1)
        tint = torch.randn(*pixels.shape[:3], 1, 1) * 0.4 + torch.randn(batch)
        pixels = pixels * (1 + s.contrast * torch.randn(batch)) + s.brightness * tint / 2
        # Fresh noise would cost more than all else here; the same noise, moved on by a random amount, does as well.
        offset = int(self._random.integers(self._noise.numel()))
        return pixels + s.noise * self._noise.roll(offset)[: pixels.numel()].view_as(pixels)


def shifted(images: Thumbnails, reach: int, random: np.random.Generator) -> Thumbnails:
    """Each image ``(N, S, S, 3)`` moved by up to ``reach`` pixels along both axes; its edge is repeated."""
    size = images.shape[1]
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    moved = np.empty_like(images)
    for index, (row, column) in enumerate(random.integers(0, 2 * reach + 1, (len(images), 2))):
        moved[index] = padded[index, row : row + size, column : column + size]
    return moved


def erased(images: Thumbnails, probability: float, random: np.random.Generator) -> Thumbnails:
    """The images ``(N, S, S, 3)``, in some of which a rectangle of one random colour hides what is behind it."""
    size = images.shape[1]
    result = images.copy()
    for index in np.flatnonzero(random.random(len(images)) < probability):
        height, width = random.integers(size // 8, size // 3 + 1, 2)
        row, column = random.integers(size - height + 1), random.integers(size - width + 1)
        result[index, row : row + height, column : column + width] = random.integers(0, 256, 3)
    return result
