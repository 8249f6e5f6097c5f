"""A frozen Octo for acting: the numbers of ``OctoTransformer.embed`` without what nobody reads.

Computed once: the standardised convolution weights, what the absent goal image adds to the first convolution, and the
keys and values of the language prefix, which reads only itself. Kept between two ticks: the previous frame's image
tokens (before their position embedding, which changes from tick to tick). Never computed: rows that the last readout
does not depend on, which in the last layer is everything but that readout itself and the keys and values that it reads.
(An earlier timestep's readout does count: a readout reads the earlier ones of its name.)

The rows are put into an order in which what most queries may read comes first. Then nearly every query reads a run of
keys from the first on, so that an earlier timestep's queries never touch the later keys, and no mask is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import BoolArray, structural_mask
from .config import ImageConfig
from .image_stem import SmallStem, StandardisedConv2d, normalise, reduce_image
from .int8_linear import Int8Linear, balanced
from .model import Block, OctoTransformer, logit_bias


class FrozenStem(nn.Module):
    """A stem and its projection for images without a goal, weights standardised beforehand.

    Channels come first in memory: torch's group normalisation of channels-last images sums in float32 without care and
    is off by a thousandth on rendered frames, and no faster.
    """

    def __init__(self, image: ImageConfig, stem: SmallStem, projection: nn.Linear) -> None:
        super().__init__()
        self.size = image.size
        self.norms = stem.norms
        convolutions = [cast(StandardisedConv2d, convolution) for convolution in stem.convolutions]
        weights = [convolution.standardised_weight().detach() for convolution in convolutions]
        missing_goal = torch.full((1, 3, image.size, image.size), -1.0).to(weights[0])
        goal_part = F.conv2d(missing_goal, weights[0][:, 3:], convolutions[0].bias, stride=2, padding=1)
        weights[0] = weights[0][:, :3]
        self.weights = nn.ParameterList(weight.contiguous() for weight in weights)
        self.biases = nn.ParameterList(convolution.bias for convolution in convolutions[1:])
        self.goal_part = nn.Buffer(goal_part.contiguous())
        # Two linear maps in a row, without anything between them, are one.
        kernel, bias = stem.embedding.weight.flatten(1), cast(Tensor, stem.embedding.bias)
        self.head = nn.Linear(kernel.shape[1], projection.out_features, device="meta")
        self.head.weight = nn.Parameter(projection.weight @ kernel)
        self.head.bias = nn.Parameter(projection.weight @ bias + projection.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, H, W, 3) uint8 -> tokens (N, n, dim) without position."""
        x = normalise(reduce_image(images, self.size)).to(self.goal_part.dtype)
        x = F.conv2d(x, self.weights[0], stride=2, padding=1) + self.goal_part
        x = F.relu(self.norms[0](x))
        for weight, bias, norm in zip(self.weights[1:], self.biases, self.norms[1:], strict=True):
            x = F.relu(norm(F.conv2d(x, weight, bias, stride=2, padding=1)))
        return self.head(x.flatten(2).transpose(1, 2))


@dataclass(frozen=True)
class Reading:
    """A run of queries that read alike: all keys before ``keys``, save what ``bias`` forbids."""

    queries: int
    """How many, following those of the reading before."""
    keys: int
    bias: Tensor | None
    """(1, keys) added to the logits; None: nothing is forbidden."""


@dataclass(frozen=True)
class LayerPlan:
    """Which rows a layer computes: places of its queries among the rows it is given (None: all), and what they read."""

    queries: Tensor | None
    readings: list[Reading]


