"""The supervisor as a node: services, buttons, diagnostics and the scene."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_srvs.srv import Trigger

from conrft_control.nodes.supervisor_node import SupervisorNode
from conrft_data import topics
from conrft_data.conversion import command_to_msg, episode_status_from_msg, episode_status_to_msg, ns_to_stamp
from conrft_data.node_process import HARDWARE_ID, STOPPED, StopRequested
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import ActionSource, Command, Outcome, Phase
from conrft_msgs.msg import EpisodeState, LearnerStatus, Reward
from conrft_msgs.srv import EndEpisode, RelabelEpisode, ResetScene


class Supervised:
    """A supervisor in real time, with a robot at home and the rest of the graph played by the test."""

    def __init__(self, graph: Any, robot: Any, files: dict[str, str], **parameters: Any) -> None:
        self.graph, self.robot = graph, robot
        self.states: list[EpisodeState] = graph.listen(EpisodeState, topics.EPISODE_STATE, topics.EVERY_STATE)
        self.diagnostics = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
        parameters = {"required_nodes": [""], "session": "s", "mode": "demonstration", "tail_steps": 0} | parameters
        self.node = graph.start(SupervisorNode, **files, **parameters)
        self.act(0, episode=99)

    @property
    def last(self) -> EpisodeStatus | None:
        return episode_status_from_msg(self.states[-1]) if self.states else None

    def reach(self, phase: Phase, episode: int = 1, timeout_s: float = 60.0) -> EpisodeStatus:
        def there() -> bool:
            self.sense()
            self.graph.spin(0.02)
            return find() is not None

        def find() -> EpisodeStatus | None:
            said = [episode_status_from_msg(state) for state in self.states]
            return next((status for status in said if (status.phase, status.episode) == (phase, episode)), None)

        self.graph.until(there, timeout_s)
        status = find()
        assert status is not None
        return status

    def set_off(self) -> None:
        """The operator lets the arm go home."""
        self.graph.until(lambda: self.call(Trigger, topics.START_EPISODE).success)

    def report(self, node: str, level: bytes, message: str = "", *, stopped: bool = False) -> None:
        status = DiagnosticStatus(name=node, level=level, message=message, hardware_id=HARDWARE_ID)
        status.values = [KeyValue(key=STOPPED, value=message)] if stopped else []
        reports = self.graph.publisher(topics.DIAGNOSTICS, DiagnosticArray)
        self.graph.until(lambda: reports.get_subscription_count() == 2)  # the test's own is one of them
        reports.publish(DiagnosticArray(status=[status]))

    def said(self) -> list[str]:
        """What the supervisor said of itself on /diagnostics."""
        own = (array.status[0] for array in self.diagnostics)
        return [status.message for status in own if status.name == "supervisor"]

    def sense(self) -> None:
        messages = self.robot.messages(self.graph.now_ns())
        for topic in ("current_pose", "gripper/joint_states"):
            self.graph.say(topic, messages[topic])

    def act(self, step: int, episode: int = 1) -> None:
        command = Command(action=[0.0] * 7, source=ActionSource.OPERATOR)
        self.graph.say(topics.ACTION, command_to_msg(command, Tick(self.graph.now_ns(), episode, step)), topics.TICK)
        self.graph.spin(0.03)

    def press(self, button: int) -> None:
        for down in (0, 1, 0):
            message = Joy(buttons=[down if index == button else 0 for index in range(6)])
            message.header.stamp = ns_to_stamp(self.graph.now_ns())
            self.graph.say(topics.SPACENAV_JOY, message)
            self.graph.spin(0.03)

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        client = self.graph.node.create_client(kind, name)
        self.graph.until(client.service_is_ready)
        future = client.call_async(kind.Request(**fields))
        self.graph.until(future.done)
        return future.result()


@pytest.fixture
def supervised(graph: Any, robot: Any, files: dict[str, str]) -> Supervised:
    return Supervised(graph, robot, files)


def test_an_arm_at_home_with_open_gripper_lets_the_episode_run(supervised: Supervised) -> None:
    supervised.robot.opening = 0.3
    supervised.reach(Phase.RESETTING)
    for _ in range(10):
        supervised.sense()
        supervised.graph.spin(0.02)
    assert supervised.last is not None
    assert supervised.last.phase is Phase.RESETTING
    supervised.robot.opening = 1.0
    status = supervised.reach(Phase.RUNNING)
    assert (status.episode_id, status.task) == ("s-demonstration-000001", "pick_banana")


def test_the_same_command_given_again_goes_on_with_the_next_number(
    graph: Any, robot: Any, files: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / ".tmp-s-demonstration-000004").mkdir()
    supervised = Supervised(graph, robot, files, first_episode=0, episodes_dir=str(tmp_path))
    assert supervised.reach(Phase.RUNNING, 5).episode_id == "s-demonstration-000005"


def test_what_the_learner_says_of_other_episodes_does_not_hide_its_word_about_this_one(
    graph: Any, robot: Any, files: dict[str, str]
) -> None:
    supervised = Supervised(graph, robot, files, mode="training", wait_for_learner=True, policy_expected=False)

    def say(*episode_ids: str) -> None:
        for episode_id in episode_ids:
            graph.say(topics.LEARNER_STATUS, LearnerStatus(last_episode_id=episode_id), topics.LEARNER_STANDING)

    graph.say(topics.REWARD, Reward(), topics.TICK)  # no episode begins without somebody who sees a success
    say("")
    first = supervised.reach(Phase.RUNNING)
    supervised.act(0)
    assert supervised.call(EndEpisode, topics.END_EPISODE, outcome=int(Outcome.ABORTED)).success
    supervised.reach(Phase.READY, episode=2)
    say(first.episode_id, *(f"another-robot-{number:06d}" for number in range(20)))
    supervised.reach(Phase.RUNNING, episode=2)


def test_the_success_button_ends_a_demonstration(supervised: Supervised) -> None:
    supervised.reach(Phase.RUNNING)
    for step in range(3):
        supervised.act(step)
    supervised.press(2)
    supervised.act(3)
    status = supervised.reach(Phase.ENDED)
    assert (status.outcome, status.final_step) == (Outcome.SUCCESS, 3)


def test_in_training_the_success_button_calls_what_the_reward_node_has_not_seen(
    graph: Any, robot: Any, files: dict[str, str]
) -> None:
    alone = {"policy_expected": False, "reward_expected": False, "wait_for_learner": False}
    supervised = Supervised(graph, robot, files, mode="training", **alone)
    supervised.reach(Phase.RUNNING)
    supervised.act(0)
    supervised.press(2)
    supervised.act(1)
    status = supervised.reach(Phase.ENDED)
    assert (status.outcome, status.final_step) == (Outcome.SUCCESS, 1)


def test_the_abort_button_and_the_service_abort(supervised: Supervised) -> None:
    supervised.reach(Phase.RUNNING)
    supervised.act(0)
    supervised.press(3)
    assert supervised.reach(Phase.ENDED).outcome is Outcome.ABORTED
    supervised.reach(Phase.RUNNING, 2)
    supervised.act(0, episode=2)
    response = supervised.call(EndEpisode, topics.END_EPISODE, outcome=int(Outcome.ABORTED), reason="it fell")
    assert response.success
    status = supervised.reach(Phase.ENDED, 2)
    assert (status.outcome, status.reason) == (Outcome.ABORTED, "it fell")


def test_an_episode_that_does_not_run_cannot_be_ended(supervised: Supervised) -> None:
    response = supervised.call(EndEpisode, topics.END_EPISODE, outcome=int(Outcome.ABORTED))
    assert not response.success
    assert response.message == "no episode is running"
    assert not supervised.call(EndEpisode, topics.END_EPISODE, outcome=77).success


def serve_relabel(node: Node) -> list[tuple[str, Outcome]]:
    """Plays the recorder; gives what it was asked for."""
    asked: list[tuple[str, Outcome]] = []

    def relabel(request: Any, response: Any) -> Any:
        asked.append((request.episode_id, Outcome(request.outcome)))
        response.success = True
        return response

    node.create_service(RelabelEpisode, topics.RELABEL_EPISODE, relabel)
    return asked


def succeed_and_veto(supervised: Supervised) -> None:
    supervised.reach(Phase.RUNNING)
    supervised.act(0)
    supervised.act(1)
    supervised.press(2)
    supervised.act(2)
    supervised.reach(Phase.ENDED)
    supervised.press(4)


def wait_for_open_veto(supervised: Supervised) -> None:
    supervised.graph.until(lambda: any(f"not taken in the veto of {VETOED[0]}" in said for said in supervised.said()))


VETOED = ("s-demonstration-000001", Outcome.TIMEOUT)


def test_the_veto_button_asks_the_recorder_to_relabel_the_last_episode(supervised: Supervised) -> None:
    asked = serve_relabel(supervised.graph.node)
    succeed_and_veto(supervised)
    supervised.graph.until(lambda: asked)
    supervised.graph.spin(1.5)
    assert asked == [VETOED]


def test_a_veto_while_no_recorder_is_there_is_told_on_diagnostics_and_to_the_next_recorder(
    supervised: Supervised,
) -> None:
    succeed_and_veto(supervised)
    wait_for_open_veto(supervised)
    asked = serve_relabel(supervised.graph.node)
    supervised.graph.until(lambda: asked)
    assert asked == [VETOED]
    supervised.diagnostics.clear()
    supervised.graph.until(supervised.said)
    assert "veto" not in supervised.said()[-1]


def test_a_veto_that_no_recorder_took_in_before_the_end_is_told_with_the_command_for_it(
    supervised: Supervised, capfd: pytest.CaptureFixture[str]
) -> None:
    succeed_and_veto(supervised)
    wait_for_open_veto(supervised)
    capfd.readouterr()
    supervised.node.stop()
    assert "conrft demos relabel s-demonstration-000001 timeout" in capfd.readouterr().err


def test_a_veto_told_to_a_recorder_that_dies_is_told_to_the_next(supervised: Supervised) -> None:
    frozen = Node("recorder", context=supervised.graph.context)  # no executor has it
    serve_relabel(frozen)
    supervised.graph.spin(0.5)
    succeed_and_veto(supervised)
    supervised.graph.spin(0.5)
    frozen.destroy_node()
    asked = serve_relabel(supervised.graph.node)
    supervised.graph.until(lambda: asked)
    assert asked == [VETOED]


def test_the_start_service_starts_a_waiting_episode(graph: Any, robot: Any, files: dict[str, str]) -> None:
    supervised = Supervised(graph, robot, files, wait_for_start=True)
    supervised.set_off()
    supervised.reach(Phase.READY)
    graph.spin(0.3)
    assert supervised.last is not None
    assert supervised.last.phase is Phase.READY
    assert supervised.call(Trigger, topics.START_EPISODE).success
    supervised.reach(Phase.RUNNING)


def test_an_episode_waits_for_a_required_node_and_a_silent_one_is_a_fault(
    graph: Any, robot: Any, files: dict[str, str]
) -> None:
    supervised = Supervised(graph, robot, files, required_nodes=["policy"], node_timeout=1.5)
    robot.opening = 0.3
    supervised.report("policy", b"\x00")
    supervised.reach(Phase.RESETTING)
    supervised.report("policy", b"\x02", "no weights")
    robot.opening = 1.0
    supervised.reach(Phase.READY)
    graph.spin(0.3)
    assert supervised.last is not None
    assert supervised.last.phase is Phase.READY
    supervised.report("policy", b"\x00")
    supervised.reach(Phase.RUNNING)
    status = supervised.reach(Phase.ENDED)
    assert status.outcome is Outcome.FAULT
    assert "policy: silent" in status.reason
    supervised.graph.until(lambda: any("policy: silent" in said for said in supervised.said()))
    answer = supervised.call(Trigger, topics.START_EPISODE)
    assert (answer.success, "policy: silent" in answer.message) == (False, True)
    graph.spin(0.3)
    assert supervised.last.phase is Phase.ENDED


def test_the_arm_is_not_moved_before_all_are_well_and_the_operator_has_said_so(
    graph: Any, robot: Any, files: dict[str, str]
) -> None:
    required = ["commander", "franka_adapter"]
    supervised = Supervised(graph, robot, files, required_nodes=required, wait_for_start=True)
    supervised.report("commander", b"\x00")
    supervised.report("franka_adapter", b"\x02", "set_load: refused")
    graph.until(lambda: any("STANDBY: waits for franka_adapter: set_load: refused" in s for s in supervised.said()))
    answer = supervised.call(Trigger, topics.START_EPISODE)
    assert (answer.success, answer.message) == (False, "not ready: franka_adapter: set_load: refused")
    supervised.report("franka_adapter", b"\x00")
    graph.until(lambda: any("waits for the operator's start, then the arm goes home" in s for s in supervised.said()))
    assert not supervised.states
    supervised.set_off()
    supervised.reach(Phase.RESETTING)


@pytest.mark.parametrize(
    ("node", "stopped", "faulty"),
    [
        ("commander", True, True),
        ("franka_adapter", True, True),
        ("franka_adapter", False, True),
        ("observer", False, False),
    ],
)
def test_on_the_way_home_an_error_of_what_moves_the_arm_is_a_fault(
    graph: Any, robot: Any, files: dict[str, str], node: str, stopped: bool, faulty: bool
) -> None:
    required, arm = ["observer", "commander", "franka_adapter"], ["commander", "franka_adapter"]
    patience = 60.0 if stopped else 0.2
    supervised = Supervised(graph, robot, files, required_nodes=required, arm_nodes=arm, error_patience=patience)
    for name in required:
        supervised.report(name, b"\x00")
    robot.opening = 0.3  # it does not arrive
    supervised.reach(Phase.RESETTING)
    supervised.report(node, b"\x02", "it is not well", stopped=stopped)
    if faulty:
        assert f"{node}: it is not well" in supervised.reach(Phase.ENDED).reason
    else:
        graph.spin(0.6)
        assert supervised.last is not None and supervised.last.phase is Phase.RESETTING


def test_a_silent_node_that_is_not_required_is_a_warning_that_names_it(
    graph: Any, robot: Any, files: dict[str, str]
) -> None:
    supervised = Supervised(graph, robot, files, node_timeout=1.5)
    learner = DiagnosticStatus(name="learner", level=b"\x00", hardware_id=HARDWARE_ID)
    graph.say(topics.DIAGNOSTICS, DiagnosticArray(status=[learner]))

    def warned() -> bool:
        statuses = [array.status[0] for array in supervised.diagnostics]
        return any(s.name == "supervisor" and s.level == b"\x01" and "learner: silent" in s.message for s in statuses)

    graph.until(warned)
    assert supervised.last is not None
    assert supervised.last.outcome is Outcome.NONE


def test_without_actions_the_episode_is_a_fault(graph: Any, robot: Any, files: dict[str, str]) -> None:
    supervised = Supervised(graph, robot, files, action_timeout=0.3)
    supervised.reach(Phase.RUNNING)
    status = supervised.reach(Phase.ENDED)
    assert (status.outcome, status.reason[:12]) == (Outcome.FAULT, "no Action fo")


def contradict(graph: Any, supervised: Supervised, said: EpisodeStatus) -> None:
    """A stranger says in the supervisor's name that another episode runs."""
    stranger = replace(said, phase=Phase.RUNNING, outcome=Outcome.NONE, episode_id="s-x-000007")
    graph.say(topics.EPISODE_STATE, episode_status_to_msg(stranger), topics.LATCHED)
    graph.until(lambda: supervised.states[-1].episode_id == "s-x-000007")


