"""Counts the episodes of a folder while they are being recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conrft_bringup.episode_figures import EpisodeFigures, episode_figures, episode_number
from conrft_bringup.trials import describe_outcomes
from conrft_data.bags import EpisodeInfo, read_info
from conrft_data.bags.errors import BagError
from conrft_data.bags.label import label_time
from conrft_data.types import Outcome


class EpisodeCount:
    """Reads each bag of a folder once, and again when its label has changed; a bag appears whole, by one rename.

    Args:
        folder: of the bags; it need not exist yet.
        with_take_overs: also count take-overs, for which the recorded actions are read.
        dropped: trials whose bags were deleted; they count all the same.
    """

    def __init__(self, folder: Path, *, with_take_overs: bool = False, dropped: Sequence[EpisodeFigures] = ()) -> None:
        self._folder = folder
        self._with_take_overs = with_take_overs
        self._dropped = {figures.episode_id: figures for figures in dropped}
        self._labelled: dict[str, int] = {}  # when each bag's label was written, as it was read
        self._seen: dict[str, EpisodeFigures | None] = {}

    def refresh(self) -> bool:
        """Looks for new bags; whether there were any."""
        if not self._folder.is_dir():
            return False
        names = {path.name for path in self._folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
        fresh = names - set(self._seen)
        for name in sorted(names):
            labelled = label_time(self._folder / name)
            if self._labelled.get(name) != labelled:
                self._labelled[name], self._seen[name] = labelled, self._read(self._folder / name)
        return bool(fresh)

    @property
    def trials(self) -> list[EpisodeFigures]:
        """Episodes that ended by success or at the step limit, by their numbers."""
        episodes = {**self._dropped, **self._seen}
        found = [figures for figures in episodes.values() if figures is not None]
        return sorted(found, key=lambda figures: figures.number)

    @property
    def successes(self) -> int:
        """How many of them succeeded."""
        return sum(figures.success for figures in self.trials)

    def describe(self, wanted: int, *, only_successes: bool) -> str:
        """How far it is, for a person."""
        trials = self.trials
        count = self.successes if only_successes else len(trials)
        parts = [describe_outcomes([(figures.success, figures.length) for figures in trials], count, wanted)]
        if trials and self._with_take_overs:
            recent = trials[-10:]
            parts.append(f"last {len(recent)}: success {sum(figures.success for figures in recent)}")
            parts.append(f"take-overs {sum(max(figures.take_overs, 0) for figures in recent) / len(recent):.1f}")
        return "  ".join(parts)

    def _read(self, bag: Path) -> EpisodeFigures | None:
        try:
            info = read_info(bag)
            if info.outcome not in (Outcome.SUCCESS, Outcome.TIMEOUT):
                return None
            return episode_figures(info) if self._with_take_overs else _without_take_overs(info)
        except (BagError, ValueError):
            return None


def _without_take_overs(info: EpisodeInfo) -> EpisodeFigures:
    return EpisodeFigures(
        episode_id=info.episode_id,
        number=episode_number(info.episode_id),
        success=info.outcome is Outcome.SUCCESS,
        length=info.final_step,
    )
