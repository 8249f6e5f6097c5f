"""``conrft demos``: what a person does with recorded episodes."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from conrft_data.bags import (
    Assembled,
    BagError,
    EpisodeInfo,
    Imported,
    import_recording,
    list_episodes,
    read_episode,
    read_info,
    relabel,
    salvage,
    salvage_all,
)
from conrft_data.bags.listing import METADATA_FILE
from conrft_data.bags.salvage import interrupted_recordings
from conrft_data.config import ConfigError, TaskConfig, load_config
from conrft_data.types import ActionSource, Episode, Outcome


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``demos`` with its own subcommands."""
    demos = subparsers.add_parser("demos", help="list, show, export, import and salvage recorded episodes")
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

    command = commands.add_parser(
        "export", help="pictures and curves of many episodes, or one LeRobotDataset v3 of them"
    )
    command.add_argument("source", type=Path, help="folder of all episodes, or of one")
    command.add_argument("target", type=Path, help="folder of the pictures, or of the new dataset")
    command.add_argument("--format", choices=("pictures", "lerobot"), default="pictures", help="default: %(default)s")
    command.set_defaults(run=_export)

    command = commands.add_parser("import", help="make episodes of a recording of `ros2 bag record`, or of a dataset")
    command.add_argument("recording", type=Path, help="bag folder or single .mcap or .db3 file; root of a dataset")
    command.add_argument("folder", type=Path, help="folder of all episodes")
    command.add_argument("--format", choices=("rosbag2", "lerobot"), default="rosbag2", help="default: %(default)s")
    command.add_argument("--task-file", type=Path, help="lerobot: task of a dataset that this suite did not export")
    outcomes = [outcome.name.lower() for outcome in Outcome if outcome is not Outcome.NONE]
    command.add_argument("--outcome", choices=outcomes, help="lerobot: how the episodes ended, where it does not say")
    command.set_defaults(run=_import)

    command = commands.add_parser("relabel", help="change how a finished episode counts, at any time")
    command.add_argument("episode", type=Path, help="folder of the episode")
    command.add_argument("outcome", choices=outcomes, help="timeout: it was no success")
    command.add_argument("--reason", default="conrft demos relabel", help="kept with the episode")
    command.set_defaults(run=_relabel)

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
    try:
        episode = read_episode(arguments.episode)
    except BagError as error:
        return _failed(str(error))
    for name, value in _figures(episode).items():
        print(f"{name:18} {value}")
    for picture in _draw(episode, arguments.output):
        print(picture)
    return 0


def _draw(episode: Episode, folder: Path) -> list[Path]:
    """Contact sheet and curves of an episode."""
    # Drawing takes a second to import, which the other subcommands need not wait for.
    from conrft_data.plots import action_curves, episode_sheet, wrench_curves

    pictures = ((episode_sheet, "contact_sheet"), (action_curves, "actions"), (wrench_curves, "wrench"))
    return [draw(episode, folder / f"{episode.episode_id}_{name}.png") for draw, name in pictures]


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


def _export(arguments: argparse.Namespace) -> int:
    try:
        single = (arguments.source / METADATA_FILE).is_file()
        bags = [arguments.source] if single else [info.path for info in list_episodes(arguments.source)]
        if arguments.format == "lerobot":
            from conrft_data.lerobot import export_dataset

            exported = export_dataset(bags, arguments.target)
            print(f"{arguments.target}: {exported.episodes} episodes, {exported.frames} frames")
            return 0
        if not bags:
            return _failed(f"{arguments.source}: holds no episode")
        for bag in bags:
            print(*_draw(read_episode(bag), arguments.target), sep="\n")
    except (BagError, OSError) as error:
        return _failed(str(error))
    return 0


def _import(arguments: argparse.Namespace) -> int:
    try:
        result = _imported(arguments)
    except (BagError, ConfigError) as error:
        return _failed(str(error))
    return _told(result.episodes, result.problems, "imported")


def _imported(arguments: argparse.Namespace) -> Imported:
    if arguments.format == "rosbag2":
        return import_recording(arguments.recording, arguments.folder)
    from conrft_data.lerobot import import_dataset

    task = None if arguments.task_file is None else load_config(TaskConfig, arguments.task_file)
    outcome = None if arguments.outcome is None else Outcome[arguments.outcome.upper()]
    return import_dataset(arguments.recording, arguments.folder, task, outcome)


def _relabel(arguments: argparse.Namespace) -> int:
    try:
        relabel(arguments.episode, Outcome[arguments.outcome.upper()], arguments.reason)
        print(_line(read_info(arguments.episode), 0))
    except BagError as error:
        return _failed(str(error))
    return 0


def _salvage(arguments: argparse.Namespace) -> int:
    one = arguments.path.name.startswith(".") or (arguments.path / METADATA_FILE).is_file()
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
