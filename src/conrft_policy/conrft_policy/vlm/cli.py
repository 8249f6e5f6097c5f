"""``conrft backbone import robovlm``: a published RoboVLM checkpoint as a backbone's folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def register_import(formats: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``robovlm`` to ``conrft backbone import``."""
    parser = formats.add_parser("robovlm", help="checkpoint of RoboVLMs on Kosmos-2 or PaliGemma")
    parser.add_argument("checkpoint", type=Path, help=".safetensors, .pt or .ckpt")
    parser.add_argument("out", type=Path, help="folder to make; it appears whole or not at all")
    parser.add_argument(
        "--base",
        required=True,
        help="model that it was trained from, for tokenizer and image processor: a folder, or an id on the hub such as "
        "microsoft/kosmos-2-patch14-224",
    )
    parser.add_argument(
        "--camera",
        action="append",
        required=True,
        metavar="NAME=SIZE",
        help="static camera, then the one on the hand; SIZE is 256 or 480x640 (height x width)",
    )
    parser.add_argument("--history", type=int, default=2, help="frames of one embedding (default: %(default)s)")
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="auto: bfloat16 where the device computes in it, else float32 (default: %(default)s)",
    )
    parser.add_argument("--training", type=Path, help="RoboVLMs' own JSON of the run, to check it against")
    parser.set_defaults(run=run_import)


def run_import(args: argparse.Namespace) -> int:
    """Write the folder and print what was taken; exit code 2 with every name that does not fit."""
    from conrft_policy.backbone import BackboneError

    from .config import RoboVlmConfig, validate
    from .robovlm_checkpoint import import_robovlm

    try:
        cameras = [_camera(text) for text in args.camera]
        section = {"model": args.base, "cameras": cameras, "history": args.history}
        config = validate(RoboVlmConfig, section, "import robovlm")
        report = import_robovlm(args.checkpoint, args.out, config, training=args.training, precision=args.precision)
    except BackboneError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.out}: {report}")
    return 0


def _camera(text: str) -> dict[str, object]:
    """``side=256`` or ``side=480x640``; what is no number is refused with the configuration."""
    name, _, size = text.partition("=")
    height, _, width = size.partition("x")
    return {"camera": name, "height": height, "width": width or height}
