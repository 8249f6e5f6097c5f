"""The frozen image encoder, against a slow computation written from the specification in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from conrft_learner.resnet10 import EncoderWeightsError, ResNet10, load_resnet10, random_resnet10

Array = NDArray[np.float64]
Tree = dict[str, NDArray[np.float32]]


def official_tree() -> Tree:
    """Random parameters by the names and shapes of the official tree; kernels are (height, width, in, out)."""
    rng = np.random.default_rng(0)
    tree: Tree = {}

    def convolution(name: str, size: int, inputs: int, outputs: int, norm: str) -> None:
        tree[f"{name}/kernel"] = rng.normal(0, (2 / (size * size * inputs)) ** 0.5, (size, size, inputs, outputs))
        tree[f"{norm}/scale"], tree[f"{norm}/bias"] = rng.normal(1, 0.2, outputs), rng.normal(0, 0.2, outputs)

    convolution("conv_init", 7, 3, 64, "norm_init")
    inputs = 64
    for i, outputs in enumerate((64, 128, 256, 512)):
        block = f"ResNetBlock_{i}"
        convolution(f"{block}/Conv_0", 3, inputs, outputs, f"{block}/MyGroupNorm_0")
        convolution(f"{block}/Conv_1", 3, outputs, outputs, f"{block}/MyGroupNorm_1")
        if i:
            convolution(f"{block}/conv_proj", 1, inputs, outputs, f"{block}/norm_proj")
        inputs = outputs
    return {name: value.astype(np.float32) for name, value in tree.items()}


def convolved(x: Array, kernel: NDArray[np.float32], stride: int, before: int, after: int) -> Array:
    """(H, W, C) by an explicit sum over the kernel's places; the padding stands before and after each axis."""
    size = kernel.shape[0]
    padded = np.pad(x, ((before, after), (before, after), (0, 0)))
    steps = (padded.shape[0] - size) // stride + 1
    out = np.zeros((steps, steps, kernel.shape[3]))
    for i in range(size):
        for j in range(size):
            seen = padded[i : i + stride * steps : stride, j : j + stride * steps : stride]
            out += seen @ kernel[i, j].astype(np.float64)
    return out


def normalised(x: Array, tree: Tree, name: str) -> Array:
    groups = np.split(x, 4, axis=-1)
    whitened = [(g - g.mean()) / np.sqrt(g.var() + 1e-5) for g in groups]
    return np.concatenate(whitened, axis=-1) * tree[f"{name}/scale"] + tree[f"{name}/bias"]


def slow_resnet10(image: NDArray[np.uint8], tree: Tree) -> Array:
    """Feature map (4, 4, 512) of one image (128, 128, 3)."""
    x = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = np.maximum(normalised(convolved(x, tree["conv_init/kernel"], 2, 3, 3), tree, "norm_init"), 0)
    padded = np.pad(x, ((0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
    x = np.max([padded[i : i + 64 : 2, j : j + 64 : 2] for i in range(3) for j in range(3)], axis=0)
    for i in range(4):
        block, stride, before = f"ResNetBlock_{i}", 2 if i else 1, 0 if i else 1
        y = normalised(convolved(x, tree[f"{block}/Conv_0/kernel"], stride, before, 1), tree, f"{block}/MyGroupNorm_0")
        y = normalised(
            convolved(np.maximum(y, 0), tree[f"{block}/Conv_1/kernel"], 1, 1, 1), tree, f"{block}/MyGroupNorm_1"
        )
        if i:
            x = normalised(convolved(x, tree[f"{block}/conv_proj/kernel"], 2, 0, 0), tree, f"{block}/norm_proj")
        x = np.maximum(x + y, 0)
    return x


@pytest.fixture(scope="module")
def network() -> ResNet10:
    network = ResNet10()
    network.load_flax(official_tree())
    return network


def test_it_gives_the_numbers_of_the_official_layers(network: ResNet10) -> None:
    image = np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    maps = network(torch.from_numpy(image).permute(2, 0, 1)[None].float())
    assert maps.shape == (1, 512, 4, 4)
    expected = slow_resnet10(image, official_tree())
    np.testing.assert_allclose(maps[0].permute(1, 2, 0).numpy(), expected, rtol=1e-3, atol=1e-3)


def test_it_is_frozen(network: ResNet10) -> None:
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("official_names", [True, False])
def test_weights_come_from_safetensors_under_either_names(
    network: ResNet10, official_names: bool, tmp_path: Path
) -> None:
    tree = {name: torch.from_numpy(value) for name, value in official_tree().items()}
    save_file(tree if official_names else network.state_dict(), tmp_path / "resnet10.safetensors")
    assert load_resnet10(tmp_path / "resnet10.safetensors").fingerprint == network.fingerprint


def test_weights_that_do_not_fit_are_all_named(network: ResNet10, tmp_path: Path) -> None:
    weights = dict(network.state_dict())
    del weights["blocks.1.conv_proj.weight"]
    weights |= {"blocks.9.conv_0.weight": torch.zeros(1), "norm_init.bias": torch.zeros(63)}
    save_file(weights, tmp_path / "wrong.safetensors")
    with pytest.raises(EncoderWeightsError) as error:
        load_resnet10(tmp_path / "wrong.safetensors")
    text = str(error.value)
    assert "wrong.safetensors" in text and "missing: blocks.1.conv_proj.weight" in text
    assert "extra: blocks.9.conv_0.weight" in text and "norm_init.bias (63,) instead of (64,)" in text


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    with pytest.raises(EncoderWeightsError, match=r"cut\.safetensors"):
        load_resnet10(tmp_path / "cut.safetensors")


def test_random_weights_are_the_same_in_every_run() -> None:
    state = torch.random.get_rng_state()
    assert random_resnet10().fingerprint == random_resnet10().fingerprint
    assert torch.equal(torch.random.get_rng_state(), state)
