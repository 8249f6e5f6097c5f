"""The acting path computes less than the whole transformer, and the same numbers."""

import dataclasses

import pytest
import torch

from conrft_policy.octo.config import ImageConfig, OctoConfig
from conrft_policy.octo.frozen import FrozenOcto
from conrft_policy.octo.model import OctoTransformer

TOLERANCE = 2e-6


def config(**changes: object) -> OctoConfig:
    stem = {"features": (8, 16), "embedding_dim": 24, "groups": 4}
    small = OctoConfig(
        images=(
            ImageConfig(name="primary", camera="side", source_size=32, size=16, **stem),
            ImageConfig(name="wrist", camera="wrist", source_size=8, size=8, **stem),
        ),
        token_dim=32,
        layers=3,
        heads=2,
        mlp_dim=48,
        language_tokens=5,
        language_dim=12,
        max_horizon=4,
    )
    return dataclasses.replace(small, **changes)


def images_of(octo: OctoConfig, batch: int) -> dict[str, torch.Tensor]:
    return {
        image.name: torch.randint(0, 256, (batch, octo.window, image.source_size, image.source_size, 3)).byte()
        for image in octo.images
    }


@pytest.mark.parametrize("repeat_task_tokens", [True, False])
@pytest.mark.parametrize("use_correct_attention", [True, False])
@pytest.mark.parametrize(("window", "readout_tokens"), [(1, 1), (2, 1), (3, 2)])
@torch.inference_mode()
def test_same_embedding(repeat_task_tokens, use_correct_attention, window, readout_tokens) -> None:
    torch.manual_seed(0)
    octo = config(
        repeat_task_tokens=repeat_task_tokens,
        use_correct_attention=use_correct_attention,
        window=window,
        readout_tokens=readout_tokens,
    )
    model, images, language = OctoTransformer(octo).eval(), images_of(octo, 3), torch.randn(5, 12)
    expected = model.embed(images, language.expand(3, -1, -1))
    frozen = FrozenOcto(model, language)
    tokens = frozen.image_tokens({name: frames.flatten(0, 1) for name, frames in images.items()})
    torch.testing.assert_close(frozen.embed(tokens.unflatten(0, (3, window))), expected, rtol=0, atol=TOLERANCE)


def test_the_last_layer_computes_the_last_readout_only() -> None:
    frozen = FrozenOcto(OctoTransformer(config()), torch.randn(5, 12))
    queries = [plan.queries for plan in frozen.plans]
    assert queries[:-1] == [None, None]
    assert queries[-1] is not None
    assert frozen.rows is not None
    assert frozen.rows[queries[-1]].tolist() == [2 * config().step_tokens - 1]


def test_an_earlier_timestep_never_touches_later_keys_and_needs_no_mask() -> None:
    frozen = FrozenOcto(OctoTransformer(config()), torch.randn(5, 12))
    seen = config().step_tokens - 1  # all but the readout
    readings = [(reading.queries, reading.keys, reading.bias is None) for reading in frozen.plans[0].readings]
    assert readings[:2] == [(seen, 5 + seen, True), (seen, 5 + 2 * seen, True)]
    assert [queries for queries, _, _ in readings[2:]] == [1, 1]


@torch.inference_mode()
def test_flat_images_keep_their_precision() -> None:
    """Rendered frames have flat parts, on which a careless sum in the group normalisation loses three digits."""
    torch.manual_seed(0)
    octo = config(images=(ImageConfig(name="primary", camera="side", source_size=256, size=256),))
    model, language = OctoTransformer(octo).eval(), torch.randn(5, 12)
    frames = torch.full((1, 2, 256, 256, 3), 90, dtype=torch.uint8)
    frames[:, :, 200:, 100:140] = 200
    frozen = FrozenOcto(model, language)
    embedding = frozen.embed(frozen.image_tokens({"primary": frames[0]})[None])
    expected = model.embed({"primary": frames}, language[None])
    torch.testing.assert_close(embedding, expected, rtol=0, atol=1e-5)


def test_the_prefix_is_not_computed_again() -> None:
    frozen = FrozenOcto(OctoTransformer(config()), torch.randn(5, 12))
    assert frozen.template.shape == (2, config().step_tokens, 32)
    assert [keys.shape for keys in frozen.prefix_keys] == [(1, 2, 5, 16)] * 3
