"""The torch transformer against numbers from the official JAX code."""

from pathlib import Path

import numpy as np
import pytest
import torch

from conrft_policy.octo.config import ImageConfig, OctoConfig, octo_small
from conrft_policy.octo.flax_tree import CheckpointMismatchError, flax_shapes, from_flax
from conrft_policy.octo.model import OctoTransformer, Padding

DATA = Path(__file__).parent / "data"
TOLERANCE = 1e-5  # the requirement is 1e-4


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(DATA / "e_octo_tiny.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def parameters(golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix("param/"): value for name, value in golden.items() if name.startswith("param/")}


def tiny_config() -> OctoConfig:
    stem = {"features": (32, 32, 64, 64), "embedding_dim": 64}
    return OctoConfig(
        images=(
            ImageConfig(name="primary", camera="side", source_size=64, size=64, **stem),
            ImageConfig(name="wrist", camera="wrist", source_size=32, size=32, **stem),
        ),
        token_dim=64,
        layers=2,
        heads=2,
        mlp_dim=128,
        language_dim=48,
    )


@pytest.fixture(scope="module")
def model(parameters: dict[str, np.ndarray]) -> OctoTransformer:
    model = OctoTransformer(tiny_config())
    model.load_state_dict(from_flax(tiny_config(), parameters), strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def images(golden: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(golden[f"image_{name}"]) for name in ("primary", "wrist")}


@pytest.fixture(scope="module")
def language(golden: dict[str, np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(golden["language_tokens"])


def assert_close(actual: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=TOLERANCE)


def test_readout_tokens(model, images, language, golden) -> None:
    assert_close(model(images, language), golden["readout_action_tokens"])


def test_embedding_is_the_mean_readout_of_the_last_timestep(model, images, language, golden) -> None:
    assert_close(model.embed(images, language), golden["embedding"])


def test_padded_first_timestep(model, images, language, golden) -> None:
    timesteps = torch.tensor([[False, True], [False, True]])
    assert_close(model(images, language, padding=Padding(timesteps=timesteps)), golden["readout_padded_first"])


def test_zero_goal_images_are_the_same_as_none(model, images, language) -> None:
    goals = {name: torch.zeros_like(frames[:, 0]) for name, frames in images.items()}
    torch.testing.assert_close(model(images, language, goals=goals), model(images, language))


def test_attention_mask_is_bit_identical(model, golden) -> None:
    size = int(golden["attention_mask_n"])
    expected = np.unpackbits(golden["attention_mask"], axis=-1, count=size).astype(bool)
    np.testing.assert_array_equal(model.attention_mask(1, 2)[0].numpy(), expected)


def test_image_stem(model, images, golden) -> None:
    stem = golden["inter/octo_transformer/observation_tokenizers_primary/SmallStem16_0/__call__"]
    pixels = images["primary"].flatten(0, 1).permute(0, 3, 1, 2).float()
    assert_close(model.stems["primary"](pixels).view(stem.shape), stem)


def test_every_other_output_token(model, images, language, golden) -> None:
    sequence = model.sequence(images, language)
    second_timestep = sequence[:, 16 + 37 :]
    assert_close(sequence[:, :16], golden["task_language_tokens"])
    assert_close(second_timestep[:, :8], golden["obs_primary_tokens_t1"])
    assert_close(second_timestep[:, 16:20], golden["obs_wrist_tokens_t1"])


def test_parameter_tree_of_octo_small() -> None:
    expected = {}
    for line in (DATA / "octo_small_tree.txt").read_text().splitlines():
        name, _, shape = line.partition(" ")
        if name.startswith("octo_transformer/"):
            expected[name.removeprefix("octo_transformer/")] = tuple(int(n) for n in shape.strip("(),").split(","))
    assert flax_shapes(octo_small()) == expected


def test_octo_small_has_25_million_parameters() -> None:
    with torch.device("meta"):
        model = OctoTransformer(octo_small())
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(25.34e6, rel=1e-3)


def test_a_mismatched_checkpoint_is_listed_by_name(parameters) -> None:
    broken = {**parameters, "surplus": np.zeros(3, np.float32), "obs_wrist_projection/bias": np.zeros(5, np.float32)}
    del broken["task_language_pos_embedding"]
    with pytest.raises(CheckpointMismatchError) as error:
        from_flax(tiny_config(), broken)
    text = str(error.value)
    assert "missing: task_language_pos_embedding (1, 16, 64)" in text
    assert "extra: surplus (3,)" in text
    assert "shape: obs_wrist_projection/bias is (5,), expected (64,)" in text
