"""The objectives against numbers of the official code (test/data) and against arithmetic done by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conrft_learner import objectives
from conrft_learner.returns import before_takeover, monte_carlo_returns
from conrft_policy.consistency_head import ConsistencyHead, HeadConfig
from conrft_policy.noise_schedule import denoising_weight

DATA = Path(__file__).parent / "data"
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def tensor(value: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(value))


@pytest.fixture(scope="module")
def critic_numbers() -> dict[str, torch.Tensor]:
    return {name: tensor(value) for name, value in load("b_critic_losses").items()}


@pytest.fixture(scope="module")
def policy_numbers() -> dict[str, torch.Tensor]:
    return {name: tensor(value) for name, value in load("b_policy_loss_offline").items()}


@pytest.fixture
def official_head() -> ConsistencyHead:
    parameters = {
        name.removeprefix("param/"): value for name, value in load("a_consistency").items() if name.startswith("param/")
    }
    head = ConsistencyHead(HeadConfig(embedding_dim=384))
    head.denoiser.load_flax(parameters)
    return head


def test_td_target_and_loss_are_the_official_ones(critic_numbers: dict[str, torch.Tensor]) -> None:
    z = critic_numbers
    target = objectives.td_target(z["rewards"], z["masks"], z["target_next_qs"], float(z["discount"]))
    torch.testing.assert_close(target, z["target_q"], **TOLERANCE)
    loss, _ = objectives.td_loss(z["q_pred"], target)
    torch.testing.assert_close(loss, z["td_loss"], **TOLERANCE)


def test_calibrated_conservative_loss_is_the_official_one(critic_numbers: dict[str, torch.Tensor]) -> None:
    z = critic_numbers
    loss, figures = objectives.calibrated_conservative_loss(
        z["q_pred"], z["q_samples"], z["mc_returns"], float(z["cql_temp"])
    )
    torch.testing.assert_close(loss, z["cql_loss"], **TOLERANCE)
    assert figures["cql_bound_rate"] == pytest.approx(float(z["calql_bound_rate"]), abs=1e-6)


def test_critic_gradients_are_the_official_ones(critic_numbers: dict[str, torch.Tensor]) -> None:
    z = critic_numbers
    values, samples = z["q_pred"].clone().requires_grad_(), z["q_samples"].clone().requires_grad_()
    td, _ = objectives.td_loss(values, z["target_q"])
    conservative, _ = objectives.calibrated_conservative_loss(values, samples, z["mc_returns"])
    loss = td + float(z["cql_alpha"]) * conservative
    torch.testing.assert_close(loss, z["critic_loss"], **TOLERANCE)
    by_values, by_samples = torch.autograd.grad(loss, (values, samples))
    torch.testing.assert_close(by_values, z["grad_q_pred"], **TOLERANCE)
    torch.testing.assert_close(by_samples, z["grad_q_samples"], **TOLERANCE)


def cloning_loss(head: ConsistencyHead, z: dict[str, torch.Tensor]) -> torch.Tensor:
    denoised = head.denoise(z["enc"], z["x_t"], z["t"])
    weights = denoising_weight(z["t"], sigma_data=head.config.sigma_data, scheme="karras")
    return objectives.behaviour_cloning_loss(denoised, z["actions"], weights)[0]


def test_behaviour_cloning_loss_is_the_official_one(
    official_head: ConsistencyHead, policy_numbers: dict[str, torch.Tensor]
) -> None:
    torch.testing.assert_close(cloning_loss(official_head, policy_numbers), policy_numbers["bc_loss"], **TOLERANCE)


def test_behaviour_cloning_gradients_are_the_official_ones(
    official_head: ConsistencyHead, policy_numbers: dict[str, torch.Tensor]
) -> None:
    cloning_loss(official_head, policy_numbers).backward()
    gradients = ConsistencyHead(official_head.config)
    official = {
        name.removeprefix("grad/"): value.numpy() for name, value in policy_numbers.items() if name.startswith("grad/")
    }
    gradients.denoiser.load_flax(official)  # the same name mapping puts each gradient where its parameter is
    expected = dict(gradients.denoiser.named_parameters())
    for name, parameter in official_head.denoiser.named_parameters():
        scale = expected[name].abs().max().clamp_min(1.0)
        torch.testing.assert_close(
            parameter.grad / scale,
            expected[name].detach() / scale,
            rtol=1e-4,
            atol=1e-5,
            msg=lambda text, n=name: f"{n}: {text}",
        )


def test_q_term_is_the_mean_over_the_ensemble(
    official_head: ConsistencyHead, policy_numbers: dict[str, torch.Tensor]
) -> None:
    z = policy_numbers
    actions = official_head.sample(z["enc"], z["noise_new_actions"])
    values = torch.einsum("ea,ba->eb", z["critic_w"], actions) + z["critic_b"]
    loss, figures = objectives.q_objective(values, magnitude=None)
    assert figures["q_policy"] == pytest.approx(float(z["mean_q"]), rel=1e-5)
    assert loss.item() == pytest.approx(-float(z["mean_q"]), rel=1e-5)


def test_normalised_q_term_does_not_depend_on_the_rewards_scale() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)
    gradients = [
        torch.autograd.grad(
            objectives.q_objective(scale * values, magnitude=scale * values.detach().abs().mean())[0], values
        )[0]
        for scale in (1.0, 50.0)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_timeout_bootstraps_and_a_terminal_state_does_not() -> None:
    target = objectives.td_target(
        torch.tensor([-0.05, 10.0]), torch.tensor([1.0, 0.0]), torch.tensor([[4.0, 4.0], [3.0, 3.0]]), 0.9
    )
    torch.testing.assert_close(target, torch.tensor([-0.05 + 0.9 * 3.0, 10.0]))


def test_the_target_does_not_fall_below_its_bound() -> None:
    bound = torch.tensor([5.0, -torch.inf])
    target = objectives.td_target(torch.zeros(2), torch.ones(2), torch.ones(1, 2), 0.5, lower_bound=bound)
    torch.testing.assert_close(target, torch.tensor([5.0, 0.5]))


def test_euclidean_cloning_distance_is_the_papers() -> None:
    loss, _ = objectives.behaviour_cloning_loss(
        torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2), torch.tensor([2.0]), euclidean=True
    )
    assert float(loss) == pytest.approx(10.0)


@pytest.mark.parametrize("case", ["success", "fail_sparse", "mid_done", "one_step"])
def test_returns_are_the_official_ones(case: str) -> None:
    z = {name.split("/")[1]: value for name, value in load("c_returns").items() if name.startswith(f"{case}/")}
    step_reward = float(z["reward_neg"]) if bool(z["sparse"]) else None
    returns = monte_carlo_returns(z["rewards"], z["dones"].astype(bool), float(z["gamma"]), step_reward=step_reward)
    np.testing.assert_allclose(returns, z["mc_returns"], **TOLERANCE)


def test_returns_before_the_last_takeover_are_marked_as_rescued() -> None:
    interventions = np.array([0, 0, 1, 1, 0, 1, 0], dtype=bool)
    assert before_takeover(interventions).tolist() == [True] * 5 + [False] * 2


def test_without_a_takeover_nothing_is_rescued() -> None:
    assert not before_takeover(np.zeros(4, dtype=bool)).any()
