"""Exactly one Action for each Observation, whoever is late, doubled, out of order, silent or wrong."""

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from conrft_control.intervention_mux import Decision, InterventionMux, MuxSettings
from conrft_control.operator_input import DeviceSettings, TakeoverSettings
from conrft_data import rotations
from conrft_data.ticks import Tick
from conrft_data.types import ActionSource

MS = 1_000_000
UPRIGHT = [0.0, 0.0, 0.0, 1.0]
FORWARD = np.array([0.5, 0, 0, 0, 0, 0, -1.0])


def tick(step: int, episode: int = 1) -> Tick:
    return Tick((episode * 1000 + step) * 100 * MS, episode, step)


class Loop:
    """A mux with its two clocks."""

    def __init__(self, **settings: object) -> None:
        self.mux = InterventionMux(MuxSettings(takeover=TakeoverSettings(hold_ticks=2), **settings))
        self.now_ns, self.wall_s = tick(0).stamp_ns, 100.0

    def observe(self, step: int = 0, orientation: object = UPRIGHT) -> list[Decision]:
        self.now_ns = max(self.now_ns, tick(step).stamp_ns)
        return self.mux.observe(tick(step), orientation, self.now_ns, self.wall_s)

    def propose(self, step: int = 0, action: object = FORWARD) -> list[Decision]:
        return self.mux.propose(tick(step), action, self.now_ns, self.wall_s)

    def push(self, *axes: float) -> None:
        self.mux.device.put_twist([*axes, 0, 0, 0, 0, 0, 0][:6], self.now_ns)

    def joy(self, step: int = 0, buttons: tuple[int, ...] = (0, 0)) -> list[Decision]:
        return self.mux.operate(list(buttons), tick(step).stamp_ns, self.now_ns, self.wall_s)

    def wait(self, *, ros_ms: float = 0, wall_s: float = 0) -> list[Decision]:
        self.now_ns += round(ros_ms * MS)
        self.wall_s += wall_s
        return self.mux.expire(self.now_ns, self.wall_s)


def only(decisions: list[Decision]) -> Decision:
    assert len(decisions) == 1
    return decisions[0]


def test_the_policys_action_is_taken_as_soon_as_it_comes() -> None:
    loop = Loop()
    assert loop.observe() == []
    decision = only(loop.propose())
    assert decision.tick == tick(0)
    assert decision.command.source is ActionSource.POLICY
    np.testing.assert_array_equal(decision.command.action, FORWARD.astype(np.float32))
    np.testing.assert_array_equal(decision.command.proposal, decision.command.action)


def test_a_proposal_that_overtakes_its_observation_counts() -> None:
    loop = Loop()
    assert loop.propose() == []
    assert only(loop.observe()).command.source is ActionSource.POLICY


def test_a_proposal_for_another_stamp_episode_or_step_never_counts() -> None:
    loop = Loop()
    loop.observe(1)
    stamp = tick(1).stamp_ns
    for other in (tick(0), tick(2), Tick(stamp, 2, 1), Tick(stamp, 1, 0), Tick(stamp + 1, 1, 1)):
        assert loop.mux.propose(other, FORWARD, loop.now_ns, loop.wall_s) == []
    assert only(loop.wait(ros_ms=80)).command.source is ActionSource.HOLD


def test_in_real_time_a_policy_that_nobody_judges_any_more_is_not_followed() -> None:
    loop = Loop(reward_expected=True)

    def decide(step: int) -> Decision:
        loop.observe(step)
        return only(loop.propose(step))

    assert decide(10).command.source is ActionSource.POLICY  # the reward node has a second from the first tick on
    loop.mux.rewarded(tick(12).stamp_ns, loop.now_ns, loop.wall_s)
    assert decide(22).command.source is ActionSource.POLICY
    decision = decide(23)
    assert (decision.command.source, decision.fault) == (ActionSource.HOLD, True)
    assert decision.command.reason == "reward: silent for 1.1 s"
    loop.mux.rewarded(tick(23).stamp_ns, loop.now_ns, loop.wall_s)
    assert decide(24).command.source is ActionSource.POLICY
    loop.wait(ros_ms=3600)
    loop.push(1.0)
    assert decide(60).command.source is ActionSource.OPERATOR  # a hand needs no judge


def test_80_ms_after_the_stamp_the_arm_holds_and_the_reason_names_the_policy() -> None:
    loop = Loop()
    loop.observe()
    assert loop.wait(ros_ms=79.9) == []
    decision = only(loop.wait(ros_ms=0.1))
    assert decision.command.source is ActionSource.HOLD
    assert decision.fault
    assert "policy" in decision.command.reason
    assert "80 ms" in decision.command.reason
    assert not decision.command.action.any()