def test_after_a_fault_what_a_stranger_said_in_the_supervisors_name_is_put_right(
    graph: Any, robot: Any, files: dict[str, str]
) -> None:
    supervised = Supervised(graph, robot, files, action_timeout=0.3)
    supervised.reach(Phase.RUNNING)
    ended = supervised.reach(Phase.ENDED)
    contradict(graph, supervised, ended)
    graph.until(lambda: supervised.last == ended)


def test_a_waiting_supervisor_puts_right_what_a_stranger_said_in_its_name(
    graph: Any, robot: Any, files: dict[str, str]
) -> None:
    supervised = Supervised(graph, robot, files, required_nodes=["recorder"])
    robot.opening = 0.3
    supervised.report("recorder", b"\x00")
    supervised.reach(Phase.RESETTING)
    supervised.report("recorder", b"\x02", "an episode that there is not")
    robot.opening = 1.0
    ready = supervised.reach(Phase.READY)
    contradict(graph, supervised, ready)
    graph.until(lambda: supervised.last == ready)


def test_an_arm_that_is_not_at_home_in_time_is_a_fault_with_its_distance(
    graph: Any, robot: Any, files: dict[str, str]
) -> None:
    robot.pose[0] += 0.05
    supervised = Supervised(graph, robot, files, reset_timeout=0.5)
    status = supervised.reach(Phase.ENDED)
    assert status.outcome is Outcome.FAULT
    assert "50.0 mm" in status.reason


