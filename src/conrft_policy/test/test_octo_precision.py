"""An Octo at other precisions, compiled, and with random weights."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conrft_policy.backbone import Backbone, BackboneError, backbone_folder, load_backbone
from conrft_policy.octo.config import octo_nano
from conrft_policy.octo.frozen import FrozenOcto
from conrft_policy.octo.int8_linear import Int8Linear, balanced
from conrft_policy.octo.model import OctoTransformer

TASK = "pick_banana"


@pytest.fixture(scope="module")
def episode() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    sizes = {image.camera: image.source_size for image in octo_nano().images}
    return {name: generator.integers(0, 256, (6, size, size, 3), dtype=np.uint8) for name, size in sizes.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(backbone_folder("octo-nano"), tmp_path / "copy"))


def configured(folder: Path, **values: object) -> Backbone:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return load_backbone(folder, TASK)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("gelu", [False, True])
@torch.inference_mode()
def test_an_int8_layer_is_close_to_its_float_layer(gelu: bool) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(384, 256), torch.randn(2, 30, 384)
    expected = F.gelu(linear(x), approximate="tanh") if gelu else linear(x)
    result = Int8Linear(linear, gelu=gelu)(x)
    assert result.shape == expected.shape
    assert (result - expected).std() < 0.02 * expected.std()


@torch.inference_mode()
def test_a_row_with_large_values_coarsens_no_other() -> None:
    torch.manual_seed(0)
    layer, x = Int8Linear(nn.Linear(64, 64)), torch.randn(4, 64)
    beside = x.clone()
    beside[3] *= 1e4
    torch.testing.assert_close(layer(beside)[:3], layer(x)[:3], rtol=0, atol=0)


@torch.inference_mode()
def test_a_channel_that_the_norm_makes_large_does_not_take_the_bits_of_others() -> None:
    torch.manual_seed(0)
    norm, linear, x = nn.LayerNorm(64), nn.Linear(64, 64), torch.randn(20, 64)
    norm.weight[5] *= 50
    expected = linear(norm(x))
    fair_norm, fair = balanced(norm, linear)
    torch.testing.assert_close(fair(fair_norm(x)), expected, rtol=0, atol=1e-4)
    error = (Int8Linear(fair)(fair_norm(x)) - expected).std()
    assert error < 0.5 * (Int8Linear(linear)(norm(x)) - expected).std()


@torch.inference_mode()
def test_an_int8_layer_of_nothing_is_its_bias() -> None:
    linear = nn.Linear(8, 8)
    torch.testing.assert_close(Int8Linear(linear)(torch.zeros(2, 8)), linear.bias.expand(2, -1))


def test_int8_is_for_cpus() -> None:
    with pytest.raises(BackboneError, match="precision int8 is for CPUs, not for meta"):
        Int8Linear(nn.Linear(8, 8, device="meta"))


def test_int8_is_a_precision_of_config_json(folder: Path, episode) -> None:
    exact = load_backbone("octo-nano", TASK)
    coarse = configured(folder, precision="int8")
    assert coarse.precision == "int8"
    assert coarse.fingerprint != exact.fingerprint
    assert cosines(exact.encode_episode(episode), coarse.encode_episode(episode)).min() > 0.999
    assert coarse.memory_bytes < exact.memory_bytes


def test_int8_streams_the_numbers_of_the_whole_episode(folder: Path, episode) -> None:
    backbone = configured(folder, precision="int8")
    stream = backbone.stream()
    steps = np.stack([stream.step({name: frames[index] for name, frames in episode.items()}) for index in range(6)])
    np.testing.assert_array_equal(steps, backbone.encode_episode(episode))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_works_in_its_own_dtype(dtype: torch.dtype, episode) -> None:
    exact = load_backbone("octo-nano", TASK)
    half = load_backbone("octo-nano", TASK, dtype=dtype)
    assert {value.dtype for value in half._octo.parameters()} == {dtype}  # type: ignore[attr-defined]
    embeddings = half.encode_episode(episode)
    assert (embeddings.shape, embeddings.dtype) == ((6, 128), np.float32)
    assert cosines(exact.encode_episode(episode), embeddings).min() > 0.99
    assert half.memory_bytes < 0.55 * exact.memory_bytes


def test_a_backend_of_the_compiler_is_named(folder: Path) -> None:
    with pytest.raises(BackboneError, match=r"config\.json: compile True is no name of a torch\.compile backend"):
        configured(folder, compile=True)


def test_weights_are_kept_only_when_a_frame_has_to_be_embedded(folder: Path, episode) -> None:
    """A learner that finds all embeddings in its bags asks for the fingerprint only."""
    backbone = load_backbone(folder, TASK)
    assert len(backbone.fingerprint) == 64
    (folder / "weights.safetensors").unlink()
    with pytest.raises(BackboneError, match="weights missing"):
        backbone.encode_episode(episode)


def test_a_compiled_backbone_gives_the_same_numbers(folder: Path, episode) -> None:
    """Through the graph capture that every backend of torch.compile starts with; inductor needs a C++ compiler."""
    compiled = configured(folder, compile="aot_eager").encode_episode(episode)
    np.testing.assert_allclose(compiled, load_backbone("octo-nano", TASK).encode_episode(episode), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_every_tensor_of_the_acting_path_is_on_the_models_device() -> None:
    """On the meta device a tensor that was made on the CPU by mistake would be an error."""
    model = OctoTransformer(octo_nano()).to("meta")
    frozen = FrozenOcto(model, torch.empty(16, 384, device="meta"))
    frames = {
        image.name: torch.empty(2, image.source_size, image.source_size, 3, dtype=torch.uint8, device="meta")
        for image in octo_nano().images
    }
    embedding = frozen.embed(frozen.image_tokens(frames)[None])
    assert (embedding.shape, embedding.device.type) == ((1, 128), "meta")


def test_an_unknown_precision_lists_the_known(folder: Path) -> None:
    with pytest.raises(BackboneError, match=r"config\.json: precision 'int3' is none of \[.*'int8'\]"):
        configured(folder, precision="int3")


def test_random_weights_are_said_loudly_and_are_the_same_every_time(folder: Path, episode, caplog) -> None:
    for name in ("weights.safetensors", "instructions.safetensors"):
        (folder / name).unlink()
    first = configured(folder, weights="random")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "RANDOM WEIGHTS (random weights and random instruction tokens)" in caplog.text
    assert first.fingerprint == load_backbone(folder, TASK).fingerprint != load_backbone(folder, "other").fingerprint
    assert np.isfinite(first.encode_episode(episode)).all()


def test_random_weights_leave_the_callers_generator_alone(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    configured(folder, weights="random")
    assert torch.equal(torch.rand(1), expected)


def test_missing_weights_are_never_replaced_by_random_ones(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"weights\.safetensors: weights missing"):
        load_backbone(folder, TASK)


@pytest.mark.parametrize(("name", "parameters", "dim"), [("octo-small", 25.34e6, 384), ("octo-base", 90.2e6, 768)])
def test_the_official_sizes_are_there_without_a_checkpoint(name: str, parameters: float, dim: int, caplog) -> None:
    backbone = load_backbone(name, TASK)
    assert f"{name}: RANDOM WEIGHTS" in caplog.text
    assert backbone.parameters == pytest.approx(parameters, rel=0.02)
    assert backbone.embedding_dim == dim


def test_quantising_leaves_the_float_model_alone() -> None:
    model = OctoTransformer(octo_nano())
    before = copy.deepcopy(model.state_dict())
    FrozenOcto(model, torch.randn(16, 384), int8=True)
    for name, values in model.state_dict().items():
        torch.testing.assert_close(values, before[name], rtol=0, atol=0)