def test_a_proposal_after_the_deadline_changes_nothing() -> None:
    loop = Loop()
    loop.observe()
    loop.wait(ros_ms=80)
    assert loop.propose() == []


def test_an_observation_that_comes_too_late_is_held_at_once() -> None:
    loop = Loop()
    loop.propose()
    loop.now_ns += 90 * MS
    decision = only(loop.observe())
    assert decision.command.source is ActionSource.HOLD
    assert "90 ms after its stamp" in decision.command.reason


def test_the_next_observation_closes_the_one_before() -> None:
    loop = Loop(deadline_s=0.5)
    loop.observe(0)
    decision = only(loop.observe(1))
    assert decision.tick == tick(0)
    assert decision.command.source is ActionSource.HOLD
    assert only(loop.propose(1)).tick == tick(1)


def test_a_doubled_observation_and_a_doubled_proposal_lead_to_one_action() -> None:
    loop = Loop()
    loop.observe()
    assert loop.observe() == []
    only(loop.propose())
    assert loop.propose() == []
    assert loop.observe() == []


@pytest.mark.parametrize(
    ("bad", "word"),
    [([np.nan] * 7, "finite"), ([np.inf, *[0] * 6], "finite"), ([0] * 6, "7"), ([1.2, *[0] * 6], "beyond")],
)
def test_a_proposal_that_cannot_be_followed_holds_the_arm_and_says_why(bad: list[float], word: str) -> None:
    loop = Loop()
    loop.observe()
    decision = only(loop.propose(action=bad))
    assert decision.command.source is ActionSource.HOLD
    assert decision.fault
    assert word in decision.command.reason
    assert decision.command.proposal is None


def test_a_proposal_slightly_out_of_range_is_clipped() -> None:
    loop = Loop()
    loop.observe()
    decision = only(loop.propose(action=[1.04, -1.04, 0, 0, 0, 0, 0]))
    np.testing.assert_array_equal(decision.command.action[:2], [1, -1])


