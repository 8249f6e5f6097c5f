"""Official Octo checkpoint folders, small, written with the genuine Orbax as the official code writes them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data"
LAYOUTS = ("ocdbt", "one file-set an array", "zarr3")
Tree = dict[str, Any]


def spec(module: str, name: str, **kwargs: Any) -> Tree:
    return {"module": f"octo.{module}", "name": name, "args": [], "kwargs": kwargs}


def image_tokenizer(name: str) -> Tree:
    stem = spec("model.components.vit_encoders", "SmallStem16", features=[32, 32, 64, 64], num_features=64)
    keys = [f"image_{name}"]
    return spec(
        "model.components.tokenizers", "ImageTokenizer", obs_stack_keys=keys, task_stack_keys=keys, encoder=stem
    )


def official_config(**model: Any) -> Tree:
    """Of the reduced Octo whose golden numbers are in e_octo_tiny.npz; 1.5 line unless ``model`` says otherwise."""
    return {
        "model": {
            "observation_tokenizers": {name: image_tokenizer(name) for name in ("primary", "wrist")},
            "task_tokenizers": {
                "language": spec(
                    "model.components.tokenizers", "LanguageTokenizer", encoder="t5-base", finetune_encoder=False
                )
            },
            "heads": {"action": spec("model.components.action_heads", "DiffusionActionHead", action_horizon=4)},
            "readouts": {"action": 1},
            "token_embedding_size": 64,
            "transformer_kwargs": {
                "num_layers": 2,
                "mlp_dim": 128,
                "num_attention_heads": 2,
                "dropout_rate": 0.0,
                "attention_dropout_rate": 0.0,
                "add_position_embedding": False,
            },
            "max_horizon": 10,
            "repeat_task_tokens": True,
            "use_correct_attention": True,
            **model,
        },
        "window_size": 2,
        "text_processor": spec(
            "data.utils.text_processing", "HFTokenizer", tokenizer_name="t5-base", tokenizer_kwargs={"max_length": 16}
        ),
        "dataset_kwargs": {"frame_transform_kwargs": {"resize_size": {"primary": [64, 64], "wrist": [32, 32]}}},
    }


def golden_arrays() -> dict[str, np.ndarray]:
    """The official tree by path: the golden transformer, an action head, and a tiny T5 encoder."""
    with np.load(DATA / "e_octo_tiny.npz") as golden, np.load(DATA / "t5_flax_tiny.npz") as t5:
        arrays = {f"octo_transformer/{_bare(n)}": golden[n] for n in golden.files if n.startswith("param/")}
        text = "octo_transformer/task_tokenizers_language/hf_model"
        arrays |= {f"{text}/{_bare(name)}": t5[name] for name in t5.files if name.startswith("param/")}
    return {**arrays, "heads_action/diffusion_model/time_preprocess/kernel": np.ones((16, 1), np.float32)}


def write_checkpoint(
    folder: Path, arrays: Mapping[str, np.ndarray], config: Tree | None = None, *, layout: str = "ocdbt", step: int = 7
) -> Path:
    """Write config.json, dataset_statistics.json and one step, the arrays with the genuine Orbax."""
    import orbax.checkpoint as ocp

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or official_config()))
    (folder / "dataset_statistics.json").write_text(json.dumps({"bridge": {"action": {"mean": [0.0] * 7}}}))
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=layout != "one file-set an array", use_zarr3=layout == "zarr3")
    checkpointer = ocp.Checkpointer(handler)
    checkpointer.save(folder / str(step) / "default", nested(arrays))
    checkpointer.close()
    return folder


def nested(arrays: Mapping[str, np.ndarray]) -> Tree:
    tree: Tree = {}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = array
    return tree


def _bare(name: str) -> str:
    return name.removeprefix("param/")
