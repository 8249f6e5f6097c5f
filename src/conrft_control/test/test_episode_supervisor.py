"""Episodes begin, end with an outcome, and stop at a fault; every limit has its trigger."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from conrft_control.episode_supervisor import (
    AfterFault,
    Effect,
    EpisodeSupervisor,
    Now,
    Publish,
    Quit,
    Relabel,
    ResetScene,
    Stage,
    SupervisorSettings,
)
from conrft_control.recording_watch import RecorderReport
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import ActionSource, Mode, Outcome, Phase

TICK_NS = 100_000_000
POLICY, OPERATOR, HOLD = ActionSource.POLICY, ActionSource.OPERATOR, ActionSource.HOLD

SETTINGS = SupervisorSettings(
    task="pick_banana",
    instruction="put the banana on the plate",
    max_steps=5,
    mode=Mode.TRAINING,
    session="s",
    reward_ends=True,
    reward_expected=True,
    hold_limit=0,
)


class Session:
    """A supervisor with its clocks; collects what it tells."""

    def __init__(self, *, standby: bool = False, **settings: object) -> None:
        """``standby``: the arm has not been moved yet; else all are well and it sets off for home."""
        self.supervisor = EpisodeSupervisor(replace(SETTINGS, **settings))
        self.ros_ns, self.wall_s = 0, 0.0
        self.told: list[EpisodeStatus] = []
        self.effects: list[Effect] = []
        self.not_ready: list[str] = []
        self.failed: list[str] = []
        self.do(self.supervisor.begin(self.now))
        if not standby:
            self.supervisor.start_request(self.now)
            self.wait(0.0)

    @property
    def now(self) -> Now:
        return Now(self.ros_ns, self.wall_s)

    @property
    def last(self) -> EpisodeStatus:
        return self.told[-1]

    def do(self, effects: list[Effect]) -> None:
        self.effects += effects
        self.told += [effect.status for effect in effects if isinstance(effect, Publish)]

    def wait(self, wall_s: float) -> None:
        self.wall_s += wall_s
        self.do(self.supervisor.on_time(self.not_ready, self.failed, self.now))

    def arrive(self) -> None:
        self.supervisor.tick_seen(self.ros_ns, self.now)
        self.do(self.supervisor.arrived(self.ros_ns, self.now))

    def run(self) -> "Session":
        """To the first tick of the next episode."""
        self.arrive()
        self.wait(0.1)
        assert self.last.phase is Phase.RUNNING, self.supervisor.waiting_for
        self.first_ns = self.ros_ns
        return self

    def tick(self, step: int) -> Tick:
        return Tick(self.first_ns + step * TICK_NS, self.supervisor.episode, step)

    def act(self, *steps: int, source: ActionSource = POLICY, reason: str = "") -> None:
        for step in steps:
            self.ros_ns = self.tick(step).stamp_ns
            self.do(self.supervisor.action(self.tick(step), source, reason, self.now))

    def judge(self, step: int, success: bool = False) -> None:
        self.do(self.supervisor.reward(self.tick(step), success, self.now))

    def press_success(self, step: int) -> None:
        self.do(self.supervisor.success_pressed(self.tick(step).stamp_ns, self.now))

    def ended(self) -> tuple[Outcome, int]:
        assert self.last.phase is Phase.ENDED, self.supervisor.stage
        return self.last.outcome, self.last.final_step


def test_an_episode_goes_through_all_phases_and_carries_its_name() -> None:
    session = Session().run()
    session.act(0, 1)
    session.judge(1, success=True)
    assert [status.phase for status in session.told] == [Phase.RESETTING, Phase.READY, Phase.RUNNING, Phase.ENDED]
    assert {status.episode_id for status in session.told} == {"s-training-000001"}
    assert session.last.instruction == "put the banana on the plate"
    session.wait(0.1)
    assert (session.last.phase, session.last.episode_id) == (Phase.RESETTING, "s-training-000002")


def test_before_the_first_motion_all_must_be_well_and_a_person_must_have_said_so() -> None:
    session = Session(standby=True, wait_for_start=True)
    session.not_ready = ["franka_adapter: waits for service_server/set_load"]
    session.wait(1000)
    assert (session.told, session.supervisor.waiting_for) == ([], session.not_ready[0])
    assert session.supervisor.start_request(session.now) == f"not ready: {session.not_ready[0]}"
    session.not_ready = []
    session.wait(1000)
    assert (session.told, session.supervisor.waiting_for) == (
        [],
        "waits for the operator's start, then the arm goes home",
    )
    assert session.supervisor.start_request(session.now) == ""
    session.wait(0.02)
    assert session.last.phase is Phase.RESETTING
    session.arrive()
    session.wait(1000)
    assert session.last.phase is Phase.READY, "the start of the way home is not that of the episode"


def test_without_wait_for_start_the_first_motion_begins_as_soon_as_all_are_well() -> None:
    session = Session(standby=True)
    session.not_ready = ["commander: wrench: nothing received yet, the arm holds"]
    session.wait(1000)
    assert not session.told
    session.not_ready = []
    session.wait(0.02)
    assert session.last.phase is Phase.RESETTING


def test_a_simulator_is_waited_for_by_nobody() -> None:
    session = Session(standby=True, scene_reset=True, wait_for_start=True)
    session.not_ready = ["observer: has not reported yet"]
    assert session.effects == [ResetScene(0, 1)]


def test_success_of_the_reward_node_ends_the_episode_at_the_judged_step() -> None:
    session = Session().run()
    session.act(0, 1, 2, 3)
    session.judge(2, success=True)
    assert session.ended() == (Outcome.SUCCESS, 2)


def test_a_reward_may_come_before_the_action_of_its_tick() -> None:
    session = Session().run()
    session.act(0)
    session.judge(1, success=True)
    assert session.ended() == (Outcome.SUCCESS, 1)


def test_an_action_of_a_step_that_cannot_be_this_episodes_does_not_end_it() -> None:
    session = Session().run()
    session.act(0, 4_000_000_000)
    assert session.last.phase is Phase.RUNNING
    session.act(1)
    assert session.supervisor.steps == 1


def test_the_step_limit_is_a_timeout_once_the_final_reward_is_known() -> None:
    session = Session().run()
    session.act(*range(6))
    assert session.last.phase is Phase.RUNNING
    session.judge(5)
    assert session.ended() == (Outcome.TIMEOUT, 5)


def test_success_at_the_very_limit_is_a_success() -> None:
    session = Session().run()
    session.act(*range(7))
    session.judge(5, success=True)
    assert session.ended() == (Outcome.SUCCESS, 5)


def test_a_reward_beyond_the_limit_is_no_success() -> None:
    session = Session().run()
    session.act(*range(7))
    session.judge(6, success=True)
    assert session.last.phase is Phase.RUNNING


def test_the_wait_for_the_final_reward_is_bounded() -> None:
    session = Session(decision_timeout=1.0).run()
    session.act(*range(6))
    session.wait(0.9)
    assert session.last.phase is Phase.RUNNING
    session.wait(0.2)
    assert session.ended() == (Outcome.TIMEOUT, 5)


def test_without_a_reward_node_the_limit_is_a_timeout_at_once() -> None:
    session = Session(reward_ends=False, reward_expected=False).run()
    session.act(*range(6))
    assert session.ended() == (Outcome.TIMEOUT, 5)


def test_in_evaluation_the_reward_node_has_no_say() -> None:
    session = Session(mode=Mode.EVALUATION, reward_ends=False, operator_ends=True).run()
    session.act(0, 1)
    session.judge(1, success=True)
    assert session.last.phase is Phase.RUNNING
    session.press_success(1)
    assert session.ended() == (Outcome.SUCCESS, 1)


def test_where_the_reward_node_alone_calls_successes_the_button_has_no_say() -> None:
    session = Session().run()
    session.act(0)
    session.press_success(0)
    assert session.last.phase is Phase.RUNNING


def test_a_success_is_called_by_the_reward_node_or_by_the_button() -> None:
    session = Session(operator_ends=True).run()
    session.act(0, 1)
    session.judge(1, success=False)
    session.press_success(1)
    assert session.ended() == (Outcome.SUCCESS, 1)
    session = Session(operator_ends=True).run()
    session.act(0, 1)
    session.judge(1, success=True)
    assert session.ended() == (Outcome.SUCCESS, 1)


def test_a_press_ends_the_episode_at_the_tick_of_its_stamp_whichever_message_comes_first() -> None:
    before = Session(operator_ends=True, reward_ends=False, lockstep=True).run()
    before.act(0)
    before.press_success(1)
    before.act(1)
    after = Session(operator_ends=True, reward_ends=False, lockstep=True).run()
    after.act(0, 1, 2)
    after.press_success(1)
    assert before.ended() == after.ended() == (Outcome.SUCCESS, 1)


def test_in_lockstep_the_limit_waits_for_the_button_of_its_tick() -> None:
    session = Session(operator_ends=True, reward_ends=False, lockstep=True).run()
    session.act(*range(6))
    assert session.last.phase is Phase.RUNNING
    session.press_success(5)
    assert session.ended() == (Outcome.SUCCESS, 5)
    session = Session(operator_ends=True, reward_ends=False, lockstep=True).run()
    session.act(*range(6))
    session.do(session.supervisor.buttons_seen(session.tick(5).stamp_ns, session.now))
    assert session.ended() == (Outcome.TIMEOUT, 5)


def test_a_press_after_the_limit_is_no_success() -> None:
    session = Session(operator_ends=True, reward_ends=False, lockstep=True).run()
    session.act(*range(7))
    session.press_success(6)
    assert session.last.phase is Phase.RUNNING


def test_a_demonstrations_success_is_followed_by_its_tail() -> None:
    session = Session(mode=Mode.DEMONSTRATION, operator_ends=True, reward_ends=False, tail_steps=3).run()
    session.act(0, 1, 2, source=OPERATOR)
    session.press_success(2)
    session.act(3, 4, source=HOLD)
    assert session.last.phase is Phase.RUNNING
    session.act(5, source=HOLD)
    assert session.ended() == (Outcome.SUCCESS, 2)


def test_the_tail_may_go_beyond_the_step_limit() -> None:
    session = Session(mode=Mode.DEMONSTRATION, operator_ends=True, reward_ends=False, tail_steps=3).run()
    session.act(*range(5))
    session.press_success(4)
    session.act(5, 6, 7)
    assert session.ended() == (Outcome.SUCCESS, 4)


def test_the_operator_ends_an_episode_by_service() -> None:
    session = Session().run()
    session.act(0, 1)
    problem, effects = session.supervisor.end_request(Outcome.ABORTED, "the banana fell", session.now)
    session.do(effects)
    assert problem == ""
    assert session.ended() == (Outcome.ABORTED, 1)
    assert session.last.reason == "the banana fell"


@pytest.mark.parametrize("outcome", [Outcome.NONE, Outcome.TIMEOUT, Outcome.FAULT])
def test_an_operator_cannot_end_an_episode_with_any_other_outcome(outcome: Outcome) -> None:
    session = Session().run()
    session.act(0)
    assert session.supervisor.end_request(outcome, "", session.now) == (
        f"an operator ends an episode with SUCCESS or ABORTED, not {outcome.name}",
        [],
    )


def test_there_is_nothing_to_end_between_episodes() -> None:
    session = Session()
    assert session.supervisor.end_request(Outcome.ABORTED, "", session.now) == ("no episode is running", [])


VETO = Relabel("s-training-000001", Outcome.TIMEOUT, "the operator vetoed the success")


def test_a_veto_makes_the_last_success_a_time_out_and_only_a_success_and_only_once() -> None:
    session = Session().run()
    assert session.supervisor.veto(session.now) == []
    session.act(0, 1)
    session.judge(1, success=True)
    assert session.supervisor.veto(session.now) == [VETO]
    assert session.supervisor.veto(session.now) == []


def vetoed(session: Session) -> Session:
    session.run()
    session.act(0, 1)
    session.judge(1, success=True)
    session.do(session.supervisor.veto(session.now))
    return session


def test_a_veto_that_the_recorder_has_not_taken_in_is_told_again_until_it_has() -> None:
    session = vetoed(Session(veto_retry=1.0))
    for _ in range(3):
        session.wait(0.9)
        session.wait(0.2)
    assert session.effects.count(VETO) == 4
    assert session.supervisor.open_vetoes == ["s-training-000001"]
    session.supervisor.veto_taken("s-training-000001")
    session.wait(10.0)
    assert session.effects.count(VETO) == 4
    assert session.supervisor.open_vetoes == []


def test_a_veto_that_was_taken_in_before_the_episode_was_on_the_disk_is_told_once_more_afterwards() -> None:
    session = vetoed(Session(recorder_expected=True, veto_retry=1.0))
    session.supervisor.veto_taken("s-training-000001")  # a promise that dies with the recorder
    session.do(session.supervisor.recorder(RecorderReport(since="2", finished="s-training-000001"), session.now))
    session.supervisor.veto_taken("s-training-000001")  # the answer to the first call may come late
    session.wait(1.1)
    assert session.effects.count(VETO) == 2
    session.supervisor.veto_taken("s-training-000001")
    session.wait(1.1)
    assert session.effects.count(VETO) == 2


def test_a_vetoed_episode_of_training_is_one_of_those_that_were_wanted() -> None:
    session = vetoed(Session(episodes=1, exit_delay=1.0))
    session.supervisor.veto_taken("s-training-000001")
    session.wait(1.1)
    assert session.effects[-1] == Quit(0, "1 episodes done")


def demonstrations(**settings: object) -> Session:
    """The first demonstration has succeeded."""
    settings = {"only_successes": True, "mode": Mode.DEMONSTRATION, "operator_ends": True} | settings
    session = Session(**settings)
    demonstrate(session)
    return session


def demonstrate(session: Session) -> None:
    session.run()
    session.act(0, 1)
    session.press_success(1)


def test_a_vetoed_demonstration_is_replaced_though_it_was_the_last() -> None:
    session = demonstrations(episodes=1, exit_delay=1.0)
    session.do(session.supervisor.veto(session.now))
    session.wait(1.1)
    assert (session.last.phase, session.last.episode) == (Phase.RESETTING, 2)


def test_a_demonstration_that_is_vetoed_while_the_next_one_runs_is_replaced() -> None:
    session = demonstrations(episodes=2, exit_delay=1.0)
    session.wait(0.1)
    session.run()
    session.do(session.supervisor.veto(session.now))
    session.act(0, 1)
    session.press_success(1)
    session.wait(1.1)
    assert (session.last.phase, session.last.episode) == (Phase.RESETTING, 3)


def test_the_session_ends_when_the_recorder_has_taken_in_the_last_veto_or_does_not_come_back() -> None:
    for taken in (True, False):
        session = Session(episodes=1, recorder_expected=True, recording_timeout=30.0, exit_delay=1.0)
        session.supervisor.recorder(RecorderReport(since="1"), session.now)
        vetoed(session)
        session.do(session.supervisor.recorder(RecorderReport(since="1", finished=VETO.episode_id), session.now))
        session.wait(20.0)
        assert not any(isinstance(effect, Quit) for effect in session.effects)
        assert "the veto of s-training-000001" in session.supervisor.waiting_for
        if taken:
            session.supervisor.veto_taken(VETO.episode_id)
        session.wait(0.1 if taken else 11.0)
        assert session.effects[-1] == Quit(0, "1 episodes done")


def test_a_vetoed_demonstration_whose_recording_is_lost_is_taken_off_the_count_once() -> None:
    session = demonstrations(episodes=2, recorder_expected=True, recording_timeout=5.0)
    session.do(session.supervisor.veto(session.now))
    session.wait(6.0)
    assert session.ended()[0] is Outcome.FAULT
    assert session.supervisor.counted == 0


def test_actions_of_another_episode_do_not_count() -> None:
    session = Session().run()
    session.do(session.supervisor.action(Tick(0, 9, 5), POLICY, "", session.now))
    assert session.supervisor.steps == -1


def test_interventions_are_counted_and_an_evaluation_with_one_says_so() -> None:
    session = Session(mode=Mode.EVALUATION, reward_ends=False, operator_ends=True).run()
    session.act(0)
    session.act(1, 2, source=OPERATOR)
    session.act(3)
    session.act(4, source=OPERATOR)
    session.press_success(4)
    assert session.supervisor.interventions == (2, 3)
    assert session.ended() == (Outcome.SUCCESS, 4)
    assert "3 ticks" in session.last.reason


# What an episode waits for.


def test_the_scene_is_reset_before_anybody_is_told_to_go_home() -> None:
    session = Session(scene_reset=True, seed=7)
    assert session.effects == [ResetScene(7, 1)]
    session.do(session.supervisor.scene_reset_done(True, "", session.now))
    assert session.last.phase is Phase.RESETTING


def test_in_lockstep_the_reset_ends_when_simulated_time_stands_still() -> None:
    session = Session(scene_reset=True, lockstep=True, quiet=0.03)
    session.do(session.supervisor.scene_reset_done(True, "", session.now))
    session.wait(1.0)
    assert session.told == []
    session.supervisor.tick_seen(TICK_NS, session.now)
    session.wait(0.02)
    assert session.told == []
    session.wait(0.02)
    assert (session.last.phase, session.last.stamp_ns) == (Phase.RESETTING, TICK_NS)


def test_in_lockstep_an_arm_at_home_in_the_old_scene_has_not_arrived() -> None:
    session = Session(scene_reset=True, lockstep=True)
    session.supervisor.tick_seen(TICK_NS, session.now)
    session.do(session.supervisor.scene_reset_done(True, "", session.now))
    session.wait(0.1)
    session.do(session.supervisor.arrived(0, session.now))
    assert session.last.phase is Phase.RESETTING
    session.do(session.supervisor.arrived(TICK_NS, session.now))
    assert session.last.phase is Phase.READY


def test_in_lockstep_the_episode_begins_at_the_tick_of_the_arrival() -> None:
    session = Session(lockstep=True)
    session.ros_ns = 5 * TICK_NS
    session.supervisor.arrived(5 * TICK_NS, session.now)
    session.ros_ns = 9 * TICK_NS
    session.wait(0.1)
    assert (session.last.phase, session.last.stamp_ns) == (Phase.RUNNING, 5 * TICK_NS)


def test_an_episode_begins_only_when_all_required_nodes_are_well() -> None:
    session = Session()
    session.arrive()
    session.not_ready = ["observer: side: stale"]
    session.wait(100)
    assert session.last.phase is Phase.READY
    assert "stale" in session.supervisor.waiting_for
    session.not_ready = []
    session.wait(0.1)
    assert session.last.phase is Phase.RUNNING


def test_a_node_that_falls_silent_before_the_episode_begins_is_a_fault() -> None:
    session = Session()
    session.arrive()
    session.not_ready = session.failed = ["recorder: silent for 5.1 s"]
    session.wait(0.1)
    assert session.ended() == (Outcome.FAULT, 0)
    assert session.last.reason == "recorder: silent for 5.1 s"


def test_a_node_that_falls_silent_on_the_way_home_is_a_fault() -> None:
    session = Session()
    session.failed = ["commander: silent for 5.1 s"]
    session.wait(0.1)
    assert session.ended() == (Outcome.FAULT, 0)
    assert session.last.reason == "commander: silent for 5.1 s"


def test_an_episode_waits_for_the_learner_to_take_in_the_last_and_to_pay_its_updates() -> None:
    session = Session(wait_for_learner=True)
    session.arrive()
    session.wait(1)
    assert "first status" in session.supervisor.waiting_for
    session.supervisor.learner("", 0)
    session.wait(0.1)
    session.first_ns = 0
    session.act(0, 1)
    session.judge(1, success=True)
    session.wait(0.1)
    session.arrive()
    session.wait(1)
    assert "take in s-training-000001" in session.supervisor.waiting_for
    session.supervisor.learner("s-training-000001", 12)
    session.wait(1)
    assert "owes 12 updates" in session.supervisor.waiting_for
    session.supervisor.learner("s-training-000001", 0)
    session.wait(0.1)
    assert session.last.phase is Phase.RUNNING


def test_a_learner_that_has_gone_on_with_another_robots_episode_is_not_waited_for() -> None:
    session = Session(wait_for_learner=True)
    session.arrive()
    session.supervisor.learner("", 0)
    session.wait(0.1)
    session.first_ns = 0
    session.act(0, 1)
    session.judge(1, success=True)
    session.wait(0.1)
    session.supervisor.learner("s-training-000001", 12)
    session.supervisor.learner("s-training-000001", 0)
    session.supervisor.learner("another-training-000007", 40)
    session.arrive()
    session.wait(1)
    assert session.last.phase is Phase.RUNNING


def test_an_episode_that_a_fault_ended_may_never_reach_the_learner_and_is_not_waited_for() -> None:
    session = Session(wait_for_learner=True, after_fault=AfterFault.CONTINUE, action_timeout=5)
    session.arrive()
    session.supervisor.learner("", 0)
    session.wait(0.1)
    session.first_ns = 0
    session.act(0, 1)
    session.wait(6)
    assert session.last.outcome is Outcome.FAULT
    session.wait(1)
    session.arrive()
    session.wait(1)
    assert session.last.phase is Phase.RUNNING


def test_an_episode_without_a_tick_is_not_waited_for_by_the_learner() -> None:
    session = Session(wait_for_learner=True, reset_timeout=5, after_fault=AfterFault.CONTINUE)
    session.supervisor.learner("", 0)
    session.wait(6)
    session.wait(0.1)
    session.arrive()
    session.wait(0.1)
    assert session.last.phase is Phase.RUNNING


def test_an_episode_waits_for_the_operators_start() -> None:
    session = Session(wait_for_start=True)
    assert session.supervisor.start_request(session.now) != ""
    session.arrive()
    session.wait(100)
    assert session.last.phase is Phase.READY
    assert session.supervisor.start_request(session.now) == ""
    session.wait(0.1)
    assert session.last.phase is Phase.RUNNING


# The end of the session.


def finish(session: Session, *, success: bool = True) -> None:
    session.run()
    session.act(0, 1)
    if success:
        session.judge(1, success=True)
    else:
        session.do(session.supervisor.end_request(Outcome.ABORTED, "", session.now)[1])
    session.wait(0.1)


def test_after_the_last_episode_the_supervisor_quits_with_code_0() -> None:
    session = Session(episodes=2, exit_delay=1.0)
    finish(session)
    finish(session)
    assert not any(isinstance(effect, Quit) for effect in session.effects)
    session.wait(1.0)
    assert session.effects[-1] == Quit(0, "2 episodes done")


def test_an_aborted_episode_is_repeated() -> None:
    session = Session(episodes=1)
    finish(session, success=False)
    assert session.last.phase is Phase.RESETTING


def test_demonstrations_count_only_when_they_succeed() -> None:
    session = Session(episodes=1, only_successes=True, mode=Mode.DEMONSTRATION, reward_ends=False).run()
    session.act(*range(6))
    assert session.ended()[0] is Outcome.TIMEOUT
    session.wait(0.1)
    assert session.last.phase is Phase.RESETTING


def test_the_session_ends_when_the_learner_has_caught_up_with_the_last_episode() -> None:
    session = Session(episodes=1, wait_for_learner=True)
    session.supervisor.learner("", 0)
    finish(session)
    session.wait(100)
    assert not isinstance(session.effects[-1], Quit)
    session.supervisor.learner("s-training-000001", 0)
    session.wait(0.1)
    assert isinstance(session.effects[-1], Quit)


def test_a_shutdown_in_the_middle_of_an_episode_ends_it_as_aborted() -> None:
    session = Session().run()
    session.act(0, 1, 2)
    session.do(session.supervisor.stop(session.now))
    assert session.ended() == (Outcome.ABORTED, 2)
    assert session.supervisor.stop(session.now) == []


# Faults.


def test_without_actions_the_episode_ends_with_a_fault_that_says_so() -> None:
    session = Session(action_timeout=2.0).run()
    session.act(0, 1, 2)
    session.wait(1.9)
    assert session.last.phase is Phase.RUNNING
    session.wait(0.2)
    assert session.ended() == (Outcome.FAULT, 2)
    assert session.last.reason == "no Action for 2.1 s"


def test_a_failed_node_ends_the_episode_with_its_name() -> None:
    session = Session().run()
    session.act(0)
    session.failed = ["recorder: the disk is full"]
    session.wait(0.02)
    assert session.ended() == (Outcome.FAULT, 0)
    assert session.last.reason == "recorder: the disk is full"


def test_a_row_of_holds_is_a_fault_where_a_policy_drives() -> None:
    session = Session(hold_limit=3).run()
    session.act(0, 1, source=HOLD, reason="policy: silent")
    session.act(2)
    session.act(3, 4, source=HOLD, reason="policy: silent")
    assert session.last.phase is Phase.RUNNING
    session.act(5, source=HOLD, reason="policy: silent")
    assert session.ended() == (Outcome.FAULT, 5)
    assert session.last.reason == "3 HOLDs in a row: policy: silent"


def test_a_demonstrator_may_rest() -> None:
    session = Session(hold_limit=3, mode=Mode.DEMONSTRATION, reward_ends=False).run()
    session.act(*range(5), source=HOLD, reason="rests")
    assert session.last.phase is Phase.RUNNING


def test_a_scene_that_cannot_be_reset_is_a_fault() -> None:
    session = Session(scene_reset=True)
    session.do(session.supervisor.scene_reset_done(False, "no such task", session.now))
    assert session.ended() == (Outcome.FAULT, 0)
    assert "no such task" in session.last.reason


def test_a_scene_that_is_not_reset_in_time_is_a_fault() -> None:
    session = Session(scene_reset=True, scene_timeout=30)
    session.wait(29)
    assert session.told == []
    session.wait(2)
    assert session.ended() == (Outcome.FAULT, 0)


def test_a_scene_is_asked_for_again_when_who_was_asked_does_not_answer() -> None:
    session = Session(scene_reset=True, scene_retry=5, seed=7)
    session.wait(4)
    assert session.effects == [ResetScene(7, 1)]
    session.wait(2)
    session.wait(2)
    assert session.effects == [ResetScene(7, 1)] * 2
    session.do(session.supervisor.scene_reset_done(True, "", session.now))
    session.wait(6)
    assert session.effects.count(ResetScene(7, 1)) == 2


def test_a_simulator_without_a_tick_after_the_reset_is_a_fault() -> None:
    session = Session(scene_reset=True, lockstep=True, scene_timeout=30)
    session.do(session.supervisor.scene_reset_done(True, "", session.now))
    session.wait(31)
    assert "no tick" in session.last.reason


def test_an_arm_that_does_not_come_home_is_a_fault_that_says_how_far_it_is() -> None:
    session = Session(reset_timeout=20)
    session.wait(19)
    session.supervisor.waiting_for = "31.0 mm away from the reset pose"
    session.wait(2)
    assert session.ended() == (Outcome.FAULT, 0)
    assert "31.0 mm" in session.last.reason


def test_after_a_fault_nothing_goes_on_until_the_operator_starts_it_and_all_is_well() -> None:
    session = Session(action_timeout=2).run()
    session.act(0)
    session.wait(3)
    session.not_ready = ["observer: stale"]
    session.wait(1000)
    assert session.supervisor.stage is Stage.FAULTED
    assert "no Action" in session.supervisor.waiting_for
    assert session.supervisor.start_request(session.now) == "not ready: observer: stale"
    session.not_ready = []
    session.wait(1)
    assert session.supervisor.stage is Stage.FAULTED, "what was refused does not begin later"
    assert session.supervisor.start_request(session.now) == ""
    session.wait(1)
    assert (session.last.phase, session.last.episode) == (Phase.RESETTING, 2)


def test_a_start_before_the_fault_does_not_clear_it() -> None:
    session = Session(wait_for_start=True, action_timeout=2)
    session.arrive()
    session.supervisor.start_request(session.now)
    session.wait(0.1)
    session.wait(3)
    session.wait(100)
    assert session.supervisor.stage is Stage.FAULTED


def test_the_start_after_a_fault_is_not_the_start_of_the_next_episode() -> None:
    session = Session(wait_for_start=True, reset_timeout=2)
    session.wait(3)
    session.supervisor.start_request(session.now)
    session.wait(0.1)
    session.arrive()
    session.wait(100)
    assert session.last.phase is Phase.READY


def test_a_fault_can_end_the_session_with_code_1() -> None:
    session = Session(action_timeout=2, after_fault=AfterFault.EXIT).run()
    session.wait(3)
    session.wait(1.1)
    assert session.effects[-1] == Quit(1, "no Action for 3.0 s")


def test_where_it_is_allowed_the_session_goes_on_by_itself_when_all_is_well() -> None:
    session = Session(action_timeout=2, after_fault=AfterFault.CONTINUE).run()
    session.wait(3)
    session.not_ready = ["observer: stale"]
    session.wait(100)
    assert session.supervisor.stage is Stage.FAULTED
    session.not_ready = []
    session.wait(0.1)
    assert session.last.phase is Phase.RESETTING


def test_a_fault_in_the_tail_keeps_the_success_and_stops_all_the_same() -> None:
    session = Session(mode=Mode.DEMONSTRATION, operator_ends=True, reward_ends=False, tail_steps=3).run()
    session.act(0, 1)
    session.press_success(1)
    session.failed = ["recorder: silent"]
    session.wait(0.02)
    assert session.ended() == (Outcome.SUCCESS, 1)
    assert session.supervisor.stage is Stage.FAULTED


class AnySession(RuleBasedStateMachine):
    """Whatever happens in whatever order: the phases follow each other, and every outcome is lawful."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(
            operator_ends=True, hold_limit=4, action_timeout=5.0, after_fault=AfterFault.CONTINUE, reset_timeout=10.0
        )
        self.session.first_ns = 0
        self.step = 0

    @rule()
    def arrive(self) -> None:
        self.session.arrive()

    @rule(wall_s=st.sampled_from([0.02, 0.2, 2.0, 6.0, 11.0]))
    def wait(self, wall_s: float) -> None:
        running = self.session.last.phase is Phase.RUNNING
        self.session.wait(wall_s)
        if not running and self.session.last.phase is Phase.RUNNING:
            self.step, self.session.first_ns = 0, self.session.ros_ns

    @precondition(lambda self: self.session.last.phase is Phase.RUNNING)
    @rule(source=st.sampled_from(list(ActionSource)))
    def act(self, source: ActionSource) -> None:
        self.session.act(self.step, source=source, reason="because" if source is HOLD else "")
        self.step += 1

    @rule(back=st.integers(-1, 3), success=st.booleans())
    def judge(self, back: int, success: bool) -> None:
        self.session.judge(max(0, self.step - back), success)

    @rule(back=st.integers(-2, 3))
    def press(self, back: int) -> None:
        self.session.press_success(max(0, self.step - back))

    @rule(outcome=st.sampled_from(list(Outcome)))
    def end(self, outcome: Outcome) -> None:
        self.session.do(self.session.supervisor.end_request(outcome, "asked", self.session.now)[1])

    @rule(not_ready=st.booleans(), failed=st.sampled_from([False, False, True]))
    def health(self, not_ready: bool, failed: bool) -> None:
        self.session.not_ready = ["observer: stale"] if not_ready or failed else []
        self.session.failed = ["observer: silent"] if failed else []

    @invariant()
    def phases_follow_each_other(self) -> None:
        told = self.session.told
        allowed = {
            Phase.RESETTING: {Phase.READY, Phase.ENDED},
            Phase.READY: {Phase.RUNNING, Phase.ENDED},
            Phase.RUNNING: {Phase.ENDED},
            Phase.ENDED: {Phase.RESETTING},
        }
        for before, after in pairwise(told):
            assert after.phase in allowed[before.phase]
            assert after.episode == before.episode + (before.phase is Phase.ENDED)

    @invariant()
    def every_outcome_is_lawful(self) -> None:
        for status in self.session.told:
            assert (status.outcome is Outcome.NONE) == (status.phase is not Phase.ENDED)
            assert 0 <= status.final_step <= SETTINGS.max_steps
            if status.outcome is Outcome.TIMEOUT:
                assert status.final_step == SETTINGS.max_steps
            if status.outcome in (Outcome.FAULT, Outcome.ABORTED):
                assert status.reason


TestAnySession = AnySession.TestCase
TestAnySession.settings = hypothesis_settings(max_examples=50, stateful_step_count=30, deadline=None)
