"""``conrft backbone``: look at a backbone, prepare an instruction."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

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
    import numpy as np
    import torch

    from conrft_policy.backbone import backbone_folder, load_backbone, read_config
    from conrft_policy.octo.model import OctoTransformer

    folder = backbone_folder(args.backbone)
    config, precision = read_config(folder)
    backbone = load_backbone(folder, args.task)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in OctoTransformer(config).parameters())
    generator = np.random.default_rng(0)
    frame = {
        image.camera: generator.integers(0, 256, (image.source_size, image.source_size, 3), dtype=np.uint8)
        for image in config.images
    }
    stream = backbone.stream()
    times_ms = []
    for _ in range(args.ticks + 3):
        start = time.perf_counter()
        stream.step(frame)
        times_ms.append(1e3 * (time.perf_counter() - start))
    median = statistics.median(times_ms[3:])
    print(f"folder       {folder}")
    print(f"instruction  {backbone.instruction}")
    print(f"fingerprint  {backbone.fingerprint}")
    print(f"cameras      {', '.join(f'{i.camera} {i.source_size}x{i.source_size}' for i in config.images)}")
    print(f"embedding    {backbone.embedding_dim}, from {backbone.history} frames")
    print(f"parameters   {parameters / 1e6:.2f} M, {parameters * precision.itemsize / 2**20:.1f} MiB, {precision}")
    print(f"acting step  {median:.1f} ms (median of {args.ticks})")
    print(f"10 Hz        {'yes' if median < CONTROL_PERIOD_MS / 2 else 'no'} (half a period is left to the rest)")
    return 0


def run_tokens(args: argparse.Namespace) -> int:
    """Encode an instruction with the text encoder and store it in the backbone's folder."""
    from conrft_policy import text_encoder
    from conrft_policy.backbone import INSTRUCTIONS_FILE, read_config
    from conrft_policy.instructions import store_instruction

    config, _ = read_config(args.folder)
    if config.language_dim != text_encoder.WIDTH:
        print(f"{args.folder}: expects tokens of width {config.language_dim}, {text_encoder.NAME} gives 384")
        return 2
    tokens = text_encoder.encode(args.instruction, tokens=config.language_tokens)
    path = args.folder / INSTRUCTIONS_FILE
    store_instruction(path, task=args.task, instruction=args.instruction, encoder=text_encoder.NAME, tokens=tokens)
    print(f"{path}: {args.task}: {args.instruction!r} {tokens.shape}")
    return 0
