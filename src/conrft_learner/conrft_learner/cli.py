"""``conrft train``: the offline stage without a ROS graph."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``train`` and its subcommands."""
    parser = subparsers.add_parser("train", help="train a policy")
    commands = parser.add_subparsers(dest="train_command", required=True, metavar="COMMAND")
    offline = commands.add_parser("offline", help="offline stage (Cal-ConRFT) from recorded demonstrations")
    offline.add_argument("--demos", type=Path, required=True, help="folder of the demonstrations' bags")
    offline.add_argument("--out", type=Path, required=True, help="run folder; an unfinished run there is continued")
    offline.add_argument("--task-file", type=Path, required=True, help="YAML file of the task")
    offline.add_argument("--preset-file", type=Path, required=True, help="YAML file of the preset")
    offline.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    offline.add_argument("--backbone", default="octo-nano", help="shipped backbone, or folder (default: %(default)s)")
    offline.add_argument(
        "--resnet-weights",
        help="image encoder of the paper's critic: safetensors file, or 'random' (default: what the preset names)",
    )
    offline.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    offline.add_argument("--threads", type=int, default=0, help="cores that training uses; 0: torch's choice")
    offline.add_argument(
        "--tensorboard", action=argparse.BooleanOptionalAction, default=True, help="write TensorBoard files too"
    )
    offline.add_argument(
        "--wandb", default="", metavar="PROJECT", help="show the figures in this project of Weights & Biases too"
    )
    offline.set_defaults(run=run_offline)


def run_offline(args: argparse.Namespace) -> int:
    """Runs the offline stage; a wrong argument is one sentence and exit code 2."""
    import torch

    from conrft_learner.heap import keep_freed_memory
    from conrft_learner.offline import train_offline

    keep_freed_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        return train_offline(
            demos=args.demos,
            out=args.out,
            task_file=args.task_file,
            preset_file=args.preset_file,
            seed=args.seed,
            backbone=args.backbone,
            resnet_weights=args.resnet_weights,
            device=args.device,
            tensorboard=args.tensorboard,
            wandb_project=args.wandb,
        )
    except ValueError as error:
        print(f"conrft train offline: {error}", file=sys.stderr)
        return 2
