"""The trainer: what it takes in, how much it owes, and that it repeats itself exactly, restarts included."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from conrft_data.config import Camera, RewardConfig, TaskConfig
from conrft_data.types import Episode, Mode, Outcome
from conrft_learner.agent import ConRFT, Objective, Transitions
from conrft_learner.checkpoints import checkpoints
from conrft_learner.presets import Preset
from conrft_learner.replay import Batch
from conrft_learner.trainer import EpisodeRefused, Trainer, TrainingDiverged
from conrft_policy.policy_weights import load, unpack

EMBEDDING_DIM = 12
FINGERPRINT = "backbone of the tests"

MakeEpisode = Callable[..., Episode]
MakeTrainer = Callable[..., Trainer]


def losses(run_dir: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] in ("offline", "online")]


def online(trainer: Trainer, make_episode: MakeEpisode, first: int, last: int) -> None:
    """Ingests episodes and trains what each is worth, as in lockstep."""
    for number in range(first, last):
        trainer.ingest(make_episode(number, operator=(2, 3)))
        trainer.train(trainer.pending_updates)


def a_batch(trainer: Trainer) -> Batch:
    with trainer._stream("offline", 1) as stream:
        return stream.next()


def test_one_learner_works_in_a_run_folder(
    make_trainer: MakeTrainer, preset: Preset, task: TaskConfig, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path)
    arguments = (preset, trainer.head_config, FINGERPRINT, task, 0, tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path} is in use by another learner"):
        Trainer(*arguments)
    trainer.close()
    Trainer(*arguments)


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


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_step": 3, "critic_members": 4, "critic_subset": 2, "prefetch_batches": 2},
        {"critic": "paper", "resnet_weights": "random", "crop_bank": 2, "prefetch_batches": 3, "n_step": 2},
    ],
    ids=["light", "light, n-step, subset, prefetched", "paper, n-step, prefetched"],
)
def test_a_run_continued_from_a_checkpoint_equals_one_that_never_stopped(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path, changes: dict[str, object]
) -> None:
    straight = make_trainer(tmp_path / "straight", **changes)
    straight.offline()
    online(straight, make_episode, 10, 14)

    stopped = make_trainer(tmp_path / "stopped", **changes)
    stopped.offline(steps=7)  # the last checkpoint is of step 5: two updates are lost and done again
    stopped = make_trainer(tmp_path / "stopped", demonstrations=0, **changes)
    assert stopped.restore() and stopped.offline_step == 5
    stopped.offline()
    online(stopped, make_episode, 10, 12)
    stopped.save()
    online(stopped, make_episode, 12, 13)  # lost, but for the checkpoint in the middle of what it owed
    stopped = make_trainer(tmp_path / "stopped", demonstrations=0, **changes)
    assert stopped.restore()
    assert (stopped.online_episodes, stopped.online_updates, stopped.pending_updates) == (3, 20, 4)
    stopped.train(stopped.pending_updates)
    online(stopped, make_episode, 13, 14)

    assert losses(tmp_path / "stopped") == losses(tmp_path / "straight")
    assert_same_state(stopped, straight)


def test_a_run_told_to_stop_in_the_middle_of_its_updates_goes_on_as_if_it_had_not(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainers = []
    for name, stops in (("straight", 0), ("stopped", 4)):
        trainer = make_trainer(tmp_path / name, prefetch_batches=2)
        trainer.offline()
        trainer.ingest(make_episode(10))
        answers = iter([False] * stops + [True])
        trainer.train(trainer.pending_updates if stops else 0, stop=lambda answers=answers: next(answers))
        trainer.train(trainer.pending_updates)
        trainers.append(trainer)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "straight")
    assert_same_state(*trainers)


def test_a_run_continued_after_a_kill_between_ingestion_and_checkpoint_equals_one_that_never_stopped(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    changes = {"replay_capacity": 60}  # room for six episodes: the oldest online ones are overwritten
    straight = make_trainer(tmp_path / "straight", **changes)
    online(straight, make_episode, 10, 17)

    stopped = make_trainer(tmp_path / "stopped", **changes)
    online(stopped, make_episode, 10, 15)
    stopped.save()
    stopped.ingest(make_episode(15, operator=(2, 3)))
    stopped = make_trainer(tmp_path / "stopped", demonstrations=0, **changes)
    assert stopped.restore() and stopped.journal[-1] == "test-000014"
    for name in sorted(stopped.lost):
        stopped.ingest(make_episode(int(name[-6:]), operator=(2, 3)))
    online(stopped, make_episode, 15, 17)

    assert losses(tmp_path / "stopped") == losses(tmp_path / "straight")
    assert_same_state(stopped, straight)


def assert_same_state(one: Trainer, other: Trainer) -> None:
    """Everything that a checkpoint holds, to the last bit."""
    tensors, others = one.networks.state(), other.networks.state()
    assert tensors.keys() == others.keys()
    assert [name for name, value in tensors.items() if not torch.equal(value, others[name])] == []
    assert torch.equal(one.generator.get_state(), other.generator.get_state())
    state, expected = one._state(), other._state()
    assert state == expected
    assert one.acting_weights() == other.acting_weights()


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
    trainer.offline()
    kept = [path.name for path in checkpoints(tmp_path / "checkpoints")]
    assert kept == ["step-000000005", "step-000000010"], "the damaged one lies aside"


def test_a_checkpoint_of_another_seed_is_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(tmp_path).offline()
    with pytest.raises(ValueError, match="another seed"):
        make_trainer(tmp_path, seed=1, demonstrations=0).restore()


def test_only_the_newest_checkpoints_are_kept(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(tmp_path, checkpoint_every=1, keep_checkpoints=2).offline()
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-000000009", "step-000000010"]


def alone(trainer: Trainer, make_episode: MakeEpisode, successes: str) -> None:
    """Ingests an episode for each letter, y for a success without a take-over, with a checkpoint after each."""
    for letter in successes:
        outcome = Outcome.SUCCESS if letter == "y" else Outcome.TIMEOUT
        trainer.ingest(make_episode(100 + trainer.online_episodes, outcome=outcome))
        trainer.train(1)
        trainer.save()


def test_the_best_checkpoint_is_kept_and_the_newest_of_equals_is_the_best(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, keep_checkpoints=1, best_episodes=2, checkpoint_every=100)
    best = tmp_path / "checkpoints" / "best"
    alone(trainer, make_episode, "y")
    assert not best.exists(), "one episode tells nothing"
    alone(trainer, make_episode, "ny")
    assert best.readlink() == Path("step-000000003") and trainer.best == 0.5
    alone(trainer, make_episode, "yyyn")
    assert best.readlink() == Path("step-000000006") and trainer.best == 1.0
    kept = [path.name for path in checkpoints(tmp_path / "checkpoints")]
    assert kept == ["step-000000006", "step-000000007"]


def test_a_success_with_the_operators_help_makes_no_checkpoint_the_best(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, best_episodes=2)
    alone(trainer, make_episode, "ny")
    for number in (10, 11):
        trainer.ingest(make_episode(number, operator=(2,)))
    trainer.train(1)
    trainer.save()
    assert (tmp_path / "checkpoints" / "best").readlink() == Path("step-000000002")


def test_the_best_checkpoint_is_judged_by_what_its_episodes_are_labelled_now(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    changes = {"best_episodes": 2, "checkpoint_every": 100, "keep_checkpoints": 9}
    trainer = make_trainer(tmp_path, **changes)
    alone(trainer, make_episode, "yynyn")
    best = tmp_path / "checkpoints" / "best"
    assert (best.readlink(), trainer.best) == (Path("step-000000002"), 1.0)
    trainer.relabel("test-000101", Outcome.ABORTED)  # the second of its two
    assert trainer.best == 0.5
    trainer.save()
    trainer = make_trainer(tmp_path, demonstrations=0, **changes)
    assert trainer.restore() and trainer.best == 0.5, "it is known after a restart"
    alone(trainer, make_episode, "n")
    assert best.readlink() == Path("step-000000005"), "the newest with one success in two, as it was saved again"


def test_a_best_checkpoint_that_was_damaged_makes_way_for_another(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    best = tmp_path / "checkpoints" / "best"
    alone(make_trainer(tmp_path, best_episodes=1), make_episode, "yy")
    (best / "state.safetensors").write_bytes(b"damaged")
    trainer = make_trainer(tmp_path, demonstrations=0, best_episodes=1)
    assert trainer.restore() and trainer.online_updates == 1
    alone(trainer, make_episode, "nn")
    assert best.readlink() == Path("step-000000003")


def test_a_relabelled_episode_is_something_to_save(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path)
    trainer.ingest(make_episode(10))
    trainer.save()
    assert not trainer.unsaved
    assert not trainer.relabel("test-000010", Outcome.SUCCESS), "it is one already"
    assert not trainer.unsaved
    assert trainer.relabel("test-000010", Outcome.ABORTED)
    assert trainer.unsaved


def test_which_checkpoint_is_the_best_is_known_after_a_restart(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    changes = {"keep_checkpoints": 1, "best_episodes": 2}
    alone(make_trainer(tmp_path, **changes), make_episode, "yyn")
    trainer = make_trainer(tmp_path, demonstrations=0, **changes)
    assert trainer.restore()
    alone(trainer, make_episode, "y")
    assert (tmp_path / "checkpoints" / "best").readlink() == Path("step-000000002")


def test_a_run_goes_back_to_its_best_checkpoint(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path / "run", best_episodes=2)
    alone(trainer, make_episode, "yy")
    weights = trainer.acting_weights()
    alone(trainer, make_episode, "nn")
    best = tmp_path / "run" / "checkpoints" / "best"
    assert load(best) == weights, "as `conrft evaluate` reads it"
    again = make_trainer(tmp_path / "again")
    again.start_from(best)
    assert again.acting_weights() == weights, "its version too: they go on growing from there"
    assert again.online_updates == 0


def test_a_damaged_best_checkpoint_is_refused_by_name(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    alone(make_trainer(tmp_path / "run", best_episodes=1), make_episode, "y")
    best = tmp_path / "run" / "checkpoints" / "best"
    (best / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"checkpoint .*/checkpoints/best is damaged"):
        make_trainer(tmp_path / "again").start_from(best)


def test_a_run_goes_on_with_more_checkpoints_and_not_with_another_rate(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    make_trainer(tmp_path).offline()
    assert make_trainer(tmp_path, demonstrations=0, keep_checkpoints=9, description="another").restore()
    with pytest.raises(ValueError, match="another preset"):
        make_trainer(tmp_path, demonstrations=0, tau=0.5).restore()


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("discount", {"discount": 0.5}),
        ("reward", {"reward": RewardConfig(success=1.0)}),
        ("reward", {"reward": RewardConfig(step=-1.0)}),
        ("cameras", {"cameras": {"side": Camera(width=16, height=32)}}),
    ],
    ids=["discount", "reward of success", "reward of a step", "camera"],
)
def test_a_run_does_not_go_on_with_a_task_that_means_other_numbers(
    make_trainer: MakeTrainer, preset: Preset, task: TaskConfig, tmp_path: Path, what: str, changes: dict[str, object]
) -> None:
    before = make_trainer(tmp_path)
    before.offline()
    before.close()
    changed = task.model_copy(update=changes)
    trainer = Trainer(preset, preset.head_config(changed, EMBEDDING_DIM), FINGERPRINT, changed, 0, tmp_path)
    with pytest.raises(ValueError, match=f"another {what}"):
        trainer.restore()


def test_a_run_goes_on_with_other_gates_of_the_reward(
    make_trainer: MakeTrainer, preset: Preset, task: TaskConfig, tmp_path: Path
) -> None:
    before = make_trainer(tmp_path)
    before.offline()
    before.close()
    changed = task.model_copy(update={"reward": RewardConfig(threshold=0.5), "max_steps": 50})
    assert Trainer(preset, preset.head_config(changed, EMBEDDING_DIM), FINGERPRINT, changed, 0, tmp_path).restore()


def test_a_loss_that_is_not_finite_stops_the_training_and_is_not_saved(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, checkpoint_every=1)
    trainer.ingest(make_episode(10))
    trainer.train(2)
    with torch.no_grad():
        trainer.networks.critic_parameters[0].fill_(torch.inf)
    with pytest.raises(TrainingDiverged, match="online training diverged at update 3: td_loss is nan"):
        trainer.train(1)
    with pytest.raises(TrainingDiverged, match="at update 3: td_loss is nan"):
        trainer.save()
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")][-1] == "step-000000002"


def test_moments_that_are_not_finite_are_not_saved_though_the_loss_is(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path)
    trainer.ingest(make_episode(10))
    trainer.train(1)
    trainer.save()
    weights = (tmp_path / "policy.safetensors").read_bytes()
    state = next(iter(trainer.networks.critic_optimiser.state.values()))
    state["exp_avg_sq"].fill_(torch.inf)
    trainer.train(1)
    with pytest.raises(TrainingDiverged, match=r"critic_optimiser\.0\.exp_avg_sq are not finite"):
        trainer.save()
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-000000001"]
    assert (tmp_path / "policy.safetensors").read_bytes() == weights


def episodes_log(run_dir: Path, stage: str = "episodes") -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] == stage]


def test_an_episodes_figures_are_logged_when_it_is_taken_in(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path)
    trainer.ingest(make_episode(10, operator=(2, 3)))
    trainer.train(8)
    trainer.ingest(replace(make_episode(11, outcome=Outcome.TIMEOUT), weights_versions=dict.fromkeys(range(9), 5)))
    line = episodes_log(tmp_path)[-1]
    expected = {"success": 0, "length": 8, "intervention_rate": 0.0, "staleness": 3.0, "success_rate": 0.5, "step": 8}
    assert {name: line[name] for name in expected} == expected
    trainer.relabel("test-000010", Outcome.TIMEOUT)
    assert trainer.recent.figures()["success_rate"] == 0.0
    (line,) = episodes_log(tmp_path, "relabelled")
    assert (line["episode_id"], line["success"]) == ("test-000010", 0)


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


def test_a_task_with_a_fixed_gripper_is_learned_in_six_dimensions(
    preset: Preset, task: TaskConfig, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    without = task.model_copy(update={"action_dim": 6})
    tuned = preset.model_copy(update={"bc_gripper_weight": 3.0})
    trainer = Trainer(tuned, tuned.head_config(without, EMBEDDING_DIM), FINGERPRINT, without, 0, tmp_path)
    for number in (0, 1, 10):
        episode = make_episode(number, mode=Mode.DEMONSTRATION if number < 2 else Mode.TRAINING)
        for command in episode.commands:
            command.action[6] = 0.0
        trainer.ingest(episode)
    trainer.offline()
    trainer.train(trainer.pending_updates)
    assert trainer.acting_head().config.denoised_dim == 6
    actions = trainer.offline_stage.policy_actions(trainer.offline_stage.transitions(a_batch(trainer)).states)
    assert actions.shape[1] == 7
    assert (actions[:, 6] == 0).all()
    assert (actions[:, :6] != 0).any()
    assert {line["stage"] for line in losses(tmp_path)} == {"offline", "online"}


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


def objectives_of_an_update(
    stage: ConRFT, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[bool, bool, tuple[float, ...]]]:
    """Which networks each gradient step trains, and the first numbers of its batch; nothing is trained."""
    steps: list[tuple[bool, bool, tuple[float, ...]]] = []

    def update(batch: Transitions, objective: Objective) -> dict[str, float]:
        steps.append((objective.critic, objective.actor, tuple(batch.actions[:, 0].tolist())))
        return {}

    monkeypatch.setattr(stage, "update", update)
    return steps


@pytest.mark.parametrize("stage", ["offline", "online"])
def test_an_update_is_critic_steps_and_then_one_with_the_actor_each_on_a_batch_of_its_own(
    make_trainer: MakeTrainer,
    make_episode: MakeEpisode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    changes = {"critic_steps_per_actor_step": 3, "offline_bc_steps": 0, "offline_critic_steps": 0}
    trainer = make_trainer(tmp_path, **changes)
    trainer.ingest(make_episode(10))
    steps = objectives_of_an_update(getattr(trainer, f"{stage}_stage"), monkeypatch)
    if stage == "offline":
        trainer.offline(steps=1)
    else:
        trainer.train(1)
    assert [step[:2] for step in steps] == [(True, False), (True, False), (True, True)]
    assert len({step[2] for step in steps}) == 3


def test_figures_are_means_over_all_steps_of_an_update(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    changes = {"critic_steps_per_actor_step": 2, "offline_bc_steps": 0, "offline_critic_steps": 0}
    trainer = make_trainer(tmp_path, **changes)
    figures = iter([{"td_loss": 1.0}, {"td_loss": 3.0, "bc_loss": 5.0}])
    trainer.offline_stage.update = lambda batch, objective: next(figures)  # type: ignore[method-assign]
    trainer.offline(steps=1)
    assert trainer.log.latest == {"td_loss": 2.0, "bc_loss": 5.0}


def test_without_demonstrations_the_inputs_are_scaled_by_the_first_online_episodes(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, demonstrations=0)
    trainer.ingest(make_episode(10, operator=(2,)))
    trainer.train(1)
    scaling = trainer.networks.scaling
    frames = make_episode(10).embeddings
    torch.testing.assert_close(scaling.embedding_mean, torch.from_numpy(frames).mean(dim=0))
    trainer.ingest(make_episode(0, mode=Mode.DEMONSTRATION))
    trainer.train(1)
    torch.testing.assert_close(scaling.embedding_mean, torch.from_numpy(frames).mean(dim=0), msg="fitted twice")


def test_the_inputs_are_scaled_by_the_demonstrations_where_there_are_any(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, demonstrations=1)
    trainer.ingest(make_episode(10))
    trainer.train(1)
    expected = torch.from_numpy(make_episode(0).embeddings).mean(dim=0)
    torch.testing.assert_close(trainer.networks.scaling.embedding_mean, expected)


def demonstrations_in(trainer: Trainer, stage: Literal["offline", "online"]) -> list[bool]:
    """Which rows of a stage's batch are of the demonstrations 0 and 1 of the tests."""
    with trainer._stream(stage, 1) as stream:
        drawn = stream.next()["embedding"]
    frames = trainer.replay.frames(demonstrations=True)[0]
    return [bool((frames == row).all(axis=1).any()) for row in drawn]


