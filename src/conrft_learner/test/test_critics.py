"""The light critic's ensemble: shapes, shortcuts that must not change a number, the shared last layer."""

from __future__ import annotations

import pytest
import torch

from conrft_learner.critics import Ensemble, LightCritic, States

STATES, ACTIONS, FEATURES = 5, 4, 6


@pytest.fixture
def ensemble() -> Ensemble:
    torch.manual_seed(0)
    return Ensemble(FEATURES, 7, size=3, hidden=16)


def test_n_actions_of_a_state_have_the_values_of_n_single_actions(ensemble: Ensemble) -> None:
    features, actions = torch.randn(STATES, FEATURES), torch.randn(STATES, ACTIONS, 7)
    together = ensemble(features, actions)
    assert together.shape == (3, STATES, ACTIONS)
    singly = torch.stack([ensemble(features, actions[:, n]) for n in range(ACTIONS)], dim=-1)
    torch.testing.assert_close(together, singly)


def test_values_above_a_bound_have_the_gradient_of_the_bounded_values(ensemble: Ensemble) -> None:
    features, actions = torch.randn(STATES, FEATURES), torch.randn(STATES, ACTIONS, 7)
    plain = ensemble(features, actions)
    bound = plain.detach().mean(dim=(0, 2))
    parameters = list(ensemble.parameters())
    expected = torch.autograd.grad(torch.maximum(plain, bound[:, None]).square().sum(), parameters)
    shortcut = ensemble.values_above(features, actions, bound)
    torch.testing.assert_close(shortcut, plain)
    gradients = torch.autograd.grad(torch.maximum(shortcut, bound[:, None]).square().sum(), parameters)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_values_above_an_unreachable_bound_have_no_gradient(ensemble: Ensemble) -> None:
    values = ensemble.values_above(
        torch.randn(STATES, FEATURES), torch.randn(STATES, ACTIONS, 7), torch.full((STATES,), 1e6)
    )
    gradients = torch.autograd.grad(values.sum(), list(ensemble.parameters()), allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_shared_output_is_one_layer_for_all_members() -> None:
    shared, separate = (Ensemble(FEATURES, 7, size=2, hidden=16, shared_output=flag) for flag in (True, False))
    assert len(shared.outputs) == 1 and len(separate.outputs) == 2
    assert shared(torch.randn(STATES, FEATURES), torch.randn(STATES, 7)).shape == (2, STATES)


def test_members_differ_from_the_start(ensemble: Ensemble) -> None:
    values = ensemble(torch.randn(STATES, FEATURES), torch.randn(STATES, 7))
    assert not torch.allclose(values[0], values[1])


def test_light_critic_sees_embedding_and_proprioception() -> None:
    critic = LightCritic(FEATURES, 38, 7, latent=8, hidden=16)
    states = States(embedding=torch.randn(STATES, FEATURES), proprio=torch.randn(STATES, 38))
    features = critic.encode(states)
    assert features.shape == (STATES, FEATURES + 8)
    torch.testing.assert_close(features[:, :FEATURES], states.embedding)
