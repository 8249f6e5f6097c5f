"""What a vision-language backbone's config.json says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import Field, ValidationError, field_validator

from conrft_data.config import Config
from conrft_policy.backbone import CONFIG_FILE, BackboneError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"
"""``precision``: bfloat16 on a CUDA device that computes in it, else float32."""


class CameraConfig(Config):
    """One camera and the images that it gives; the model's own processor scales them to what the model takes."""

    camera: str = Field(min_length=1, description="name of the camera, as in the task")
    height: int = Field(ge=16, le=1024, description="pixels")
    width: int = Field(ge=16, le=1024, description="pixels")


class VlmConfig(Config):
    """A vision-language model and how frames and instruction are put to it."""

    model: str = Field(
        min_length=1, description="folder of the model, relative to config.json or absolute, or an id on the hub"
    )
    revision: str | None = Field(default=None, description="commit, tag or branch on the hub; none: main")
    cameras: tuple[CameraConfig, ...] = Field(min_length=1, max_length=8, description="the scene's camera first")
    history: int = Field(
        default=2, ge=1, le=16, description="frames of one embedding; each is read by itself, oldest first"
    )
    prompt: str | None = Field(default=None, description="text with {instruction} in it; none: the model's own")
    instructions: dict[str, str] = Field(default_factory=dict, description="text by name of the task")

    @field_validator("prompt")
    @classmethod
    def _prompt_has_a_place(cls, prompt: str | None) -> str | None:
        if prompt is not None and prompt.count("{instruction}") != 1:
            raise ValueError("must hold {instruction} exactly once")
        return prompt

    @field_validator("cameras")
    @classmethod
    def _cameras_differ(cls, cameras: tuple[CameraConfig, ...]) -> tuple[CameraConfig, ...]:
        if len({camera.camera for camera in cameras}) != len(cameras):
            raise ValueError("a camera stands there twice")
        return cameras

    def instruction(self, task: str) -> str:
        """The instruction of a task: found by the task's name, or the text itself.

        Raises BackboneError for one word that names no task: no instruction is one word, a forgotten name is.
        """
        wanted = " ".join(task.split())
        if wanted in self.instructions:
            return self.instructions[wanted]
        if " " in wanted:
            return wanted
        stored = "; ".join(f"{name}: {text!r}" for name, text in sorted(self.instructions.items())) or "nothing"
        raise BackboneError(f"no instruction for {task!r} (stored: {stored}); add it to 'instructions'")


class RoboVlmConfig(VlmConfig):
    """A RoboVLM: a model that was taught an action token, ``google/paligemma`` or ``microsoft/kosmos-2``."""

    cameras: tuple[CameraConfig, ...] = Field(
        min_length=1, max_length=2, description="the static camera, then the one on the hand if there is one"
    )
    action_token: str | None = Field(
        default=None, description="safetensors file of the learned token, relative to config.json; none: zeros"
    )


SectionT = TypeVar("SectionT", bound=VlmConfig)
SECTIONS: dict[str, type[VlmConfig]] = {"robovlm": RoboVlmConfig, "transformers": VlmConfig}


def parse_config(folder: Path, values: dict[str, Any]) -> tuple[VlmConfig, str]:
    """The section of the architecture and the name of the precision; BackboneError names file and key."""
    path = folder / CONFIG_FILE
    architecture = values["architecture"]
    unknown = sorted(set(values) - {"architecture", "precision", architecture})
    if unknown:
        raise BackboneError(f"{path}: unknown keys {unknown}")
    precision = values.get("precision", AUTO)
    if precision != AUTO and precision not in PRECISIONS:
        raise BackboneError(f"{path}: precision {precision!r} is none of {[AUTO, *PRECISIONS]}")
    if not isinstance(values.get(architecture), dict):
        raise BackboneError(f"{path}: key {architecture!r} is missing")
    return validate(SECTIONS[architecture], values[architecture], f"{path}: {architecture}"), precision


def validate(kind: type[SectionT], section: dict[str, Any], where: str) -> SectionT:
    """A section as its class; BackboneError names every wrong key of ``where``."""
    try:
        return kind.model_validate(section)
    except ValidationError as error:
        raise BackboneError(f"{where}: {'; '.join(_sentence(dict(item)) for item in error.errors())}") from error


def resolve_precision(name: str, device: torch.device, dtype: torch.dtype | None) -> torch.dtype:
    """The type to compute in: what the caller asks for, else what config.json says."""
    if dtype is not None:
        return dtype
    if name != AUTO:
        return PRECISIONS[name]
    capable = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if capable else torch.float32


def _sentence(item: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    return f"{key} is not a known key" if item["type"] == "extra_forbidden" else f"{key}: {item['msg']}"
