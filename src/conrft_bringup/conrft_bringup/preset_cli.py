"""``conrft preset``: the learner's presets, with every setting described and its range."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import yaml

_SIDES = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``preset`` and its subcommands."""
    parser = subparsers.add_parser("preset", help="the learner's presets")
    commands = parser.add_subparsers(dest="preset_command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="the shipped presets")
    listing.set_defaults(run=run_list)
    show = commands.add_parser(
        "show",
        help="every setting of a preset, described",
        description="Prints a whole preset as YAML, each setting with its description and range: "
        "the beginning of a preset file of one's own.",
    )
    show.add_argument("preset", metavar="NAME|FILE", help="a shipped preset, or a YAML file")
    show.set_defaults(run=run_show)


def run_list(args: argparse.Namespace) -> int:
    """Prints name and description of each shipped preset."""
    from conrft_data.config import load_config
    from conrft_learner.presets import Preset

    for file in _shipped():
        print(f"{file.stem:<16}{load_config(Preset, file).description}")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Prints one preset; an unknown or wrong one is one sentence and exit code 2."""
    from conrft_data.config import ConfigError, load_config
    from conrft_learner.presets import Preset

    shipped = {file.stem: file for file in _shipped()}
    file = shipped.get(args.preset, Path(args.preset))
    try:
        if not file.is_file():
            raise ConfigError(f"there is no preset '{args.preset}'; shipped: {', '.join(shipped)}")
        preset = load_config(Preset, file)
    except ConfigError as error:
        print(f"conrft preset: {error}", file=sys.stderr)
        return 2
    schema = Preset.model_json_schema()["properties"]
    values = preset.model_dump(mode="json")
    print("\n".join(_described(name, values[name], about) for name, about in schema.items()))
    return 0


def _shipped() -> list[Path]:
    from conrft_bringup.launch_runner.ament_index import package_share

    return sorted((package_share("conrft_bringup", os.environ) / "config" / "presets").glob("*.yaml"))


def _described(name: str, value: Any, about: dict[str, Any]) -> str:
    """A setting as YAML under a comment that describes it."""
    parts = [about["description"], _range(about)]
    if "default" in about and about["default"] != value:
        parts.append(f"default {_yaml(about['default'])}")
    return f"# {'; '.join(part for part in parts if part)}\n{name}: {_yaml(value)}"


def _range(about: dict[str, Any]) -> str:
    """What a setting may be, in the notation of intervals; empty where any text may stand."""
    kinds = [kind for kind in about.get("anyOf", [about]) if kind.get("type") != "null"]
    (kind,) = kinds
    if "enum" in kind:
        return f"one of {', '.join(kind['enum'])}"
    if kind["type"] == "array":
        return f"{kind['minItems']} to {kind['maxItems']} numbers in {_range(kind['items'])}"
    if kind["type"] == "boolean":
        return "true or false"
    low, above, high, below = (kind.get(side) for side in _SIDES)
    if all(side is None for side in (low, above, high, below)):
        return ""
    begin = f"[{low}" if low is not None else f"({above}"
    end = f"{high}]" if high is not None else f"{below})"
    return f"{begin}, {end}"


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()
