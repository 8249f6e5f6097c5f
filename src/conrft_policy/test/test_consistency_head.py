"""The consistency head reproduces the official network's numbers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from conrft_policy.consistency_head import ConsistencyDenoiser, ConsistencyHead, HeadConfig
from conrft_policy.noise_schedule import boundary_scalings, denoising_weight, karras_levels

GOLDEN = dict(np.load(Path(__file__).parent / "data" / "a_consistency.npz"))
PARAMETERS = {key.removeprefix("param/"): value for key, value in GOLDEN.items() if key.startswith("param/")}


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


def assert_close(actual: torch.Tensor, name: str, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), GOLDEN[name], rtol=tolerance, atol=tolerance)


@pytest.fixture
def head() -> ConsistencyHead:
    head = ConsistencyHead(HeadConfig(embedding_dim=384))
    head.denoiser.load_flax(PARAMETERS)
    return head


def test_schedule_is_the_official_one_to_the_last_bit() -> None:
    levels = karras_levels(0.002, 80.0, 7.0, 40)
    np.testing.assert_array_equal(levels.numpy(), GOLDEN["t_schedule"])
    np.testing.assert_array_equal(levels.numpy(), GOLDEN["policy_sigmas"][:-1])


def test_boundary_scalings() -> None:
    scalings = boundary_scalings(golden("t_query"), sigma_data=0.5, sigma_min=0.002)
    for value, name in zip(scalings, ("c_skip", "c_out", "c_in"), strict=True):
        assert_close(value, name)


def test_the_model_is_the_identity_at_the_smallest_noise_level(head: ConsistencyHead) -> None:
    x = torch.linspace(-3, 3, 14).reshape(2, 7)
    clean = head.denoise(torch.randn(2, 448), x, torch.full((2,), 0.002), clip=False)
    torch.testing.assert_close(clean, x)


@pytest.mark.parametrize(("scheme", "name"), [("karras", "w_karras"), ("snr", "w_snr"), ("snr+1", "w_snrp1")])
def test_denoising_weights(scheme: str, name: str) -> None:
    assert_close(denoising_weight(golden("t_query"), sigma_data=0.5, scheme=scheme), name)


def test_an_unknown_weighting_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown weighting"):
        denoising_weight(torch.ones(1), sigma_data=0.5, scheme="cubic")


def test_time_embedding(head: ConsistencyHead) -> None:
    assert_close(head.denoiser.time_embedding(golden("t")), "t_embedding")


@pytest.mark.parametrize(("clip", "name"), [(True, "denoised"), (False, "denoised_noclip")])
def test_denoise(head: ConsistencyHead, clip: bool, name: str) -> None:
    assert_close(head.denoise(golden("enc"), golden("x_t"), golden("t"), clip=clip), name)


def test_one_step_sample(head: ConsistencyHead) -> None:
    assert_close(head.sample(golden("enc"), golden("noise")), "sample")


def test_ten_samples_a_state(head: ConsistencyHead) -> None:
    assert_close(head.denoise(golden("enc"), golden("rep_x"), golden("rep_t")), "rep_denoised")
    assert_close(head.sample(golden("enc"), golden("rep_x") / 80), "rep_denoised", 2e-5)


def test_loading_is_strict() -> None:
    denoiser = ConsistencyDenoiser(HeadConfig(embedding_dim=384))
    with pytest.raises(ValueError, match="do not fit"):
        denoiser.load_flax({k: v for k, v in PARAMETERS.items() if k != "Dense_0/bias"})
    with pytest.raises(ValueError, match="unknown parameter 'Dense_7/bias'"):
        denoiser.load_flax({**PARAMETERS, "Dense_7/bias": PARAMETERS["Dense_0/bias"]})
    with pytest.raises(ValueError, match="do not fit"):
        denoiser.load_flax({**PARAMETERS, "Dense_0/bias": np.zeros(6, dtype=np.float32)})


def test_encoding_is_the_embedding_then_the_latent() -> None:
    head = ConsistencyHead(HeadConfig(embedding_dim=5, proprio_dim=6, proprio_latent=3))
    embedding = torch.randn(2, 5, requires_grad=True)
    proprio = torch.randn(2, 6)
    encoding = head.encode(embedding, proprio)
    latent = torch.tanh(torch.nn.functional.layer_norm(proprio @ head.proprio_encoder[0].weight.T, (3,), eps=1e-6))
    torch.testing.assert_close(encoding, torch.cat([embedding, latent], dim=1))
    encoding.sum().backward()
    assert embedding.grad is None, "the backbone is frozen"


def test_saturated_actions_have_no_gradient(head: ConsistencyHead) -> None:
    encoding = golden("enc").requires_grad_()
    head.denoise(encoding, torch.full((16, 7), 50.0), torch.full((16,), 0.01)).sum().backward()
    assert torch.count_nonzero(encoding.grad) == 0


def test_a_fixed_gripper_is_zero_and_not_denoised() -> None:
    head = ConsistencyHead(HeadConfig(embedding_dim=8, fix_gripper=True))
    encoding = torch.randn(3, head.config.encoding_dim)
    assert head.sample(encoding, torch.randn(3, 6)).shape == (3, 7)
    actions = head.sample(encoding, torch.randn(3, 4, 6))
    assert actions.shape == (3, 4, 7)
    assert torch.count_nonzero(actions[..., 6]) == 0
    assert head.trained_part(actions).shape == (3, 4, 6)


@pytest.mark.parametrize("activation", ["tanh", "mish", "relu", "silu"])
def test_initialisation_is_xavier_with_zero_bias(activation: str) -> None:
    head = ConsistencyHead(HeadConfig(embedding_dim=384, activation=activation))
    for name, parameter in head.named_parameters():
        if parameter.dim() == 2:
            bound = (6 / sum(parameter.shape)) ** 0.5
            assert 0.9 * bound < parameter.abs().max() <= bound, name
        elif name.endswith("bias"):
            assert torch.count_nonzero(parameter) == 0, name


def test_wrong_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match="below sigma_max"):
        HeadConfig(embedding_dim=8, sigma_min=0.9, sigma_max=0.5)
    with pytest.raises(ValueError, match="activation"):
        HeadConfig(embedding_dim=8, activation="sine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hiden"):
        HeadConfig(embedding_dim=8, hiden=(3,))  # type: ignore[call-arg]


def test_one_action_takes_less_than_a_millisecond(head: ConsistencyHead) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    embedding, proprio, noise = torch.randn(1, 384), torch.randn(1, 38), torch.randn(1, 7)
    times = []
    with torch.inference_mode():
        for _ in range(200):
            start = time.thread_time()
            head.sample(head.encode(embedding, proprio), noise)
            times.append(time.thread_time() - start)
    torch.set_num_threads(threads)
    assert np.median(times) < 1e-3
