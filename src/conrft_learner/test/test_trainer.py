"""The trainer: what it takes in, how much it owes, and that it repeats itself exactly, restarts included."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from conrft_data.types import Episode, Mode, Outcome
from conrft_learner.checkpoints import checkpoints
from conrft_learner.replay import Batch
from conrft_learner.trainer import EpisodeRefused, Trainer
from conrft_policy.policy_weights import unpack

MakeEpisode = Callable[..., Episode]
MakeTrainer = Callable[..., Trainer]


def losses(run_dir: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] != "episodes"]


def online(trainer: Trainer, make_episode: MakeEpisode, first: int, last: int) -> None:
    """Ingests episodes and trains what each is worth, as in lockstep."""
    for number in range(first, last):
        trainer.ingest(make_episode(number, operator=(2, 3)))
        trainer.train(trainer.pending_updates)


def a_batch(trainer: Trainer) -> Batch:
    with trainer._stream("offline", 1) as stream:
        return stream.next()


def test_two_offline_runs_with_one_seed_have_the_same_losses(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_trainer(tmp_path / name).offline()
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert len(losses(tmp_path / "a")) == 10


@pytest.mark.parametrize("critic", ["light", "paper"])
def test_batches_made_ahead_change_no_loss(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path, critic: str
) -> None:
    for ahead in (0, 3):
        trainer = make_trainer(
            tmp_path / str(ahead), prefetch_batches=ahead, critic=critic, resnet_weights="random", crop_bank=2
        )
        trainer.offline(steps=9)
        online(trainer, make_episode, 10, 11)
    assert losses(tmp_path / "0") == losses(tmp_path / "3")


def test_another_seed_has_other_losses(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        make_trainer(tmp_path / name, seed=seed).offline()
    assert losses(tmp_path / "a") != losses(tmp_path / "b")


def test_a_run_continued_from_a_checkpoint_equals_one_that_never_stopped(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    straight = make_trainer(tmp_path / "straight")
    straight.offline()
    online(straight, make_episode, 10, 14)

    stopped = make_trainer(tmp_path / "stopped")
    stopped.offline(steps=7)  # the last checkpoint is of step 5: two updates are lost and done again
    stopped = make_trainer(tmp_path / "stopped", demonstrations=0)
    assert stopped.restore() and stopped.offline_step == 5
    stopped.offline()
    online(stopped, make_episode, 10, 12)
    stopped.save()
    online(stopped, make_episode, 12, 13)  # lost
    stopped = make_trainer(tmp_path / "stopped", demonstrations=0)
    assert stopped.restore()
    online(stopped, make_episode, 12, 14)

    assert losses(tmp_path / "stopped") == losses(tmp_path / "straight")
    assert stopped.acting_weights() == straight.acting_weights()


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(tmp_path).offline()
    newest = checkpoints(tmp_path / "checkpoints")[-1]
    data = bytearray((newest / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "state.safetensors").write_bytes(data)
    said: list[str] = []
    trainer = make_trainer(tmp_path, demonstrations=0)
    trainer.report = said.append
    assert trainer.restore()
    assert trainer.offline_step == 5
    assert newest.name in said[0] and "damaged" in said[0]


def test_a_checkpoint_of_another_seed_is_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(tmp_path).offline()
    with pytest.raises(ValueError, match="another seed"):
        make_trainer(tmp_path, seed=1, demonstrations=0).restore()


def test_only_the_newest_checkpoints_are_kept(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(tmp_path, checkpoint_every=1, keep_checkpoints=2).offline()
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-000000009", "step-000000010"]


def test_each_ingested_transition_owes_its_updates(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, updates_per_tick=0.5)
    trainer.ingest(make_episode(5, length=7))
    assert trainer.pending_updates == 3
    trainer.train(2)
    assert trainer.pending_updates == 1
    trainer.ingest(make_episode(6, length=7))
    assert trainer.pending_updates == 5, "the half update of each episode is not lost"


def test_nothing_is_owed_before_training_starts(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, training_starts=10)
    trainer.ingest(make_episode(5, length=8))
    assert trainer.pending_updates == 0
    trainer.ingest(make_episode(6, length=8))
    assert trainer.pending_updates == 8


def test_demonstrations_owe_no_updates(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    assert make_trainer(tmp_path).pending_updates == 0


def test_an_episode_is_ingested_once(make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    assert trainer.ingest(make_episode(5))
    assert not trainer.ingest(make_episode(5))
    assert trainer.pending_updates == 8


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "put_spoon"}, "of task put_spoon"),
        ({"mode": Mode.EVALUATION}, "evaluation"),
        ({"length": 0}, "no transition"),
    ],
)
def test_what_must_not_be_learned_from_is_refused(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(EpisodeRefused, match=reason):
        make_trainer(tmp_path).ingest(make_episode(5, **changes))


def test_embeddings_of_another_backbone_are_refused(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, demonstrations=0)
    trainer.backbone_fingerprint = "another backbone"
    with pytest.raises(EpisodeRefused, match="no embeddings"):
        trainer.ingest(make_episode(5))


def test_a_veto_changes_the_replay(make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.ingest(make_episode(5))
    assert trainer.replay.is_success("test-000005")
    trainer.relabel("test-000005", Outcome.TIMEOUT)
    assert not trainer.replay.is_success("test-000005")


def test_acting_weights_give_on_raw_inputs_what_was_trained_on_scaled_ones(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path)
    trainer.offline()
    head = unpack(trainer.acting_weights(), backbone_fingerprint=trainer.backbone_fingerprint)
    raw = a_batch(trainer)
    batch = trainer.offline_stage.transitions(raw)
    noise = torch.randn(len(batch.actions), 7)
    acting = trainer.networks.acting
    expected = acting.sample(acting.encode(batch.states.embedding, batch.states.proprio), noise)
    actions = head.sample(head.encode(torch.from_numpy(raw["embedding"]), torch.from_numpy(raw["proprio"])), noise)
    torch.testing.assert_close(actions, expected.detach(), rtol=1e-3, atol=1e-4)


def test_critic_alone_leaves_the_actor_as_it_is(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.offline(steps=3)
    before = [p.clone() for p in trainer.networks.head.parameters()]
    trainer.offline(steps=3)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.networks.head.parameters(), strict=True))


def test_cloning_alone_leaves_the_critic_as_it_is(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    before = [p.clone() for p in trainer.networks.critic.parameters()]
    trainer.offline(steps=3)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.networks.critic.parameters(), strict=True))


def test_a_demonstration_that_failed_is_refused(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path)
    with pytest.raises(EpisodeRefused, match="test-000050 ended by timeout"):
        trainer.ingest(make_episode(50, mode=Mode.DEMONSTRATION, outcome=Outcome.TIMEOUT))
    assert trainer.ingest(make_episode(51, outcome=Outcome.TIMEOUT))


def test_behaviour_cloning_learns_a_constant_action(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, demonstrations=0, offline_bc_steps=200, actor_lr=3e-3, acting_ema=0.0)
    episode = make_episode(0, mode=Mode.DEMONSTRATION)
    for command in episode.commands:
        command.action[:] = np.array([0.5, -0.5, 0.2, 0.0, 0.0, -0.2, 0.8], dtype=np.float32)
    trainer.ingest(episode)
    trainer.offline(steps=200)
    actions = trainer.offline_stage.policy_actions(trainer.offline_stage.transitions(a_batch(trainer)).states)
    assert (actions - torch.from_numpy(episode.commands[0].action)).abs().mean() < 0.1


def test_an_online_run_starts_from_the_networks_of_an_offline_one(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    offline = make_trainer(tmp_path / "offline")
    offline.offline()
    trainer = make_trainer(tmp_path / "online", seed=5)
    trainer.start_from(tmp_path / "offline")
    assert trainer.offline_finished
    assert trainer.acting_weights() == offline.acting_weights()
    online(trainer, make_episode, 10, 11)
    assert trainer.acting_weights() != offline.acting_weights()


def test_starting_from_a_folder_without_a_checkpoint_is_an_error(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no whole checkpoint"):
        make_trainer(tmp_path / "online").start_from(tmp_path)


def test_weights_of_the_actors_loss_follow_their_schedules_after_the_critics_warm_up(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    changes = {
        "online_bc_weight": 1.0,
        "online_bc_weight_final": 0.2,
        "online_q_weight": 0.5,
        "online_critic_warmup": 5,
    }
    stage = make_trainer(tmp_path, schedule_start=1, schedule_end=3, online_q_weight_final=1.5, **changes).online_stage
    weights = [(stage.objective(9, episode).bc_weight, stage.objective(9, episode).q_weight) for episode in (1, 2, 3)]
    np.testing.assert_allclose(weights, [(1.0, 0.5), (0.6, 1.0), (0.2, 1.5)])
    assert [stage.objective(updates, 1).actor for updates in (4, 5)] == [False, True]


def test_a_target_is_taken_from_a_random_subset_of_the_ensemble(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    stage = make_trainer(tmp_path, critic_members=4, critic_subset=2).online_stage
    values = torch.arange(4.0)[:, None].expand(4, 3)
    drawn = [tuple(stage._subset(values)[:, 0].int().tolist()) for _ in range(40)]
    assert all(len(set(pair)) == 2 for pair in drawn)
    assert {member for pair in drawn for member in pair} == {0, 1, 2, 3}


def test_paper_critic_needs_its_encoder_named(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs resnet_weights"):
        make_trainer(tmp_path, critic="paper")


def test_an_episode_without_a_cameras_images_is_refused_by_the_papers_critic(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, critic="paper", resnet_weights="random", demonstrations=0)
    episode = make_episode(5)
    episode.observations[1].images.clear()
    with pytest.raises(EpisodeRefused, match="test-000005 has no images of camera side"):
        trainer.ingest(episode)