def test_half_of_an_online_batch_is_demonstrations_and_all_of_an_offline_one(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path)
    trainer.ingest(make_episode(10))
    assert demonstrations_in(trainer, "online") == [True] * 8 + [False] * 8
    assert demonstrations_in(trainer, "offline") == [True] * 16


def test_the_share_of_demonstrations_is_the_presets(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, demonstration_fraction=0.25)
    trainer.ingest(make_episode(10))
    assert sum(demonstrations_in(trainer, "online")) == 4


def test_the_heads_learning_rate_changes_with_the_online_stage(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, actor_lr=1e-3, online_actor_lr=2e-4, critic_lr=5e-3)
    rates = [
        optimiser.param_groups[0] for optimiser in (trainer.networks.actor_optimiser, trainer.networks.critic_optimiser)
    ]
    trainer.offline(steps=1)
    assert [group["lr"] for group in rates] == [1e-3, 5e-3]
    trainer.ingest(make_episode(10))
    trainer.train(1)
    assert [group["lr"] for group in rates] == [2e-4, 5e-3]


def test_discount_and_steps_of_the_target_are_the_presets(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    assert make_trainer(tmp_path / "task").online_stage.discount == 0.98, "the task's, where the preset names none"
    trainer = make_trainer(tmp_path / "preset", demonstrations=0, discount=0.5, n_step=2)
    assert (trainer.offline_stage.discount, trainer.online_stage.discount) == (0.5, 0.5)
    trainer.ingest(make_episode(10, length=4))
    batch = trainer.replay.gather(np.arange(4), trainer.replay.batch(4))
    np.testing.assert_allclose(batch["reward"], [-0.075, -0.075, -0.05 + 0.5 * 10, 10], rtol=1e-6)
    np.testing.assert_allclose(
        batch["mc_return"], [-0.0875 + 0.125 * 10, -0.075 + 0.25 * 10, -0.05 + 0.5 * 10, 10], rtol=1e-6
    )


def test_a_return_that_a_later_take_over_earned_bounds_nothing(
    make_trainer: MakeTrainer, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, demonstrations=0)
    trainer.ingest(make_episode(10, length=4, operator=(2,)))
    batch = trainer.online_stage.transitions(trainer.replay.gather(np.arange(4), trainer.replay.batch(4)))
    assert torch.isinf(batch.bounds).tolist() == [True, True, False, False]


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
