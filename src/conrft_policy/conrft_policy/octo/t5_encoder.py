"""The T5 encoder behind official Octo checkpoints, through ``transformers``: an instruction to its tokens.

Only what prepares a task needs it. The weights come from the official checkpoint itself, which carries the frozen
encoder, or from a folder or the hub cache; the tokenizer's vocabulary always comes from one of the latter.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conrft_policy.text_encoder import TextEncoderMissingError

Arrays = Mapping[str, NDArray[np.float32]]


class T5Encoder:
    """Texts to the last hidden states of T5's encoder."""

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        """``model``: a transformers T5EncoderModel. ``tokenizer``: of the same vocabulary."""
        self.name = name
        self._model, self._tokenizer = model.eval(), tokenizer

    @torch.inference_mode()
    def encode(self, text: str, *, tokens: int) -> NDArray[np.float32]:
        """Encode a text, padded or truncated to ``tokens``: (tokens, width).

        Padding is masked inside T5, but its tokens are kept, because Octo reads them.
        """
        batch = self._tokenizer(text, max_length=tokens, padding="max_length", truncation=True, return_tensors="pt")
        hidden = self._model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return np.asarray(hidden[0].float().cpu().numpy(), dtype=np.float32)


def load_t5(name: str, source: str | Path | None = None, arrays: Arrays | None = None) -> T5Encoder:
    """An encoder from what lies on this machine; nothing is downloaded.

    name: such as ``t5-base``. source: a local folder or a hub id, its tokenizer and (without ``arrays``) its weights;
    None looks for ``name`` in the hub cache. arrays: Flax weights by name relative to ``hf_model/``.
    Raises TextEncoderMissingError that says what is missing and how to get it, ValueError for arrays that do not fit.
    """
    transformers = _transformers()
    model = None if arrays is None else t5_from_flax(arrays)
    candidates = [str(source)] if source is not None else [f"google-t5/{name}", name]
    problems = []
    for candidate in candidates:
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(candidate, local_files_only=True)
            if model is None:
                model = transformers.T5EncoderModel.from_pretrained(
                    candidate, local_files_only=True, dtype=torch.float32
                )
            return T5Encoder(name, model, tokenizer)
        except (OSError, ValueError, ImportError) as error:
            problems.append(f"{candidate}: {(str(error).splitlines() or [type(error).__name__])[0]}")
    what = "tokenizer and weights" if arrays is None else "tokenizer (the checkpoint itself has the weights)"
    raise TextEncoderMissingError(
        f"encoding an instruction needs {name}'s {what}. With network access: `hf download google-t5/{name}` puts them "
        f"into the hub cache; or give their folder with --t5, or tokens encoded elsewhere with --tokens.\n  "
        + "\n  ".join(problems)
    )


def t5_from_flax(arrays: Arrays) -> Any:
    """A transformers T5EncoderModel from the Flax encoder's arrays; ValueError lists what does not fit."""
    transformers = _transformers()
    try:
        config = _config(arrays, transformers.T5Config)
    except KeyError as error:
        raise ValueError(f"text encoder: array {error} is missing") from error
    model = transformers.T5EncoderModel(config)
    state = {_torch_name(name): _torch_layout(name, arrays[name]) for name in arrays}
    if "shared.weight" in state:
        state["encoder.embed_tokens.weight"] = state["shared.weight"]
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"text encoder: {error}") from error
    return model


def _config(arrays: Arrays, config_class: Any) -> Any:
    """What the shapes tell; the rest is the same in all sizes of T5."""
    first = "encoder/block/0/layer"
    buckets, heads = arrays[f"{first}/0/SelfAttention/relative_attention_bias/embedding"].shape
    width, inner = arrays[f"{first}/0/SelfAttention/q/kernel"].shape
    gated = f"{first}/1/DenseReluDense/wi_0/kernel" in arrays
    feed_forward = arrays[f"{first}/1/DenseReluDense/{'wi_0' if gated else 'wi'}/kernel"].shape[1]
    layers = {name.split("/")[2] for name in arrays if name.startswith("encoder/block/")}
    return config_class(
        vocab_size=arrays["shared/embedding"].shape[0],
        d_model=width,
        d_kv=inner // heads,
        d_ff=feed_forward,
        num_layers=len(layers),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu" if gated else "relu",
    )


def _torch_name(name: str) -> str:
    parts: Sequence[str] = name.split("/")
    last = "weight" if parts[-1] in ("kernel", "embedding") else parts[-1]
    return ".".join([*parts[:-1], last])


def _torch_layout(name: str, array: NDArray[np.float32]) -> Tensor:
    values = torch.from_numpy(np.array(array, dtype=np.float32))
    return values.T.contiguous() if name.endswith("/kernel") else values


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise TextEncoderMissingError("encoding an instruction needs transformers: pip install transformers") from error
