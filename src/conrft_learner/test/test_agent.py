"""One update of ConRFT: against the official code's numbers (test/data), and against the algorithm written out plainly.

The plain one follows the paper (arXiv 2502.05450, equations 2 to 6) and the official code where the paper is silent. It
takes the networks as functions and repeats the random draws that the update made; everything else is its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conrft_learner.agent import CalConRFT, ConRFT, HilConRFT, Objective, Transitions, share_of_mean_one
from conrft_learner.critics import States
from conrft_learner.data_parallel import DataParallel
from conrft_learner.networks import Networks
from conrft_learner.presets import Preset
from conrft_policy.consistency_head import ConsistencyHead, HeadConfig

DATA = Path(__file__).parent / "data"
DISCOUNT = 0.9
BATCH, EMBEDDING = 6, 5


def test_the_weights_of_what_is_cloned_have_mean_one() -> None:
    assert share_of_mean_one(torch.tensor([True, False, False, True])).tolist() == [2.0, 0.0, 0.0, 2.0]


def test_a_batch_of_which_nothing_is_cloned_has_no_weight() -> None:
    assert share_of_mean_one(torch.tensor([False, False])).tolist() == [0.0, 0.0]


# The official code's numbers


def official(name: str) -> dict[str, Tensor]:
    with np.load(DATA / f"{name}.npz") as file:
        return {key: torch.from_numpy(np.array(value)) for key, value in file.items()}


class Scripted(DataParallel):
    """Hands out given numbers in place of random ones."""

    def __init__(self, *numbers: Tensor) -> None:
        super().__init__()
        self._numbers = list(numbers)

    def draw(self, sample: Callable[[tuple[int, ...]], Tensor], shape: Sequence[int]) -> Tensor:
        numbers = self._numbers.pop(0)
        assert numbers.shape == tuple(shape)
        return numbers


class GivenValues:
    """A critic whose values are given; it keeps what it was asked about."""

    def __init__(self, of_actions: Tensor, of_samples: Tensor | None = None) -> None:
        self.of_actions, self.of_samples = of_actions, of_samples
        self.asked: list[Tensor] = []
        self.ensemble = self

    def encode(self, states: States) -> Tensor:
        return states.embedding

    def __call__(self, features: Tensor, actions: Tensor) -> Tensor:
        self.asked += [features, actions]
        return self.of_actions

    def values_above(self, features: Tensor, actions: Tensor, lower_bound: Tensor) -> Tensor:
        self.asked += [features, actions, lower_bound]
        assert self.of_samples is not None and self.of_samples.shape[1:] == actions.shape[:2]
        return self.of_samples


def test_the_critics_loss_and_its_gradients_are_the_official_ones() -> None:
    z = official("b_critic_losses")
    rows = len(z["rewards"])
    values, samples = z["q_pred"].requires_grad_(), z["q_samples"].requires_grad_()
    states, next_states = (
        States(embedding=torch.full((rows, EMBEDDING), mark), proprio=torch.zeros(rows, 4)) for mark in (0.0, 1.0)
    )
    batch = Transitions(
        states=states,
        actions=torch.zeros(rows, 7),
        rewards=z["rewards"],
        masks=z["masks"],
        bounds=z["mc_returns"],
        operator=torch.zeros(rows, dtype=torch.bool),
        next_states=next_states,
    )
    head = ConsistencyHead(HeadConfig(embedding_dim=EMBEDDING, proprio_dim=4, hidden=(8,)))
    critic, target = GivenValues(values, samples), GivenValues(z["target_next_qs"])
    preset = Preset(name="official", cql_actions=z["q_samples"].shape[2] // 3, cql_temperature=float(z["cql_temp"]))
    networks: Any = SimpleNamespace(head=head, critic=critic, target=target)
    stage = CalConRFT(networks, preset, float(z["discount"]), torch.Generator().manual_seed(0))

    objective = Objective(bc_weight=1.0, q_weight=0.0, cql_alpha=float(z["cql_alpha"]))
    loss, figures = stage.critic_loss(batch, states.embedding, objective)
    torch.testing.assert_close(loss, z["critic_loss"])
    for name in ("td_loss", "cql_loss"):
        assert figures[name] == pytest.approx(float(z[name]), rel=1e-5)
    by_values, by_samples = torch.autograd.grad(loss, (values, samples))
    torch.testing.assert_close(by_values, z["grad_q_pred"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_samples, z["grad_q_samples"], rtol=1e-5, atol=1e-5)
    assert (target.asked[0] == 1).all(), "the target critic is asked about the next states"
    assert (critic.asked[2] == 0).all(), "all sampled actions are valued at the states"


def test_the_actors_loss_and_its_gradients_are_the_official_ones() -> None:
    z, weights = official("b_policy_loss_offline"), official("a_consistency")
    head = ConsistencyHead(HeadConfig(embedding_dim=384))
    named = {name.removeprefix("param/"): value.numpy() for name, value in weights.items() if name.startswith("param/")}
    head.denoiser.load_flax(named)
    head.encode = lambda embedding, proprio: z["enc"]  # type: ignore[method-assign]
    levels = (head.levels[None] - z["t"][:, None]).abs().argmin(dim=1)
    noise = (z["x_t"] - z["actions"]) / z["t"][:, None]

    class LinearValues(GivenValues):
        def __call__(self, features: Tensor, actions: Tensor) -> Tensor:
            return torch.einsum("ea,ba->eb", z["critic_w"], actions) + z["critic_b"]

    states = States(embedding=torch.zeros(len(noise), 384), proprio=torch.zeros(len(noise), 38))
    nothing = torch.zeros(len(noise))
    batch = Transitions(
        states=states,
        actions=z["actions"],
        rewards=nothing,
        masks=nothing,
        bounds=nothing,
        operator=nothing.bool(),
        next_states=states,
    )

    def actor_loss(q_weight: float) -> tuple[Tensor, dict[str, float]]:
        draws = Scripted(levels, noise, z["noise_new_actions"])
        networks: Any = SimpleNamespace(head=head, critic=LinearValues(nothing))
        stage = CalConRFT(networks, Preset(name="official"), 0.98, torch.Generator(), draws)
        objective = Objective(bc_weight=float(z["bc_weight"]), q_weight=q_weight, cql_alpha=0.1)
        return stage.actor_loss(batch, None, objective)

    loss, figures = actor_loss(float(z["q_weight"]))
    torch.testing.assert_close(loss, z["actor_loss"])
    assert figures["bc_loss"] == pytest.approx(float(z["bc_loss"]), rel=1e-5)
    loss.backward()
    gradients = ConsistencyHead(head.config)
    official_gradients = {n.removeprefix("grad/"): v.numpy() for n, v in z.items() if n.startswith("grad/")}
    gradients.denoiser.load_flax(official_gradients)  # the same mapping puts each gradient where its parameter is
    for name, expected in gradients.denoiser.named_parameters():
        gradient = dict(head.denoiser.named_parameters())[name].grad
        scale = expected.detach().abs().max().clamp_min(1.0)
        torch.testing.assert_close(gradient / scale, expected.detach() / scale, rtol=1e-4, atol=1e-5)

    loss, figures = actor_loss(0.5)
    assert figures["q_policy"] == pytest.approx(float(z["mean_q"]), rel=1e-5)
    assert loss.item() == pytest.approx(float(z["actor_loss"]) - 0.5 * float(z["mean_q"]), rel=1e-5)


# The algorithm written out


class Recording(DataParallel):
    """Keeps the random numbers that an update draws."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[Tensor] = []

    def draw(self, sample: Callable[[tuple[int, ...]], Tensor], shape: Sequence[int]) -> Tensor:
        self.drawn.append(super().draw(sample, shape))
        return self.drawn[-1]