def test_a_commander_that_stopped_the_arm_ends_the_episode_at_once(
    graph: Any, robot: Any, files: dict[str, str]
) -> None:
    supervised = Supervised(graph, robot, files, required_nodes=["commander"], error_patience=600.0)
    status = DiagnosticStatus(level=DiagnosticStatus.OK, name="commander", hardware_id=HARDWARE_ID)
    supervised.graph.say(topics.DIAGNOSTICS, DiagnosticArray(status=[status]))
    supervised.reach(Phase.RUNNING)
    status.level, status.message = DiagnosticStatus.ERROR, "emergency stop"
    status.values = [KeyValue(key=STOPPED, value="emergency stop")]
    supervised.graph.say(topics.DIAGNOSTICS, DiagnosticArray(status=[status]))
    ended = supervised.reach(Phase.ENDED)
    assert (ended.outcome, ended.reason) == (Outcome.FAULT, "commander: emergency stop")


def test_the_scene_is_reset_with_seed_and_episode(graph: Any, robot: Any, files: dict[str, str]) -> None:
    asked: list[tuple[int, int]] = []

    def reset(request: Any, response: Any) -> Any:
        asked.append((request.seed, request.episode))
        response.success = True
        return response

    supervised = Supervised(graph, robot, files, scene_reset=True, seed=5)
    graph.spin(0.2)
    assert supervised.last is None
    graph.node.create_service(ResetScene, topics.RESET_SCENE, reset)
    supervised.reach(Phase.RUNNING)
    assert asked == [(5, 1)]


