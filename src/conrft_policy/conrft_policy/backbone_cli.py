"""``conrft backbone``: look at a backbone, prepare an instruction."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from conrft_policy.vlm.cli import register_import

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from conrft_policy.backbone import Backbone

CONTROL_PERIOD_MS = 100.0
WARM_UP_TICKS = 3
ANY_INSTRUCTION = "Put the yellow banana on the green plate."
PRECISIONS = ("float32", "bfloat16", "float16", "int8")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``backbone`` and its subcommands."""
    parser = subparsers.add_parser("backbone", help="frozen VLA backbones")
    commands = parser.add_subparsers(dest="backbone_command", required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="sizes, fingerprint, and the time of one acting step on this machine")
    info.add_argument("backbone", nargs="?", default="octo-nano", help="name of a shipped backbone, or a folder")
    info.add_argument("--task", help="task name or instruction (default: the first that is stored)")
    info.add_argument("--ticks", type=int, default=50, help="acting steps to measure (default: %(default)s)")
    info.add_argument("--device", help="such as cuda (default: torch's)")
    info.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's)")
    info.set_defaults(run=run_info)

    tokens = commands.add_parser("tokens", help="encode an instruction once and store it beside the weights")
    tokens.add_argument("folder", type=Path, help="the backbone's folder, which holds config.json")
    tokens.add_argument("--task", required=True, help="name of the task")
    tokens.add_argument("--instruction", required=True, help="text of the instruction")
    tokens.add_argument("--t5", help="folder or hub id of the T5 of an imported Octo (default: found in the hub cache)")
    tokens.set_defaults(run=run_tokens)

    sources = commands.add_parser("import", help="make a backbone's folder from an official checkpoint")
    formats = sources.add_subparsers(dest="source", required=True, metavar="SOURCE")
    _add_octo_import(formats)
    register_import(formats)


def _add_octo_import(sources: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    octo = sources.add_parser("octo", help="octo-small or octo-base, the 1.5 or the older line, as Orbax arrays")
    octo.add_argument("checkpoint", type=Path, help="folder with config.json and the steps' folders")
    octo.add_argument("out", type=Path, help="folder to make; it appears whole or not at all")
    octo.add_argument(
        "--instruction", action="append", default=[], metavar="TEXT", help="encode it now; may be repeated"
    )
    octo.add_argument("--t5", help="folder or hub id of the T5 (default: found in the hub cache)")
    octo.add_argument("--tokens", type=Path, help="instructions.safetensors with instructions encoded elsewhere")
    octo.add_argument("--step", type=int, help="which step of the training (default: the newest)")
    octo.add_argument("--precision", default="float32", choices=PRECISIONS, help="(default: %(default)s)")
    octo.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="KEY=CAMERA",
        help="which camera is the official observation's KEY (default: image_primary=side, image_wrist=wrist)",
    )
    octo.set_defaults(run=run_import_octo)


def run_info(args: argparse.Namespace) -> int:
    """Print what a backbone is and whether it keeps 10 Hz here."""
    import torch

    from conrft_policy.backbone import BackboneError, backbone_folder, load_backbone, read_config

    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        folder = backbone_folder(args.backbone)
        config = read_config(folder)
        backbone = load_backbone(folder, args.task or _any_task(folder), device=args.device)
    except BackboneError as error:
        print(error, file=sys.stderr)
        return 2
    median = _step_ms(backbone, args.ticks)
    keeps_up = median < CONTROL_PERIOD_MS / 2
    print(f"folder       {folder}")
    print(f"architecture {config['architecture']}")
    print(f"instruction  {backbone.instruction}")
    print(f"fingerprint  {backbone.fingerprint}")
    print(f"cameras      {', '.join(f'{name} {h}x{w}' for name, (h, w) in backbone.image_sizes.items())}")
    print(f"embedding    {backbone.embedding_dim}, from {backbone.history} frames")
    print(f"parameters   {backbone.parameters / 1e6:.2f} M{', RANDOM' if config.get('weights') == 'random' else ''}")
    print(f"precision    {backbone.precision}")
    print(f"memory       {backbone.memory_bytes / 2**20:.1f} MiB of weights and constants")
    print(f"acting step  {median:.1f} ms (median of {args.ticks}, {torch.get_num_threads()} CPU threads)")
    print(f"10 Hz        {'yes' if keeps_up else 'no'} (half of the 100 ms is left to the rest of the tick)")
    return 0


