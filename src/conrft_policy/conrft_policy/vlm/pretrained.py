"""A model of ``transformers`` on disk: found, identified, and loaded from safetensors, never from a pickle.

Only this module touches the package, and not before a backbone asks for it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from conrft_policy.backbone import BackboneError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
DESCRIPTION_SUFFIXES = {".json", ".txt", ".model", ".jinja"}  # configuration, tokenizer, image processor, chat template
FLOATS = {"F64", "F32", "BF16", "F16"}


def transformers() -> Any:
    """The package; BackboneError says how to install it."""
    return _import("transformers")


def find_model(model: str, folder: Path, revision: str | None, *, weights: bool = True) -> Path:
    """The folder of a model: a path (relative to ``folder``), the hub's cache on this machine, or a download.

    The cache is asked first, so that a machine without a network starts as fast as one with it. weights: False for
    configuration, tokenizer and image processor alone.
    """
    for candidate in (folder / model, Path(model).expanduser()):
        if candidate.is_dir():
            return candidate.resolve()
    hub = _import("huggingface_hub")
    patterns = [f"*{suffix}" for suffix in sorted(DESCRIPTION_SUFFIXES)] + ["*.safetensors"] * weights
    try:
        return Path(hub.snapshot_download(model, revision=revision, allow_patterns=patterns, local_files_only=True))
    except (OSError, ValueError):  # not in the cache, or no valid id: the next call says which
        pass
    try:
        return Path(hub.snapshot_download(model, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises whatever its HTTP library does
        raise BackboneError(
            f"model {model!r}: no folder here or in {folder}, not in the hub's cache, and it cannot be downloaded "
            f"({_first_line(error)})"
        ) from error


@dataclass(frozen=True)
class Pretrained:
    """The folder of a model as ``save_pretrained`` writes it."""

    folder: Path

    @cached_property
    def config(self) -> Any:
        """The model's own configuration."""
        try:
            return transformers().AutoConfig.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise BackboneError(f"{self.folder}: no model that transformers knows: {_first_line(error)}") from error

    @cached_property
    def parameters(self) -> int:
        """Number of the stored parameters; read from the files' headers."""
        return sum(math.prod(shape) for _, shape, kind in self._headers() if kind in FLOATS)

    def fingerprint(self) -> str:
        """Sha256 over every tensor by name, and over the files that say how text and images become its input.

        It reads the weights once from disk and keeps none of them: what a learner needs that never runs the model.
        How the tensors are spread over files does not matter.
        """
        digest = hashlib.sha256()
        for path in sorted(self.folder.iterdir()):
            if path.suffix in DESCRIPTION_SUFFIXES and path.name != INDEX_FILE:
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
        with ExitStack() as stack:
            for name, file in self._open(stack):
                tensor = file.get_tensor(name)
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def processor(self) -> Any:
        """Tokenizer and image processor, as the model's makers saved them."""
        library = transformers()
        try:
            kind = _without_video(self.config) if find_spec("torchvision") is None else None
            if kind is not None:
                return kind.from_pretrained(self.folder, local_files_only=True)
            return library.AutoProcessor.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, ImportError, TypeError, AttributeError) as error:
            raise BackboneError(f"{self.folder}: its processor cannot be loaded: {_first_line(error)}") from error

    def model(self, kind: Any, *, dtype: torch.dtype, device: torch.device) -> Any:
        """The model, frozen; names and shapes of its weights must fit exactly, else BackboneError lists them."""
        try:
            model, report = kind.from_pretrained(
                self.folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (SafetensorError, OSError, ValueError, RuntimeError, ImportError) as error:
            raise BackboneError(f"{self.folder}: the model cannot be loaded: {_first_line(error)}") from error
        check_loading(report, str(self.folder))
        return model.requires_grad_(False).eval().to(device)

    def _open(self, stack: ExitStack) -> Iterator[tuple[str, Any]]:
        """Every tensor's name and its open file, sorted by name."""
        found: dict[str, Any] = {}
        for path in self._weight_files():
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise BackboneError(f"{path}: weights missing, cut off or damaged ({error})") from error
            found.update(dict.fromkeys(file.keys(), file))
        yield from sorted(found.items())

    def _headers(self) -> Iterator[tuple[str, tuple[int, ...], str]]:
        with ExitStack() as stack:
            for name, file in self._open(stack):
                part = file.get_slice(name)
                yield name, tuple(part.get_shape()), part.get_dtype()

    def _weight_files(self) -> list[Path]:
        index = self.folder / INDEX_FILE
        if not index.is_file():
            return [self.folder / WEIGHTS_FILE]
        try:
            return [self.folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise BackboneError(f"{index}: not an index of safetensors files ({error})") from error


def check_loading(report: dict[str, Any], where: str) -> None:
    """Raises BackboneError with the names that ``from_pretrained`` found missing, unexpected or of another shape."""
    problems = [
        f"{what}: {', '.join(sorted(str(name) for name in report.get(key) or ()))}"
        for what, key in (
            ("missing", "missing_keys"),
            ("unexpected", "unexpected_keys"),
            ("of another shape", "mismatched_keys"),
            ("failed", "error_msgs"),
        )
        if report.get(key)
    ]
    if problems:
        raise BackboneError(f"{where}: weights do not fit the model's config.json: {'; '.join(problems)}")


def _without_video(config: Any) -> Any:
    """The model's processor without its video part, which nobody needs here and which needs torchvision.

    None where there is nothing to leave out.
    """
    mapping = importlib.import_module("transformers.models.auto.processing_auto").PROCESSOR_MAPPING
    if type(config) not in mapping:
        return None
    kind: Any = mapping[type(config)]
    parts = kind.get_attributes()
    if parts[-1:] != ["video_processor"]:
        return None

    # SmolVLM's refuses to be made without num2words, with which it would count a video's frames in its prompt.
    module = importlib.import_module(kind.__module__)
    if getattr(module, "num2words", kind) is None:
        vars(module)["num2words"] = str

    def arguments(cls: Any, *args: Any, **options: Any) -> list[Any]:
        return [*kind._get_arguments_from_pretrained.__func__(cls, *args, **options), None]

    members = {
        "get_attributes": classmethod(lambda _: parts[:-1]),
        "_get_arguments_from_pretrained": classmethod(arguments),
    }
    return type(kind.__name__, (kind,), members)


def _import(module: str) -> Any:
    try:
        package = importlib.import_module(module)
    except ImportError as error:
        raise BackboneError(
            f"a vision-language backbone needs the package {module!r}: pip install transformers"
        ) from error
    if module == "transformers":
        package.utils.logging.disable_progress_bar()  # a node's log is no terminal
    return package


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
