"""The official (Flax) parameter tree of an Octo transformer, and its conversion to torch.

Names are relative to ``octo_transformer/``. Dense kernels are (in, out), convolutions HWIO, attention kernels are split
by head; the conversion is strict in names and shapes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .config import ImageConfig, OctoConfig

Shape = tuple[int, ...]
ENCODER = "BlockTransformer_0/Transformer_0"


class CheckpointMismatchError(ValueError):
    """Parameters that do not fit the configuration; the message lists every missing, extra or misshapen name."""


@dataclass(frozen=True)
class _Leaf:
    """One Flax array: its shape, the torch parameter that it fills, and the rows of it (for query, key and value)."""

    shape: Shape
    target: str
    layout: str
    rows: tuple[int, int] | None = None

    def to_torch(self, array: NDArray[np.floating]) -> Tensor:
        values = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        if self.layout == "conv":
            return values.permute(3, 2, 0, 1).contiguous()
        if self.layout == "dense":
            return values.T.contiguous()
        if self.layout == "split_heads":
            return values.flatten(1).T.contiguous()
        if self.layout == "join_heads":
            return values.flatten(0, 1).T.contiguous()
        if self.layout == "head_bias":
            return values.flatten()
        return values


def _dense(path: str, target: str, width_in: int, width_out: int) -> dict[str, _Leaf]:
    return {
        f"{path}/kernel": _Leaf((width_in, width_out), f"{target}.weight", "dense"),
        f"{path}/bias": _Leaf((width_out,), f"{target}.bias", "same"),
    }


def _norm(path: str, target: str, width: int) -> dict[str, _Leaf]:
    return {
        f"{path}/scale": _Leaf((width,), f"{target}.weight", "same"),
        f"{path}/bias": _Leaf((width,), f"{target}.bias", "same"),
    }


def _conv(path: str, target: str, size: int, width_in: int, width_out: int) -> dict[str, _Leaf]:
    return {
        f"{path}/kernel": _Leaf((size, size, width_in, width_out), f"{target}.weight", "conv"),
        f"{path}/bias": _Leaf((width_out,), f"{target}.bias", "same"),
    }


def _image_leaves(image: ImageConfig, config: OctoConfig) -> dict[str, _Leaf]:
    stem, target = f"observation_tokenizers_{image.name}/SmallStem16_0", f"stems.{image.name}"
    leaves: dict[str, _Leaf] = {}
    widths = (6, *image.features)
    for index, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
        leaves |= _conv(f"{stem}/StdConv_{index}", f"{target}.convolutions.{index}", 3, width_in, width_out)
        leaves |= _norm(f"{stem}/GroupNorm_{index}", f"{target}.norms.{index}", width_out)
    leaves |= _conv(f"{stem}/embedding", f"{target}.embedding", 1, widths[-1], image.embedding_dim)
    projection = f"obs_{image.name}_projection"
    leaves |= _dense(projection, f"image_projections.{image.name}", image.embedding_dim, config.token_dim)
    shape = (1, config.max_horizon, image.tokens, config.token_dim)
    leaves[f"obs_{image.name}_pos_embedding"] = _Leaf(shape, f"image_positions.{image.name}", "same")
    return leaves


def _block_leaves(index: int, config: OctoConfig) -> dict[str, _Leaf]:
    path, target = f"{ENCODER}/encoderblock_{index}", f"blocks.{index}"
    dim, heads, head_dim = config.token_dim, config.heads, config.head_dim
    leaves = _norm(f"{path}/LayerNorm_0", f"{target}.attention_norm", dim)
    leaves |= _norm(f"{path}/LayerNorm_1", f"{target}.mlp_norm", dim)
    leaves |= _dense(f"{path}/MlpBlock_0/Dense_0", f"{target}.mlp.rise", dim, config.mlp_dim)
    leaves |= _dense(f"{path}/MlpBlock_0/Dense_1", f"{target}.mlp.fall", config.mlp_dim, dim)
    attention = f"{path}/MultiHeadDotProductAttention_0"
    for place, part in enumerate(("query", "key", "value")):
        rows = (place * dim, (place + 1) * dim)
        qkv = f"{target}.attention.qkv"
        leaves[f"{attention}/{part}/kernel"] = _Leaf((dim, heads, head_dim), f"{qkv}.weight", "split_heads", rows)
        leaves[f"{attention}/{part}/bias"] = _Leaf((heads, head_dim), f"{qkv}.bias", "head_bias", rows)
    out = f"{target}.attention.out"
    leaves[f"{attention}/out/kernel"] = _Leaf((heads, head_dim, dim), f"{out}.weight", "join_heads")
    leaves[f"{attention}/out/bias"] = _Leaf((dim,), f"{out}.bias", "same")
    return leaves


def _leaves(config: OctoConfig) -> dict[str, _Leaf]:
    dim = config.token_dim
    leaves: dict[str, _Leaf] = {}
    for image in config.images:
        leaves |= _image_leaves(image, config)
    leaves |= _dense("task_language_projection", "language_projection", config.language_dim, dim)
    leaves["task_language_pos_embedding"] = _Leaf((1, config.language_tokens, dim), "language_position", "same")
    readout_shape = (1, config.max_horizon, config.readout_tokens, dim)
    leaves["readout_action_pos_embedding"] = _Leaf(readout_shape, "readout_position", "same")
    for index in range(config.layers):
        leaves |= _block_leaves(index, config)
    return leaves | _norm(f"{ENCODER}/encoder_norm", "norm", dim)


def flax_shapes(config: OctoConfig) -> dict[str, Shape]:
    """Name and shape of every array of the official tree, relative to ``octo_transformer/``."""
    return {name: leaf.shape for name, leaf in _leaves(config).items()}


def check_shapes(config: OctoConfig, shapes: Mapping[str, Shape]) -> None:
    """Compare official arrays (shapes by name relative to ``octo_transformer/``) with what the configuration needs.

    Raises CheckpointMismatchError that lists every missing, extra or misshapen array.
    """
    expected = flax_shapes(config)
    problems = [f"missing: {name} {expected[name]}" for name in sorted(set(expected) - set(shapes))]
    problems += [f"extra: {name} {shapes[name]}" for name in sorted(set(shapes) - set(expected))]
    problems += [
        f"shape: {name} is {shapes[name]}, expected {expected[name]}"
        for name in sorted(set(shapes) & set(expected))
        if shapes[name] != expected[name]
    ]
    if problems:
        raise CheckpointMismatchError("parameters do not fit the configuration:\n  " + "\n  ".join(problems))


def from_flax(config: OctoConfig, arrays: Mapping[str, NDArray[np.floating]]) -> dict[str, Tensor]:
    """Convert official arrays (names relative to ``octo_transformer/``) to a state dict of ``OctoTransformer``.

    Raises CheckpointMismatchError that lists every missing, extra or misshapen array.
    """
    check_shapes(config, {name: tuple(array.shape) for name, array in arrays.items()})
    leaves = _leaves(config)
    whole: dict[str, Tensor] = {}
    parts: dict[str, list[tuple[int, Tensor]]] = {}
    for name, leaf in leaves.items():
        values = leaf.to_torch(arrays[name])
        if leaf.rows is None:
            whole[leaf.target] = values
        else:
            parts.setdefault(leaf.target, []).append((leaf.rows[0], values))
    joined = {target: torch.cat([part for _, part in sorted(rows, key=_start)]) for target, rows in parts.items()}
    return whole | joined


def _start(row_and_part: tuple[int, Tensor]) -> int:
    return row_and_part[0]
