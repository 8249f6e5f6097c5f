"""The commander follows Actions, leads the arm home, and else holds it."""

from collections.abc import Callable

import numpy as np
import pytest

from conrft_control.commander import Commander, CommanderSettings, GripperCommand, Target
from conrft_data.config import TaskConfig
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import ActionSource, Command, Outcome, Phase

MS = 1_000_000
TICK_NS = 100 * MS
Status = Callable[..., EpisodeStatus]


def command(*action: float, source: ActionSource = ActionSource.POLICY) -> Command:
    return Command(action=np.array([*action, *[0.0] * 7][:7], dtype=np.float32), source=source)


HOLD = command(source=ActionSource.HOLD)
FORWARD = command(1.0)


@pytest.fixture
def lockstep(task: TaskConfig) -> Commander:
    return Commander(task, CommanderSettings(lockstep=True))


@pytest.fixture
def real_time(task: TaskConfig) -> Commander:
    return Commander(task, CommanderSettings())


def sense(commander: Commander, stamp_ns: int, pose: np.ndarray | None) -> Target | None:
    """Wrench and pose are measured."""
    commander.on_wrench(stamp_ns, np.zeros(6), stamp_ns)
    return commander.on_pose(stamp_ns, pose)


def running(commander: Commander, status: Status, pose: np.ndarray, stamp_ns: int = 0) -> Commander:
    sense(commander, stamp_ns, pose)
    commander.on_status(status(Phase.RUNNING, stamp_ns=stamp_ns), stamp_ns)
    return commander


def moved(pose: np.ndarray, x: float = 0, y: float = 0) -> np.ndarray:
    """``pose`` shifted in the base frame, metres."""
    return pose + np.array([x, y, 0, 0, 0, 0, 0])


def tick(step: int, episode: int = 1) -> Tick:
    return Tick(step * TICK_NS, episode, step)


def some(target: Target | None) -> Target:
    assert target is not None
    return target


