"""Weights say themselves what they fit; what is damaged or of another architecture is refused with a reason."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch

from conrft_policy.consistency_head import ConsistencyHead, HeadConfig
from conrft_policy.policy_weights import (
    PolicyWeights,
    WeightsRefused,
    architecture_fingerprint,
    load,
    pack,
    save,
    unpack,
)

BACKBONE = "ab" * 32


@pytest.fixture
def head() -> ConsistencyHead:
    return ConsistencyHead(HeadConfig(embedding_dim=12, hidden=(16,)))


def test_what_is_unpacked_is_what_was_packed(head: ConsistencyHead) -> None:
    copy = unpack(pack(head, version=7, backbone_fingerprint=BACKBONE), backbone_fingerprint=BACKBONE)
    assert copy.config == head.config
    for name, value in head.state_dict().items():
        assert torch.equal(copy.state_dict()[name], value), name
    assert not any(parameter.requires_grad for parameter in copy.parameters())


def test_packing_does_not_change_and_does_not_share(head: ConsistencyHead) -> None:
    first = pack(head, version=1, backbone_fingerprint=BACKBONE)
    assert pack(head, version=1, backbone_fingerprint=BACKBONE) == first
    with torch.no_grad():
        head.denoiser.output.bias += 1
    assert torch.count_nonzero(unpack(first, backbone_fingerprint=BACKBONE).denoiser.output.bias) == 0


def test_a_file_returns_the_same_weights(head: ConsistencyHead, tmp_path: Path) -> None:
    weights = pack(head, version=3, backbone_fingerprint=BACKBONE)
    save(weights, tmp_path / "run" / "policy.safetensors")
    assert load(tmp_path / "run" / "policy.safetensors") == weights
    assert load(tmp_path / "run") == weights, "a folder stands for the file in it"
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["policy.safetensors"], "no temporary file is left"


def test_damage_is_refused(head: ConsistencyHead, tmp_path: Path) -> None:
    weights = pack(head, version=3, backbone_fingerprint=BACKBONE)
    data = bytearray(weights.data)
    data[-1] ^= 1
    damaged = dataclasses.replace(weights, data=bytes(data))
    with pytest.raises(WeightsRefused, match="damaged"):
        unpack(damaged, backbone_fingerprint=BACKBONE)
    save(damaged, tmp_path / "policy.safetensors")
    with pytest.raises(WeightsRefused, match="damaged"):
        load(tmp_path / "policy.safetensors")


@pytest.mark.parametrize("data", [b"", b"x" * 40, b"\x05" + bytes(7) + b"{}   ", b"\x00\xff" * 500])
def test_what_is_no_safetensors_file_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "policy.safetensors").write_bytes(data)
    with pytest.raises(WeightsRefused, match=r"policy\.safetensors"):
        load(tmp_path)
    weights = PolicyWeights(version=1, fingerprint="f", sha256=hashlib.sha256(data).hexdigest(), data=data)
    with pytest.raises(WeightsRefused):
        unpack(weights, backbone_fingerprint=BACKBONE)


def test_a_cut_off_file_is_refused(head: ConsistencyHead, tmp_path: Path) -> None:
    weights = pack(head, version=3, backbone_fingerprint=BACKBONE)
    (tmp_path / "policy.safetensors").write_bytes(weights.data[:-4])
    with pytest.raises(WeightsRefused, match="damaged"):
        load(tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused, match="cannot be read"):
        load(tmp_path / "absent")


def test_another_backbone_is_refused(head: ConsistencyHead) -> None:
    with pytest.raises(WeightsRefused, match="another architecture or backbone"):
        unpack(pack(head, version=3, backbone_fingerprint=BACKBONE), backbone_fingerprint="cd" * 32)


def test_a_forged_fingerprint_is_refused(head: ConsistencyHead) -> None:
    weights = pack(head, version=3, backbone_fingerprint="cd" * 32)
    forged = dataclasses.replace(weights, fingerprint=architecture_fingerprint(head.config, BACKBONE))
    with pytest.raises(WeightsRefused, match="another architecture or backbone"):
        unpack(forged, backbone_fingerprint=BACKBONE)


def test_every_constant_of_the_head_counts_for_the_fingerprint() -> None:
    configs = [
        HeadConfig(embedding_dim=12),
        HeadConfig(embedding_dim=13),
        HeadConfig(embedding_dim=12, activation="silu"),
        HeadConfig(embedding_dim=12, sigma_max=5),
        HeadConfig(embedding_dim=12, fix_gripper=True),
    ]
    assert len({architecture_fingerprint(config, BACKBONE) for config in configs}) == len(configs)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(head: ConsistencyHead, value: float) -> None:
    with torch.no_grad():
        head.denoiser.output.weight[0, 0] = value
    with pytest.raises(WeightsRefused, match=r"not finite: denoiser\.output\.weight"):
        unpack(pack(head, version=3, backbone_fingerprint=BACKBONE), backbone_fingerprint=BACKBONE)
