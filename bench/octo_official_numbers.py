# ruff: noqa: E402
"""Makes src/conrft_policy/test/data/octo_{full_size,variants}.npz with the official Octo code; no test runs it.

In an environment with jax 0.4.20, flax 0.7.5 and einops, the official repository on PYTHONPATH:
    python bench/octo_official_numbers.py
The official action heads import distrax, which the transformer does not need.
"""

import sys
import types
from pathlib import Path

sys.modules.setdefault("distrax", types.ModuleType("distrax"))
TESTS = Path(__file__).resolve().parent.parent / "src" / "conrft_policy" / "test"
sys.path.insert(0, str(TESTS))

import flax
import jax
import numpy as np
import seeded_octo
from octo.model.components.tokenizers import ImageTokenizer, LanguageTokenizer
from octo.model.components.transformer import common_transformer_sizes
from octo.model.components.vit_encoders import SmallStem16
from octo.model.octo_module import OctoTransformer
from octo.utils.spec import ModuleSpec

CASES = {
    "small_1.5": ("vit_s", {"repeat_task_tokens": True, "use_correct_attention": True}),
    "small_older": ("vit_s", {"repeat_task_tokens": False, "use_correct_attention": False}),
    "small_repeat_older_mask": ("vit_s", {"repeat_task_tokens": True, "use_correct_attention": False}),
    "base_1.5": ("vit_b", {"repeat_task_tokens": True, "use_correct_attention": True}),
}


REDUCED = {
    "num_layers": 2,
    "mlp_dim": 128,
    "num_attention_heads": 2,
    "dropout_rate": 0.0,
    "attention_dropout_rate": 0.0,
}
REDUCED_STEM = {"features": (32, 32, 64, 64), "num_features": 64}


def tokenizer(name: str, **stem: object) -> ImageTokenizer:
    """As the released configurations have it."""
    keys = [f"image_{name}"]
    return ImageTokenizer(obs_stack_keys=keys, task_stack_keys=keys, encoder=ModuleSpec.create(SmallStem16, **stem))


def transformer(dim: int, sizes: dict, readouts: int, flags: dict[str, bool], **stem: object) -> OctoTransformer:
    """An Octo that is given the encoded instruction."""
    return OctoTransformer(
        observation_tokenizers={name: tokenizer(name, **stem) for name in ("primary", "wrist")},
        task_tokenizers={"language": LanguageTokenizer(encoder=None)},
        readouts={"action": readouts},
        transformer_kwargs=sizes,
        token_embedding_size=dim,
        max_horizon=10,
        **flags,
    )


def seeded(model: OctoTransformer, *inputs: object) -> dict:
    """Parameters of ``model`` by name and shape."""
    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(0), *inputs)["params"]
    flat = flax.traverse_util.flatten_dict(shapes, sep="/")
    arrays = seeded_octo.parameters({name: leaf.shape for name, leaf in flat.items()})
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def full_size(size: str, flags: dict[str, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Readout tokens (1, 2, 1, dim) with every timestep real, and with the first one padded."""
    dim, sizes = common_transformer_sizes(size)
    model = transformer(dim, sizes, 1, flags)
    inputs = (seeded_octo.images(), {"language_instruction": seeded_octo.language()})
    every = np.ones((1, 2), bool)
    params = seeded(model, *inputs, every)

    @jax.jit
    def apply(mask: jax.Array) -> jax.Array:
        return model.apply({"params": params}, *inputs, mask, train=False)["readout_action"].tokens

    return np.asarray(apply(every)), np.asarray(apply(np.array([[False, True]])))


def variant(case: seeded_octo.Variant) -> np.ndarray:
    """Readout tokens (2, steps, readouts, 64)."""
    flags = {"repeat_task_tokens": case.repeat_task_tokens, "use_correct_attention": case.use_correct_attention}
    model = transformer(64, REDUCED, case.readouts, flags, **REDUCED_STEM)
    values = case.inputs()
    images = {f"image_{name}": values[f"image_{name}"] for name in seeded_octo.VARIANT_SIZES}
    images["pad_mask_dict"] = {f"image_{name}": values[f"real_{name}"] for name in seeded_octo.VARIANT_SIZES}
    task = {f"image_{name}": values[f"goal_{name}"] for name in seeded_octo.VARIANT_SIZES}
    task["language_instruction"] = values["language"]
    task["pad_mask_dict"] = {"language_instruction": values["real_language"]}
    inputs = (images, task, values["real_timesteps"])
    out = model.apply({"params": seeded(model, *inputs)}, *inputs, train=False)
    return np.asarray(out["readout_action"].tokens)


if __name__ == "__main__":
    np.savez(TESTS / "data" / "octo_variants.npz", **{repr(case): variant(case) for case in seeded_octo.VARIANTS})
    numbers = {}
    for name, (size, flags) in CASES.items():
        numbers[f"{name}/all"], numbers[f"{name}/first_padded"] = full_size(size, flags)
        np.savez(TESTS / "data" / "octo_full_size.npz", **numbers)
