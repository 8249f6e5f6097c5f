"""The newest online episodes: how they ended, who drove, and how old the weights were that acted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from conrft_data.types import Episode, Outcome
from conrft_learner.objectives import Figures
from conrft_learner.transitions import Bool


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """Figures of one episode.

    Attributes:
        episode_id: name of its bag.
        success: whether it ended so.
        length: transitions.
        operator_steps: of them, those that the operator drove.
        take_overs: how often the operator took over.
        staleness: updates done when the episode was taken in, beyond those of the weights that acted, mean over its
            steps; negative where a learner fell back to an older checkpoint; None where no policy acted.
    """

    episode_id: str
    success: bool
    length: int
    operator_steps: int
    take_overs: int
    staleness: float | None = None

    @classmethod
    def of(cls, episode: Episode, interventions: Bool, updates: int) -> EpisodeRecord:
        """Of an episode that is taken in after ``updates``; interventions ``(T,)``."""
        versions = [version for step, version in episode.weights_versions.items() if step < len(episode)]
        begins = interventions.copy()
        begins[1:] &= ~interventions[:-1]
        return cls(
            episode_id=episode.episode_id,
            success=episode.outcome is Outcome.SUCCESS,
            length=len(episode),
            operator_steps=int(interventions.sum()),
            take_overs=int(begins.sum()),
            staleness=updates - sum(versions) / len(versions) if versions else None,
        )

    @property
    def autonomous(self) -> bool:
        """Whether it succeeded without a take-over."""
        return self.success and not self.operator_steps

    def figures(self) -> dict[str, Any]:
        """For the log."""
        figures = asdict(self) | {"success": int(self.success), "intervention_rate": self.operator_steps / self.length}
        return {name: value for name, value in figures.items() if value is not None}


class RecentEpisodes:
    """The newest ``size`` online episodes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._records: tuple[EpisodeRecord, ...] = ()

    def add(self, record: EpisodeRecord) -> None:
        """Takes the newest, once; the oldest may go."""
        others = [known for known in self._records if known.episode_id != record.episode_id]
        self._records = (*others, record)[-self._size :]

    def relabel(self, episode_id: str, success: bool) -> None:
        """Changes how an episode ended, where it is among these."""
        self._records = tuple(
            replace(record, success=success) if record.episode_id == episode_id else record for record in self._records
        )

    @property
    def autonomous_success(self) -> float | None:
        """Share that succeeded without a take-over; None before there are ``size`` episodes."""
        records = self._records
        return sum(r.autonomous for r in records) / len(records) if len(records) == self._size else None

    def figures(self) -> Figures:
        """Rates and means over these episodes; none without any."""
        records = self._records
        if not records:
            return {}
        staleness = [r.staleness for r in records if r.staleness is not None]
        figures = {
            "success_rate": sum(r.success for r in records) / len(records),
            "autonomous_success_rate": sum(r.autonomous for r in records) / len(records),
            "mean_intervention_rate": sum(r.operator_steps for r in records) / sum(r.length for r in records),
            "mean_length": sum(r.length for r in records) / len(records),
        }
        return figures | ({"mean_staleness": sum(staleness) / len(staleness)} if staleness else {})

    def state(self) -> list[dict[str, Any]]:
        """For a checkpoint."""
        return [asdict(record) for record in self._records]

    def load(self, state: list[dict[str, Any]]) -> None:
        """Takes what :meth:`state` gave."""
        self._records = tuple(EpisodeRecord(**record) for record in state)
