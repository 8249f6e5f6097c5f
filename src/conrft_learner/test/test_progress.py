"""What a person reads while the learner works."""

from __future__ import annotations

from conrft_learner.pace import Pace
from conrft_learner.progress import duration, offline_line, online_line


def test_the_offline_stage_tells_how_long_it_still_takes() -> None:
    line = offline_line(500, 1500, 20.0, {"bc_loss": 0.1234, "td_loss": 0.5, "cql_loss": 1.0})
    assert line == "offline  500/1500  20.0 updates/s  bc loss 0.123  td loss 0.500  50 s left"
    assert "left" not in offline_line(1500, 1500, 20.0, {})
    assert "left" not in offline_line(0, 1500, 0.0, {})


def test_the_online_stage_tells_success_interventions_and_staleness() -> None:
    recent = {
        "success_rate": 0.9,
        "autonomous_success_rate": 0.65,
        "mean_intervention_rate": 0.12,
        "mean_length": 55.4,
        "mean_staleness": 4.0,
    }
    assert online_line("train-000058", 4775, 21.3, {"q_data": 5.12}, recent) == (
        "learned from train-000058  4775 updates  21.3 updates/s  Q 5.120  newest episodes: success 90%, alone 65%, "
        "12% of steps by the operator, 55 steps  weights 4 updates old"
    )
    assert online_line("train-000001", 10, 1.0, {}, {}).endswith("1.0 updates/s")


def test_durations_are_for_people() -> None:
    assert [duration(seconds) for seconds in (0, 89, 91, 3600, 12000)] == [
        "0 s",
        "89 s",
        "2 min",
        "60 min",
        "3 h 20 min",
    ]


def test_the_pace_is_that_of_the_last_episode_paid_for() -> None:
    pace = Pace()
    pace.add(5, 1.0, finished=False)
    assert pace.updates_per_s == 5.0, "the first one is known before it is finished"
    pace.add(5, 3.0, finished=True)
    assert pace.updates_per_s == 2.5
    pace.add(1, 1.0, finished=False)
    assert pace.updates_per_s == 2.5
    pace.add(19, 1.0, finished=True)
    assert pace.updates_per_s == 10.0
