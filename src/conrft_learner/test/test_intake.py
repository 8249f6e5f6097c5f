"""The intake with real bags: each finished episode once, embeddings from the bag or computed, labels that come late."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from conrft_data.bags import relabel, write_episode
from conrft_data.types import Episode, Mode, Outcome
from conrft_learner.intake import EpisodeIntake
from conrft_learner.trainer import Trainer
from conrft_policy.backbone import check_images

MakeEpisode = Callable[..., Episode]


class Encoder:
    """Embeds each frame as its mean colour, and counts the episodes."""

    cameras = ("side",)

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.encoded = 0

    def encode_episode(self, images: dict[str, np.ndarray]) -> np.ndarray:
        self.encoded += 1
        return np.repeat(images["side"].mean(axis=(1, 2, 3), dtype=np.float32)[:, None], self.dim, axis=1)


@pytest.fixture
def trainer(make_trainer: Callable[..., Trainer], tmp_path: Path) -> Trainer:
    return make_trainer(tmp_path / "run", demonstrations=0)


@pytest.fixture
def encoder(trainer: Trainer) -> Encoder:
    return Encoder(trainer.head_config.embedding_dim)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "episodes"


@pytest.fixture
def intake(trainer: Trainer, encoder: Encoder, folder: Path) -> EpisodeIntake:
    return EpisodeIntake(trainer, encoder, None, folder)


def take_all(intake: EpisodeIntake) -> list[str]:
    waiting = intake.waiting_episodes()
    for bag in waiting:
        intake.take(bag)
    return [bag.name for bag in waiting]


def test_finished_bags_are_taken_once_and_in_order(
    intake: EpisodeIntake, trainer: Trainer, folder: Path, make_episode: MakeEpisode
) -> None:
    for number in (2, 1):
        write_episode(folder, make_episode(number))
    (folder / ".tmp-test-000003").mkdir()
    assert take_all(intake) == ["test-000001", "test-000002"]
    assert take_all(intake) == []
    assert trainer.journal == ["test-000001", "test-000002"]
    assert intake.last_handled == "test-000002"


def test_embeddings_of_the_same_backbone_are_not_computed_again(
    intake: EpisodeIntake, trainer: Trainer, encoder: Encoder, folder: Path, make_episode: MakeEpisode
) -> None:
    episode = make_episode(1)
    write_episode(folder, episode)
    take_all(intake)
    assert encoder.encoded == 0
    rows = trainer.replay.gather(np.arange(8), trainer.replay.batch(8))
    np.testing.assert_array_equal(rows["embedding"], episode.embeddings[:8])


@pytest.mark.parametrize("changes", [{"embeddings": None, "embedding_fingerprint": ""}, {"embedding_fingerprint": "x"}])
def test_missing_or_foreign_embeddings_are_computed(
    intake: EpisodeIntake,
    trainer: Trainer,
    encoder: Encoder,
    folder: Path,
    make_episode: MakeEpisode,
    changes: dict[str, object],
) -> None:
    episode = replace(make_episode(1), **changes)
    write_episode(folder, episode)
    take_all(intake)
    assert encoder.encoded == 1
    rows = trainer.replay.gather(np.arange(8), trainer.replay.batch(8))
    assert rows["embedding"][3, 0] == pytest.approx(episode.observations[3].images["side"].mean())


def demonstration(make_episode: MakeEpisode, number: int, **changes: object) -> Episode:
    episode = make_episode(number, mode=Mode.DEMONSTRATION)
    return replace(episode, embeddings=None, embedding_fingerprint="", **changes)


def take_demonstrations(trainer: Trainer, encoder: Encoder, folder: Path) -> EpisodeIntake:
    intake = EpisodeIntake(trainer, encoder, folder, None)
    for bag in intake.waiting_demonstrations():
        intake.take(bag)
    return intake


def test_a_demonstration_is_embedded_once_for_all_runs(
    make_trainer: Callable[..., Trainer], encoder: Encoder, folder: Path, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    write_episode(folder, demonstration(make_episode, 1))
    first, second = (make_trainer(tmp_path / name, demonstrations=0) for name in ("offline", "online"))
    take_demonstrations(first, encoder, folder)
    take_demonstrations(second, encoder, folder)
    assert encoder.encoded == 1
    rows = [trainer.replay.gather(np.arange(8), trainer.replay.batch(8))["embedding"] for trainer in (first, second)]
    np.testing.assert_array_equal(*rows)


def test_kept_embeddings_that_are_damaged_or_of_another_backbone_are_computed_again(
    make_trainer: Callable[..., Trainer], encoder: Encoder, folder: Path, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    write_episode(folder, demonstration(make_episode, 1))
    take_demonstrations(make_trainer(tmp_path / "first", demonstrations=0), encoder, folder)
    (kept,) = (folder / ".embeddings").rglob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-8])
    take_demonstrations(make_trainer(tmp_path / "second", demonstrations=0), encoder, folder)
    assert encoder.encoded == 2
    kept.write_bytes(save({"embeddings": load(kept.read_bytes())["embeddings"]}, metadata={"fingerprint": "another"}))
    take_demonstrations(make_trainer(tmp_path / "third", demonstrations=0), encoder, folder)
    assert encoder.encoded == 3


def test_a_demonstration_that_failed_is_refused_before_it_is_embedded(
    trainer: Trainer, encoder: Encoder, folder: Path, make_episode: MakeEpisode
) -> None:
    write_episode(folder, demonstration(make_episode, 1, outcome=Outcome.ABORTED))
    intake = take_demonstrations(trainer, encoder, folder)
    assert "only successes are learned from" in intake.refused["test-000001"]
    assert encoder.encoded == 0


def test_a_label_written_afterwards_reaches_the_replay(
    intake: EpisodeIntake, trainer: Trainer, folder: Path, make_episode: MakeEpisode
) -> None:
    bag = write_episode(folder, make_episode(1))
    take_all(intake)
    assert intake.apply_labels() == []
    relabel(bag, Outcome.TIMEOUT, "the banana lies beside the plate")
    assert intake.apply_labels() == ["test-000001"]
    assert not trainer.replay.is_success("test-000001")
    assert intake.apply_labels() == []


def test_a_label_written_before_counts_at_once(
    intake: EpisodeIntake, trainer: Trainer, folder: Path, make_episode: MakeEpisode
) -> None:
    relabel(write_episode(folder, make_episode(1)), Outcome.TIMEOUT)
    take_all(intake)
    assert not trainer.replay.is_success("test-000001")


def test_a_label_that_comes_while_its_episode_is_taken_in_is_not_lost(
    intake: EpisodeIntake,
    trainer: Trainer,
    encoder: Encoder,
    folder: Path,
    make_episode: MakeEpisode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bag = write_episode(folder, replace(make_episode(1), embeddings=None, embedding_fingerprint=""))
    encode = encoder.encode_episode

    def encode_while_the_operator_vetoes(images: dict[str, np.ndarray]) -> np.ndarray:
        relabel(bag, Outcome.ABORTED, "the operator vetoed the success")
        return encode(images)

    monkeypatch.setattr(encoder, "encode_episode", encode_while_the_operator_vetoes)
    take_all(intake)
    assert intake.apply_labels() == ["test-000001"]
    assert not trainer.replay.is_success("test-000001")


def test_a_label_that_could_not_be_read_is_tried_again(
    intake: EpisodeIntake, trainer: Trainer, folder: Path, make_episode: MakeEpisode
) -> None:
    bag = write_episode(folder, make_episode(1))
    take_all(intake)
    said: list[str] = []
    trainer.report = said.append
    relabel(bag, Outcome.ABORTED)
    label = bag / "label.json"
    written = label.stat().st_mtime_ns
    text = label.read_text()
    label.write_text("{")  # as a disk that fails for a moment shows it: the time of the label stays
    os.utime(label, ns=(written, written))
    for _ in range(2):
        assert intake.apply_labels() == []
    assert len(said) == 1 and "cannot be read" in said[0], "told once"
    assert list(intake.unread) == ["test-000001"]
    label.write_text(text)
    os.utime(label, ns=(written, written))
    assert intake.apply_labels() == ["test-000001"]
    assert not trainer.replay.is_success("test-000001")
    assert intake.unread == {}


def test_a_demonstration_that_is_vetoed_leaves_the_replay_and_comes_back_when_that_is_taken_back(
    trainer: Trainer, encoder: Encoder, folder: Path, make_episode: MakeEpisode
) -> None:
    bag = write_episode(folder, demonstration(make_episode, 1))
    intake = take_demonstrations(trainer, encoder, folder)
    relabel(bag, Outcome.ABORTED)
    assert intake.apply_labels() == ["test-000001"]
    assert trainer.replay.count("demonstrations") == 0, "as a fresh run would have it"
    assert trainer.journal == []
    for waiting in intake.waiting_demonstrations():
        intake.take(waiting)
    assert "only successes are learned from" in intake.refused["test-000001"]
    assert intake.waiting_demonstrations() == []
    relabel(bag, Outcome.SUCCESS)
    intake.apply_labels()
    assert (intake.waiting_demonstrations(), intake.refused) == ([bag], {})
    assert intake.take(bag)
    assert trainer.replay.count("demonstrations") == 8


def test_a_demonstration_that_failed_is_taken_once_it_is_labelled_a_success(
    trainer: Trainer, encoder: Encoder, folder: Path, make_episode: MakeEpisode
) -> None:
    bag = write_episode(folder, demonstration(make_episode, 1, outcome=Outcome.ABORTED))
    intake = take_demonstrations(trainer, encoder, folder)
    assert intake.waiting_demonstrations() == []
    relabel(bag, Outcome.SUCCESS)
    intake.apply_labels()
    assert intake.take(*intake.waiting_demonstrations())
    assert trainer.journal == ["test-000001"]


def test_a_bag_that_cannot_be_used_is_refused_once_and_by_name(
    intake: EpisodeIntake, trainer: Trainer, folder: Path, make_episode: MakeEpisode
) -> None:
    bag = write_episode(folder, make_episode(1))
    (bag / f"{bag.name}.mcap").write_bytes(b"cut off")
    write_episode(folder, make_episode(2, mode=Mode.EVALUATION))
    take_all(intake)
    assert set(intake.refused) == {"test-000001", "test-000002"}
    assert take_all(intake) == []
    assert intake.last_handled == "test-000002", "whoever waits for this episode must not wait for ever"
    assert trainer.journal == []


def test_images_that_the_backbone_cannot_take_are_refused(
    intake: EpisodeIntake, encoder: Encoder, folder: Path, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_episode(folder, replace(make_episode(1), embeddings=None, embedding_fingerprint=""))
    sizes = {"side": (256, 256)}
    monkeypatch.setattr(encoder, "encode_episode", lambda images: check_images(images, sizes))
    take_all(intake)
    assert "the backbone expects (256, 256, 3)" in intake.refused["test-000001"]


def test_an_episode_that_ended_at_its_first_observation_is_passed_over_in_silence(
    intake: EpisodeIntake, trainer: Trainer, folder: Path, make_episode: MakeEpisode
) -> None:
    said: list[str] = []
    trainer.report = said.append
    write_episode(folder, make_episode(1, length=0))
    assert take_all(intake) == ["test-000001"]
    assert (take_all(intake), intake.refused, said, trainer.journal) == ([], {}, [], [])
    assert intake.last_handled == "test-000001", "whoever waits for this episode must not wait for ever"


def test_an_old_episode_that_is_refused_again_after_a_restart_does_not_hide_the_newest(
    intake: EpisodeIntake, trainer: Trainer, encoder: Encoder, folder: Path, make_episode: MakeEpisode
) -> None:
    for number, mode in enumerate((Mode.EVALUATION, Mode.TRAINING), 1):
        write_episode(folder, make_episode(number, mode=mode))
    take_all(intake)
    again = EpisodeIntake(trainer, encoder, None, folder)
    assert take_all(again) == ["test-000001"]
    assert again.last_handled == "test-000002"


def test_frames_lost_in_a_crash_are_read_again_and_owe_nothing_twice(
    make_trainer: Callable[..., Trainer], encoder: Encoder, folder: Path, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    write_episode(folder, make_episode(1))
    trainer = make_trainer(run, demonstrations=0)
    take_all(EpisodeIntake(trainer, encoder, None, folder))
    trainer.save()
    (run / "replay" / "episodes.json").unlink()

    again = make_trainer(run, demonstrations=0)
    again.restore()
    assert again.lost == {"test-000001"}
    assert take_all(EpisodeIntake(again, encoder, None, folder)) == ["test-000001"]
    assert (again.online_episodes, again.owed, again.lost) == (1, 8.0, set())
    assert again.replay.count("online") == 8
