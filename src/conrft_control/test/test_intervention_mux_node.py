"""The mux as a node: real messages, real timers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Joy

from conrft_control.nodes.intervention_mux_node import InterventionMuxNode
from conrft_data import topics
from conrft_data.conversion import command_from_msg, ns_to_stamp, proposal_to_msg, tick_of, twist_to_msg
from conrft_data.ticks import Proposal, Tick
from conrft_data.types import ActionSource
from conrft_msgs.msg import Action, Observation, PolicyOutput

MS = 1_000_000
PROPOSAL = Proposal(
    action=np.array([0.5, 0, 0, 0, 0, 0, 1], np.float32),
    embedding=np.zeros(4, np.float32),
    embedding_fingerprint="f",
    weights_version=1,
    inference_time=0.01,
)


class Muxed:
    """A mux between an observer, a policy and an operator that the test plays."""

    def __init__(self, graph: Any, **parameters: Any) -> None:
        self.graph = graph
        self.actions: list[Action] = graph.listen(Action, topics.ACTION, topics.TICK)
        self.diagnostics = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
        graph.start(InterventionMuxNode, **parameters)
        # The first messages find the subscribers; they belong to another tick and count for nothing.
        graph.say(topics.POLICY_OUTPUT, proposal_to_msg(PROPOSAL, Tick(1, 9, 9)), topics.TICK) if parameters.get(
            "policy_expected", True
        ) else None
        self.push(0.0)
        self.joy(0)
        graph.until(lambda: graph.node.count_publishers(topics.ACTION) > 0)

    def observe(self, tick: Tick) -> None:
        message = Observation(episode=tick.episode, step=tick.step)
        message.header.stamp, message.header.frame_id = ns_to_stamp(tick.stamp_ns), "base"
        message.tcp_pose.orientation.w = 1.0
        self.graph.say(topics.OBSERVATION, message, topics.TICK)

    def propose(self, tick: Tick) -> None:
        self.graph.say(topics.POLICY_OUTPUT, proposal_to_msg(PROPOSAL, tick), topics.TICK)

    def push(self, x: float) -> None:
        self.graph.say(topics.SPACENAV_TWIST, twist_to_msg([x, 0, 0, 0, 0, 0]))

    def joy(self, stamp_ns: int, buttons: tuple[int, ...] = (0, 0)) -> None:
        message = Joy(buttons=buttons)
        message.header.stamp = ns_to_stamp(stamp_ns)
        self.graph.say(topics.SPACENAV_JOY, message)

    def level(self) -> int:
        return self.diagnostics[-1].status[0].level[0] if self.diagnostics else -1

    def answer(self, count: int = 1) -> Action:
        self.graph.until(lambda: len(self.actions) >= count)
        return self.actions[-1]


def test_the_policys_action_is_passed_on_with_key_frame_and_proposal(graph: Any) -> None:
    mux = Muxed(graph)
    tick = Tick(graph.now_ns(), 2, 7)
    mux.observe(tick)
    mux.propose(tick)
    message = mux.answer()
    command = command_from_msg(message)
    assert tick_of(message) == tick
    assert message.header.frame_id == "base"
    assert command.source is ActionSource.POLICY
    np.testing.assert_array_equal(command.action, PROPOSAL.action)
    np.testing.assert_array_equal(command.proposal, PROPOSAL.action)


def test_without_a_policy_the_arm_holds_80_ms_after_the_stamp_and_diagnostics_say_why(graph: Any) -> None:
    mux = Muxed(graph)
    stamp_ns = graph.now_ns()
    mux.observe(Tick(stamp_ns, 1, 0))
    message = mux.answer()
    late_ms = (graph.now_ns() - stamp_ns) / MS
    assert message.source == Action.HOLD
    assert "policy" in message.reason
    assert 79 < late_ms < 160
    graph.until(lambda: mux.level() == 2)
    assert message.reason in mux.diagnostics[-1].status[0].message
    graph.spin(0.2)
    assert len(mux.actions) == 1


def test_the_error_goes_when_no_observation_comes_any_more(graph: Any) -> None:
    mux = Muxed(graph)
    mux.observe(Tick(graph.now_ns(), 1, 0))
    mux.answer()
    graph.until(lambda: mux.level() == 2)
    graph.until(lambda: mux.level() == 0, timeout_s=4)


def test_the_operator_overrules_the_policy(graph: Any) -> None:
    mux = Muxed(graph)
    mux.push(-1.0)
    graph.spin(0.05)
    tick = Tick(graph.now_ns(), 1, 0)
    mux.observe(tick)
    mux.propose(tick)
    message = mux.answer()
    assert (message.source, message.action[0], message.has_proposal) == (Action.OPERATOR, -1.0, True)


def test_in_lockstep_the_wall_clock_guard_holds_the_arm_when_the_policy_is_dead(graph: Any) -> None:
    mux = Muxed(graph, lockstep=True, guard=0.3)
    mux.joy(100 * MS)
    mux.observe(Tick(100 * MS, 1, 0))
    graph.spin(0.2)
    assert mux.actions == []
    assert "policy: silent" in mux.answer().reason
    began = graph.now_ns()
    mux.joy(200 * MS)
    mux.observe(Tick(200 * MS, 1, 1))
    mux.answer(2)
    assert (graph.now_ns() - began) / MS < 250  # the short guard


def test_in_lockstep_a_demonstration_takes_twist_and_buttons_of_its_tick(graph: Any) -> None:
    mux = Muxed(graph, lockstep=True, policy_expected=False)
    mux.observe(Tick(100 * MS, 1, 0))
    graph.spin(0.1)
    assert mux.actions == []
    mux.push(0.5)
    mux.joy(100 * MS, (1, 0))
    message = mux.answer()
    assert (message.source, message.action[0], message.action[6]) == (Action.OPERATOR, 0.5, -1.0)


def test_a_proposal_that_is_not_finite_holds_the_arm(graph: Any) -> None:
    mux = Muxed(graph)
    tick = Tick(graph.now_ns(), 1, 0)
    mux.observe(tick)
    bad: PolicyOutput = proposal_to_msg(PROPOSAL, tick)
    bad.action = np.full(7, np.nan, np.float32)
    graph.say(topics.POLICY_OUTPUT, bad, topics.TICK)
    message = mux.answer()
    assert message.source == Action.HOLD
    assert "finite" in message.reason
    assert not message.has_proposal


def test_the_tasks_file_says_that_the_gripper_stays_as_it_is(graph: Any, files: dict[str, str]) -> None:
    task = json.loads(Path(files["task_file"]).read_text())
    Path(files["task_file"]).write_text(json.dumps({**task, "action_dim": 6}))
    mux = Muxed(graph, lockstep=True, policy_expected=False, task_file=files["task_file"])
    mux.observe(Tick(100 * MS, 1, 0))
    mux.push(0.5)
    mux.joy(100 * MS, (1, 0))
    message = mux.answer()
    assert (message.source, message.action[0], message.action[6]) == (Action.OPERATOR, 0.5, 0.0)


@pytest.mark.parametrize("wrong", [{"leave": 0.5}, {"axes": [1, 1, 2, 3, 4, 5]}, {"deadline": 5.0}])
def test_wrong_parameters_are_refused(graph: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"deadband|axes|range|bounds"):
        graph.start(InterventionMuxNode, **wrong)
