"""``conrft backbone``: look at a backbone, prepare an instruction."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conrft_policy.backbone import Backbone

CONTROL_PERIOD_MS = 100.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``backbone`` and its subcommands."""
    parser = subparsers.add_parser("backbone", help="frozen VLA backbones")
    commands = parser.add_subparsers(dest="backbone_command", required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="sizes, fingerprint, and the time of one acting step on this machine")
    info.add_argument("backbone", nargs="?", default="octo-nano", help="name of a shipped backbone, or a folder")
    info.add_argument("--task", default="pick_banana", help="task name or instruction (default: %(default)s)")
    info.add_argument("--ticks", type=int, default=50, help="acting steps to measure (default: %(default)s)")
    info.set_defaults(run=run_info)

    tokens = commands.add_parser("tokens", help="encode an instruction once and store it beside the weights")
    tokens.add_argument("folder", type=Path, help="the backbone's folder, which holds config.json")
    tokens.add_argument("--task", required=True, help="name of the task")
    tokens.add_argument("--instruction", required=True, help="text of the instruction")
    tokens.set_defaults(run=run_tokens)


def run_info(args: argparse.Namespace) -> int:
    """Print what a backbone is and whether it keeps 10 Hz here."""
    from conrft_policy.backbone import backbone_folder, load_backbone, read_config

    folder = backbone_folder(args.backbone)
    backbone = load_backbone(folder, args.task)
    median = _step_ms(backbone, args.ticks)
    print(f"folder       {folder}")
    print(f"architecture {read_config(folder)['architecture']}")
    print(f"instruction  {backbone.instruction}")
    print(f"fingerprint  {backbone.fingerprint}")
    print(f"cameras      {', '.join(f'{name} {h}x{w}' for name, (h, w) in backbone.image_sizes.items())}")
    print(f"embedding    {backbone.embedding_dim}, from {backbone.history} frames")
    print(f"parameters   {backbone.parameters / 1e6:.2f} M, {backbone.precision}")
    print(f"memory       {backbone.memory_bytes / 2**20:.1f} MiB of weights and constants")
    print(f"acting step  {median:.1f} ms (median of {args.ticks})")
    print(f"10 Hz        {'yes' if median < CONTROL_PERIOD_MS / 2 else 'no'} (half a period is left to the rest)")
    return 0


def _step_ms(backbone: Backbone, ticks: int) -> float:
    """Median time of an acting step on images of noise."""
    import numpy as np

    generator = np.random.default_rng(0)
    frame = {
        camera: generator.integers(0, 256, (*size, 3), dtype=np.uint8) for camera, size in backbone.image_sizes.items()
    }
    stream = backbone.stream()
    times_ms = []
    for _ in range(ticks + 3):
        start = time.perf_counter()
        stream.step(frame)
        times_ms.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times_ms[3:])


def run_tokens(args: argparse.Namespace) -> int:
    """Encode an instruction with the text encoder and store it in the backbone's folder."""
    from conrft_policy import text_encoder
    from conrft_policy.backbone import CONFIG_FILE, read_config
    from conrft_policy.instructions import store_instruction
    from conrft_policy.octo.backbone import INSTRUCTIONS_FILE, parse_config

    config, _ = parse_config(read_config(args.folder), args.folder / CONFIG_FILE)
    if config.language_dim != text_encoder.WIDTH:
        print(f"{args.folder}: expects tokens of width {config.language_dim}, {text_encoder.NAME} gives 384")
        return 2
    tokens = text_encoder.encode(args.instruction, tokens=config.language_tokens)
    path = args.folder / INSTRUCTIONS_FILE
    store_instruction(path, task=args.task, instruction=args.instruction, encoder=text_encoder.NAME, tokens=tokens)
    print(f"{path}: {args.task}: {args.instruction!r} {tokens.shape}")
    return 0
