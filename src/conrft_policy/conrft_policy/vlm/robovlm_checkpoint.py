"""RoboVLM's published checkpoints as backbone folders.

A checkpoint (.pt, .ckpt or .safetensors) names its tensors as the authors' Lightning module does: ``backbone.*`` is the
vision-language model under the names of the transformers release that they trained with, ``action_token`` the learned
token, ``act_head.*`` the policy head that the consistency head takes the place of. Tokenizer and image processor are
not in it: they come from the model that it was trained from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from conrft_policy.backbone import CONFIG_FILE, BackboneError

from .action_token import ACTION_TOKEN, reader_class
from .config import AUTO, RoboVlmConfig
from .pretrained import DESCRIPTION_SUFFIXES, INDEX_FILE, Pretrained, check_loading, find_model, transformers

MODEL_FOLDER = "model"
ACTION_TOKEN_FILE = "action_token.safetensors"
WRAPPERS = ("_forward_module.", "module.", "model.")
"""What DeepSpeed, DistributedDataParallel and Lightning put before a name, outermost first."""
LEFT_OUT = ("act_head.", "fwd_head.", "clip_norm_head.", "lm_head.")
"""Heads, which a backbone has no use for."""
STATE_KEYS = ("state_dict", "model_state_dict")


@dataclass(frozen=True)
class Contents:
    """A checkpoint's tensors, sorted by what they are for."""

    model: dict[str, Tensor] = field(default_factory=dict)
    action_token: Tensor | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    """Number of tensors by the part of the policy that they belong to."""
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What an import took and what it left."""

    tensors: int
    parameters: int
    left_out: Mapping[str, int]

    def __str__(self) -> str:
        left = ", ".join(f"{part}* ({count})" for part, count in sorted(self.left_out.items())) or "nothing"
        return (
            f"took {self.tensors} tensors of the model ({self.parameters / 1e6:.2f} M parameters), the action token; "
            f"none missing, unexpected or of another shape; left out: {left}"
        )


def import_robovlm(
    checkpoint: Path, out: Path, config: RoboVlmConfig, *, training: Path | None = None, precision: str = AUTO
) -> Report:
    """Write a backbone folder from a checkpoint; nothing half-written is left.

    config: ``model`` is what the checkpoint was trained from (folder or hub id), whose tokenizer and image processor
    are copied. training: RoboVLM's own JSON of the run, checked against what a backbone can do. Raises BackboneError
    that lists every missing, unexpected or wrongly shaped tensor by name.
    """
    if out.exists():
        raise BackboneError(f"{out}: is there already")
    if training is not None:
        check_training(training, config)
    base = Pretrained(find_model(config.model, Path.cwd(), config.revision, weights=False))
    kind = reader_class(base)
    contents = sort_tensors(read_tensors(checkpoint))
    token = _action_token(contents, kind.width(base.config), checkpoint)
    model, report = getattr(transformers(), kind.model_class).from_pretrained(
        None, config=base.config, state_dict=contents.model, output_loading_info=True, ignore_mismatched_sizes=True
    )
    report = {key: set(value) for key, value in report.items()}
    report["unexpected_keys"] = report.get("unexpected_keys", set()) | set(contents.unknown)
    check_loading(report, str(checkpoint))

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(partial, model, base, token, config, precision)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Report(tensors=len(contents.model), parameters=parameters, left_out=contents.left_out)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A checkpoint's tensors by name. Only tensors are read: a file that needs code to be run is refused."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise BackboneError(f"{path}: checkpoint missing, cut off or damaged ({error})") from error
    except Exception as error:  # torch gives its refusal the type of the module that it refuses to run
        raise BackboneError(
            f"{path}: holds more than tensors, which is not loaded because it could run code; save its state_dict "
            f"as safetensors ({type(error).__name__})"
        ) from error
    state = next((content[key] for key in STATE_KEYS if key in content), content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BackboneError(f"{path}: holds no state_dict of tensors")
    return state


def sort_tensors(state: Mapping[str, Tensor]) -> Contents:
    """Sort tensors by what they are for, without what training frameworks put before their names."""
    contents: dict[str, Any] = {"model": {}, "action_token": None, "left_out": {}, "unknown": []}
    for original, tensor in state.items():
        name = original
        for wrapper in WRAPPERS:
            name = name.removeprefix(wrapper)
        # The language model's head too: nobody reads its words, and it is tied to the embeddings.
        part = next((part for part in LEFT_OUT if name.startswith(part) or name.endswith(f".{part}weight")), None)
        if name.startswith("backbone.") and part is None:
            contents["model"][name.removeprefix("backbone.")] = tensor
        elif name == ACTION_TOKEN:
            contents["action_token"] = tensor
        elif part is not None:
            contents["left_out"][part] = contents["left_out"].get(part, 0) + 1
        else:
            contents["unknown"].append(original)
    return Contents(**contents)


def check_training(path: Path, config: RoboVlmConfig) -> None:
    """Refuse what a run's own JSON says and a backbone would read otherwise; BackboneError names all of it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        head = values["act_head"]
        found = {
            "act_head.action_space": (head.get("action_space", "continuous"), "continuous"),
            "act_head.latent": (head.get("latent", 1), 1),
            "act_head.history_type": (head.get("history_type", "post"), "post"),
            "use_vision_resampler": (values.get("use_vision_resampler", False), False),
            "use_hand_rgb": (values["use_hand_rgb"], len(config.cameras) == 2),
        }
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BackboneError(f"{path}: not RoboVLM's configuration of a run ({error!r})") from error
    wrong = [f"{key} is {value!r}, needed is {needed!r}" for key, (value, needed) in found.items() if value != needed]
    if wrong:
        raise BackboneError(f"{path}: {'; '.join(wrong)}")


def _action_token(contents: Contents, width: int, checkpoint: Path) -> Tensor:
    token = contents.action_token
    if token is None or tuple(token.shape) != (width,):
        found = "missing" if token is None else f"of shape {tuple(token.shape)}"
        raise BackboneError(f"{checkpoint}: {ACTION_TOKEN!r} is {found}, the model needs {(width,)}")
    return token


def _write(folder: Path, model: Any, base: Pretrained, token: Tensor, config: RoboVlmConfig, precision: str) -> None:
    (folder / MODEL_FOLDER).mkdir(parents=True)
    for file in base.folder.iterdir():
        if file.suffix in DESCRIPTION_SUFFIXES and file.name != INDEX_FILE:
            shutil.copy(file, folder / MODEL_FOLDER / file.name)
    model.save_pretrained(folder / MODEL_FOLDER)
    save_file({ACTION_TOKEN: token.float().contiguous()}, folder / ACTION_TOKEN_FILE)
    section = config.model_copy(update={"model": MODEL_FOLDER, "revision": None, "action_token": ACTION_TOKEN_FILE})
    values = {
        "architecture": "robovlm",
        "precision": precision,
        "robovlm": section.model_dump(mode="json", exclude_none=True),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