@dataclass
class Adam:
    """Kingma and Ba 2015, algorithm 1."""

    rate: float
    step: int = 0
    first: Sequence[Tensor] = ()
    second: Sequence[Tensor] = ()

    def move(self, parameters: list[Tensor], gradients: Sequence[Tensor]) -> None:
        self.step += 1
        zeros = [torch.zeros_like(g) for g in gradients]
        self.first = [0.9 * m + 0.1 * g for m, g in zip(self.first or zeros, gradients, strict=True)]
        self.second = [0.999 * v + 0.001 * g**2 for v, g in zip(self.second or zeros, gradients, strict=True)]
        for parameter, m, v in zip(parameters, self.first, self.second, strict=True):
            m, v = m / (1 - 0.9**self.step), v / (1 - 0.999**self.step)
            parameter.data -= self.rate * m / (v.sqrt() + 1e-8)


class Plainly:
    """ConRFT's update written out; its networks are copies, its random numbers those that the other side drew."""

    def __init__(self, networks: Networks, preset: Preset) -> None:
        self.head, self.critic, self.target, self.acting = copy.deepcopy(
            (networks.head, networks.critic, networks.target, networks.acting)
        )
        self.preset = preset
        self.actor_adam, self.critic_adam = Adam(preset.actor_lr), Adam(preset.critic_lr)
        self.drawn: list[Tensor] = []

    def update(self, batch: Transitions, objective: Objective, drawn: list[Tensor]) -> None:
        """Both gradients at the old parameters, then both steps, then the target moves, and the head that acts."""
        self.drawn = list(drawn)
        critic_gradients = self.gradients(self.critic_loss(batch, objective), self.critic)
        actor_gradients = self.gradients(self.actor_loss(batch, objective), self.head) if objective.actor else None
        self.critic_adam.move(list(self.critic.parameters()), critic_gradients)
        for slow, fast in zip(self.target.parameters(), self.critic.parameters(), strict=True):
            slow.data = self.preset.tau * fast.data + (1 - self.preset.tau) * slow.data
        if actor_gradients is not None:
            self.actor_adam.move(list(self.head.parameters()), actor_gradients)
            decay = self.preset.acting_ema
            for slow, fast in zip(self.acting.parameters(), self.head.parameters(), strict=True):
                slow.data = decay * slow.data + (1 - decay) * fast.data
        assert not self.drawn, "it drew more than it needs"

    def gradients(self, loss: Tensor, network: nn.Module) -> list[Tensor]:
        gradients = list(torch.autograd.grad(loss, list(network.parameters())))
        if self.preset.max_grad_norm is not None:
            norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
            gradients = [g * min(1.0, self.preset.max_grad_norm / (norm + 1e-6)) for g in gradients]
        return gradients

    def policy(self, states: States, count: int | None = None, clip: bool = True) -> Tensor:
        """Actions ``(B, 7)``, or ``(B, count, 7)`` with fresh noise for each: one step from the largest noise level."""
        encoding = self.head.encode(states.embedding, states.proprio)
        noise = self.drawn.pop(0)
        if count is None:
            return self.head.sample(encoding, noise, clip=clip)
        return torch.stack([self.head.sample(encoding, noise[:, n]) for n in range(count)], dim=1)

    def executed(self, actions: Tensor) -> Tensor:
        return self.with_gripper(actions, actions[..., 6].sign()) if self.head.config.binary_gripper else actions

    @staticmethod
    def with_gripper(actions: Tensor, gripper: Tensor | float) -> Tensor:
        actions = actions.clone()
        actions[..., 6] = gripper
        return actions

    @staticmethod
    def inward(actions: Tensor) -> Tensor:
        """Clipped, with the gradient of no clipping where a step against it leads back inside."""

        def inside(gradient: Tensor) -> Tensor:
            after = actions - 1e-9 * gradient
            return torch.where((actions.abs() > 1) & (after.abs() > actions.abs()), 0.0, gradient)

        passed = actions + (actions.clamp(-1, 1) - actions).detach()
        passed.register_hook(inside)
        return passed

    def values(self, states: States, actions: Tensor) -> Tensor:
        """``(E, B)`` or, of actions ``(B, N, 7)``, ``(E, B, N)``."""
        features = self.critic.encode(states)
        if actions.ndim == 2:
            return self.critic.ensemble(features, actions)
        return torch.stack([self.critic.ensemble(features, actions[:, n]) for n in range(actions.shape[1])], dim=-1)

    def critic_loss(self, batch: Transitions, objective: Objective) -> Tensor:
        preset = self.preset
        values = self.values(batch.states, batch.actions)
        with torch.no_grad():
            following_actions = self.executed(self.policy(batch.next_states))
            next_values = self.target.ensemble(self.target.encode(batch.next_states), following_actions)
            following = next_values.min(dim=0).values if preset.target_minimum else next_values.mean(dim=0)
            target = batch.rewards + DISCOUNT * batch.masks * following
            if preset.target_return_bound:
                target = torch.maximum(target, batch.bounds)
        loss = ((values - target) ** 2).mean()
        if objective.cql_alpha == 0.0:
            return loss
        rows = list(range(0, BATCH, round(1 / preset.cql_states)))
        states, next_states = (
            States(embedding=s.embedding[rows], proprio=s.proprio[rows]) for s in (batch.states, batch.next_states)
        )
        with torch.no_grad():
            uniform = -1 + 2 * self.drawn.pop(0)
            policys = self.policy(states, preset.cql_actions)
            nexts = self.policy(next_states, preset.cql_actions)
            sampled = self.executed(torch.cat([uniform, policys, nexts], dim=1))
        bounded = torch.maximum(self.values(states, sampled), batch.bounds[rows][:, None])
        everything = torch.cat([bounded, values[:, rows, None]], dim=2)
        T = preset.cql_temperature
        soft_maximum = T * torch.log(torch.exp(everything / T).sum(dim=2)) - T * math.log(everything.shape[2])
        return loss + objective.cql_alpha * (soft_maximum - values[:, rows]).mean()

    def actor_loss(self, batch: Transitions, objective: Objective) -> Tensor:
        preset = self.preset
        encoding = self.head.encode(batch.states.embedding, batch.states.proprio)
        t = self.head.levels[self.drawn.pop(0)]
        denoised = self.head.denoise(encoding, batch.actions + t[:, None] * self.drawn.pop(0), t, clip=False)
        denoised = self.inward(denoised) if preset.inward_gradients else denoised.clamp(-1, 1)
        weight = t**-2 + (1 / 0.5**2 if preset.bc_weighting == "karras" else 0)
        squares = (denoised - batch.actions) ** 2
        squares[:, -1] *= preset.bc_gripper_weight
        distance = squares.sum(dim=1).sqrt() if preset.bc_distance == "euclidean" else squares.mean(dim=1)
        if preset.bc_successes_only:
            cloned = torch.tensor([True, True, True, False, True, False])  # the operator's, and what earned something
            weight = weight * cloned / (4 / 6)
        loss = objective.bc_weight * (weight * distance).mean()
        if objective.q_weight:
            actions = self.policy(batch.states, clip=False)
            actions = self.inward(actions) if preset.inward_gradients else actions.clamp(-1, 1)
            if not preset.q_moves_gripper:
                actions = torch.cat([actions[:, :6], actions[:, 6:].detach()], dim=1)
            values = self.values(batch.states, actions)
            if self.head.config.binary_gripper:
                shut, wide = (self.values(batch.states, self.with_gripper(actions, end)) for end in (-1.0, 1.0))
                values = shut * (1 - actions[:, 6]) / 2 + wide * (1 + actions[:, 6]) / 2
            scale = values.detach().abs().mean() if preset.normalise_q else 1.0
            loss = loss - objective.q_weight * values.mean() / scale
        return loss


