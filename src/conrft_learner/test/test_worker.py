"""The worker: what it does next, and that weights come before the standing that promises them."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conrft_data.bags import write_episode
from conrft_data.types import Episode, Mode
from conrft_learner.batch_stream import BatchStream
from conrft_learner.checkpoints import checkpoints
from conrft_learner.intake import EpisodeIntake
from conrft_learner.objectives import Figures
from conrft_learner.pace import Pace
from conrft_learner.trainer import Trainer, TrainingDiverged
from conrft_learner.worker import LearningWorker, Standing
from conrft_policy.policy_weights import PolicyWeights, load

MakeEpisode = Callable[..., Episode]


class NoEncoder:
    """For bags that hold their embeddings."""

    cameras = ("side",)

    def encode_episode(self, images: object) -> None:
        raise AssertionError("the bag holds the embeddings")


@pytest.fixture
def trainer(make_trainer: Callable[..., Trainer], tmp_path: Path) -> Trainer:
    return make_trainer(tmp_path / "run", demonstrations=0)


@pytest.fixture
def said() -> list[PolicyWeights | Standing]:
    return []


@pytest.fixture
def worker(trainer: Trainer, tmp_path: Path, said: list[PolicyWeights | Standing]) -> LearningWorker:
    intake = EpisodeIntake(trainer, NoEncoder(), tmp_path / "demos", tmp_path / "episodes")
    return LearningWorker(trainer, intake, on_weights=said.append, on_standing=said.append, slice_updates=3)


def work(worker: LearningWorker) -> int:
    """Works until there is nothing to do; returns the number of pieces."""
    pieces = 0
    while worker.step():
        pieces += 1
    return pieces


def test_demonstrations_are_trained_on_before_anything_is_announced(
    worker: LearningWorker, trainer: Trainer, said: list[object], tmp_path: Path, make_episode: MakeEpisode
) -> None:
    write_episode(tmp_path / "demos", make_episode(1, mode=Mode.DEMONSTRATION))
    while not said:
        assert worker.step()
    assert trainer.offline_finished
    assert isinstance(said[0], PolicyWeights) and said[0].version == trainer.offline_step


def test_nothing_is_trained_before_the_demonstrations_have_arrived_from_elsewhere(
    trainer: Trainer, said: list[PolicyWeights | Standing], tmp_path: Path, make_episode: MakeEpisode
) -> None:
    intake = EpisodeIntake(trainer, NoEncoder(), tmp_path / "demos", tmp_path / "episodes")
    arrived: list[bool] = []
    worker = LearningWorker(
        trainer, intake, on_weights=said.append, on_standing=said.append, demonstrations_are_here=lambda: bool(arrived)
    )
    write_episode(tmp_path / "demos", make_episode(1, mode=Mode.DEMONSTRATION))
    write_episode(tmp_path / "episodes", make_episode(3))
    work(worker)
    assert (trainer.journal, trainer.updates, said) == (["test-000001"], 0, [])
    assert "waits for the demonstrations" in worker.doing
    write_episode(tmp_path / "demos", make_episode(2, mode=Mode.DEMONSTRATION))
    arrived.append(True)
    work(worker)
    assert trainer.journal == ["test-000001", "test-000002", "test-000003"]
    assert trainer.offline_finished


@pytest.mark.parametrize("started_from", [False, True], ids=["fresh", "started from a checkpoint"])
def test_a_run_stopped_while_its_demonstrations_arrived_waits_for_the_rest(
    make_trainer: Callable[..., Trainer], tmp_path: Path, make_episode: MakeEpisode, started_from: bool
) -> None:
    earlier = make_trainer(tmp_path / "earlier")
    earlier.offline()
    arrived: list[bool] = []

    def start() -> tuple[Trainer, LearningWorker]:
        trainer = make_trainer(tmp_path / "run", demonstrations=0)
        if not trainer.restore() and started_from:
            trainer.start_from(tmp_path / "earlier")
        intake = EpisodeIntake(trainer, NoEncoder(), tmp_path / "demos", tmp_path / "episodes")
        nobody = {"on_weights": lambda weights: None, "on_standing": lambda standing: None}
        return trainer, LearningWorker(trainer, intake, demonstrations_are_here=lambda: bool(arrived), **nobody)

    write_episode(tmp_path / "demos", make_episode(11, mode=Mode.DEMONSTRATION))
    write_episode(tmp_path / "episodes", make_episode(13))
    trainer, worker = start()
    work(worker)
    trainer.save()  # as the node does when it is told to stop
    trainer, worker = start()
    work(worker)
    assert (trainer.journal, trainer.begun) == (["test-000011"], False)
    write_episode(tmp_path / "demos", make_episode(12, mode=Mode.DEMONSTRATION))
    arrived.append(True)
    work(worker)
    assert trainer.journal == ["test-000011", "test-000012", "test-000013"] and trainer.begun
    arrived.clear()  # the robot's machine is away: who has begun goes on
    write_episode(tmp_path / "episodes", make_episode(14))
    trainer.save()
    trainer, worker = start()
    work(worker)
    assert trainer.journal[-1] == "test-000014"


def test_an_episode_is_paid_for_and_then_its_weights_and_standing_come(
    worker: LearningWorker, trainer: Trainer, said: list[object], tmp_path: Path, make_episode: MakeEpisode
) -> None:
    work(worker)
    said.clear()
    write_episode(tmp_path / "episodes", make_episode(1, length=8))
    work(worker)
    taken, weights, caught_up = said
    assert isinstance(taken, Standing) and (taken.last_episode_id, taken.pending_updates) == ("test-000001", 8)
    assert isinstance(weights, PolicyWeights) and weights.version == 8
    assert isinstance(caught_up, Standing) and (caught_up.pending_updates, caught_up.weights_version) == (0, 8)
    assert trainer.online_updates == 8


def test_each_episode_is_paid_for_before_the_next_is_taken(
    worker: LearningWorker, trainer: Trainer, said: list[object], tmp_path: Path, make_episode: MakeEpisode
) -> None:
    for number in (1, 2):
        write_episode(tmp_path / "episodes", make_episode(number, length=8))
    work(worker)
    standings = [item for item in said if isinstance(item, Standing)]
    assert [(s.last_episode_id, s.pending_updates) for s in standings[1:]] == [
        ("test-000001", 8),
        ("test-000001", 0),
        ("test-000002", 8),
        ("test-000002", 0),
    ]


def test_speed_backlog_and_version_of_the_weights_are_in_the_log(
    worker: LearningWorker, trainer: Trainer, tmp_path: Path, make_episode: MakeEpisode
) -> None:
    write_episode(tmp_path / "demos", make_episode(1, mode=Mode.DEMONSTRATION))
    for number in (2, 3):
        write_episode(tmp_path / "episodes", make_episode(number, length=8))
    work(worker)
    lines = [json.loads(line) for line in (trainer.run_dir / "metrics.jsonl").read_text().splitlines()]
    offline, *online = [line for line in lines if line["stage"] == "learner"]
    assert (offline["step"], online[0]["step"]) == (10, 18)
    assert all(line["updates_per_s"] > 0 for line in (offline, *online))
    assert [(line["waiting_episodes"], line["weights_version"]) for line in (offline, online[0])] == [(2, 0), (1, 18)]


def test_a_refused_episode_is_reported_as_handled(
    worker: LearningWorker, said: list[object], tmp_path: Path, make_episode: MakeEpisode
) -> None:
    write_episode(tmp_path / "episodes", make_episode(1, mode=Mode.EVALUATION))
    work(worker)
    assert isinstance(said[-1], Standing) and said[-1].last_episode_id == "test-000001"
    assert "evaluation" in worker.refused["test-000001"]


def test_what_was_learned_is_saved_as_soon_as_there_is_time(
    worker: LearningWorker, trainer: Trainer, tmp_path: Path, make_episode: MakeEpisode
) -> None:
    write_episode(tmp_path / "episodes", make_episode(1, length=8))
    work(worker)
    newest = checkpoints(trainer.run_dir / "checkpoints")[-1]
    assert newest.name == "step-000000008"
    assert load(trainer.run_dir) == trainer.acting_weights()


def test_told_to_stop_it_ends_after_the_update_under_way(
    worker: LearningWorker,
    trainer: Trainer,
    tmp_path: Path,
    make_episode: MakeEpisode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work(worker)
    write_episode(tmp_path / "episodes", make_episode(1, length=8))
    stop, update = threading.Event(), trainer._online_update

    def told_meanwhile(stream: BatchStream) -> Figures:
        stop.set()
        return update(stream)

    monkeypatch.setattr(trainer, "_online_update", told_meanwhile)
    worker.run(stop, threading.Event())
    assert (trainer.online_updates, trainer.pending_updates) == (1, 7)


def test_training_that_diverged_stops_and_says_so_until_it_is_told_to_end(
    worker: LearningWorker,
    trainer: Trainer,
    tmp_path: Path,
    make_episode: MakeEpisode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work(worker)
    write_episode(tmp_path / "episodes", make_episode(1, length=8))
    updates: list[BatchStream] = []

    def diverges(stream: BatchStream) -> Figures:
        updates.append(stream)
        raise TrainingDiverged("td_loss is nan")

    monkeypatch.setattr(trainer, "_online_update", diverges)
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop, threading.Event(), 0.01))
    thread.start()
    while not worker.problem:
        assert thread.is_alive()
        time.sleep(0.01)
    thread.join(0.2)
    assert thread.is_alive() and len(updates) == 1
    assert worker.problem.startswith("training has stopped: td_loss is nan")
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_nothing_is_trained_before_lost_episodes_are_back(
    make_trainer: Callable[..., Trainer], tmp_path: Path, make_episode: MakeEpisode
) -> None:
    write_episode(tmp_path / "demos", make_episode(1, mode=Mode.DEMONSTRATION))
    write_episode(tmp_path / "episodes", make_episode(2, length=8))

    def start(folder: str) -> tuple[Trainer, LearningWorker]:
        trainer = make_trainer(tmp_path / folder, demonstrations=0)
        trainer.restore()
        intake = EpisodeIntake(trainer, NoEncoder(), tmp_path / "demos", tmp_path / "episodes")
        nobody = {"on_weights": lambda weights: None, "on_standing": lambda standing: None}
        return trainer, LearningWorker(trainer, intake, slice_updates=3, **nobody)

    straight, worker = start("straight")
    work(worker)
    stopped, worker = start("stopped")
    while stopped.online_updates != 3:
        worker.step()
    stopped.save()
    shutil.rmtree(tmp_path / "stopped" / "replay")
    stopped, worker = start("stopped")
    assert stopped.lost == {"test-000001", "test-000002"}
    worker.step()
    worker.step()
    assert (stopped.lost, stopped.online_updates) == (set(), 3)
    work(worker)
    assert stopped.acting_weights() == straight.acting_weights()


def test_a_learner_that_is_too_slow_for_its_ratio_says_so(
    worker: LearningWorker, trainer: Trainer, tmp_path: Path, make_episode: MakeEpisode
) -> None:
    write_episode(tmp_path / "episodes", make_episode(1, length=8))
    work(worker)
    worker.pace = Pace()
    worker.pace.add(8, 0.1, finished=True)
    assert worker.warnings() == []
    worker.pace.add(8, 4.0, finished=True)
    (warning,) = worker.warnings()
    assert warning.startswith("too slow for 1 updates a tick: 2.0 updates/s, 10.0 are needed; 0 updates are owed")


def test_episodes_that_wait_are_counted(worker: LearningWorker, tmp_path: Path, make_episode: MakeEpisode) -> None:
    for number in (1, 2):
        write_episode(tmp_path / "episodes", make_episode(number))
    worker.step()
    assert worker.backlog == 2


def test_weights_that_are_not_published_are_noticed(
    worker: LearningWorker, trainer: Trainer, tmp_path: Path, make_episode: MakeEpisode
) -> None:
    write_episode(tmp_path / "episodes", make_episode(1, length=8))
    work(worker)
    worker.pace = Pace()
    trainer.train(100)
    assert worker.warnings() == ["the weights of the last 100 updates are not published"]


def test_refused_episodes_are_a_warning(worker: LearningWorker, tmp_path: Path, make_episode: MakeEpisode) -> None:
    for number in (1, 2):
        write_episode(tmp_path / "episodes", make_episode(number, mode=Mode.EVALUATION))
    work(worker)
    assert worker.warnings() == [
        "2 episodes were refused, the last: episode test-000002 is an evaluation: it is never learned from"
    ]
