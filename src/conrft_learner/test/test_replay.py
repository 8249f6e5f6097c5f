"""The replay: what is drawn is what was stored, no row crosses an episode, and it survives being opened again."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conrft_learner.replay import FrameField, Replay, ReplayError
from conrft_learner.transitions import EpisodeFrames, Labels

D, P, A = 3, 2, 7


def frames(
    number: int, length: int = 5, *, demonstration: bool = False, operator: tuple[int, ...] = ()
) -> EpisodeFrames:
    """An episode whose every number names it and its step: ``100 * number + step``."""
    mark = 100.0 * number + np.arange(length + 1, dtype=np.float32)
    interventions = np.isin(np.arange(length), operator)
    rewards = np.full(length, -0.05, dtype=np.float32)
    terminated = np.arange(length) == length - 1
    return EpisodeFrames(
        episode_id=f"e{number}",
        demonstration=demonstration,
        embeddings=np.repeat(mark[:, None], D, axis=1),
        proprio=np.repeat(mark[:, None], P, axis=1),
        actions=np.repeat(mark[:length, None] / 1e4, A, axis=1),
        interventions=interventions,
        labels=Labels(rewards=rewards, terminated=terminated, returns=mark[:length], bounds=mark[:length]),
    )


def open_replay(folder: Path, capacity: int = 60) -> Replay:
    return Replay(folder, capacity=capacity, embedding_dim=D, proprio_dim=P, action_dim=A)


def all_of(replay: Replay, size: int = 500, share: float = 0.5) -> dict[str, np.ndarray]:
    indices = replay.draw(size, share, np.random.default_rng(0))
    return replay.gather(indices, replay.batch(size)).arrays


def test_successor_and_stacked_frame_are_of_the_same_episode(tmp_path: Path) -> None:
    replay = open_replay(tmp_path)
    for number in (1, 2, 3):
        replay.add(frames(number))
    batch = all_of(replay)
    mark, step = batch["embedding"][:, 0], batch["embedding"][:, 0] % 100
    np.testing.assert_array_equal(batch["next_embedding"][:, 0], mark + 1)
    np.testing.assert_array_equal(batch["proprio"][:, P], mark)
    np.testing.assert_array_equal(batch["proprio"][:, 0], np.where(step == 0, mark, mark - 1))
    np.testing.assert_array_equal(batch["next_proprio"], np.stack([mark, mark, mark + 1, mark + 1], axis=1))
    np.testing.assert_allclose(batch["action"][:, 0], mark / 1e4, rtol=1e-6)
    assert set(step) == set(range(5)), "every transition is drawn, and the last frame never begins one"


def test_only_a_terminal_transition_is_masked(tmp_path: Path) -> None:
    replay = open_replay(tmp_path)
    replay.add(frames(1))
    batch = all_of(replay)
    np.testing.assert_array_equal(batch["mask"], (batch["embedding"][:, 0] % 100 != 4).astype(np.float32))


def test_half_of_a_batch_is_demonstrations_and_interventions(tmp_path: Path) -> None:
    replay = open_replay(tmp_path)
    replay.add(frames(1, demonstration=True))
    replay.add(frames(2, operator=(1, 2)))
    assert (replay.count("demonstrations"), replay.count("online")) == (5 + 2, 5)
    mark = all_of(replay, 400)["embedding"][:, 0]
    first, second = set(mark[:200]), set(mark[200:])
    assert first == {100.0, 101.0, 102.0, 103.0, 104.0, 201.0, 202.0}
    assert second == {200.0, 201.0, 202.0, 203.0, 204.0}


def test_one_pool_fills_the_batch_while_the_other_is_empty(tmp_path: Path) -> None:
    replay = open_replay(tmp_path)
    replay.add(frames(1, demonstration=True))
    assert len(replay.draw(8, 0.5, np.random.default_rng(0))) == 8


def test_an_empty_replay_says_so(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="empty"):
        open_replay(tmp_path).draw(4, 0.5, np.random.default_rng(0))


def test_the_same_seed_draws_the_same(tmp_path: Path) -> None:
    replay = open_replay(tmp_path)
    replay.add(frames(1))
    draws = [replay.draw(20, 0.5, np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(*draws)


def test_a_full_ring_forgets_the_oldest_online_episode_and_no_demonstration(tmp_path: Path) -> None:
    replay = open_replay(tmp_path, capacity=20)
    replay.add(frames(1, demonstration=True))
    for number in (2, 3, 4, 5):
        replay.add(frames(number, length=4))
    assert replay.episode_ids == ["e1", "e4", "e5"]
    assert set(all_of(replay)["embedding"][:, 0] // 100) == {1, 4, 5}


def test_demonstrations_that_leave_no_room_are_an_error(tmp_path: Path) -> None:
    replay = open_replay(tmp_path, capacity=8)
    replay.add(frames(1, demonstration=True))
    with pytest.raises(ReplayError, match="no room"):
        replay.add(frames(2))


def test_an_episode_that_does_not_fit_drives_out_no_other(tmp_path: Path) -> None:
    replay = open_replay(tmp_path, capacity=24)
    replay.add(frames(1, demonstration=True))
    for number in (2, 3):
        replay.add(frames(number))
    before = all_of(replay)
    with pytest.raises(ReplayError, match="no room for 21 frames"):
        replay.add(frames(4, length=20))
    assert replay.episode_ids == ["e1", "e2", "e3"]
    for name, values in all_of(replay).items():
        np.testing.assert_array_equal(values, before[name])


def test_an_episode_is_stored_once(tmp_path: Path) -> None:
    replay = open_replay(tmp_path)
    replay.add(frames(1))
    replay.add(frames(1))
    assert replay.count("online") == 5


def test_a_veto_changes_reward_return_and_terminal_flag(tmp_path: Path) -> None:
    replay = open_replay(tmp_path)
    replay.add(frames(1))
    vetoed = Labels(
        rewards=np.full(5, -1, np.float32),
        terminated=np.zeros(5, bool),
        returns=np.full(5, -2, np.float32),
        bounds=np.full(5, -3, np.float32),
    )
    replay.relabel("e1", vetoed)
    batch = all_of(replay)
    assert [set(batch[name]) for name in ("reward", "mask", "mc_return", "bound")] == [{-1.0}, {1.0}, {-2.0}, {-3.0}]
    assert not replay.is_success("e1")
    assert not open_replay(tmp_path).is_success("e1"), "it is known when the folder is opened again"


def test_opened_again_it_holds_the_same(tmp_path: Path) -> None:
    replay = open_replay(tmp_path)
    for number in (1, 2):
        replay.add(frames(number))
    before = all_of(replay)
    again = open_replay(tmp_path)
    after = all_of(again)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])


@pytest.mark.parametrize(
    "field",
    ["embedding", "proprio", "action", "reward", "mc_return", "bound", "terminated", "intervention", "first"],
)
def test_an_episode_that_was_damaged_on_disk_is_dropped_whatever_it_hit(tmp_path: Path, field: str) -> None:
    replay = open_replay(tmp_path)
    for number in (1, 2):
        replay.add(frames(number, operator=(4,)))
    replay.flush()
    file = tmp_path / f"{field}.bin"
    row = file.stat().st_size // 60
    with file.open("r+b") as opened:  # the last transition of the first episode, or where it begins
        opened.seek(0 if field == "first" else 4 * row)
        opened.write(bytes(row))
    assert open_replay(tmp_path).episode_ids == ["e2"]


def test_a_folder_of_another_backbone_is_refused(tmp_path: Path) -> None:
    open_replay(tmp_path)
    with pytest.raises(ReplayError, match="another backbone"):
        Replay(tmp_path, capacity=60, embedding_dim=D + 1, proprio_dim=P, action_dim=A)


def test_extra_features_travel_with_their_frames(tmp_path: Path) -> None:
    replay = Replay(
        tmp_path,
        capacity=60,
        embedding_dim=D,
        proprio_dim=P,
        action_dim=A,
        extra={"side": FrameField((2, 2, 3), "uint8")},
    )
    for number in (1, 2):
        replay.add(
            frames(number),
            {
                "side": np.full((6, 1, 2, 2, 3), 10 * number, np.uint8)
                + np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1, 1)
            },
        )
    batch = all_of(replay)
    np.testing.assert_array_equal(batch["next_side"], batch["side"] + 1)
    np.testing.assert_array_equal(batch["side"][:, 0, 0, 0] // 10, batch["embedding"][:, 0] // 100)


def test_of_a_bank_each_sample_takes_one_version_of_its_frame(tmp_path: Path) -> None:
    extra = {"maps": FrameField((2,), "float16", bank=3)}
    replay = Replay(tmp_path, capacity=60, embedding_dim=D, proprio_dim=P, action_dim=A, extra=extra)
    versions = np.arange(6, dtype=np.float16)[:, None, None] + np.array([0.0, 0.25, 0.5], np.float16)[:, None]
    replay.add(frames(1), {"maps": np.repeat(versions, 2, axis=2)})
    rng = np.random.default_rng(0)
    indices, batch = replay.draw(300, 0.5, rng), replay.batch(300)
    drawn = replay.gather(indices, batch, replay.draw_versions(300, rng)).arrays
    step = drawn["embedding"][:, 0] - 100
    assert drawn["maps"].dtype == np.float32
    for name, offset in (("maps", 0), ("next_maps", 1)):
        shift = drawn[name] - (step + offset)[:, None]
        assert np.array_equal(shift[:, 0], shift[:, 1]) and set(shift[:, 0]) == {0.0, 0.25, 0.5}
    assert not np.array_equal(drawn["maps"] % 1, drawn["next_maps"] % 1), "state and next state are drawn apart"


def test_features_of_another_encoder_are_refused(tmp_path: Path) -> None:
    def opened(fingerprint: str) -> Replay:
        return Replay(tmp_path, capacity=60, embedding_dim=D, extra_fingerprint=fingerprint)

    opened("a")
    with pytest.raises(ReplayError, match="other settings"):
        opened("b")


def test_stored_features_do_not_stay_in_memory_of_the_process(tmp_path: Path) -> None:
    def own_memory_kb() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0])

    extra = {"maps": FrameField((512, 16), "float16", bank=4)}
    replay = Replay(tmp_path, capacity=200_000, embedding_dim=D, proprio_dim=P, action_dim=A, extra=extra)
    values = np.ones((6, 4, 512, 16), np.float16)
    replay.add(frames(0), {"maps": values})
    before = own_memory_kb()
    for number in range(1, 60):
        replay.add(frames(number), {"maps": values})
    stored_kb = 59 * values.nbytes // 1024
    assert own_memory_kb() - before < stored_kb / 4


def test_a_full_disk_is_an_error_before_anything_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = open_replay(tmp_path, capacity=12)
    for number in (1, 2):
        replay.add(frames(number))

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        replay.add(frames(3))
    assert replay.episode_ids == ["e1", "e2"], "the oldest goes only for one that comes"
    assert open_replay(tmp_path, capacity=12).episode_ids == ["e1", "e2"]


def n_step_batch(folder: Path, episode: EpisodeFrames) -> dict[str, np.ndarray]:
    replay = Replay(folder, capacity=60, embedding_dim=D, proprio_dim=P, action_dim=A, n_step=3, discount=0.5)
    replay.add(frames(7))
    replay.add(episode)
    indices = np.array([6, 7, 8, 9, 10])
    return replay.gather(indices, replay.batch(5)).arrays


def test_three_steps_sum_rewards_and_stop_at_the_end_of_the_episode(tmp_path: Path) -> None:
    batch = n_step_batch(tmp_path, frames(1))
    np.testing.assert_array_equal(batch["next_embedding"][:, 0] - 100, [3, 4, 5, 5, 5])
    np.testing.assert_array_equal(batch["next_proprio"][:, P] - 100, [3, 4, 5, 5, 5])
    np.testing.assert_array_equal(batch["next_proprio"][:, 0] - 100, [2, 3, 4, 4, 4])
    np.testing.assert_allclose(batch["reward"], -0.05 * np.array([1.75, 1.75, 1.75, 1.5, 1.0]), rtol=1e-6)
    np.testing.assert_array_equal(batch["mask"], [0.25, 0.25, 0, 0, 0])


def test_three_steps_bootstrap_where_the_episode_was_cut_off(tmp_path: Path) -> None:
    episode = frames(1)
    cut = replace(episode, labels=replace(episode.labels, terminated=np.zeros(5, bool)))
    np.testing.assert_array_equal(n_step_batch(tmp_path, cut)["mask"], [0.25, 0.25, 0.25, 0.5, 1.0])


def test_three_steps_end_where_policy_and_operator_change_places(tmp_path: Path) -> None:
    batch = n_step_batch(tmp_path, frames(1, operator=(2, 3)))
    np.testing.assert_array_equal(batch["next_embedding"][:, 0] - 100, [2, 2, 4, 4, 5])
    np.testing.assert_array_equal(batch["mask"], [0.5, 1.0, 0.5, 1.0, 0.0])
    np.testing.assert_array_equal(batch["operator"], [False, False, True, True, False])


def test_in_demonstrations_the_operator_drove_all_the_way(tmp_path: Path) -> None:
    replay = open_replay(tmp_path, capacity=12)
    replay.add(frames(1, demonstration=True, operator=(2,)))
    assert replay.gather(np.arange(5), replay.batch(5)).arrays["operator"].all()


def test_going_back_gives_an_overwritten_episode_its_place_and_order_again(tmp_path: Path) -> None:
    replay = open_replay(tmp_path, capacity=18)  # three episodes of six frames
    for number in (1, 2, 3):
        replay.add(frames(number))
    places, before = replay.places, all_of(replay)
    replay.add(frames(4))
    assert replay.episode_ids == ["e2", "e3", "e4"]

    replay = open_replay(tmp_path, capacity=18)
    assert replay.go_back(places) == ["e1"]
    replay.add(frames(1))
    assert replay.places == places
    for name, values in all_of(replay).items():
        np.testing.assert_array_equal(values, before[name])


def test_an_episode_whose_old_place_is_taken_gets_another(tmp_path: Path) -> None:
    replay = open_replay(tmp_path, capacity=18)
    for number in (1, 2):
        replay.add(frames(number))
    places = replay.places
    replay.go_back([])
    replay.go_back(places)
    replay.add(frames(5, length=8))
    for number in (1, 2):
        replay.add(frames(number))
    assert replay.places == [("e1", 9), ("e2", 0)], "the oldest made room"
    assert set(all_of(replay)["embedding"][:, 0] // 100) == {1.0, 2.0}