def test_the_operator_overrules_the_policy_and_the_proposal_is_kept_beside() -> None:
    loop = Loop()
    loop.push(0, 0, 1)
    loop.observe()
    decision = only(loop.propose())
    assert decision.command.source is ActionSource.OPERATOR
    np.testing.assert_allclose(decision.command.action, [0, 0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(decision.command.proposal, FORWARD.astype(np.float32))


def test_the_operators_push_is_turned_by_the_measured_orientation_of_the_tick() -> None:
    loop = Loop(policy_expected=False)
    loop.push(0, 0, 1)
    decision = only(loop.observe(orientation=rotations.from_euler_xyz([np.pi, 0, 0])))
    np.testing.assert_allclose(decision.command.action[:3], [0, 0, -1], atol=1e-6)


def test_after_the_hold_time_control_returns_to_the_policy() -> None:
    loop = Loop(device=DeviceSettings(timeout_s=0.05))
    sources = []
    for step in range(5):
        if step == 0:
            loop.push(1)
        loop.observe(step)
        sources.append(only(loop.propose(step)).command.source.name)
    assert sources == ["OPERATOR", "OPERATOR", "OPERATOR", "POLICY", "POLICY"]


def test_a_driving_operator_needs_no_policy() -> None:
    loop = Loop()
    loop.push(1)
    loop.observe()
    decision = only(loop.wait(ros_ms=80))
    assert decision.command.source is ActionSource.OPERATOR
    assert decision.command.proposal is None


def test_the_gripper_is_kept_while_the_operator_drives_without_a_button() -> None:
    loop = Loop()
    loop.push(1)
    loop.observe()
    assert only(loop.propose()).command.action[6] == 0


def test_a_button_closes_the_gripper_until_the_operator_lets_go() -> None:
    loop = Loop(policy_expected=False)
    gripper = []
    for step in range(5):
        loop.joy(step, (1, 0) if step == 0 else (0, 0))
        gripper.append(float(only(loop.observe(step)).command.action[6]))
    assert gripper == [-1, -1, -1, 0, 0]


def test_a_fixed_gripper_is_kept_whatever_buttons_and_policy_say() -> None:
    loop = Loop(fixed_gripper=True)
    loop.observe(0)
    policy = only(loop.propose(0, [1, 0, 0, 0, 0, 0, -1])).command
    loop.joy(1, (1, 0))
    loop.push(1)
    loop.observe(1)
    operator = only(loop.propose(1)).command
    assert (policy.source, operator.source) == (ActionSource.POLICY, ActionSource.OPERATOR)
    assert policy.action[6] == operator.action[6] == 0


def test_a_button_of_a_fixed_gripper_takes_nothing_over() -> None:
    loop = Loop(fixed_gripper=True)
    loop.joy(0, (1, 0))
    loop.observe(0)
    assert only(loop.propose(0)).command.source is ActionSource.POLICY


def test_a_twist_that_is_not_finite_holds_the_arm() -> None:
    loop = Loop()
    loop.push(np.nan)
    loop.observe()
    decision = only(loop.propose())
    assert decision.command.source is ActionSource.HOLD
    assert "twist" in decision.command.reason
    assert decision.command.proposal is not None


def test_an_idle_hand_without_a_policy_holds_and_is_no_fault() -> None:
    decision = only(Loop(policy_expected=False).observe())
    assert decision.command.source is ActionSource.HOLD
    assert not decision.fault
    assert decision.command.reason


def test_with_a_deadman_button_neither_policy_nor_hand_moves_the_arm_while_it_is_released() -> None:
    loop = Loop(device=DeviceSettings(deadman_button=3))
    for step, (buttons, source) in enumerate(
        [((0, 0, 0, 1), ActionSource.POLICY), ((0, 0, 0, 0), ActionSource.HOLD), ((0, 0), ActionSource.HOLD)]
    ):
        loop.joy(step, buttons)
        loop.observe(step)
        decision = only(loop.propose(step))
        assert decision.command.source is source
    loop.push(1.0)
    loop.observe(3)
    decision = only(loop.propose(3))
    assert decision.command.source is ActionSource.HOLD
    assert decision.command.reason == "deadman: button 3 is not held"
    assert not decision.fault


@pytest.mark.parametrize("orientation", [[0, 0, 0, 0], [np.nan, 0, 0, 1], [0, 0, 0, 2]])
def test_an_observation_without_an_orientation_is_held(orientation: list[float]) -> None:
    loop = Loop()
    loop.push(1.0)
    decision = only(loop.observe(orientation=orientation))
    assert decision.command.source is ActionSource.HOLD
    assert "no unit quaternion" in decision.command.reason


def test_in_real_time_an_observation_from_the_future_is_held_and_keeps_nobody_waiting() -> None:
    loop = Loop()
    future = Tick(loop.now_ns + 3600 * 1000 * MS, 1, 7)
    decision = only(loop.mux.observe(future, UPRIGHT, loop.now_ns, loop.wall_s))
    assert "3600.0 s in the future" in decision.command.reason
    loop.observe(0)
    assert only(loop.propose(0)).command.source is ActionSource.POLICY


def test_a_verdict_or_a_button_from_the_future_answers_for_no_tick() -> None:
    loop = Loop(lockstep=True, reward_expected=True)
    loop.mux.rewarded(10**18, loop.now_ns, loop.wall_s)
    loop.mux.operate([0, 0], 10**18, loop.now_ns, loop.wall_s)
    loop.observe(0)
    assert loop.propose(0) == []


def test_a_new_episode_begins_without_the_hand_of_the_last() -> None:
    loop = Loop(policy_expected=False, device=DeviceSettings(timeout_s=0.05))
    loop.push(1)
    assert only(loop.observe(0)).command.source is ActionSource.OPERATOR
    loop.now_ns = tick(0, 2).stamp_ns
    decision = only(loop.mux.observe(tick(0, 2), UPRIGHT, loop.now_ns, loop.wall_s))
    assert decision.command.source is ActionSource.HOLD


def test_an_observation_out_of_order_is_held_and_the_open_one_stays_open() -> None:
    loop = Loop()
    loop.observe(3)
    decision = only(loop.observe(2))
    assert decision.tick == tick(2)
    assert "out of order" in decision.command.reason
    assert only(loop.propose(3)).command.source is ActionSource.POLICY


# Lockstep: ROS time stands still while the tick is decided.


def test_in_lockstep_a_tick_waits_for_the_policy_and_for_the_operator_of_that_tick() -> None:
    loop = Loop(lockstep=True)
    loop.joy(0)
    loop.observe(1)
    assert loop.propose(1) == []
    assert only(loop.joy(1)).command.source is ActionSource.POLICY


def test_in_lockstep_ros_time_sets_no_deadline() -> None:
    loop = Loop(lockstep=True)
    loop.observe()
    assert loop.wait(ros_ms=500) == []


def test_in_lockstep_the_tick_can_wait_for_the_reward_node() -> None:
    loop = Loop(lockstep=True, operator_expected=False, reward_expected=True)
    loop.observe()
    assert loop.propose() == []
    assert only(loop.mux.rewarded(tick(0).stamp_ns, loop.now_ns, loop.wall_s)).command.source is ActionSource.POLICY


def test_in_lockstep_the_wall_clock_guard_ends_the_wait_for_a_dead_policy() -> None:
    loop = Loop(lockstep=True)
    loop.joy(0)
    loop.observe()
    assert loop.wait(wall_s=9.9) == []
    decision = only(loop.wait(wall_s=0.2))
    assert decision.command.source is ActionSource.HOLD
    assert "policy: silent for 10.1 s" in decision.command.reason


def test_after_the_guard_has_tripped_ticks_wait_a_short_time_until_the_policy_is_back() -> None:
    loop = Loop(lockstep=True, operator_expected=False)
    loop.observe(0)
    loop.wait(wall_s=10)
    assert loop.mux.silent == {"policy"}
    loop.observe(1)
    assert only(loop.wait(wall_s=0.1)).command.source is ActionSource.HOLD
    loop.propose(1)  # too late for its tick, but a sign of life
    loop.observe(2)
    assert loop.wait(wall_s=0.1) == []
    assert only(loop.propose(2)).command.source is ActionSource.POLICY


def test_a_dead_operator_node_holds_the_arm_although_the_policy_answers() -> None:
    loop = Loop(lockstep=True)
    loop.observe()
    loop.propose()
    decision = only(loop.wait(wall_s=10))
    assert decision.command.source is ActionSource.HOLD
    assert "operator" in decision.command.reason


class ExactlyOneAction(RuleBasedStateMachine):
    """No Observation ever gets two Actions, and only the newest may still wait for its one."""

    lockstep = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop(lockstep=self.lockstep)
        self.observed: list[Tick] = []
        self.proposed: dict[Tick, float] = {}
        self.decided: list[Decision] = []
        self.newest = 0

    @rule(skip=st.integers(0, 2))
    def observe_next(self, skip: int) -> None:
        self.newest += 1 + skip
        self._observe(self.newest)

    @rule(back=st.integers(0, 6))
    def observe_again_or_out_of_order(self, back: int) -> None:
        self._observe(max(0, self.newest - back))

    @rule(offset=st.integers(-6, 2), value=st.sampled_from([0.5, 1.03, 1.5, float("nan")]))
    def propose(self, offset: int, value: float) -> None:
        step = max(0, self.newest + offset)
        self.proposed.setdefault(tick(step), value)
        self.decided += self.loop.propose(step, np.array([value, 0, 0, 0, 0, 0, 0]))

    @rule(x=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    def push(self, x: float) -> None:
        self.loop.push(x)

    @rule(offset=st.integers(-2, 1), close=st.integers(0, 1), open_=st.integers(0, 1))
    def buttons(self, offset: int, close: int, open_: int) -> None:
        self.decided += self.loop.joy(max(0, self.newest + offset), (close, open_))

    @rule(ros_ms=st.sampled_from([0, 10, 80, 200]), wall_s=st.sampled_from([0.0, 0.1, 11.0]))
    def wait(self, ros_ms: int, wall_s: float) -> None:
        self.decided += self.loop.wait(ros_ms=ros_ms, wall_s=wall_s)

    def _observe(self, step: int) -> None:
        if tick(step) not in self.observed:
            self.observed.append(tick(step))
        self.decided += self.loop.observe(step)

    @invariant()
    def no_observation_has_two_actions_and_no_action_lacks_its_observation(self) -> None:
        ticks = [decision.tick for decision in self.decided]
        assert len(ticks) == len(set(ticks))
        assert set(ticks) <= set(self.observed)

    @invariant()
    def at_most_one_observation_waits(self) -> None:
        assert len(set(self.observed) - {decision.tick for decision in self.decided}) <= 1

    @invariant()
    def every_action_is_safe_and_explained(self) -> None:
        for decision in self.decided:
            command = decision.command
            assert np.isfinite(command.action).all()
            assert np.abs(command.action).max() <= 1
            assert bool(command.reason) == (command.source is ActionSource.HOLD)
            if command.source is ActionSource.POLICY:
                assert command.action[0] == np.float32(min(1.0, self.proposed[decision.tick]))

    def teardown(self) -> None:
        self.decided += self.loop.wait(ros_ms=1000, wall_s=1000)
        assert {decision.tick for decision in self.decided} == set(self.observed)


class ExactlyOneActionInLockstep(ExactlyOneAction):
    lockstep = True


_QUICK = hypothesis_settings(max_examples=50, stateful_step_count=30, deadline=None)
TestRealTime = ExactlyOneAction.TestCase
TestRealTime.settings = _QUICK
TestLockstep = ExactlyOneActionInLockstep.TestCase
TestLockstep.settings = _QUICK
