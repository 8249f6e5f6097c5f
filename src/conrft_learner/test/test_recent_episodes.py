"""Figures of the newest online episodes, by which the best checkpoint is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from conrft_data.types import Episode, Outcome
from conrft_learner.recent_episodes import EpisodeRecord, RecentEpisodes

MakeEpisode = Callable[..., Episode]


def record(number: int, *, success: bool = True, operator_steps: int = 0, staleness: float | None = 0) -> EpisodeRecord:
    return EpisodeRecord(
        episode_id=str(number),
        success=success,
        length=10,
        operator_steps=operator_steps,
        take_overs=min(operator_steps, 1),
        staleness=staleness,
    )


def test_take_overs_are_runs_of_steps_that_the_operator_drove(make_episode: MakeEpisode) -> None:
    episode = make_episode(1, length=8, operator=(0, 1, 4, 7), outcome=Outcome.TIMEOUT)
    of = EpisodeRecord.of(episode, episode.interventions(), updates=5)
    assert (of.operator_steps, of.take_overs, of.success, of.length) == (4, 3, False, 8)
    assert of.figures()["intervention_rate"] == 0.5
    assert "staleness" not in of.figures(), "no policy acted"


def test_staleness_is_how_many_updates_the_acting_weights_were_behind(make_episode: MakeEpisode) -> None:
    versions = {0: 100, 1: 100, 2: 150, 3: 150, 4: 999}  # the last step leads nowhere
    episode = replace(make_episode(1, length=4), weights_versions=versions)
    assert EpisodeRecord.of(episode, episode.interventions(), updates=160).staleness == 35.0


def test_autonomous_success_counts_no_episode_in_which_the_operator_helped() -> None:
    recent = RecentEpisodes(4)
    for number, (success, steps) in enumerate([(True, 0), (True, 3), (False, 0)]):
        recent.add(record(number, success=success, operator_steps=steps))
    assert recent.autonomous_success is None, "too few episodes to tell"
    recent.add(record(3))
    assert recent.autonomous_success == 0.5
    recent.add(record(4))
    assert recent.autonomous_success == 0.5, "the oldest has gone"


def test_figures_are_rates_and_means() -> None:
    recent = RecentEpisodes(4)
    assert recent.figures() == {}
    recent.add(record(0, operator_steps=5, staleness=None))
    recent.add(record(1, success=False, staleness=8.0))
    assert recent.figures() == pytest.approx(
        {
            "success_rate": 0.5,
            "autonomous_success_rate": 0.0,
            "mean_intervention_rate": 0.25,
            "mean_length": 10.0,
            "mean_staleness": 8.0,
        }
    )


def test_a_veto_counts() -> None:
    recent = RecentEpisodes(2)
    for number in (1, 2):
        recent.add(record(number))
    recent.relabel("2", False)
    recent.relabel("of long ago", False)
    assert recent.autonomous_success == 0.5


def test_an_episode_that_is_added_again_counts_once() -> None:
    recent = RecentEpisodes(2)
    for number in (1, 1):
        recent.add(record(number))
    assert recent.autonomous_success is None


def test_a_checkpoint_holds_them() -> None:
    recent, restored = RecentEpisodes(2), RecentEpisodes(2)
    for number in (1, 2):
        recent.add(record(number))
    restored.load(recent.state())
    assert restored.figures() == recent.figures()