def test_an_action_moves_the_reference_and_the_target_carries_the_ticks_stamp(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    target = some(running(lockstep, status, home).on_action(tick(0), FORWARD, 0))
    assert target.stamp_ns == 0
    np.testing.assert_allclose(target.pose[:3], moved(home, 0.03)[:3], atol=1e-6)


def test_a_hold_publishes_the_reference_again_under_the_new_stamp(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    running(lockstep, status, home)
    target = some(lockstep.on_action(tick(0), FORWARD, 0))
    lockstep.on_pose(TICK_NS, home)
    held = some(lockstep.on_action(tick(1), HOLD, TICK_NS))
    assert held.stamp_ns == TICK_NS
    np.testing.assert_array_equal(held.pose, target.pose)


def test_each_tick_is_answered_once(lockstep: Commander, status: Status, home: np.ndarray) -> None:
    running(lockstep, status, home)
    assert lockstep.on_action(tick(0), FORWARD, 0) is not None
    assert lockstep.on_action(tick(0), FORWARD, 0) is None


def test_an_action_of_another_episode_does_not_count(lockstep: Commander, status: Status, home: np.ndarray) -> None:
    running(lockstep, status, home)
    assert lockstep.on_action(tick(0, episode=2), FORWARD, 0) is None


def test_in_lockstep_an_action_that_overtakes_the_news_of_its_episode_is_followed_when_the_news_comes(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    lockstep.on_pose(0, home)
    lockstep.on_status(status(Phase.READY, stamp_ns=0), 0)
    assert lockstep.on_action(tick(0), FORWARD, 0) is None
    target = some(lockstep.on_status(status(Phase.RUNNING, stamp_ns=0), 0))
    np.testing.assert_allclose(target.pose[:3], moved(home, 0.03)[:3], atol=1e-6)
    assert lockstep.on_action(tick(0), FORWARD, 0) is None


def test_in_real_time_an_early_action_is_not_followed_late(
    real_time: Commander, status: Status, home: np.ndarray
) -> None:
    real_time.on_pose(0, home)
    real_time.on_status(status(Phase.READY, stamp_ns=0), 0)
    assert real_time.on_action(tick(0), FORWARD, 0) is None
    assert real_time.on_status(status(Phase.RUNNING, stamp_ns=0), 0) is None


def test_in_lockstep_an_action_waits_for_the_measured_pose_of_its_tick(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    running(lockstep, status, home)
    lockstep.on_action(tick(0), HOLD, 0)
    assert lockstep.on_action(tick(1), FORWARD, TICK_NS) is None
    assert some(lockstep.on_pose(TICK_NS, home)).stamp_ns == TICK_NS


def test_in_lockstep_a_running_episode_is_answered_only_through_actions(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    running(lockstep, status, home)
    assert lockstep.on_pose(TICK_NS, home) is None


def test_a_simulator_that_asks_again_gets_the_same_answer(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    running(lockstep, status, home)
    first = some(lockstep.on_action(tick(0), FORWARD, 0))
    again = some(lockstep.on_pose(0, home))
    assert again.stamp_ns == first.stamp_ns
    np.testing.assert_array_equal(again.pose, first.pose)


@pytest.mark.parametrize("phase", [Phase.READY, Phase.ENDED])
def test_in_lockstep_simulated_time_stands_still_between_episodes(
    lockstep: Commander, status: Status, home: np.ndarray, phase: Phase
) -> None:
    lockstep.on_status(status(phase), 0)
    assert lockstep.on_pose(TICK_NS, home) is None


def test_the_action_of_the_final_step_may_come_after_the_end(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    running(lockstep, status, home)
    lockstep.on_action(tick(0), HOLD, 0)
    lockstep.on_pose(TICK_NS, home)
    lockstep.on_status(status(Phase.ENDED, outcome=Outcome.SUCCESS, final_step=1), TICK_NS)
    assert some(lockstep.on_action(tick(1), FORWARD, TICK_NS)).stamp_ns == TICK_NS
    lockstep.on_pose(2 * TICK_NS, home)
    assert lockstep.on_action(tick(2), FORWARD, 2 * TICK_NS) is None


def test_before_the_supervisor_has_spoken_the_robot_is_not_commanded(real_time: Commander, home: np.ndarray) -> None:
    assert real_time.on_pose(0, home) is None
    assert real_time.on_pose(TICK_NS, None) is None
    assert real_time.on_time(10 * TICK_NS) is None


def test_resetting_leads_the_arm_home_and_opens_the_gripper(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    pose = moved(home, 0, 0.05)
    lockstep.on_status(status(Phase.RESETTING), 0)
    assert lockstep.gripper.due == 1.0
    for step in range(20):
        stamp = step * TICK_NS
        assert lockstep.on_pose(stamp, pose) is None  # the gripper of this tick is still to come
        target = lockstep.on_gripper(stamp, 1.0)
        if target is None:
            break
        assert target.stamp_ns == stamp
        pose = target.pose
    np.testing.assert_allclose(pose[:3], home[:3], atol=0.011)
    assert lockstep.on_pose((step + 1) * TICK_NS, home) is None


def test_in_lockstep_the_arm_waits_at_home_until_the_gripper_is_open(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    lockstep.on_status(status(Phase.RESETTING), 0)
    lockstep.on_pose(0, home)
    assert lockstep.on_gripper(0, 0.2) is not None
    lockstep.on_pose(TICK_NS, home)
    assert lockstep.on_gripper(TICK_NS, 1.0) is None


def test_in_lockstep_ticks_from_before_the_reset_are_not_answered(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    pose = moved(home, 0, 0.05)
    lockstep.on_pose(0, pose)
    lockstep.on_gripper(0, 1.0)
    assert lockstep.on_status(status(Phase.RESETTING, stamp_ns=TICK_NS), TICK_NS) is None
    lockstep.on_pose(TICK_NS, pose)
    assert lockstep.on_gripper(TICK_NS, 1.0) is not None


def test_a_new_episode_starts_its_reference_at_the_measured_pose(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    running(lockstep, status, home)
    lockstep.on_action(tick(0), FORWARD, 0)
    lockstep.on_status(status(Phase.ENDED), 0)
    elsewhere = moved(home, 0, 0.1)
    lockstep.on_pose(TICK_NS, elsewhere)
    lockstep.on_status(status(Phase.RUNNING, episode=2), TICK_NS)
    target = some(lockstep.on_action(Tick(TICK_NS, 2, 0), HOLD, TICK_NS))
    np.testing.assert_allclose(target.pose, elsewhere)


# Real time: latest values, watchdogs.


def test_in_real_time_the_pose_at_the_tick_turns_the_action_not_a_newer_one(
    real_time: Commander, status: Status, home: np.ndarray
) -> None:
    running(real_time, status, home)
    upright = np.array([*home[:3], 0, 0, 0, 1])
    sense(real_time, 50 * MS, upright)
    target = some(real_time.on_action(tick(0), command(0, 1.0), 60 * MS))
    np.testing.assert_allclose(target.pose[:3], moved(home, 0, -0.03)[:3], atol=1e-6)


def test_between_episodes_the_held_target_is_repeated_ten_times_a_second(
    real_time: Commander, status: Status, home: np.ndarray
) -> None:
    real_time.on_status(status(Phase.READY), 0)
    targets = [sense(real_time, k * 10 * MS, home) for k in range(50)]
    stamps = [target.stamp_ns for target in targets if target is not None]
    assert stamps == [0, 100 * MS, 200 * MS, 300 * MS, 400 * MS]


def test_without_actions_for_150_ms_the_arm_holds_and_says_so(
    real_time: Commander, status: Status, home: np.ndarray
) -> None:
    running(real_time, status, home)
    followed = some(real_time.on_action(tick(0), FORWARD, 10 * MS))
    sense(real_time, 155 * MS, home)
    assert real_time.on_time(160 * MS) is None
    assert not real_time.problem
    held = some(real_time.on_time(161 * MS))
    assert "action: none for" in real_time.problem
    np.testing.assert_array_equal(held.pose, followed.pose)
    assert some(sense(real_time, 270 * MS, home)).stamp_ns == 270 * MS  # and goes on holding
    assert real_time.on_action(Tick(280 * MS, 1, 1), FORWARD, 280 * MS) is not None
    assert not real_time.problem


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.RESETTING])
def test_in_real_time_an_arm_whose_wrench_nobody_has_measured_is_not_moved(
    real_time: Commander, status: Status, home: np.ndarray, phase: Phase
) -> None:
    away = moved(home, 0.1)
    real_time.on_pose(0, away)
    real_time.on_gripper(0, 1.0)
    targets = [real_time.on_status(status(phase), 0)]
    for step in range(10):
        now_ns = step * TICK_NS
        targets += [real_time.on_action(tick(step), FORWARD, now_ns), real_time.on_time(now_ns + 20 * MS)]
        targets.append(real_time.on_pose(now_ns + TICK_NS, away))
    np.testing.assert_array_equal(np.ptp([target.pose for target in targets if target], axis=0), np.zeros(7))
    assert real_time.problem == "wrench: nothing received yet, the arm holds"


def test_a_stale_measured_pose_holds_the_arm(real_time: Commander, status: Status, home: np.ndarray) -> None:
    running(real_time, status, home)
    target = some(real_time.on_action(tick(0), FORWARD, 0))
    held = some(real_time.on_action(tick(1), FORWARD, 101 * MS))
    assert "current_pose: stale" in real_time.problem
    np.testing.assert_array_equal(held.pose, target.pose)


def test_the_watchdog_notices_a_stale_pose_between_actions(
    real_time: Commander, status: Status, home: np.ndarray
) -> None:
    running(real_time, status, home)
    real_time.on_action(tick(0), FORWARD, 0)
    assert real_time.on_time(101 * MS) is not None
    assert "current_pose: stale" in real_time.problem


def test_a_pose_that_is_not_finite_holds_the_arm_until_a_good_one_comes(
    real_time: Commander, status: Status, home: np.ndarray
) -> None:
    running(real_time, status, home)
    target = some(real_time.on_action(tick(0), FORWARD, 0))
    held = some(sense(real_time, 100 * MS, None))
    np.testing.assert_array_equal(held.pose, target.pose)
    assert "not a finite pose" in real_time.problem
    held = some(real_time.on_action(Tick(100 * MS, 1, 1), FORWARD, 100 * MS))
    np.testing.assert_array_equal(held.pose, target.pose)
    sense(real_time, 120 * MS, home)
    real_time.on_time(121 * MS)
    assert not real_time.problem


def test_a_problem_with_the_gripper_or_the_pose_goes_with_its_cause(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    lockstep.on_status(status(Phase.ENDED), 0)
    lockstep.on_unusable_gripper("gripper: NaN")
    assert lockstep.problem == "gripper: NaN"
    lockstep.on_gripper(0, 1.0)
    assert not lockstep.problem
    lockstep.on_pose(0, None)
    assert lockstep.problem
    lockstep.on_pose(TICK_NS, home)
    assert not lockstep.problem


def test_an_action_that_cannot_be_used_holds_the_arm_and_answers_the_tick(
    lockstep: Commander, status: Status, home: np.ndarray
) -> None:
    running(lockstep, status, home)
    assert some(lockstep.on_unusable_action(tick(0), "action: NaN", 0)).stamp_ns == 0
    assert lockstep.problem == "action: NaN"
    lockstep.on_pose(TICK_NS, home)
    lockstep.on_action(tick(1), FORWARD, TICK_NS)
    assert not lockstep.problem


def test_an_action_of_nan_does_not_move_the_reference(lockstep: Commander, status: Status, home: np.ndarray) -> None:
    running(lockstep, status, home)
    held = some(lockstep.on_action(tick(0), command(np.nan), 0))
    np.testing.assert_allclose(held.pose, home)
    assert "finite" in lockstep.problem


def test_a_restarted_simulators_poses_are_followed(lockstep: Commander, status: Status, home: np.ndarray) -> None:
    running(lockstep, status, home, stamp_ns=90_000 * MS)
    lockstep.on_status(status(Phase.RESETTING, episode=2, stamp_ns=0), 0)
    lockstep.on_pose(0, moved(home, 0, 0.05))
    assert lockstep.on_gripper(0, 1.0) is not None


def test_the_gripper_is_told_on_change_only() -> None:
    gripper, sent = GripperCommand(), []
    for number in [0.0, -1.0, -0.6, 0.0, -1.0, 0.49, 0.5, 1.0, -0.5]:
        gripper.want(number)
        if gripper.due is not None:
            sent.append(gripper.due)
            gripper.sent()
    assert sent == [0.0, 1.0, 0.0]


def test_a_gripper_command_that_nobody_received_stays_due() -> None:
    gripper = GripperCommand()
    gripper.want(-1.0)
    assert gripper.due == 0.0
    assert gripper.due == 0.0
    gripper.sent()
    assert gripper.due is None


def test_a_task_without_gripper_leaves_it_alone(task: TaskConfig, status: Status, home: np.ndarray) -> None:
    commander = Commander(task.model_copy(update={"action_dim": 6}), CommanderSettings(lockstep=True))
    running(commander, status, home)
    commander.on_action(tick(0), command(0, 0, 0, 0, 0, 0, -1), 0)
    assert commander.gripper.due is None
