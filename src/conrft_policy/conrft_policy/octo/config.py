"""Sizes and flags of an Octo transformer, and their JSON form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class OctoConfigError(ValueError):
    """A configuration that no Octo transformer can be built from; the message names the key."""


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """One camera: what it delivers, what its stem sees, and the stem's widths."""

    name: str
    """Name in Octo's parameter tree, for example ``primary``."""
    camera: str
    """Name of the camera in the observations, for example ``side``."""
    source_size: int
    """Height and width of the delivered image, pixels; an integer multiple of ``size`` (reduced by area averaging)."""
    size: int
    """Height and width that the stem sees, pixels; a multiple of 2 ** len(features)."""
    features: tuple[int, ...] = (32, 96, 192, 384)
    """Output channels of the stride-2 convolutions."""
    embedding_dim: int = 512
    """Channels of the closing 1x1 convolution."""
    groups: int = 32
    """Groups of each group normalisation."""

    def __post_init__(self) -> None:
        if self.size % self.patch_size:
            raise OctoConfigError(f"images.{self.name}.size: {self.size} is no multiple of {self.patch_size}")
        if self.source_size % self.size:
            raise OctoConfigError(
                f"images.{self.name}.source_size: {self.source_size} is no multiple of size ({self.size})"
            )
        if any(width % self.groups for width in self.features):
            raise OctoConfigError(f"images.{self.name}.features: {self.features} are not all multiples of groups")

    @property
    def patch_size(self) -> int:
        """Pixels along one side of the square that becomes one token."""
        return int(2 ** len(self.features))

    @property
    def tokens(self) -> int:
        """Tokens of one image, row by row."""
        return int((self.size // self.patch_size) ** 2)


@dataclass(frozen=True, kw_only=True)
class OctoConfig:
    """An Octo transformer; the defaults are those of the 1.5 line."""

    images: tuple[ImageConfig, ...]
    """Cameras in token order."""
    token_dim: int
    """Width of every token and of the embedding."""
    layers: int
    heads: int
    mlp_dim: int
    language_tokens: int = 16
    """Tokens of one instruction, padding included."""
    language_dim: int = 768
    """Width of the text encoder's output."""
    window: int = 2
    """Observations that are read at once, the current one last."""
    max_horizon: int = 10
    """Timesteps for which position embeddings exist."""
    readout_tokens: int = 1
    repeat_task_tokens: bool = True
    """Put a copy of the language tokens into every timestep (the 1.5 line does)."""
    use_correct_attention: bool = True
    """False reproduces the mask of the older line, in which a group's first token counts to the group before it."""

    def __post_init__(self) -> None:
        if self.token_dim % self.heads:
            raise OctoConfigError(f"token_dim: {self.token_dim} is no multiple of heads ({self.heads})")
        if not 1 <= self.window <= self.max_horizon:
            raise OctoConfigError(f"window: {self.window} is outside 1..max_horizon ({self.max_horizon})")
        if len({image.name for image in self.images}) != len(self.images) or not self.images:
            raise OctoConfigError("images: at least one is needed, and no name twice")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.token_dim // self.heads

    @property
    def image_tokens(self) -> int:
        """Image tokens of one timestep, all cameras together."""
        return sum(image.tokens for image in self.images)

    @property
    def step_tokens(self) -> int:
        """All tokens of one timestep: images, repeated language, readout."""
        repeated = self.language_tokens if self.repeat_task_tokens else 0
        return self.image_tokens + repeated + self.readout_tokens

    def to_json(self) -> dict[str, Any]:
        """A JSON-compatible dictionary that ``from_json`` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> OctoConfig:
        """Build from a parsed JSON object; OctoConfigError names an unknown, missing or impossible key."""
        _check_keys(cls, values, where="")
        images = tuple(_image_from_json(image) for image in values["images"])
        return cls(**{**values, "images": images})


def _image_from_json(values: Mapping[str, Any]) -> ImageConfig:
    _check_keys(ImageConfig, values, where="images.")
    features = {"features": tuple(values["features"])} if "features" in values else {}
    return ImageConfig(**{**values, **features})


def _check_keys(cls: type, values: Mapping[str, Any], *, where: str) -> None:
    fields = dataclasses.fields(cls)
    unknown = sorted(set(values) - {field.name for field in fields})
    missing = [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in values]
    if unknown or missing:
        raise OctoConfigError(f"configuration {where or 'root'}: unknown keys {unknown}, missing keys {missing}")


def octo_small() -> OctoConfig:
    """octo-small 1.5 (27 M parameters with the diffusion head, 25.3 M without)."""
    return OctoConfig(images=_official_images(), token_dim=384, layers=12, heads=6, mlp_dim=1536)


def octo_base() -> OctoConfig:
    """octo-base 1.5; the image embedding stays 512 wide."""
    return OctoConfig(images=_official_images(), token_dim=768, layers=12, heads=12, mlp_dim=3072)


def octo_nano() -> OctoConfig:
    """Our small configuration: 10 Hz beside a training learner on two cores, embedding 128 wide."""
    stem = {"features": (16, 32, 64, 128), "embedding_dim": 128, "groups": 8}
    return OctoConfig(
        images=(
            ImageConfig(name="primary", camera="side", source_size=256, size=128, **stem),  # type: ignore[arg-type]
            ImageConfig(name="wrist", camera="wrist", source_size=128, size=64, **stem),  # type: ignore[arg-type]
        ),
        token_dim=128,
        layers=2,
        heads=4,
        mlp_dim=256,
        language_dim=384,
        max_horizon=2,
        repeat_task_tokens=False,
    )


def _official_images() -> tuple[ImageConfig, ...]:
    return (
        ImageConfig(name="primary", camera="side", source_size=256, size=256),
        ImageConfig(name="wrist", camera="wrist", source_size=128, size=128),
    )