def a_batch(seed: int) -> Transitions:
    """Noise in double precision: Adam divides by gradients, so that single precision would hide small mistakes."""
    rng = torch.Generator().manual_seed(seed)

    def states() -> States:
        return States(embedding=torch.randn(BATCH, EMBEDDING, generator=rng).double(), proprio=normal(BATCH, 38))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng).double()

    return Transitions(
        states=states(),
        actions=torch.rand(BATCH, 7, generator=rng).double() * 2 - 1,
        rewards=normal(BATCH),
        masks=torch.tensor([1.0, 1, 0, 1, 0, 1]).double(),
        bounds=torch.tensor([0.3, -0.2, 0.1, -torch.inf, 0.5, -torch.inf]).double(),
        operator=torch.tensor([True, True, False, False, False, False]),
        next_states=states(),
    )


def networks_of(preset: Preset) -> Networks:
    """In double precision, the target and the head that acts apart from those they follow."""
    config = HeadConfig(
        embedding_dim=EMBEDDING, proprio_latent=4, hidden=(16, 16), binary_gripper=preset.binary_gripper
    )
    networks = Networks(preset, config, seed=0)
    with torch.no_grad():
        networks.head.denoiser.output.weight *= 3  # so that some actions are clipped
    for module in (networks.head, networks.critic, networks.target, networks.acting):
        module.double()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for parameter in [*networks.target.parameters(), *networks.acting.parameters()]:
            parameter += 0.3 * torch.randn_like(parameter)
    return networks


