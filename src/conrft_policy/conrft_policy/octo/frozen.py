"""A frozen Octo for acting: the numbers of ``OctoTransformer.embed`` without what nobody reads.

Computed once: the standardised convolution weights, what the absent goal image adds to the first convolution, and the
keys and values of the language prefix, which reads only itself. Kept between two ticks: the previous frame's image
tokens (before their position embedding, which changes from tick to tick). Never computed: rows that the last readout
does not depend on, which in the last layer is everything but that readout itself. (An earlier timestep's readout does
count: a readout reads the earlier ones of its name.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import BoolArray, structural_mask
from .config import ImageConfig
from .image_stem import SmallStem, StandardisedConv2d, normalise, reduce_image
from .model import Block, OctoTransformer, logit_bias


class FrozenStem(nn.Module):
    """A stem and its projection for images without a goal, weights standardised beforehand."""

    def __init__(self, image: ImageConfig, stem: SmallStem, projection: nn.Linear) -> None:
        super().__init__()
        self.size = image.size
        self.norms = stem.norms
        convolutions = [cast(StandardisedConv2d, convolution) for convolution in stem.convolutions]
        weights = [convolution.standardised_weight().detach() for convolution in convolutions]
        missing_goal = torch.full((1, 3, image.size, image.size), -1.0).to(weights[0])
        goal_part = F.conv2d(missing_goal, weights[0][:, 3:], convolutions[0].bias, stride=2, padding=1)
        weights[0] = weights[0][:, :3]
        self.weights = nn.ParameterList(weight.contiguous(memory_format=torch.channels_last) for weight in weights)
        self.biases = nn.ParameterList(convolution.bias for convolution in convolutions[1:])
        self.goal_part = nn.Buffer(goal_part.contiguous(memory_format=torch.channels_last))
        # Two linear maps in a row, without anything between them, are one.
        kernel, bias = stem.embedding.weight.flatten(1), cast(Tensor, stem.embedding.bias)
        self.head = nn.Linear(kernel.shape[1], projection.out_features, device=kernel.device, dtype=kernel.dtype)
        self.head.weight = nn.Parameter(projection.weight @ kernel)
        self.head.bias = nn.Parameter(projection.weight @ bias + projection.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, H, W, 3) uint8 -> tokens (N, n, dim) without position."""
        pixels = normalise(reduce_image(images, self.size)).to(self.goal_part.dtype)
        x = pixels.contiguous(memory_format=torch.channels_last)
        x = F.conv2d(x, self.weights[0], stride=2, padding=1) + self.goal_part
        x = F.relu(self.norms[0](x))
        for weight, bias, norm in zip(self.weights[1:], self.biases, self.norms[1:], strict=True):
            x = F.relu(norm(F.conv2d(x, weight, bias, stride=2, padding=1)))
        return self.head(x.flatten(2).transpose(1, 2))


@dataclass(frozen=True)
class LayerPlan:
    """Which rows a layer computes: places of its queries among the rows it is given (None: all), and who reads whom."""

    queries: Tensor | None
    bias: Tensor | None
    """(queries, prefix + rows) added to the logits; None: everything may be read."""


class FrozenOcto(nn.Module):
    """An Octo for one instruction, on one device, at one precision."""

    def __init__(self, model: OctoTransformer, language: Tensor) -> None:
        """language: (language_tokens, language_dim), on the device and at the precision of ``model``."""
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
        self.blocks, self.norm = model.blocks, model.norm
        with torch.no_grad():
            prefix = model.language_block(language[None])
            self.template = nn.Buffer(_template(model, prefix))
            self.prefix_keys, self.prefix_values = _prefix_keys_and_values(model, prefix)
        self.rows, self.plans = self._plan()
        self.requires_grad_(False).eval()

    def _plan(self) -> tuple[Tensor | None, list[LayerPlan]]:
        """Walk back from the last readout: a layer must be given the rows that the rows behind it read."""
        config = self.config
        prefix, count = config.language_tokens, config.window * config.step_tokens
        mask = structural_mask(config, config.window)[prefix:]
        wanted = list(range(count - config.readout_tokens, count))
        plans: list[LayerPlan] = []
        for _ in range(config.layers):
            given = sorted({*wanted, *mask[wanted, prefix:].any(axis=0).nonzero()[0].tolist()})
            plans.insert(0, self._layer_plan(mask, wanted, given))
            wanted = given
        every = len(wanted) == count
        return (None if every else self._index(wanted)), plans

    def _layer_plan(self, mask: BoolArray, wanted: list[int], given: list[int]) -> LayerPlan:
        place = {row: index for index, row in enumerate(given)}
        columns = [*range(self.config.language_tokens), *(self.config.language_tokens + row for row in given)]
        allowed = torch.from_numpy(mask[wanted][:, columns]).to(self.template.device)
        bias = None if bool(allowed.all()) else logit_bias(allowed, self.template.dtype)
        return LayerPlan(None if wanted == given else self._index([place[row] for row in wanted]), bias)

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
            x = self._block(index, cast(Block, block), plan, x)
        return self.norm(x).mean(dim=1)

    def _block(self, index: int, block: Block, plan: LayerPlan, x: Tensor) -> Tensor:
        query, key, value = block.attention.split(block.attention_norm(x))
        if plan.queries is not None:
            x, query = x[:, plan.queries], query[:, :, plan.queries]
        key = torch.cat([self.prefix_keys[index].expand(len(x), -1, -1, -1), key], dim=2)
        value = torch.cat([self.prefix_values[index].expand(len(x), -1, -1, -1), value], dim=2)
        x = x + block.attention.attend(query, key, value, plan.bias)
        return x + block.mlp(block.mlp_norm(x))


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
