"""One goal at a time, one for each wish, and none twice."""

import math

import pytest

from conrft_control.gripper_goals import GripperGoals, Step


@pytest.fixture
def goals() -> GripperGoals:
    return GripperGoals(timeout_s=5.0, patience_s=2.0)


def sent(goals: GripperGoals, wall_s: float = 0.0) -> float | None:
    step, opening = goals.step(wall_s, server_is_there=True)
    return opening if step is Step.SEND else None


def test_a_wish_becomes_one_goal(goals: GripperGoals) -> None:
    goals.want(0.0, 0.0)
    assert sent(goals) == 0.0
    assert sent(goals) is None


def test_the_same_opening_is_not_sent_again_while_it_is_under_way_nor_once_it_is_reached(goals: GripperGoals) -> None:
    goals.want(0.0, 0.0)
    assert sent(goals) == 0.0
    goals.want(0.0, 0.1)
    assert goals.step(0.1, server_is_there=True) == (Step.NOTHING, 0.0)
    goals.ended(goals.number, "")
    goals.want(0.0, 0.2)
    assert sent(goals) is None
    goals.want(1.0, 0.3)
    assert sent(goals) == 1.0


def test_a_newer_wish_cancels_the_goal_and_is_sent_when_that_has_ended(goals: GripperGoals) -> None:
    goals.want(0.0, 0.0)
    sent(goals)
    goals.want(1.0, 0.1)
    assert goals.step(0.1, server_is_there=True)[0] is Step.CANCEL
    assert goals.step(0.2, server_is_there=True)[0] is Step.NOTHING, "it is cancelled once, and nothing overtakes it"
    goals.ended(goals.number, "cancelled")
    assert (sent(goals), goals.problem) == (1.0, "")


def test_a_wish_that_returns_to_the_goal_under_way_changes_nothing(goals: GripperGoals) -> None:
    goals.want(0.0, 0.0)
    sent(goals)
    goals.want(1.0, 0.1)
    goals.want(0.0, 0.1)
    assert goals.step(0.1, server_is_there=True)[0] is Step.NOTHING


def test_a_failure_is_told_and_not_repeated_by_itself_but_the_next_wish_is_tried(goals: GripperGoals) -> None:
    goals.want(0.0, 0.0)
    sent(goals)
    goals.ended(goals.number, "motor is hot")
    assert goals.problem == "gripper: opening 0.00 failed: motor is hot"
    assert sent(goals) is None
    goals.want(0.0, 1.0)
    assert sent(goals) == 0.0
    goals.ended(goals.number, "")
    assert goals.problem == ""


def test_a_goal_that_does_not_end_is_cancelled_and_then_given_up(goals: GripperGoals) -> None:
    goals.want(0.0, 0.0)
    sent(goals)
    assert goals.step(5.1, server_is_there=True)[0] is Step.CANCEL
    assert "did not end within 5.0 s" in goals.problem
    number = goals.number
    goals.step(10.2, server_is_there=True)
    assert goals.goal is None and "was cancelled and did not end" in goals.problem
    goals.ended(number, "")
    assert goals.problem, "an answer that comes after all is not believed"


def test_until_the_server_was_there_for_the_first_time_a_wish_waits(goals: GripperGoals) -> None:
    goals.want(1.0, 0.0)
    assert goals.step(1000.0, server_is_there=False)[0] is Step.NOTHING
    assert goals.problem == ""
    assert sent(goals, 1000.1) == 1.0


def test_what_a_person_has_looked_after_is_no_problem_any_more_and_the_same_opening_is_sent_again(
    goals: GripperGoals,
) -> None:
    goals.want(1.0, 0.0)
    sent(goals)
    goals.ended(goals.number, "")
    goals.want(0.0, 1.0)
    sent(goals)
    goals.ended(goals.number, "motor is hot")
    goals.forget()
    assert goals.problem == ""
    goals.want(0.0, 2.0)
    assert sent(goals) == 0.0
    goals.ended(goals.number, "")
    goals.forget()
    goals.want(0.0, 3.0)
    assert sent(goals) == 0.0, "somebody may have opened it by hand"


def test_without_the_server_that_was_there_a_wish_waits_and_is_then_dropped(goals: GripperGoals) -> None:
    goals.step(0.0, server_is_there=True)
    goals.want(0.0, 0.0)
    assert goals.step(1.9, server_is_there=False)[0] is Step.NOTHING
    assert goals.problem == ""
    goals.step(2.1, server_is_there=False)
    assert "no action server for 2.0 s, opening 0.00 was dropped" in goals.problem
    assert sent(goals, 2.2) is None, "the gripper does not move when the server comes"


@pytest.mark.parametrize("opening", [math.nan, math.inf, -0.1, 1.1])
def test_an_impossible_opening_is_refused(goals: GripperGoals, opening: float) -> None:
    with pytest.raises(ValueError, match=r"must be in 0 \.\. 1"):
        goals.want(opening, 0.0)
    assert sent(goals) is None