SIZES = {"critic_hidden": 16, "proprio_latent": 4, "cql_actions": 3, "acting_ema": 0.8, "tau": 0.1}
RATES = {"actor_lr": 1e-3, "critic_lr": 4e-3}
OPTIONS: dict[str, dict[str, Any]] = {
    "official": {"critic_shared_output": True},
    "target bounded by the return": {"target_return_bound": True, "target_minimum": False, "critic_members": 3},
    "half of the states, temperature": {"cql_states": 0.5, "cql_temperature": 2.0},
    "Q normalised, gradients clipped": {"normalise_q": True, "max_grad_norm": 0.05},
    "cloning of successes, gripper": {"bc_successes_only": True, "bc_gripper_weight": 3.0, "bc_weighting": "snr"},
    "the paper's distance": {"bc_distance": "euclidean"},
    "binary gripper": {"binary_gripper": True},
    "gradients that lead inside": {"inward_gradients": True},
    "gripper by imitation alone": {"q_moves_gripper": False},
    "binary gripper by imitation alone": {"q_moves_gripper": False, "binary_gripper": True},
}


@pytest.mark.parametrize("options", list(OPTIONS.values()), ids=list(OPTIONS))
@pytest.mark.parametrize("cql_alpha", [0.0, 0.4], ids=["online", "offline"])
def test_updates_are_those_of_the_algorithm_written_out(options: dict[str, Any], cql_alpha: float) -> None:
    preset = Preset.model_validate({"name": "test", **SIZES, **RATES, **options})
    networks, recording = networks_of(preset), Recording()
    plainly = Plainly(networks, preset)
    stage = HilConRFT(networks, preset, DISCOUNT, torch.Generator().manual_seed(0), recording)
    objective = Objective(bc_weight=0.7, q_weight=0.6, cql_alpha=cql_alpha)
    for seed, what in enumerate((objective.critic_only(), objective, objective)):
        recording.drawn.clear()
        stage.update(a_batch(seed), what)
        plainly.update(a_batch(seed), what, recording.drawn)
    for name in ("critic", "target", "head", "acting"):
        expected = dict(getattr(plainly, name).named_parameters())
        for key, parameter in getattr(networks, name).named_parameters():
            torch.testing.assert_close(
                parameter, expected[key], rtol=1e-6, atol=1e-9, msg=lambda m, at=f"{name}.{key}": f"{at}: {m}"
            )


