"""Stiff on the way home, soft in an episode."""

from conrft_control.gain_schedule import GainSchedule, GainSet
from conrft_data.types import Phase


def test_the_way_home_is_stiff_and_the_episode_soft_from_its_start() -> None:
    schedule = GainSchedule(timeout_s=2.0)
    wanted = []
    for phase in (Phase.RESETTING, Phase.READY, Phase.RUNNING, Phase.ENDED, Phase.RESETTING):
        schedule.enter(phase, 0.0)
        gains = schedule.due(0.1, server_is_there=True)
        if gains is not None:
            wanted.append((phase, gains))
            schedule.answered(gains, "")
        assert schedule.settled
    assert wanted == [
        (Phase.RESETTING, GainSet.RESET), (Phase.READY, GainSet.CONTACT), (Phase.RESETTING, GainSet.RESET),
    ]  # fmt: skip


def test_a_set_is_sent_once() -> None:
    schedule = GainSchedule(timeout_s=2.0)
    schedule.enter(Phase.RESETTING, 0.0)
    assert schedule.due(0.0, server_is_there=True) is GainSet.RESET
    schedule.enter(Phase.RESETTING, 0.1)
    assert schedule.due(0.1, server_is_there=True) is None
    assert not schedule.settled


def test_a_refusal_stands_until_other_gains_are_wanted() -> None:
    schedule = GainSchedule(timeout_s=2.0)
    schedule.enter(Phase.RESETTING, 0.0)
    schedule.due(0.0, server_is_there=True)
    schedule.answered(GainSet.RESET, "task.k_pos_x: out of bounds")
    assert schedule.problem == "gains of reset: task.k_pos_x: out of bounds"
    assert schedule.due(1.0, server_is_there=True) is None
    schedule.enter(Phase.READY, 2.0)
    assert schedule.due(2.0, server_is_there=True) is GainSet.CONTACT


def test_a_controller_that_is_not_there_or_does_not_answer_is_a_problem() -> None:
    schedule = GainSchedule(timeout_s=2.0)
    schedule.enter(Phase.READY, 0.0)
    assert schedule.due(1.9, server_is_there=False) is None and not schedule.problem
    schedule.due(2.1, server_is_there=False)
    assert schedule.problem == "gains: the controller is not there within 2.0 s, wanted those of contact"
    schedule.enter(Phase.RESETTING, 3.0)
    schedule.due(3.0, server_is_there=True)
    schedule.due(5.1, server_is_there=True)
    assert "no answer from the controller" in schedule.problem


def test_an_answer_to_overtaken_gains_does_not_count() -> None:
    schedule = GainSchedule(timeout_s=2.0)
    schedule.enter(Phase.RESETTING, 0.0)
    schedule.due(0.0, server_is_there=True)
    schedule.enter(Phase.READY, 0.1)
    schedule.answered(GainSet.RESET, "")
    assert not schedule.settled