class LinearGelu(nn.Module):
    """A linear layer and GELU in its tanh form.

    On a CPU in float32 oneDNN does both at once: GELU by itself takes a third of the time of the matrix before it.
    Where a build of torch lacks that operator, the two run one after the other.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        on_cpu = linear.weight.device.type == "cpu" and linear.weight.dtype == torch.float32
        self.fused = on_cpu and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self.fused and not torch.compiler.is_compiling():  # torch's compiler fuses by itself
            weight, bias = self.linear.weight, self.linear.bias
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "tanh")
        return F.gelu(self.linear(x), approximate="tanh")


class FrozenBlock(nn.Module):
    """A transformer block that reads the prefix's keys and values ready-made and computes the planned queries only."""

    def __init__(self, block: Block, *, prune: bool, int8: bool) -> None:
        """prune: it has fewer queries than rows, so queries come from a matrix of their own."""
        super().__init__()
        self.heads = block.attention.heads
        attention_norm, qkv = block.attention_norm, block.attention.qkv
        mlp_norm, rise = block.mlp_norm, block.mlp.rise
        if int8:
            attention_norm, qkv = balanced(attention_norm, qkv)
            mlp_norm, rise = balanced(mlp_norm, rise)
        dim = block.attention.out.in_features
        self.attention_norm, self.mlp_norm = attention_norm, mlp_norm
        self.query = _linear(_rows(qkv, 0, dim), int8) if prune else None
        self.qkv = _linear(_rows(qkv, dim, 3 * dim) if prune else qkv, int8)
        self.out = _linear(block.attention.out, int8)
        self.rise = Int8Linear(rise, gelu=True) if int8 else LinearGelu(rise)
        self.fall = _linear(block.mlp.fall, int8)

    def forward(self, x: Tensor, prefix_keys: Tensor, prefix_values: Tensor, plan: LayerPlan) -> Tensor:
        """x: (B, rows, dim). prefix_keys, prefix_values: (1, heads, language_tokens, e). Returns (B, queries, dim)."""
        query, key, value, x = self._split(x, plan)
        key = torch.cat([prefix_keys.expand(len(x), -1, -1, -1), key], dim=2)
        value = torch.cat([prefix_values.expand(len(x), -1, -1, -1), value], dim=2)
        parts, start = [], 0
        for reading in plan.readings:
            queries = query[:, :, start : start + reading.queries]
            keys, values = key[:, :, : reading.keys], value[:, :, : reading.keys]
            mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=reading.bias)
            parts.append(mixed.transpose(1, 2))
            start += reading.queries
        x = x + self.out(torch.cat(parts, dim=1).flatten(2))
        return x + self.fall(self.rise(self.mlp_norm(x)))

    def _split(self, x: Tensor, plan: LayerPlan) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, n, e), and the rows of the queries (B, n, dim)."""
        rows = self.attention_norm(x)
        if self.query is None:
            query, key, value = self._by_head(self.qkv(rows), 3)
        else:
            chosen = rows if plan.queries is None else rows[:, plan.queries]
            (query,) = self._by_head(self.query(chosen), 1)
            key, value = self._by_head(self.qkv(rows), 2)
        if plan.queries is not None:
            x = x[:, plan.queries]
            query = query if self.query is not None else query[:, :, plan.queries]
        return query, key, value, x

    def _by_head(self, x: Tensor, parts: int) -> Tensor:
        """(B, N, parts * dim) -> (parts, B, heads, N, e)."""
        return x.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)


def _linear(linear: nn.Linear, int8: bool) -> nn.Module:
    return Int8Linear(linear) if int8 else linear


def _rows(linear: nn.Linear, start: int, end: int) -> nn.Linear:
    """The part of a matrix that makes the outputs from ``start`` to ``end``."""
    part = nn.Linear(linear.in_features, end - start, device="meta")
    part.weight = nn.Parameter(linear.weight[start:end].detach().clone())
    part.bias = nn.Parameter(linear.bias[start:end].detach().clone())
    return part


class FrozenOcto(nn.Module):
    """An Octo for one instruction, on one device, at one precision."""

    def __init__(self, model: OctoTransformer, language: Tensor, *, int8: bool = False) -> None:
        """language: (language_tokens, language_dim), on the device and at the precision of ``model``.

        int8: the blocks' matrices in 8 bits, which takes a CPU and a float32 ``model``; all else stays as it is.
        """
        super().__init__()
        self.config = config = model.config
        self.stems = nn.ModuleDict(
            {
                image.name: FrozenStem(
                    image,
                    cast(SmallStem, model.stems[image.name]),
                    cast(nn.Linear, model.image_projections[image.name]),
                )
                for image in config.images
            }
        )
        self.norm = model.norm
        with torch.no_grad():
            prefix = model.language_block(language[None])
            self.template = nn.Buffer(_template(model, prefix))
            self.prefix_keys, self.prefix_values = _prefix_keys_and_values(model, prefix)
            blocks = [cast(Block, block) for block in model.blocks]
            last = len(blocks) - 1
            self.blocks = nn.ModuleList(
                FrozenBlock(block, prune=index == last, int8=int8) for index, block in enumerate(blocks)
            )
        self.rows, self.plans = self._plan()
        self.requires_grad_(False).eval()

    def _plan(self) -> tuple[Tensor | None, list[LayerPlan]]:
        """Walk back from the last readout: a layer must be given the rows that the rows behind it read."""
        config = self.config
        prefix, count = config.language_tokens, config.window * config.step_tokens
        mask = structural_mask(config, config.window)[prefix:]
        readers = mask[:, prefix:].sum(axis=0)
        order = sorted(range(count), key=lambda row: (-readers[row], row))
        wanted = list(range(count - config.readout_tokens, count))
        plans: list[LayerPlan] = []
        for _ in range(config.layers):
            needed = {*wanted, *mask[wanted, prefix:].any(axis=0).nonzero()[0].tolist()}
            given = [row for row in order if row in needed]
            plans.insert(0, self._layer_plan(mask, wanted, given))
            wanted = given
        return (None if wanted == list(range(count)) else self._index(wanted)), plans

    def _layer_plan(self, mask: BoolArray, wanted: list[int], given: list[int]) -> LayerPlan:
        place = {row: index for index, row in enumerate(given)}
        columns = [*range(self.config.language_tokens), *(self.config.language_tokens + row for row in given)]
        readings = self._readings(mask[wanted][:, columns])
        return LayerPlan(None if wanted == given else self._index([place[row] for row in wanted]), readings)

    def _readings(self, allowed: BoolArray) -> list[Reading]:
        """Runs of equal rows of ``allowed`` (queries, keys)."""
        readings = []
        for _, run in itertools.groupby(allowed, key=lambda row: row.tobytes()):
            rows = list(run)
            keys = int(rows[0].nonzero()[0][-1]) + 1
            reads = rows[0][None, :keys]
            allowed_keys = None if reads.all() else torch.from_numpy(reads).to(self.template.device)
            bias = None if allowed_keys is None else logit_bias(allowed_keys, self.template.dtype)
            readings.append(Reading(len(rows), keys, bias))
        return readings

    def _index(self, rows: list[int]) -> Tensor:
        return torch.tensor(rows, device=self.template.device)

    def image_tokens(self, images: Mapping[str, Tensor]) -> Tensor:
        """Images (N, H, W, 3) uint8 by Octo's image name -> (N, image_tokens, dim) without position."""
        return torch.cat([self.stems[image.name](images[image.name]) for image in self.config.images], dim=1)

    def embed(self, history: Tensor) -> Tensor:
        """Image tokens of the window (B, window, image_tokens, dim), oldest first -> embedding (B, dim)."""
        config = self.config
        x = self.template.repeat(len(history), 1, 1, 1)
        x[:, :, : config.image_tokens] += history
        x = x.flatten(1, 2)
        if self.rows is not None:
            x = x[:, self.rows]
        for index, (block, plan) in enumerate(zip(self.blocks, self.plans, strict=True)):
            x = block(x, self.prefix_keys[index], self.prefix_values[index], plan)
        return self.norm(x).mean(dim=1)


def _template(model: OctoTransformer, prefix: Tensor) -> Tensor:
    """(window, step_tokens, dim): positions, repeated language and readouts, to which the image tokens are added."""
    config = model.config
    steps = config.window
    parts = [model.image_positions[image.name][0, :steps] for image in config.images]
    if config.repeat_task_tokens:
        parts.append(prefix.expand(steps, -1, -1))
    return torch.cat([*parts, model.readout_position[0, :steps]], dim=1)


def _prefix_keys_and_values(model: OctoTransformer, prefix: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Keys and values of the prefix in every layer, each (1, heads, language_tokens, head_dim)."""
    keys, values = [], []
    x = prefix
    for block in cast("list[Block]", list(model.blocks)):
        query, key, value = block.attention.split(block.attention_norm(x))
        keys.append(key)
        values.append(value)
        x = x + block.attention.attend(query, key, value, None)
        x = x + block.mlp(block.mlp_norm(x))
    return keys, values
