"""The trainable part of a policy on its way from the learner: safetensors bytes that say themselves what they fit.

safetensors and JSON only, so that reading a file or a message can never run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from conrft_data.durable_files import publish, sync_file
from conrft_policy.consistency_head import ConsistencyHead, HeadConfig

POLICY_FILE = "policy.safetensors"
FORMAT = 1

_METADATA_KEY = "conrft_policy"
_LENGTH = struct.Struct("<Q")


class WeightsRefused(ValueError):
    """Weights that the policy does not act with; the text is the reason, for a person."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyWeights:
    """One publication of the trainable part; the fields are those of ``conrft_msgs/Weights``.

    Attributes:
        version: grows with every publication of one run.
        fingerprint: of the head's architecture and of the backbone it was trained on.
        sha256: of data, hexadecimal.
        data: safetensors, with the head's configuration in its metadata.
    """

    version: int
    fingerprint: str
    sha256: str
    data: bytes


def architecture_fingerprint(config: HeadConfig, backbone_fingerprint: str) -> str:
    """sha256, hexadecimal, of all that decides whether weights fit: the head's configuration and the backbone."""
    text = json.dumps({"head": config.model_dump(mode="json"), "backbone": backbone_fingerprint}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def pack(head: ConsistencyHead, *, version: int, backbone_fingerprint: str) -> PolicyWeights:
    """Exports the head's parameters as they are now; equal parameters and version give equal bytes."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    fingerprint = architecture_fingerprint(head.config, backbone_fingerprint)
    about = {
        "format": FORMAT,
        "version": version,
        "fingerprint": fingerprint,
        "backbone": backbone_fingerprint,
        "head": head.config.model_dump(mode="json"),
        "payload_sha256": hashlib.sha256(_split(save_tensors(tensors))[1]).hexdigest(),
    }
    # One JSON value and not one entry a key: safetensors writes its metadata in no fixed order.
    data = save_tensors(tensors, {_METADATA_KEY: json.dumps(about, sort_keys=True)})
    digest = hashlib.sha256(data).hexdigest()
    return PolicyWeights(version=version, fingerprint=fingerprint, sha256=digest, data=data)


def unpack(weights: PolicyWeights, *, backbone_fingerprint: str) -> ConsistencyHead:
    """A new head with these weights, on the CPU and in evaluation mode.

    Raises:
        WeightsRefused: damaged, of another architecture or backbone, or with numbers that are not finite.
    """
    if hashlib.sha256(weights.data).hexdigest() != weights.sha256:
        raise WeightsRefused(f"weights version {weights.version} are damaged: sha256 does not match")
    about = _about(weights.data)
    try:
        config = HeadConfig.model_validate(about.get("head"))
    except ValidationError as error:
        raise WeightsRefused(f"weights version {weights.version} have a head of unknown form: {error}") from error
    expected = architecture_fingerprint(config, backbone_fingerprint)
    if weights.fingerprint != expected or about.get("fingerprint") != expected:
        raise WeightsRefused(
            f"weights version {weights.version} were trained on another architecture or backbone: "
            f"fingerprint {weights.fingerprint[:12]}, this policy's is {expected[:12]}"
        )
    return _head(config, weights)


def save(weights: PolicyWeights, file: str | Path) -> None:
    """Writes the file at once: a reader finds the old file or the new one, never a part."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(weights.data)
        sync_file(temporary)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(file: str | Path) -> PolicyWeights:
    """Reads a file written by ``save``, or such a file named ``policy.safetensors`` in a folder.

    Raises:
        WeightsRefused: missing, cut off or damaged.
    """
    path = Path(file)
    path = path / POLICY_FILE if path.is_dir() else path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsRefused(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        about = _about(data)
    except WeightsRefused as error:
        raise WeightsRefused(f"{path}: {error}") from error
    if hashlib.sha256(_split(data)[1]).hexdigest() != about.get("payload_sha256"):
        raise WeightsRefused(f"{path}: is damaged: sha256 of the parameters does not match")
    digest = hashlib.sha256(data).hexdigest()
    return PolicyWeights(version=int(about["version"]), fingerprint=str(about["fingerprint"]), sha256=digest, data=data)


def describe(weights: PolicyWeights) -> dict[str, Any]:
    """What the weights say about themselves: version, fingerprint, backbone, and the head's configuration."""
    return _about(weights.data)


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Header and payload of safetensors bytes: 8 bytes of length, JSON, then the numbers."""
    if len(data) < _LENGTH.size or _LENGTH.unpack_from(data)[0] > len(data) - _LENGTH.size:
        raise WeightsRefused("is no safetensors file, or cut off")
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    return data[_LENGTH.size : end], data[end:]


def _about(data: bytes) -> dict[str, Any]:
    """What the weights say about themselves."""
    try:
        header = json.loads(_split(data)[0])
        about = json.loads(header["__metadata__"][_METADATA_KEY])
        known = about["format"] == FORMAT and about["version"] >= 0 and bool(about["fingerprint"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, WeightsRefused):
            raise
        raise WeightsRefused("holds no weights of a consistency policy") from error
    if not known:
        raise WeightsRefused(f"has format {about['format']}, this software reads {FORMAT}")
    return about


def _head(config: HeadConfig, weights: PolicyWeights) -> ConsistencyHead:
    try:
        tensors = load_tensors(weights.data)
    except SafetensorError as error:
        raise WeightsRefused(f"weights version {weights.version} are damaged: {error}") from error
    broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise WeightsRefused(f"weights version {weights.version} hold numbers that are not finite: {', '.join(broken)}")
    head = ConsistencyHead(config)
    try:
        head.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise WeightsRefused(f"weights version {weights.version} do not fit the head: {error}") from error
    return head.eval().requires_grad_(False)
