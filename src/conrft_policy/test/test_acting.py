"""One observation in, one action out; nothing depends on timing, and nothing that is not finite gets through."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from conrft_data.config import TaskConfig
from conrft_data.types import Float32, Image, Observation, proprioception
from conrft_policy.acting import Actor, CannotAct, WeightsChange, head_config
from conrft_policy.consistency_head import ConsistencyHead, HeadConfig, executable
from conrft_policy.policy_weights import WeightsRefused, pack

TASK = TaskConfig.model_validate(
    {
        "name": "pick_banana",
        "instruction": "put the banana on the plate",
        "action_dim": 7,
        "max_steps": 100,
        "cameras": {"side": {"width": 32, "height": 32}, "wrist": {"width": 16, "height": 16}},
        "reset": {"position": [0.5, 0, 0.3], "euler_xyz": [3.14159, 0, 0], "kind": "script"},
        "workspace": {"low": [0.3, -0.3, 0], "high": [0.7, 0.3, 0.5]},
    }
)


class MeanColourStream:
    """Embeds the mean colours of the newest frame and of the one before it."""

    def __init__(self) -> None:
        self.before: Float32 | None = None

    def reset(self) -> None:
        self.before = None

    def step(self, images: Mapping[str, Image]) -> Float32:
        now = np.concatenate([image.mean(axis=(0, 1)) / 255 for image in images.values()]).astype(np.float32)
        before = now if self.before is None else self.before
        self.before = now
        return np.concatenate([before, now])


class MeanColours:
    embedding_dim = 12
    fingerprint = "mean-colours"

    def stream(self) -> MeanColourStream:
        return MeanColourStream()


def observation(step: int, episode: int = 1, brightness: int | None = None) -> Observation:
    value = 10 * step + episode if brightness is None else brightness
    pose = np.array([0.5, 0.0, 0.3, 1.0, 0.0, 0.0, 0.0])
    return Observation(
        stamp_ns=step * 100_000_000,
        episode=episode,
        step=step,
        images={n: np.full((c.height, c.width, 3), value, dtype=np.uint8) for n, c in TASK.cameras.items()},
        tcp_pose=np.array([0.5 + 0.01 * step, *pose[1:]]),
        reset_pose=pose,
        tcp_twist=np.zeros(6),
        tcp_wrench=np.zeros(6),
        gripper_opening=1.0,
    )


def new_head(seed: int = 0, task: TaskConfig = TASK) -> ConsistencyHead:
    torch.manual_seed(seed)
    return ConsistencyHead(head_config(task, MeanColours.embedding_dim))


def new_actor(head: ConsistencyHead | None = None, **options: object) -> Actor:
    return Actor(MeanColours(), head or new_head(), TASK, 5, **options)  # type: ignore[arg-type]


def test_the_action_is_a_sample_of_the_head() -> None:
    head, actor = new_head(), new_actor()
    actor.act(observation(0))
    action, embedding = actor.act(observation(1))
    proprio = np.concatenate([proprioception(observation(0)), proprioception(observation(1))])
    noise = np.random.default_rng([5, 1, 1]).standard_normal(7, dtype=np.float32)
    rows = [torch.from_numpy(x)[None] for x in (embedding, proprio, noise)]
    expected = head.sample(head.encode(rows[0], rows[1]), rows[2])
    np.testing.assert_allclose(action, expected[0].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(embedding[:6] * 255, 1)
    np.testing.assert_allclose(embedding[6:] * 255, 11, rtol=1e-6)


def test_the_first_frame_is_its_own_predecessor_in_every_episode() -> None:
    actor = new_actor()
    for episode in (1, 2):
        _, embedding = actor.act(observation(0, episode))
        np.testing.assert_array_equal(embedding[:6], embedding[6:])
        actor.act(observation(1, episode))


def test_actions_are_a_function_of_seed_episode_and_step() -> None:
    actions = [new_actor().act(observation(0))[0] for _ in range(2)]
    np.testing.assert_array_equal(*actions)
    busy = new_actor()
    for step in range(5):
        busy.act(observation(step, episode=9))
    np.testing.assert_array_equal(busy.act(observation(0))[0], actions[0], "what came before does not matter")
    same_frame = dataclasses.replace(observation(0), step=1)
    assert not np.array_equal(new_actor().act(same_frame)[0], actions[0]), "another step, another noise"


def test_deterministic_actions_ignore_the_seed() -> None:
    one = Actor(MeanColours(), new_head(), TASK, 1, deterministic=True).act(observation(0))[0]
    two = Actor(MeanColours(), new_head(), TASK, 2, deterministic=True).act(observation(0))[0]
    np.testing.assert_array_equal(one, two)


def test_without_weights_there_is_no_action_but_the_history_goes_on() -> None:
    actor = Actor(MeanColours(), None, TASK, 5)
    assert not actor.ready
    with pytest.raises(CannotAct, match="no weights"):
        actor.act(observation(0))
    actor.set_weights(pack(new_head(), version=4, backbone_fingerprint=MeanColours.fingerprint))
    assert (actor.ready, actor.weights_version) == (True, 4)
    complete = new_actor()
    complete.act(observation(0))
    np.testing.assert_array_equal(actor.act(observation(1))[0], complete.act(observation(1))[0])


def test_new_weights_act_from_the_next_step_on() -> None:
    actor, other = new_actor(new_head(0), version=1), new_actor(new_head(1))
    for a in (actor, other):
        a.act(observation(0))
    actor.set_weights(pack(new_head(1), version=2, backbone_fingerprint=MeanColours.fingerprint))
    assert actor.weights_version == 2
    np.testing.assert_array_equal(actor.act(observation(1))[0], other.act(observation(1))[0])


def shifted_head(amount: float) -> ConsistencyHead:
    """A head whose actions are about 0, and as far as ``amount`` allows from there."""
    head = new_head()
    with torch.no_grad():
        for parameter in head.denoiser.output.parameters():
            parameter.zero_()
        head.denoiser.output.bias.fill_(amount)
    return head


def test_weights_that_change_the_actions_much_are_flagged_and_those_that_change_them_more_are_refused() -> None:
    actor = new_actor(shifted_head(0.0), version=1, allowed_change=WeightsChange(warn=0.1, refuse=0.5))
    for step in range(80):
        actor.act(observation(step % 20, episode=step // 20))
    small, large, huge = (
        pack(shifted_head(amount), version=version, backbone_fingerprint=MeanColours.fingerprint)
        for version, amount in ((2, 0.1), (3, 0.8), (4, 2.0))
    )
    actor.set_weights(small)
    assert actor.flagged == ""
    actor.set_weights(large)
    assert "weights version 3 changed the last actions by 0." in actor.flagged
    with pytest.raises(
        WeightsRefused, match=r"version 4 change the last 64 actions by 0\.\d+ on average, at most 0.50"
    ):
        actor.set_weights(huge)
    assert actor.weights_version == 3
    actor.set_weights(large)
    assert actor.flagged == ""


def test_without_anything_to_compare_the_first_weights_are_taken() -> None:
    actor = new_actor(shifted_head(0.0), version=1, allowed_change=WeightsChange(warn=0.1, refuse=0.1))
    actor.set_weights(pack(shifted_head(1.0), version=2, backbone_fingerprint=MeanColours.fingerprint))
    assert actor.weights_version == 2


def test_the_bounds_of_a_change_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="weights_warn <= weights_refuse"):
        WeightsChange(warn=0.6, refuse=0.5)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (HeadConfig(embedding_dim=13), "embedding_dim 13, this policy needs 12"),
        (HeadConfig(embedding_dim=12, proprio_dim=19), "proprio_dim 19"),
        (HeadConfig(embedding_dim=12, fix_gripper=True), "fix_gripper True"),
        (HeadConfig(embedding_dim=12, action_dim=6), "action_dim 6"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_the_old_ones_kept(config: HeadConfig, reason: str) -> None:
    actor = new_actor(version=1)
    before = actor.act(observation(0))[0]
    with pytest.raises(WeightsRefused, match=reason):
        actor.set_weights(pack(ConsistencyHead(config), version=2, backbone_fingerprint=MeanColours.fingerprint))
    assert actor.weights_version == 1
    np.testing.assert_array_equal(actor.act(observation(0))[0], before)


def test_weights_that_overflow_are_refused() -> None:
    head = new_head()
    with torch.no_grad():
        for parameter in head.denoiser.output.parameters():
            parameter.fill_(3e38)
    actor = new_actor(version=1)
    unclipped = ConsistencyHead(head.config.model_copy(update={"clip_denoised": False}))
    unclipped.load_state_dict(head.state_dict())
    with pytest.raises(WeightsRefused, match="not finite"):
        actor.set_weights(pack(unclipped, version=2, backbone_fingerprint=MeanColours.fingerprint))
    assert actor.weights_version == 1


def test_a_state_that_is_not_finite_gives_no_action_and_leaves_no_trace() -> None:
    actor, clean = new_actor(), new_actor()
    for a in (actor, clean):
        a.act(observation(0))
    wrench = np.full(6, np.nan)
    with pytest.raises(CannotAct, match="not finite"):
        actor.act(dataclasses.replace(observation(1), tcp_wrench=wrench))
    np.testing.assert_array_equal(actor.act(observation(2))[0], clean.act(observation(2))[0])


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ({"side": np.zeros((32, 32, 3), dtype=np.uint8)}, "no image of camera 'wrist'"),
        ({"side": np.zeros((16, 32, 3), dtype=np.uint8)}, "camera 'side': expected uint8"),
    ],
)
def test_images_that_do_not_fit_the_task_give_no_action(images: dict[str, Image], reason: str) -> None:
    with pytest.raises(CannotAct, match=reason):
        new_actor().act(dataclasses.replace(observation(0), images=images))


def test_a_task_with_fixed_gripper_keeps_it() -> None:
    task = TASK.model_copy(update={"action_dim": 6})
    actor = Actor(MeanColours(), new_head(task=task), task, 5)
    action, _ = actor.act(observation(0))
    assert action.shape == (7,)
    assert action[6] == 0


def test_warming_up_leaves_the_history_alone() -> None:
    actor, clean = new_actor(), new_actor()
    actor.act(observation(0))
    actor.warm_up()
    clean.act(observation(0))
    np.testing.assert_array_equal(actor.act(observation(1))[0], clean.act(observation(1))[0])


def test_a_binary_gripper_is_opened_or_closed_and_nothing_between() -> None:
    config = HeadConfig(embedding_dim=4, binary_gripper=True)
    for wanted, commanded in ((0.2, 1.0), (-0.2, -1.0), (1.7, 1.0)):
        actions = torch.tensor([[0.1, -3.0, 0, 0, 0, 0, wanted]] * 2)
        assert executable(actions, config).equal(torch.tensor([[0.1, -1, 0, 0, 0, 0, commanded]] * 2))


def test_a_continuous_gripper_is_left_as_the_head_says() -> None:
    for config in (HeadConfig(embedding_dim=4), HeadConfig(embedding_dim=4, binary_gripper=True, fix_gripper=True)):
        assert executable(torch.tensor([0, 0, 0, 0, 0, 0, 0.2]), config)[-1] == 0.2
