# ruff: noqa: E402
"""Makes src/conrft_policy/test/data/octo_full_size.npz with the official Octo code; no test needs to run it.

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


def tokenizer(name: str) -> ImageTokenizer:
    """As the released configurations have it."""
    keys = [f"image_{name}"]
    return ImageTokenizer(obs_stack_keys=keys, task_stack_keys=keys, encoder=ModuleSpec.create(SmallStem16))


def readouts(size: str, flags: dict[str, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Readout tokens (1, 2, 1, dim) with every timestep real, and with the first one padded."""
    dim, kwargs = common_transformer_sizes(size)
    model = OctoTransformer(
        observation_tokenizers={name: tokenizer(name) for name in ("primary", "wrist")},
        task_tokenizers={"language": LanguageTokenizer(encoder=None)},
        readouts={"action": 1},
        transformer_kwargs=kwargs,
        token_embedding_size=dim,
        max_horizon=10,
        **flags,
    )
    inputs = (seeded_octo.images(), {"language_instruction": seeded_octo.language()})
    every = np.ones((1, 2), bool)
    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(0), *inputs, every)["params"]
    flat = flax.traverse_util.flatten_dict(shapes, sep="/")
    arrays = seeded_octo.parameters({name: leaf.shape for name, leaf in flat.items()})
    params = flax.traverse_util.unflatten_dict(arrays, sep="/")

    @jax.jit
    def apply(mask):
        return model.apply({"params": params}, *inputs, mask, train=False)["readout_action"].tokens

    return np.asarray(apply(every)), np.asarray(apply(np.array([[False, True]])))


if __name__ == "__main__":
    numbers = {}
    for case, (size, flags) in CASES.items():
        numbers[f"{case}/all"], numbers[f"{case}/first_padded"] = readouts(size, flags)
        print(case, numbers[f"{case}/all"].std(), flush=True)
        np.savez(TESTS / "data" / "octo_full_size.npz", **numbers)
