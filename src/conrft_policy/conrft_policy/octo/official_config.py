"""An official checkpoint's config.json, read as sizes and flags.

Both lines of releases are understood: the older one has neither ``repeat_task_tokens`` nor ``use_correct_attention``,
and the absence of each means False, as in the official code. Whatever this transformer does not compute (FiLM, token
learners, proprioception as tokens, further readouts) is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .config import ImageConfig, OctoConfig, OctoConfigError

Json = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

CAMERAS = {"image_primary": "side", "image_wrist": "wrist"}
"""Our cameras by the official observation's key."""
IMAGE_SIZES = {"primary": 256, "wrist": 128}  # pixels, of the released checkpoints
TEXT_WIDTHS = {"t5-small": 512, "t5-base": 768, "t5-large": 1024}
TEXT_TOKENS = 16
STEM_DEFAULTS: dict[str, Any] = {
    "use_film": False,
    "patch_size": 16,
    "kernel_sizes": [3, 3, 3, 3],
    "strides": [2, 2, 2, 2],
    "features": [32, 96, 192, 384],
    "padding": [1, 1, 1, 1],
    "num_features": 512,
    "img_norm_type": "default",
}
TRANSFORMER_KEYS = {
    "num_layers",
    "mlp_dim",
    "num_attention_heads",
    "dropout_rate",
    "attention_dropout_rate",
    "add_position_embedding",
}


def octo_config(official: Json, shapes: Shapes, cameras: Mapping[str, str]) -> OctoConfig:
    """Sizes and flags of a checkpoint.

    official: the parsed config.json. shapes: of the arrays by name relative to ``octo_transformer/``; asked only for
    what the configuration leaves open (image sizes, width of the text). cameras: our camera by observation key.
    Raises OctoConfigError that names the key.
    """
    try:
        model = official["model"]
        dim = int(model["token_embedding_size"])
        transformer = _transformer(model["transformer_kwargs"])
        tokenizers = model["observation_tokenizers"]
        _check_readouts(model["readouts"])
        return OctoConfig(
            images=tuple(_image(name, spec, official, shapes, cameras) for name, spec in tokenizers.items()),
            token_dim=dim,
            layers=int(transformer["num_layers"]),
            heads=int(transformer["num_attention_heads"]),
            mlp_dim=int(transformer["mlp_dim"]),
            language_tokens=_text_tokens(official),
            language_dim=_text_width(model["task_tokenizers"], shapes, dim),
            window=_window(official),
            max_horizon=int(model["max_horizon"]),
            readout_tokens=int(model["readouts"]["action"]),
            repeat_task_tokens=bool(model.get("repeat_task_tokens", False)),
            use_correct_attention=bool(model.get("use_correct_attention", False)),
        )
    except KeyError as error:
        raise OctoConfigError(f"key {error} is missing") from error
    except (TypeError, AttributeError) as error:
        raise OctoConfigError(f"not the configuration of an Octo model ({error})") from error


def text_encoder_name(official: Json) -> str:
    """What encodes the instructions, for example ``t5-base``."""
    return str(official["model"]["task_tokenizers"]["language"]["kwargs"].get("encoder") or "none")


def _transformer(kwargs: Json) -> Json:
    unknown = sorted(set(kwargs) - TRANSFORMER_KEYS)
    if unknown or kwargs.get("add_position_embedding", False):
        raise OctoConfigError(f"model.transformer_kwargs: not supported: {unknown or 'add_position_embedding'}")
    return kwargs


def _check_readouts(readouts: Json) -> None:
    if set(readouts) != {"action"}:
        raise OctoConfigError(f"model.readouts: exactly 'action' is supported, not {sorted(readouts)}")