def _any_task(folder: Path) -> str:
    """A task that the backbone has tokens of; what needs none follows any text."""
    from conrft_policy.instructions import InstructionError, read_index
    from conrft_policy.octo.backbone import INSTRUCTIONS_FILE

    try:
        stored = read_index(folder / INSTRUCTIONS_FILE)
    except InstructionError:
        stored = []
    return stored[0].instruction if stored else ANY_INSTRUCTION


def _step_ms(backbone: Backbone, ticks: int) -> float:
    """Median time of an acting step on images of noise."""
    import numpy as np

    generator = np.random.default_rng(0)
    frame = {
        camera: generator.integers(0, 256, (*size, 3), dtype=np.uint8) for camera, size in backbone.image_sizes.items()
    }
    stream = backbone.stream()
    times_ms = []
    for _ in range(ticks + WARM_UP_TICKS):
        start = time.perf_counter()
        stream.step(frame)
        times_ms.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times_ms[WARM_UP_TICKS:])


def run_tokens(args: argparse.Namespace) -> int:
    """Encode an instruction with the backbone's text encoder and store it in its folder."""
    from conrft_policy.backbone import CONFIG_FILE, BackboneError, read_config
    from conrft_policy.instructions import store_instruction
    from conrft_policy.octo.backbone import INSTRUCTIONS_FILE, parse_config
    from conrft_policy.text_encoder import TextEncoderMissingError

    try:
        values = read_config(args.folder)
        config, _ = parse_config(values, args.folder / CONFIG_FILE)
        name, tokens = _encode(args, values.get("text_encoder"), config.language_tokens)
    except (BackboneError, TextEncoderMissingError) as error:
        print(error)
        return 2
    if tokens.shape[1] != config.language_dim:
        print(f"{args.folder}: expects tokens of width {config.language_dim}, {name} gives {tokens.shape[1]}")
        return 2
    path = args.folder / INSTRUCTIONS_FILE
    store_instruction(path, task=args.task, instruction=args.instruction, encoder=name, tokens=tokens)
    print(f"{path}: {args.task}: {args.instruction!r} {tokens.shape}")
    return 0


def _encode(args: argparse.Namespace, t5: str | None, tokens: int) -> tuple[str, NDArray[np.float32]]:
    """Name of the text encoder, and its tokens of the instruction."""
    from conrft_policy import text_encoder
    from conrft_policy.octo.t5_encoder import load_t5

    if t5 is None:
        return text_encoder.NAME, text_encoder.encode(args.instruction, tokens=tokens)
    return t5, load_t5(t5, args.t5).encode(args.instruction, tokens=tokens)


def run_import_octo(args: argparse.Namespace) -> int:
    """Make a backbone's folder from an official checkpoint; errors are printed, and nothing is left behind."""
    from conrft_policy.backbone import BackboneError
    from conrft_policy.octo.official_checkpoint import import_checkpoint, open_checkpoint
    from conrft_policy.octo.official_config import CAMERAS

    try:
        cameras = CAMERAS | dict(_camera(text) for text in args.camera)
        checkpoint = open_checkpoint(args.checkpoint, step=args.step, cameras=cameras)
        import_checkpoint(
            checkpoint, args.out, args.instruction, precision=args.precision, t5=args.t5, tokens=args.tokens
        )
    except (BackboneError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    config = checkpoint.config
    print(f"{args.out}: step {checkpoint.step}, {len(checkpoint.names)} arrays, {len(args.instruction)} instructions")
    print(f"width {config.token_dim}, {config.layers} layers, {config.heads} heads, window {config.window}")
    print(f"repeat_task_tokens {config.repeat_task_tokens}, use_correct_attention {config.use_correct_attention}")
    return 0


def _camera(text: str) -> tuple[str, str]:
    from conrft_policy.backbone import BackboneError

    key, separator, camera = text.partition("=")
    if not separator or not key or not camera:
        raise BackboneError(f"--camera {text}: expected KEY=CAMERA, such as image_primary=side")
    return key, camera
