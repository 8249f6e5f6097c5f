"""What metadata.yaml and the label tell about an episode without opening its recording."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from conrft_data.bags.definitions import OBSERVATION
from conrft_data.bags.errors import BagError
from conrft_data.bags.label import read_label
from conrft_data.types import MESSAGE_VERSION, Mode, Outcome

# The C loader is twenty times as fast, and a learner lists hundreds of episodes; it is not in every build of PyYAML.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

METADATA_FILE = "metadata.yaml"
CUSTOM_KEYS = (
    "conrft_task",
    "conrft_message_version",
    "conrft_outcome",
    "conrft_final_step",
    "conrft_mode",
    "conrft_cameras",
)


class RecordedMessages(NamedTuple):
    """What the metadata tells of a topic: type and RIHS01 hash (or nothing) of its messages, and how many."""

    type_name: str
    digest: str
    number: int


@dataclass(frozen=True, kw_only=True)
class EpisodeInfo:
    """What is known of a recorded episode without opening the recording.

    Attributes:
        path: folder of the bag; its name is the episode's id.
        task: name of the task.
        mode: why it was run.
        outcome: how it ended, after relabelling.
        recorded_outcome: how it ended when it was recorded.
        final_step: last step that belongs to the transitions.
        observations: number of recorded observations, those after the final step included.
        cameras: width and height by name.
        start_ns, duration_ns: ROS time of the first message, and to the last.
        topics: what was recorded, by name.
        files: of the recording.
    """

    path: Path
    task: str
    mode: Mode
    outcome: Outcome
    recorded_outcome: Outcome
    final_step: int
    observations: int
    cameras: dict[str, tuple[int, int]]
    start_ns: int
    duration_ns: int
    topics: dict[str, RecordedMessages]
    files: list[Path]

    @property
    def episode_id(self) -> str:
        """Unique name of the episode."""
        return self.path.name


def custom_data(
    *, task: str, mode: Mode, outcome: Outcome, final_step: int, cameras: dict[str, tuple[int, int]]
) -> dict[str, str]:
    """The suite's own entries of metadata.yaml."""
    return {
        "conrft_task": task,
        "conrft_message_version": str(MESSAGE_VERSION),
        "conrft_outcome": outcome.name,
        "conrft_final_step": str(final_step),
        "conrft_mode": mode.name,
        "conrft_cameras": json.dumps(cameras),
    }


def read_info(bag: Path) -> EpisodeInfo:
    """What metadata.yaml and the label of the episode in folder ``bag`` tell.

    Raises BagError when it is no episode of this message version.
    """
    information = _bag_information(bag)
    custom = information.get("custom_data") or {}
    if missing := [key for key in CUSTOM_KEYS if key not in custom]:
        raise BagError(
            f"{bag}: is not an episode bag, its metadata has no {', '.join(missing)} "
            "(`conrft demos import` splits recordings made by hand)"
        )
    if custom["conrft_message_version"] != str(MESSAGE_VERSION):
        raise BagError(f"{bag}: holds message version {custom['conrft_message_version']}, expected {MESSAGE_VERSION}")
    label = read_label(bag)
    try:
        recorded = Outcome[custom["conrft_outcome"]]
        topics = {
            topic["topic_metadata"]["name"]: RecordedMessages(
                topic["topic_metadata"]["type"],
                topic["topic_metadata"].get("type_description_hash", ""),
                int(topic["message_count"]),
            )
            for topic in information["topics_with_message_count"]
        }
        return EpisodeInfo(
            path=bag,
            task=custom["conrft_task"],
            mode=Mode[custom["conrft_mode"]],
            outcome=label.outcome if label else recorded,
            recorded_outcome=recorded,
            final_step=int(custom["conrft_final_step"]),
            observations=topics[OBSERVATION.name].number if OBSERVATION.name in topics else 0,
            cameras={
                name: (int(width), int(height))
                for name, (width, height) in json.loads(custom["conrft_cameras"]).items()
            },
            start_ns=int(information["starting_time"]["nanoseconds_since_epoch"]),
            duration_ns=int(information["duration"]["nanoseconds"]),
            topics=topics,
            files=[bag / Path(file).name for file in information["relative_file_paths"]],
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise BagError(f"{bag / METADATA_FILE}: cannot be understood: {type(error).__name__} {error}") from error


def list_episodes(folder: Path | str, problems: list[BagError] | None = None) -> list[EpisodeInfo]:
    """The finished episodes of a folder by name, without opening a recording.

    Hidden folders are episodes in the making and are left out.

    Args:
        folder: with one folder for each episode; a folder that does not exist has none.
        problems: collects what is wrong with single bags; None: the first problem is raised.

    Raises:
        BagError: a bag cannot be read and ``problems`` is None.
    """
    infos = []
    for metadata in sorted(Path(folder).glob(f"*/{METADATA_FILE}")):
        if metadata.parent.name.startswith("."):
            continue
        try:
            infos.append(read_info(metadata.parent))
        except BagError as error:
            if problems is None:
                raise
            problems.append(error)
    return infos


def last_episode_number(folder: Path | str, stem: str) -> int:
    """The highest number among the episodes ``<stem><number>`` of a folder, those cut off included; 0: none."""
    pattern = re.compile(rf"(?:\.[a-z]+-)?{re.escape(stem)}(\d+)")
    names = [path.name for path in Path(folder).iterdir()] if Path(folder).is_dir() else []
    return max((int(match.group(1)) for name in names if (match := pattern.fullmatch(name))), default=0)


def _bag_information(bag: Path) -> dict[str, Any]:
    file = bag / METADATA_FILE
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
        information = content["rosbag2_bagfile_information"]
    except FileNotFoundError as error:
        raise BagError(f"{bag}: has no {METADATA_FILE}, it is no finished bag") from error
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise BagError(f"{file}: is not the metadata of a rosbag2 recording: {error}") from error
    if not isinstance(information, dict):
        raise BagError(f"{file}: is not the metadata of a rosbag2 recording: its content is empty")
    return information