def _image(name: str, spec: Json, official: Json, shapes: Shapes, cameras: Mapping[str, str]) -> ImageConfig:
    where = f"model.observation_tokenizers.{name}"
    if spec["name"] != "ImageTokenizer":
        raise OctoConfigError(f"{where}: {spec['name']} is not supported, only ImageTokenizer")
    kwargs = spec["kwargs"]
    key = _only(kwargs["obs_stack_keys"], f"{where}.obs_stack_keys")
    if list(kwargs.get("task_stack_keys", ())) != [key]:
        raise OctoConfigError(f"{where}.task_stack_keys: must name the goal image of {key!r}")
    if kwargs.get("use_token_learner", False) or kwargs.get("task_film_keys"):
        raise OctoConfigError(f"{where}: token learners and FiLM are not supported")
    if key not in cameras:
        raise OctoConfigError(f"{where}: no camera is known for {key!r}; name one with --camera {key}=CAMERA")
    stem = _stem(kwargs["encoder"], f"{where}.encoder")
    size = _image_size(name, official, shapes)
    features = tuple(int(width) for width in stem["features"])
    return ImageConfig(
        name=name,
        camera=cameras[key],
        source_size=size,
        size=size,
        features=features,
        embedding_dim=int(stem["num_features"]),
    )


def _stem(spec: Json, where: str) -> Json:
    known_names = {"SmallStem16": 16, "SmallStem": 32}  # and their default patch size
    if spec["name"] not in known_names:
        raise OctoConfigError(f"{where}: {spec['name']} is not supported, only SmallStem16")
    stem = {**STEM_DEFAULTS, "patch_size": known_names[spec["name"]], **spec["kwargs"]}
    for key, value in stem.items():
        fixed = key not in ("features", "num_features")
        if key not in STEM_DEFAULTS or (fixed and _plain(value) != STEM_DEFAULTS[key]):
            raise OctoConfigError(f"{where}.{key}: {value!r} is not supported")
    if len(stem["features"]) != len(STEM_DEFAULTS["features"]):
        raise OctoConfigError(f"{where}.features: {stem['features']!r} is not supported, four widths are expected")
    return stem


def _image_size(name: str, official: Json, shapes: Shapes) -> int:
    """Pixels along one side: as configured, else from the number of position embeddings, else as released."""
    for holder in (official.get("dataset_kwargs") or {}, official):
        sizes = (holder.get("frame_transform_kwargs") or {}).get("resize_size") or {}
        if isinstance(sizes, Mapping) and name in sizes:
            height, width = sizes[name]
            if height != width:
                raise OctoConfigError(f"resize_size.{name}: {height}x{width} is not square")
            return int(height)
    tokens = shapes.get(f"obs_{name}_pos_embedding", (0, 0, 0, 0))[-2:][0]
    side = math.isqrt(tokens)
    if side and side * side == tokens:
        return side * int(STEM_DEFAULTS["patch_size"])
    if name in IMAGE_SIZES:
        return IMAGE_SIZES[name]
    raise OctoConfigError(f"model.observation_tokenizers.{name}: nothing tells the size of its images")


def _text_tokens(official: Json) -> int:
    kwargs = (official.get("text_processor") or {}).get("kwargs") or {}
    return int((kwargs.get("tokenizer_kwargs") or {}).get("max_length", TEXT_TOKENS))


def _text_width(tokenizers: Json, shapes: Shapes, dim: int) -> int:
    if set(tokenizers) != {"language"} or tokenizers["language"]["name"] != "LanguageTokenizer":
        raise OctoConfigError("model.task_tokenizers: exactly 'language', a LanguageTokenizer, is supported")
    encoder = tokenizers["language"]["kwargs"].get("encoder")
    kernel = shapes.get("task_language_projection/kernel", ())
    if len(kernel) == 2 and kernel[1] == dim:
        return kernel[0]
    if encoder in TEXT_WIDTHS:
        return TEXT_WIDTHS[encoder]
    raise OctoConfigError(f"model.task_tokenizers.language.encoder: the width of {encoder!r} is unknown")


def _window(official: Json) -> int:
    trajectories = (official.get("dataset_kwargs") or {}).get("traj_transform_kwargs") or {}
    for value in (official.get("window_size"), trajectories.get("window_size")):
        if value is not None:
            return int(value)
    raise OctoConfigError("window_size: missing")


def _only(keys: Any, where: str) -> str:
    if len(keys) != 1 or set(str(keys[0])) & set("*+.?[|\\"):
        raise OctoConfigError(f"{where}: exactly one image is supported, not {list(keys)}")
    return str(keys[0])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
