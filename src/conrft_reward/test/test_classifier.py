"""A stored classifier is the classifier; what is damaged or does not fit the task is refused with a reason."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_episodes import TASK, observation

from conrft_data.types import Observation
from conrft_reward.classifier import ClassifierConfig, ClassifierError, SuccessClassifier
from conrft_reward.training import Trained


def test_a_file_gives_the_same_probabilities(trained: Trained, tmp_path: Path) -> None:
    trained.classifier.save(tmp_path / "run" / "reward.safetensors")
    loaded = SuccessClassifier.load(tmp_path / "run" / "reward.safetensors")
    assert loaded.config == trained.classifier.config
    for step, thing in enumerate((0.1, 0.5, 0.92)):
        frame = observation(1, step, thing=thing)
        assert loaded.probability(frame) == trained.classifier.probability(frame)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["reward.safetensors"]


def test_the_most_doubtful_member_decides(trained: Trained) -> None:
    frame = observation(1, 0, thing=0.92)
    classifier = trained.classifier
    alone = [SuccessClassifier(classifier.config, [n]).probability(frame) for n in classifier.networks]  # type: ignore[list-item]
    assert classifier.probability(frame) == pytest.approx(min(alone))


def test_damage_is_refused(trained: Trained, tmp_path: Path) -> None:
    file = tmp_path / "reward.safetensors"
    trained.classifier.save(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ClassifierError, match=r"reward\.safetensors: cannot be read"):
        SuccessClassifier.load(file)
    with pytest.raises(ClassifierError, match="cannot be read"):
        SuccessClassifier.load(tmp_path / "absent")


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    classifier = SuccessClassifier(ClassifierConfig(task="pick_banana", cameras={"side": (64, 64)}))
    with torch.no_grad():
        next(classifier.networks.parameters())[0] = float("nan")
    classifier.save(tmp_path / "reward.safetensors")
    with pytest.raises(ClassifierError, match="not finite"):
        SuccessClassifier.load(tmp_path / "reward.safetensors")


def test_another_file_of_safetensors_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ClassifierError, match="is no success classifier"):
        SuccessClassifier.load(tmp_path / "other.safetensors")


def test_another_task_or_camera_is_refused(trained: Trained) -> None:
    with pytest.raises(ClassifierError, match="trained for task 'pick_banana', this is 'open_drawer'"):
        trained.classifier.check_task(TASK.model_copy(update={"name": "open_drawer"}))
    with pytest.raises(ClassifierError, match="cameras"):
        trained.classifier.check_task(TASK.model_copy(update={"cameras": {"side": TASK.cameras["side"]}}))


def test_an_image_of_another_size_is_refused(trained: Trained) -> None:
    frame = observation(1, 0)
    images = {**frame.images, "wrist": np.zeros((16, 16, 3), dtype=np.uint8)}
    with pytest.raises(ClassifierError, match="camera 'wrist': expected 32x32 pixels, got 16x16"):
        trained.classifier.thumbnails(images)


def test_one_frame_of_the_real_size_takes_less_than_eight_milliseconds() -> None:
    torch.set_num_threads(1)
    config = ClassifierConfig(task="pick_banana", cameras={"side": (256, 256), "wrist": (128, 128)})
    classifier = SuccessClassifier(config)
    random = np.random.default_rng(0)
    images = {n: random.integers(0, 255, (h, w, 3), dtype=np.uint8) for n, (w, h) in config.cameras.items()}
    base = observation(1, 0)
    frame = Observation(**{name: getattr(base, name) for name in base.__dataclass_fields__} | {"images": images})
    times = []
    for _ in range(50):
        start = time.thread_time()
        classifier.probability(frame)
        times.append(time.thread_time() - start)
    assert np.median(times) < 8e-3
