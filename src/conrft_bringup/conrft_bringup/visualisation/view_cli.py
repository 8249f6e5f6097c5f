"""``conrft view``: the running graph, or a recorded episode, for rviz or Foxglove, or as a picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``view``."""
    parser = subparsers.add_parser(
        "view",
        help="show the running graph or a recorded episode",
        description="Runs view.launch.yaml: markers, poses and images for rviz or Foxglove. With --picture it draws "
        "the scene of one tick of an episode into a PNG instead.",
    )
    parser.add_argument("bag", nargs="?", default="", help="folder of a recording (default: what is running)")
    parser.add_argument("rest", nargs="*", metavar="name:=value", help="arguments of view.launch.yaml")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw one tick of the episode, without ROS nodes")
    about = "print a viewer's layout for this graph or recording, to be saved in a file"
    parser.add_argument("--layout", choices=["foxglove", "plotjuggler"], help=about)
    parser.add_argument("--step", type=int, metavar="N", help="tick to draw (default: the final one)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs ``conrft view`` and gives its exit code."""
    if args.picture is not None:
        return _draw(args)
    if args.step is not None:
        print("conrft view: --step goes with --picture", file=sys.stderr)
        return 2
    words = args.rest
    if args.bag:
        words = [args.bag, *words] if ":=" in args.bag else [f"bag:={args.bag}", *words]
    if args.layout is not None:
        return _print_layout(args.layout, words)
    from conrft_bringup.command import main

    return main(["up", "view", *words])


def _print_layout(viewer: str, words: list[str]) -> int:
    from conrft_bringup.launch_runner.cli import parse_arguments
    from conrft_bringup.launch_runner.errors import LaunchError
    from conrft_bringup.visualisation.viewer_layouts import viewer_layout

    try:
        given = parse_arguments(words)
    except LaunchError as error:
        print(f"conrft view: {error}", file=sys.stderr)
        return 2
    print(viewer_layout(viewer, namespace=given.get("namespace", ""), playback=bool(given.get("bag"))), end="")
    return 0


def _draw(args: argparse.Namespace) -> int:
    from PIL import Image

    from conrft_bringup.visualisation.episode_picture import draw_tick
    from conrft_data.bags import BagError, read_episode
    from conrft_data.config import ConfigError

    try:
        episode = read_episode(args.bag)
        step = episode.final_step if args.step is None else args.step
        picture = draw_tick(episode, step)
    except (BagError, ConfigError, ValueError) as error:
        print(f"conrft view: {error}", file=sys.stderr)
        return 1
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(args.picture)
    print(args.picture)
    return 0
