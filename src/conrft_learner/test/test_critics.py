"""The light critic's ensemble: shapes, shortcuts that must not change a number, the shared last layer."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from conrft_learner.critics import Ensemble, LightCritic, PaperCritic, States
from conrft_learner.resnet10 import random_resnet10

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
    critic = LightCritic(FEATURES, 38, partial(Ensemble, action_dim=7, hidden=16), latent=8)
    states = States(embedding=torch.randn(STATES, FEATURES), proprio=torch.randn(STATES, 38))
    features = critic.encode(states)
    assert features.shape == (STATES, FEATURES + 8)
    torch.testing.assert_close(features[:, :FEATURES], states.embedding)


CAMERAS = ("side", "wrist")


def official_critic_tree(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random parameters by the official names; two members, 38 numbers of proprioception."""
    shapes = {
        "encoder/Dense_0/kernel": (38, 64),
        "network/Dense_0/kernel": (2, 583, 256),
        "network/Dense_1/kernel": (2, 256, 256),
        "Dense_0/kernel": (256, 1),
        "Dense_0/bias": (1,),
    }
    vectors = {"encoder/Dense_0/bias": (64,), "network/Dense_0/bias": (2, 256), "network/Dense_1/bias": (2, 256)}
    norms = {"encoder/LayerNorm_0": (64,), "network/LayerNorm_0": (2, 256), "network/LayerNorm_1": (2, 256)}
    for camera in CAMERAS:
        name = f"encoder/encoder_{camera}"
        shapes |= {
            f"{name}/SpatialLearnedEmbeddings_0/kernel": (4, 4, 512, 8),
            f"{name}/Dense_0/kernel": (4096, 256),
            f"{name}/Dense_0/bias": (256,),
        }
        norms |= {f"{name}/LayerNorm_0": (256,)}
    shapes |= vectors | {f"{name}/{kind}": shape for name, shape in norms.items() for kind in ("scale", "bias")}
    tree = {name: (0.05 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    return tree | {f"{name}/scale": tree[f"{name}/scale"] + 1 for name in norms}


def slow_values(
    tree: dict[str, np.ndarray], maps: list[np.ndarray], proprio: np.ndarray, action: np.ndarray
) -> list[float]:
    """Both members' values of one state and action, from the specification; maps (4, 4, 512) by camera."""

    def layer(x: np.ndarray, name: str, norm: str, member: int | None = None) -> np.ndarray:
        def of(key: str) -> np.ndarray:
            return tree[key].astype(np.float64) if member is None else tree[key][member].astype(np.float64)

        y = x @ of(f"{name}/kernel") + of(f"{name}/bias")
        y = (y - y.mean()) / np.sqrt(y.var() + 1e-6)
        return np.tanh(y * of(f"{norm}/scale") + of(f"{norm}/bias"))

    latents = []
    for camera, x in zip(CAMERAS, maps, strict=True):
        name = f"encoder/encoder_{camera}"
        kernel = tree[f"{name}/SpatialLearnedEmbeddings_0/kernel"].astype(np.float64)
        embedded = [(x[:, :, c] * kernel[:, :, c, f]).sum() for c in range(512) for f in range(8)]
        latents.append(layer(np.array(embedded), f"{name}/Dense_0", f"{name}/LayerNorm_0"))
    latents.append(layer(proprio, "encoder/Dense_0", "encoder/LayerNorm_0"))
    values = []
    for member in (0, 1):
        x = np.concatenate([*latents, action])
        for i in (0, 1):
            x = layer(x, f"network/Dense_{i}", f"network/LayerNorm_{i}", member)
        values.append(float((x @ tree["Dense_0/kernel"] + tree["Dense_0/bias"])[0]))
    return values


def test_paper_critic_with_official_parameters_has_the_values_of_the_specification() -> None:
    rng = np.random.default_rng(0)
    tree = official_critic_tree(rng)
    critic = PaperCritic(CAMERAS, 38, partial(Ensemble, action_dim=7, shared_output=True))
    critic.load_flax(tree | {"encoder/encoder_side/pretrained_encoder/conv_init/kernel": np.zeros(1)}, CAMERAS)
    maps = {camera: np.abs(rng.normal(size=(2, 4, 4, 512))).astype(np.float32) for camera in CAMERAS}
    proprio, actions = rng.normal(size=(2, 38)).astype(np.float32), rng.uniform(-1, 1, (2, 7)).astype(np.float32)
    frozen = {camera: torch.from_numpy(m).permute(0, 3, 1, 2).flatten(2).contiguous() for camera, m in maps.items()}
    states = States(embedding=torch.zeros(2, 0), proprio=torch.from_numpy(proprio), frozen=frozen)
    values = critic.ensemble(critic.encode(states), torch.from_numpy(actions))
    expected = [slow_values(tree, [maps[c][b] for c in CAMERAS], proprio[b], actions[b]) for b in (0, 1)]
    np.testing.assert_allclose(values.detach().numpy().T, expected, rtol=1e-4, atol=1e-5)


def test_an_official_parameter_that_is_unknown_or_missing_is_named() -> None:
    tree = official_critic_tree(np.random.default_rng(0))
    tree["network/Dense_7/kernel"] = tree.pop("Dense_0/bias")
    with pytest.raises(ValueError, match=r"(?s)ensemble.outputs.0.bias.*network/Dense_7/kernel"):
        PaperCritic(CAMERAS, 38, partial(Ensemble, action_dim=7, shared_output=True)).load_flax(tree, CAMERAS)


def test_every_parameter_of_the_paper_critic_is_trained() -> None:
    critic = PaperCritic(CAMERAS, 38, partial(Ensemble, action_dim=7))
    frozen = {camera: torch.rand(STATES, 512, 16) for camera in CAMERAS}
    states = States(embedding=torch.zeros(STATES, 0), proprio=torch.randn(STATES, 38), frozen=frozen)
    loss = critic.ensemble(critic.encode(states), torch.randn(STATES, 7)).square().sum()
    gradients = torch.autograd.grad(loss, list(critic.parameters()))
    assert all(gradient.any() for gradient in gradients)


def test_paper_critic_has_the_official_size() -> None:
    networks = (PaperCritic(CAMERAS, 38, partial(Ensemble, action_dim=7, shared_output=True)), random_resnet10())
    assert round(sum(p.numel() for network in networks for p in network.parameters()) / 1e6, 2) == 7.57
