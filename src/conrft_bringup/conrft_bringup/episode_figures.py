"""What the bags of a run tell about its episodes. This is where every figure of a report comes from."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conrft_data.bags import EpisodeInfo, list_episodes
from conrft_data.bags.definitions import ACTION, unpack
from conrft_data.bags.errors import BagError
from conrft_data.bags.mcap_messages import complete_messages
from conrft_data.types import ActionSource, Outcome

_TRIAL_OUTCOMES = (Outcome.SUCCESS, Outcome.TIMEOUT)


@dataclass(frozen=True, kw_only=True)
class EpisodeFigures:
    """One episode.

    Attributes:
        episode_id: name of the bag.
        number: of the episode in its session.
        success: whether it ended so, after relabelling.
        length: steps.
        take_overs: how often the operator took over; -1: not counted.
        operator_steps: steps in which the operator drove; -1: not counted.
        hold_steps: steps in which the arm held still because something was missing; -1: not counted.
    """

    episode_id: str
    number: int
    success: bool
    length: int
    take_overs: int = -1
    operator_steps: int = -1
    hold_steps: int = -1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def load_figures(file: Path) -> list[EpisodeFigures]:
    """The episodes of a list that a report wrote; none where it wrote none."""
    if not file.is_file():
        return []
    return [EpisodeFigures(**row) for row in json.loads(file.read_text(encoding="utf-8"))]


def finished_trials(folder: Path) -> list[EpisodeInfo]:
    """Episodes of a folder that ended by success or at the step limit, in the order of their numbers.

    Aborted and faulty ones are no trials: nobody knows how they would have ended. Unreadable bags are left out.
    """
    problems: list[BagError] = []
    infos = [info for info in list_episodes(folder, problems) if info.outcome in _TRIAL_OUTCOMES]
    return sorted(infos, key=lambda info: episode_number(info.episode_id))


def episode_number(episode_id: str) -> int:
    """The number at the end of an episode's id, 0 without one."""
    match = re.search(r"(\d+)$", episode_id)
    return int(match.group(1)) if match else 0


def last_episode_number(folder: Path) -> int:
    """The highest number among the recorded episodes, whatever their outcome; 0 without any."""
    return max((episode_number(info.episode_id) for info in list_episodes(folder, [])), default=0)


def outcomes(folder: Path) -> list[tuple[bool, int]]:
    """Success and length of each trial of a folder."""
    return [(info.outcome is Outcome.SUCCESS, info.final_step) for info in finished_trials(folder)]


def episode_figures(info: EpisodeInfo) -> EpisodeFigures:
    """Figures of one episode with its take-overs, which are counted in the recorded actions."""
    sources: dict[int, int] = {}
    for file in info.files:
        for message in complete_messages(file):
            if message.topic == ACTION.name:
                action = unpack(message.raw, message.type_name)
                sources[int(action.step)] = int(action.source)
    driven = [sources.get(step, ActionSource.HOLD) == ActionSource.OPERATOR for step in range(info.final_step)]
    return EpisodeFigures(
        episode_id=info.episode_id,
        number=episode_number(info.episode_id),
        success=info.outcome is Outcome.SUCCESS,
        length=info.final_step,
        take_overs=sum(now and not before for before, now in zip([False, *driven], driven, strict=False)),
        operator_steps=sum(driven),
        hold_steps=sum(sources.get(step) == ActionSource.HOLD for step in range(info.final_step)),
    )