def a_stage(**changes: Any) -> ConRFT:
    preset = Preset.model_validate({"name": "test", **SIZES, **changes})
    return HilConRFT(networks_of(preset), preset, DISCOUNT, torch.Generator().manual_seed(0))


def test_cloning_never_draws_the_smallest_noise_level(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = a_stage()
    head = stage.networks.head
    head.levels = head.levels[:3]  # of three levels, each of the first two comes in every batch of 6, almost surely
    seen: set[float] = set()
    denoise = head.denoise

    def watched(encoding: Tensor, x: Tensor, t: Tensor, **options: Any) -> Tensor:
        seen.update(t.tolist())
        return denoise(encoding, x, t, **options)

    monkeypatch.setattr(head, "denoise", watched)
    for seed in range(20):
        stage.actor_loss(a_batch(seed), None, Objective(bc_weight=1.0, q_weight=0.0, cql_alpha=0.0))
    assert seen == set(head.levels[:2].tolist())


def test_the_target_is_taken_from_the_members_that_were_drawn() -> None:
    stage = a_stage(critic_members=4, critic_subset=2)
    batch = a_batch(0)
    members = torch.arange(4.0)[:, None].expand(4, BATCH).double()
    stage.networks.target = GivenValues(members)  # type: ignore[assignment]
    batch = replace(batch, rewards=torch.zeros_like(batch.rewards), masks=torch.ones_like(batch.masks))
    targets = {round(stage.td_loss(members, batch)[1]["td_target"] / DISCOUNT) for _ in range(60)}
    assert targets == {0, 1, 2}, "the least of two of the members 0, 1, 2, 3"


def test_random_actions_leave_a_fixed_gripper_alone() -> None:
    preset = Preset.model_validate({"name": "test", **SIZES})
    config = HeadConfig(embedding_dim=EMBEDDING, proprio_latent=4, hidden=(16, 16), fix_gripper=True)
    networks = Networks(preset, config, seed=0)
    stage = CalConRFT(networks, preset, DISCOUNT, torch.Generator().manual_seed(0))
    values = torch.zeros(2, BATCH)
    critic = GivenValues(values, torch.zeros(2, BATCH, 9))
    networks.critic = critic  # type: ignore[assignment]
    states = States(embedding=torch.randn(BATCH, EMBEDDING), proprio=torch.randn(BATCH, 38))
    zeros = torch.zeros(BATCH)
    batch = Transitions(
        states=states,
        actions=torch.zeros(BATCH, 7),
        rewards=zeros,
        masks=zeros,
        bounds=zeros,
        operator=zeros.bool(),
        next_states=states,
    )
    stage.calibrated_conservative_loss(states.embedding, values, batch)
    _, sampled, _ = critic.asked
    assert (sampled[..., -1] == 0).all() and (sampled[..., :-1] != 0).all()