def test_a_scene_asked_of_a_simulator_that_dies_is_asked_of_the_next(
    graph: Any, robot: Any, files: dict[str, str]
) -> None:
    asked: list[int] = []

    def reset(request: Any, response: Any) -> Any:
        asked.append(request.episode)
        response.success = True
        return response

    frozen = Node("simulator", context=graph.context)  # no executor has it
    frozen.create_service(ResetScene, topics.RESET_SCENE, reset)
    supervised = Supervised(graph, robot, files, scene_reset=True, scene_retry=0.5)
    graph.spin(1.0)
    assert supervised.last is None and not asked
    frozen.destroy_node()
    graph.node.create_service(ResetScene, topics.RESET_SCENE, reset)
    supervised.reach(Phase.RUNNING)
    assert asked == [1]


def test_a_scene_that_nobody_resets_is_a_fault(graph: Any, robot: Any, files: dict[str, str]) -> None:
    supervised = Supervised(graph, robot, files, scene_reset=True, scene_timeout=0.3)
    assert "scene was not reset" in supervised.reach(Phase.ENDED).reason


def test_after_the_last_episode_it_stops_with_code_0(graph: Any, robot: Any, files: dict[str, str]) -> None:
    supervised = Supervised(graph, robot, files, episodes=1)
    supervised.reach(Phase.RUNNING)
    supervised.act(0)
    supervised.act(1)
    supervised.press(2)
    supervised.act(2)
    with pytest.raises(StopRequested) as stopped:
        graph.spin(3)
    assert stopped.value.exit_code == 0


@pytest.mark.parametrize("wrong", [{"mode": "fun"}, {"success_from": ["oracle"]}, {"after_fault": "ignore"}])
def test_wrong_parameters_are_refused(graph: Any, files: dict[str, str], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fun|oracle|ignore"):
        graph.start(SupervisorNode, **files, **wrong)
