"""Every flag, goal images, padding of all kinds, against the official JAX code (bench/octo_official_numbers.py)."""

from pathlib import Path

import numpy as np
import pytest
import seeded_octo
import torch

from conrft_policy.octo.config import ImageConfig, OctoConfig
from conrft_policy.octo.flax_tree import flax_shapes, from_flax
from conrft_policy.octo.model import OctoTransformer, Padding

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def official() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "octo_variants.npz") as arrays:
        return dict(arrays)


def config_of(variant: seeded_octo.Variant) -> OctoConfig:
    stem = {"features": (32, 32, 64, 64), "embedding_dim": 64}
    return OctoConfig(
        images=tuple(
            ImageConfig(name=name, camera=name, source_size=size, size=size, **stem)
            for name, size in seeded_octo.VARIANT_SIZES.items()
        ),
        token_dim=64,
        layers=2,
        heads=2,
        mlp_dim=128,
        language_tokens=5,
        language_dim=48,
        window=variant.steps,
        readout_tokens=variant.readouts,
        repeat_task_tokens=variant.repeat_task_tokens,
        use_correct_attention=variant.use_correct_attention,
    )


@pytest.mark.parametrize("variant", seeded_octo.VARIANTS, ids=repr)
@torch.inference_mode()
def test_readouts_of_the_official_code(variant: seeded_octo.Variant, official) -> None:
    config = config_of(variant)
    model = OctoTransformer(config)
    model.load_state_dict(from_flax(config, seeded_octo.parameters(flax_shapes(config))))
    values = {name: torch.from_numpy(array) for name, array in variant.inputs().items()}

    def by_image(kind: str) -> dict[str, torch.Tensor]:
        return {name: values[f"{kind}_{name}"] for name in seeded_octo.VARIANT_SIZES}

    padding = Padding(timesteps=values["real_timesteps"], language=values["real_language"], images=by_image("real"))
    readouts = model.eval()(by_image("image"), values["language"], padding=padding, goals=by_image("goal"))
    np.testing.assert_allclose(readouts.numpy(), official[repr(variant)], rtol=0, atol=TOLERANCE)
