"""What the commander never does: too fast, too hard, too late, or without a person's leave."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from conrft_control.commander import Commander, CommanderSettings, Target
from conrft_data import rotations
from conrft_data.config import SafetyLimits, TaskConfig
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import ActionSource, Command, Outcome, Phase

MS = 1_000_000
TICK_NS = 100 * MS
Status = Callable[..., EpisodeStatus]
NO_WRENCH, HARD = np.zeros(6), np.array([0, 0, 41.0, 0, 0, 0])


def command(*action: float) -> Command:
    return Command(action=np.array([*action, *[0.0] * 7][:7], dtype=np.float32), source=ActionSource.POLICY)


FORWARD, BACKWARD = command(1.0), command(-1.0)
BESIDE = np.array([0.0, 0.2, 0, 0, 0, 0, 0])


class Driven:
    """A commander whose arm is where its last target was, one tick later."""

    def __init__(self, task: TaskConfig, status: Status, home: np.ndarray, **settings: object) -> None:
        self.commander = Commander(task, CommanderSettings(**settings))  # type: ignore[arg-type]
        self.status, self.pose, self.step, self.now_ns = status, home.copy(), 0, 0
        self.blocked = False
        self.targets: list[Target] = []
        self.commander.on_pose(0, self.pose)
        self.commander.on_wrench(0, NO_WRENCH, 0)
        self.commander.on_gripper(0, 1.0)

    def phase(self, phase: Phase, episode: int = 1, **fields: object) -> None:
        self.take(self.commander.on_status(self.status(phase, episode, stamp_ns=self.now_ns, **fields), self.now_ns))

    def tick(self, action: Command, tick_ns: int = TICK_NS) -> None:
        self.take(self.commander.on_action(Tick(self.now_ns, 1, self.step), action, self.now_ns))
        self.step += 1
        self.sense(tick_ns)

    def sense(self, tick_ns: int = TICK_NS, wrench: np.ndarray = NO_WRENCH) -> None:
        self.now_ns += tick_ns
        self.take(self.commander.on_wrench(self.now_ns, wrench, self.now_ns))
        self.take(self.commander.on_pose(self.now_ns, self.pose))
        self.take(self.commander.on_gripper(self.now_ns, 1.0))

    def believe(self, pose: np.ndarray) -> None:
        """So many measured poses agree that they are believed, wrong as they may be."""
        for number in range(6):
            self.take(self.commander.on_pose(self.now_ns + number * MS, pose))

    def take(self, target: Target | None) -> None:
        if target is not None:
            self.targets.append(target)
            self.pose = self.pose if self.blocked else target.pose

    def speeds(self) -> np.ndarray:
        """Of the targets, m/s a tick."""
        return np.array([np.linalg.norm(b.pose[:3] - a.pose[:3]) / 0.1 for a, b in pairwise(self.targets)])


@pytest.fixture
def slow() -> SafetyLimits:
    return SafetyLimits(linear_speed=0.2, linear_acceleration=0.5, angular_speed=0.5, angular_acceleration=2.0)


@pytest.fixture
def driven(task: TaskConfig, status: Status, home: np.ndarray) -> Driven:
    return Driven(task, status, home)


def running(driven: Driven) -> Driven:
    driven.phase(Phase.RUNNING)
    return driven


def test_actions_of_whoever_drives_are_slowed_down_to_the_limits(
    task: TaskConfig, status: Status, home: np.ndarray, slow: SafetyLimits
) -> None:
    driven = running(Driven(task, status, home, safety=slow))
    hand = Command(action=FORWARD.action, source=ActionSource.OPERATOR)
    for action in [FORWARD] * 6 + [hand] * 4 + [BACKWARD] * 10:
        driven.tick(action)
    velocities = np.array([(b.pose[:3] - a.pose[:3]) / 0.1 for a, b in pairwise(driven.targets)])
    assert driven.speeds().max() == pytest.approx(0.2)
    assert np.linalg.norm(np.diff(velocities, axis=0), axis=1).max() == pytest.approx(0.05, rel=1e-6)


def test_the_default_limits_change_no_action_not_even_full_speed_reversed(
    task: TaskConfig, status: Status, home: np.ndarray
) -> None:
    # No configuration may say so.
    unlimited = SafetyLimits.model_construct(**dict.fromkeys(SafetyLimits.model_fields, 1e9))
    both = [running(Driven(task, status, home, safety=safety)) for safety in (SafetyLimits(), unlimited)]
    random = np.random.default_rng(0)
    for action in [command(*np.sign(random.normal(size=6))) for _ in range(200)]:
        for driven in both:
            driven.tick(action)
    np.testing.assert_array_equal(*([target.pose for target in driven.targets] for driven in both))


def test_the_way_home_keeps_within_the_limits_from_the_last_target_on(
    task: TaskConfig, status: Status, home: np.ndarray, slow: SafetyLimits
) -> None:
    driven = running(Driven(task, status, home, safety=slow.model_copy(update={"linear_speed": 0.1})))
    for _ in range(10):
        driven.tick(FORWARD)
    driven.pose = driven.pose - [0.05, 0, 0, 0, 0, 0, 0]  # the arm lags behind its target
    driven.sense()
    driven.phase(Phase.ENDED, outcome=Outcome.TIMEOUT, final_step=9)
    driven.phase(Phase.RESETTING, episode=2)
    for _ in range(30):
        driven.sense()
    assert driven.speeds().max() == pytest.approx(0.1)
    np.testing.assert_allclose(driven.targets[-1].pose[:3], home[:3], atol=0.011)


def test_ticks_that_come_faster_than_they_should_move_the_arm_no_faster(driven: Driven) -> None:
    running(driven)
    driven.tick(FORWARD)
    for _ in range(99):
        driven.tick(FORWARD, tick_ns=MS)
    travelled = np.linalg.norm(driven.targets[-1].pose[:3] - driven.targets[0].pose[:3])
    assert travelled <= SafetyLimits().linear_speed * 0.2


@pytest.mark.parametrize(("age_ms", "words"), [(200, "0.20 s old"), (-200, "0.20 s in the future")])
def test_in_real_time_an_action_at_the_wrong_time_is_not_followed(driven: Driven, age_ms: int, words: str) -> None:
    running(driven)
    driven.tick(FORWARD)
    driven.sense(500 * MS)
    before = driven.pose
    driven.take(driven.commander.on_action(Tick(driven.now_ns - age_ms * MS, 1, 1), FORWARD, driven.now_ns))
    np.testing.assert_array_equal(driven.pose, before)
    assert words in driven.commander.problem
    driven.step = 1
    driven.tick(FORWARD)
    assert not driven.commander.problem


def test_an_emergency_stop_puts_the_target_where_the_arm_is_at_once(driven: Driven) -> None:
    running(driven)
    driven.tick(FORWARD)
    lagging = driven.pose - [0.02, 0, 0, 0, 0, 0, 0]
    driven.commander.on_pose(driven.now_ns, lagging)
    driven.take(driven.commander.on_emergency_stop(True, driven.now_ns))
    np.testing.assert_array_equal(driven.targets[-1].pose, lagging)
    for action in [FORWARD] * 3:
        driven.tick(action)
    driven.commander.on_emergency_stop(False, driven.now_ns)
    driven.phase(Phase.RESETTING, episode=2)
    driven.sense()
    np.testing.assert_array_equal(driven.targets[-1].pose, lagging)
    assert driven.commander.problem == "emergency stop"
    assert driven.commander.gripper.due == 1.0  # opening harms nobody, and is part of going home


def test_an_emergency_stop_does_not_lead_the_arm_to_where_it_cannot_be(driven: Driven) -> None:
    running(driven)
    driven.tick(FORWARD)
    last = driven.targets[-1].pose
    driven.believe(last + BESIDE)
    driven.take(driven.commander.on_emergency_stop(True, driven.now_ns))
    np.testing.assert_array_equal(driven.targets[-1].pose, last)


def test_a_stop_at_the_begin_of_an_episode_does_not_lead_the_arm_either(driven: Driven) -> None:
    running(driven).tick(FORWARD)
    driven.phase(Phase.ENDED)
    held = driven.targets[-1].pose
    driven.believe(held + BESIDE)
    driven.phase(Phase.RUNNING)
    driven.take(driven.commander.on_emergency_stop(True, driven.now_ns))
    np.testing.assert_array_equal(driven.targets[-1].pose, held)


def test_an_episode_begins_at_the_target_that_was_held(driven: Driven) -> None:
    running(driven).tick(FORWARD)
    driven.phase(Phase.ENDED)
    held = driven.targets[-1].pose
    driven.phase(Phase.RUNNING)
    driven.pose = held + np.array([0.0, 0.0, -0.01, 0, 0, 0, 0])  # the arm sinks a little below its target
    driven.blocked = True
    driven.sense()
    driven.tick(Command(action=np.zeros(7, np.float32), source=ActionSource.HOLD))
    np.testing.assert_array_equal(driven.targets[-1].pose, held)


def blocked(driven: Driven) -> np.ndarray:
    """Drives the target away from an arm that something holds where it began; returns where the arm is."""
    driven.blocked = True
    for _ in range(4):
        driven.tick(FORWARD)
    assert driven.targets[-1].pose[0] - driven.pose[0] == pytest.approx(0.06)
    return driven.pose


def test_ticks_that_come_fast_do_not_make_a_target_at_the_end_of_the_leash_flutter(
    task: TaskConfig, status: Status, home: np.ndarray
) -> None:
    driven = Driven(task, status, home + np.array([0.0123, 0.0371, -0.0419, 0, 0, 0, 0]))
    blocked(running(driven))
    for action in [command(0.7, 0.5, -0.4), FORWARD] * 10:
        driven.tick(action, tick_ns=50 * MS)
        ahead = np.linalg.norm(driven.targets[-1].pose[:3] - driven.pose[:3])
        assert ahead == pytest.approx(0.06)


def test_after_a_fault_the_arm_does_not_press_on_what_is_in_its_way(driven: Driven) -> None:
    where = blocked(running(driven))
    driven.phase(Phase.ENDED, outcome=Outcome.FAULT, final_step=driven.step)
    np.testing.assert_array_equal(driven.targets[-1].pose, where)
    driven.tick(FORWARD)  # the Action of the final step comes after the news
    for _ in range(3):
        driven.sense()
    np.testing.assert_array_equal(driven.targets[-1].pose, where)


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.TIMEOUT, Outcome.ABORTED])
def test_an_episode_that_ends_without_a_fault_leaves_the_target_where_it_is(driven: Driven, outcome: Outcome) -> None:
    blocked(running(driven))
    last = driven.targets[-1].pose
    driven.phase(Phase.ENDED, outcome=outcome, final_step=driven.step)
    driven.sense()
    np.testing.assert_array_equal(driven.targets[-1].pose, last)


def test_after_a_fault_the_target_goes_nowhere_on_a_stale_pose(driven: Driven) -> None:
    blocked(running(driven))
    last = driven.targets[-1].pose
    driven.now_ns += 500 * MS
    driven.phase(Phase.ENDED, outcome=Outcome.FAULT, final_step=driven.step)
    driven.sense()
    np.testing.assert_array_equal(driven.targets[-1].pose, last)


def test_a_fault_does_not_cut_a_retreat_short(driven: Driven) -> None:
    running(driven)
    for _ in range(4):
        driven.tick(FORWARD)
    contact = driven.pose
    driven.sense(10 * MS, HARD)
    driven.sense()
    driven.phase(Phase.ENDED, outcome=Outcome.FAULT, final_step=3)
    assert driven.pose[0] < contact[0]
    for _ in range(12):
        driven.sense()
    np.testing.assert_allclose(driven.pose[:3], contact[:3] - [0.03, 0, 0], atol=1e-6)


def guided(driven: Driven, way: np.ndarray, seconds: float) -> None:
    """The controller is off, and a person holds the arm elsewhere."""
    driven.blocked, driven.pose = True, driven.pose + way
    driven.believe(driven.pose)
    for _ in range(round(10 * seconds)):
        driven.sense()


@pytest.mark.parametrize("phase", [Phase.READY, Phase.ENDED])
def test_between_episodes_an_arm_that_was_guided_elsewhere_is_held_there(driven: Driven, phase: Phase) -> None:
    running(driven).tick(FORWARD)
    driven.phase(phase, outcome=Outcome.FAULT, final_step=0)
    left = driven.targets[-1].pose
    guided(driven, BESIDE, 0.4)
    np.testing.assert_array_equal(driven.targets[-1].pose, left)
    assert not driven.commander.warning
    guided(driven, 0 * BESIDE, 0.4)
    np.testing.assert_array_equal(driven.targets[-1].pose, driven.pose)
    assert "the arm was moved by 0.20 m by somebody else" in driven.commander.warning
    driven.phase(Phase.RESETTING, episode=2)
    assert not driven.commander.warning


def test_an_arm_that_was_turned_by_hand_is_held_as_it_is_too(driven: Driven) -> None:
    running(driven).tick(FORWARD)
    driven.phase(Phase.ENDED, outcome=Outcome.TIMEOUT, final_step=0)
    driven.blocked = True
    driven.pose = np.concatenate([driven.pose[:3], rotations.from_euler_xyz([3.14159265, 0.0, 0.5])])
    for _ in range(8):
        driven.sense()
    np.testing.assert_array_equal(driven.targets[-1].pose, driven.pose)


def test_an_arm_within_the_leash_stays_pressed_to_what_it_touches(driven: Driven) -> None:
    blocked(running(driven))
    driven.phase(Phase.ENDED, outcome=Outcome.SUCCESS, final_step=driven.step)
    last = driven.targets[-1].pose
    guided(driven, 0 * BESIDE, 3.0)
    np.testing.assert_array_equal(driven.targets[-1].pose, last)


def test_a_few_poses_far_away_are_not_followed_whatever_their_stamps_say(driven: Driven) -> None:
    running(driven).tick(FORWARD)
    driven.phase(Phase.ENDED, outcome=Outcome.TIMEOUT, final_step=0)
    left, driven.blocked = driven.targets[-1].pose, True
    driven.believe(left + BESIDE)
    driven.now_ns += 3600 * 10**9
    driven.believe(left + BESIDE)
    driven.pose = left
    driven.believe(left)
    driven.sense()
    np.testing.assert_array_equal(driven.targets[-1].pose, left)


def test_after_a_person_has_reset_the_stop_the_arm_goes_on_from_where_it_stands(driven: Driven) -> None:
    running(driven)
    driven.tick(FORWARD)
    driven.take(driven.commander.on_emergency_stop(True, driven.now_ns))
    driven.tick(FORWARD)
    assert driven.commander.reset_stop() == "the emergency stop is still pressed"
    driven.commander.on_emergency_stop(False, driven.now_ns)
    assert driven.commander.reset_stop() == ""
    stood = driven.pose
    driven.tick(FORWARD)
    np.testing.assert_allclose(driven.pose[:3], stood[:3] + np.array([0.03, 0, 0]), atol=1e-6)


def test_a_reset_outside_the_box_moves_nothing_and_the_way_back_in_keeps_within_the_speed_limits(
    driven: Driven, home: np.ndarray
) -> None:
    running(driven).tick(FORWARD)
    driven.phase(Phase.ENDED, outcome=Outcome.ABORTED, final_step=0)
    driven.blocked, driven.pose = True, home + np.array([0.45, 0, 0, 0, 0, 0, 0])  # 0.25 m outside
    driven.believe(driven.pose)
    driven.sense()
    driven.phase(Phase.RESETTING, episode=2)
    driven.blocked = False
    driven.sense()
    driven.take(driven.commander.on_emergency_stop(True, driven.now_ns))
    driven.sense()
    driven.commander.on_emergency_stop(False, driven.now_ns)
    stood, stopped = driven.targets[-1].pose, len(driven.targets)
    assert driven.commander.reset_stop() == ""
    driven.phase(Phase.ENDED, episode=2, outcome=Outcome.FAULT)
    for _ in range(3):
        driven.sense()
    np.testing.assert_array_equal(driven.targets[-1].pose, stood)
    driven.phase(Phase.RUNNING)
    for _ in range(4):
        driven.tick(BACKWARD)
    assert driven.speeds()[stopped:].max() == pytest.approx(driven.commander.settings.safety.linear_speed)
    assert driven.pose[0] < 0.7


def test_a_force_beyond_the_limit_leads_the_arm_back_a_little_and_holds_it_there(driven: Driven) -> None:
    running(driven)
    for _ in range(4):
        driven.tick(FORWARD)
    contact = driven.pose
    driven.sense(10 * MS, HARD)
    np.testing.assert_array_equal(driven.pose, contact)
    for _ in range(12):
        driven.tick(FORWARD)
    np.testing.assert_allclose(driven.pose[:3], contact[:3] - [0.03, 0, 0], atol=1e-6)
    assert "wrench: 41.0 N, limit 40.0 N" in driven.commander.problem


def test_in_real_time_the_retreat_goes_on_without_actions(driven: Driven) -> None:
    running(driven)
    for _ in range(4):
        driven.tick(FORWARD)
    contact = driven.pose
    driven.sense(10 * MS, HARD)
    driven.phase(Phase.ENDED, outcome=Outcome.FAULT, final_step=3)
    for _ in range(12):
        driven.sense()
    np.testing.assert_allclose(driven.pose[:3], contact[:3] - [0.03, 0, 0], atol=1e-6)


def retreating(task: TaskConfig, status: Status, home: np.ndarray, **settings: object) -> Driven:
    """A commander whose arm has gone a tick back from a contact."""
    driven = Driven(task, status, home, **settings)
    driven.commander.deadman.put([0, 1], 0)
    driven.phase(Phase.RUNNING)
    for _ in range(4):
        driven.commander.deadman.put([0, 1], driven.now_ns)
        driven.tick(FORWARD)
    driven.sense(10 * MS, HARD)
    contact = driven.pose[0]
    driven.phase(Phase.ENDED, outcome=Outcome.FAULT, final_step=3)
    driven.commander.deadman.put([0, 1], driven.now_ns)
    driven.sense()
    assert driven.pose[0] < contact
    return driven


def second_contact(driven: Driven) -> None:
    driven.sense(10 * MS)
    driven.sense(10 * MS, HARD)


def bad_wrench(driven: Driven) -> None:
    driven.commander.on_wrench(driven.now_ns, None, driven.now_ns)


def late_wrench(driven: Driven) -> None:
    driven.now_ns += 150 * MS
    driven.commander.deadman.put([0, 1], driven.now_ns)
    driven.take(driven.commander.on_pose(driven.now_ns, driven.pose))


def bad_pose(driven: Driven) -> None:
    driven.now_ns += 100 * MS
    driven.take(driven.commander.on_pose(driven.now_ns, None))


def deadman_released(driven: Driven) -> None:
    driven.commander.deadman.put([0, 0], driven.now_ns)
    driven.sense()


@pytest.mark.parametrize("cause", [second_contact, bad_wrench, late_wrench, bad_pose, deadman_released])
def test_a_retreat_ends_for_good_where_the_arm_may_not_move(
    task: TaskConfig, status: Status, home: np.ndarray, cause: Callable[[Driven], None]
) -> None:
    driven = retreating(task, status, home, deadman_button=1)
    cause(driven)
    stood = driven.targets[-1].pose
    for _ in range(5):
        driven.commander.deadman.put([0, 1], driven.now_ns)
        driven.sense()
    np.testing.assert_array_equal(driven.targets[-1].pose, stood)
    assert driven.commander.problem.startswith("wrench: 41.0 N")


def test_what_a_retreat_presses_on_the_arm_lets_go(task: TaskConfig, status: Status, home: np.ndarray) -> None:
    driven = retreating(task, status, home)
    driven.blocked = True
    for _ in range(3):
        driven.sense()
    assert driven.targets[-1].pose[0] < driven.pose[0]
    driven.sense(10 * MS, HARD)
    np.testing.assert_array_equal(driven.targets[-1].pose, driven.pose)


def test_a_retreat_keeps_within_the_speeds_and_accelerations_of_every_motion(
    task: TaskConfig, status: Status, home: np.ndarray
) -> None:
    limits = SafetyLimits(linear_speed=0.1, linear_acceleration=0.2, angular_speed=0.5, retreat_speed=0.2)
    driven = Driven(task, status, home, safety=limits)
    driven.phase(Phase.RUNNING)
    for _ in range(10):
        driven.tick(FORWARD)
    driven.sense(10 * MS, HARD)
    contact, began = driven.pose, len(driven.targets)
    for _ in range(20):
        driven.sense()
    assert driven.speeds()[began:].max() == pytest.approx(limits.linear_speed)
    assert np.diff(driven.speeds()[began:]).max() == pytest.approx(limits.linear_acceleration * 0.1)
    np.testing.assert_allclose(driven.pose[:3], contact[:3] - [0.03, 0, 0], atol=1e-6)


def test_a_wrench_that_is_not_finite_or_stale_holds_the_arm(driven: Driven) -> None:
    running(driven)
    driven.tick(FORWARD)
    driven.commander.on_wrench(driven.now_ns, None, driven.now_ns)
    before = driven.pose
    driven.tick(FORWARD)
    np.testing.assert_array_equal(driven.pose, before)
    driven.sense(MS)
    driven.commander.on_time(driven.now_ns)
    assert not driven.commander.problem
    driven.now_ns += 150 * MS
    driven.commander.on_pose(driven.now_ns, driven.pose)
    assert driven.commander.on_time(driven.now_ns) is not None
    assert "wrench: stale, 0.15 s old" in driven.commander.problem
    driven.sense(MS)
    driven.commander.on_time(driven.now_ns)
    assert "wrench" not in driven.commander.problem


def test_a_pose_from_the_future_is_no_measurement(driven: Driven) -> None:
    running(driven)
    driven.commander.on_pose(10**15, driven.pose)
    before = driven.pose
    driven.take(driven.commander.on_action(Tick(0, 1, 0), FORWARD, 0))
    np.testing.assert_array_equal(driven.pose, before)
    assert "in the future" in driven.commander.problem


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.RESETTING])
def test_with_a_deadman_button_the_arm_moves_only_while_it_is_held(
    task: TaskConfig, status: Status, home: np.ndarray, phase: Phase
) -> None:
    driven = Driven(task, status, home, deadman_button=1)
    driven.pose = driven.pose + np.array([0.05, 0, 0, 0, 0, 0, 0])
    driven.sense()
    driven.phase(phase)
    before = driven.pose
    for held in (False, True, False):
        driven.commander.deadman.put([0, int(held)], driven.now_ns)
        driven.tick(FORWARD)
        assert np.array_equal(driven.pose, before) is not held
        before = driven.pose
    assert not driven.commander.problem
