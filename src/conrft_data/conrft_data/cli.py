"""``conrft demos``: what a person does with recorded episodes."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from conrft_data.bags import BagError, EpisodeInfo, import_recording, list_episodes, read_episode, salvage, salvage_all
from conrft_data.bags.assembly import Assembled
from conrft_data.bags.salvage import interrupted_recordings
from conrft_data.types import ActionSource, Episode


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``demos`` with its own subcommands."""
    demos = subparsers.add_parser("demos", help="list, show, import and salvage recorded episodes")
    register_demos(demos.add_subparsers(dest="demos_command", required=True, metavar="COMMAND"))


def register_demos(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommands of ``demos`` alone, for a program that has more of them."""
    command = commands.add_parser("list", help="episodes of a folder, with a summary")
    command.add_argument("folder", type=Path, help="folder of all episodes")
    command.set_defaults(run=_list)

    command = commands.add_parser("show", help="figures, contact sheet, action and wrench curves of one episode")
    command.add_argument("episode", type=Path, help="folder of the episode")
    command.add_argument("--output", type=Path, default=Path(), help="folder for the pictures (default: here)")
    command.set_defaults(run=_show)

    command = commands.add_parser("import", help="split a recording of `ros2 bag record` into episodes")
    command.add_argument("recording", type=Path, help="bag folder or single .mcap or .db3 file")
    command.add_argument("folder", type=Path, help="folder of all episodes")
    command.set_defaults(run=_import)

    command = commands.add_parser("salvage", help="recover episodes whose recording was cut off")
    command.add_argument("path", type=Path, help="folder of all episodes, one leftover in it, or one damaged episode")
    command.set_defaults(run=_salvage)


def _list(arguments: argparse.Namespace) -> int:
    if not arguments.folder.is_dir():
        return _failed(f"{arguments.folder}: is not a folder")
    problems: list[BagError] = []
    infos = list_episodes(arguments.folder, problems)
    width = max((len(info.episode_id) for info in infos), default=0)
    for info in infos:
        print(_line(info, width))
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    if leftovers := interrupted_recordings(arguments.folder):
        print(f"{len(leftovers)} unfinished: being recorded, or cut off (`conrft demos salvage {arguments.folder}`)")
    outcomes = Counter(info.outcome.name.lower() for info in infos)
    told = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    print(f"{len(infos)} episodes" + (f": {told}" if told else ""))
    return 1 if problems else 0


def _line(info: EpisodeInfo, width: int) -> str:
    relabelled = "" if info.outcome is info.recorded_outcome else f" (was {info.recorded_outcome.name.lower()})"
    cameras = " ".join(f"{name} {w}x{h}" for name, (w, h) in info.cameras.items())
    return (
        f"{info.episode_id:{width}}  {info.task}  {info.mode.name.lower():13}  {info.final_step:4} steps"
        f"  {info.duration_ns / 1e9:6.1f} s  {cameras}  {info.outcome.name.lower()}{relabelled}"
    )


def _show(arguments: argparse.Namespace) -> int:
    # Drawing takes a second to import, which the other subcommands need not wait for.
    from conrft_data.plots import action_curves, episode_sheet, wrench_curves

    try:
        episode = read_episode(arguments.episode)
    except BagError as error:
        return _failed(str(error))
    for name, value in _figures(episode).items():
        print(f"{name:18} {value}")
    for draw, name in ((episode_sheet, "contact_sheet"), (action_curves, "actions"), (wrench_curves, "wrench")):
        print(draw(episode, arguments.output / f"{episode.episode_id}_{name}.png"))
    return 0


def _figures(episode: Episode) -> dict[str, str]:
    positions = np.stack([observation.tcp_pose[:3] for observation in episode.observations])
    path = float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
    counts = Counter(command.source for command in episode.commands[: episode.final_step])
    best = max((verdict.probability for verdict in episode.verdicts.values()), default=None)
    cameras = (f"{name} {i.shape[1]}x{i.shape[0]}" for name, i in episode.observations[0].images.items())
    relabelled = episode.outcome is not episode.recorded_outcome
    return {
        "episode": episode.episode_id,
        "task": f"{episode.task} ({episode.instruction})",
        "mode": episode.mode.name.lower(),
        "outcome": episode.outcome.name.lower()
        + (f" (recorded as {episode.recorded_outcome.name.lower()})" if relabelled else ""),
        "transitions": f"{len(episode)}, and {len(episode.tail)} observations after the end",
        "cameras": ", ".join(cameras),
        "moved by": ", ".join(f"{source.name.lower()} {counts[source]}" for source in ActionSource),
        "path of the tool": f"{path:.3f} m",
        "classifier's best": "none" if best is None else f"{best:.3f}",
        "embeddings": "none" if episode.embeddings is None else f"{episode.embeddings.shape[1]} numbers each",
    }


def _import(arguments: argparse.Namespace) -> int:
    try:
        result = import_recording(arguments.recording, arguments.folder)
    except BagError as error:
        return _failed(str(error))
    return _told(result.episodes, result.problems, "imported")


def _salvage(arguments: argparse.Namespace) -> int:
    one = arguments.path.name.startswith(".") or (arguments.path / "metadata.yaml").is_file()
    if not one:
        if not arguments.path.is_dir():
            return _failed(f"{arguments.path}: is not a folder")
        return _told(*salvage_all(arguments.path), "salvaged")
    try:
        return _told([salvage(arguments.path)], [], "salvaged")
    except BagError as error:
        return _failed(str(error))


def _told(made: list[Assembled], problems: list[BagError], what: str) -> int:
    for episode in made:
        loss = f"; {episode.lost}" if episode.lost else ""
        print(f"{episode.path}: {episode.outcome.name.lower()}, {episode.final_step} steps{loss}")
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    print(f"{len(made)} {what}, {len(problems)} not")
    return 1 if problems else 0


def _failed(message: str) -> int:
    print(f"conrft demos: {message}", file=sys.stderr)
    return 1
