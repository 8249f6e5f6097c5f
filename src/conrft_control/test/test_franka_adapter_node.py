"""The Franka adapter against action and service servers of franka_ros2's names and types."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from franka_ros2 import FakeAction, FakeControllerManager, FakeService, provide_interfaces
from pydantic import ValidationError
from sensor_msgs.msg import Joy
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from conrft_control import franka_interfaces
from conrft_control.franka_settings import FrankaSettings
from conrft_control.nodes.franka_adapter_node import FrankaAdapterNode
from conrft_data import topics
from conrft_data.config import ConfigError
from conrft_data.conversion import episode_status_to_msg
from conrft_data.node_process import STOPPED
from conrft_data.types import Phase

COMMAND = "gripper/gripper_position_controller/commands"
STATE = "franka_robot_state_broadcaster/robot_state"
# FrankaRobotState.robot_mode
IDLE, MOVE, GUIDING, REFLEX, USER_STOPPED, RECOVERING = range(1, 7)
SETTINGS: dict[str, Any] = {
    # On a busy machine even discovery takes seconds.
    "service_timeout": 30.0,
    "state_timeout": 10.0,
    "gripper": {"timeout": 30.0, "patience": 30.0},
    "load": {"mass": 0.4, "center_of_mass": [0.0, 0.0, 0.05]},
    "tcp_frame": {"position": [0.0, 0.0, 0.1]},
    "stiffness_frame": {},
    "collision": {
        "contact_torque": [10.0] * 7,
        "collision_torque": [20.0] * 7,
        "contact_force": [15.0] * 6,
        "collision_force": [30.0] * 6,
    },
}


@pytest.fixture(scope="session", autouse=True)
def interfaces() -> None:
    provide_interfaces()


class Workstation:
    """franka_ros2, played by the test, and the adapter."""

    def __init__(self, graph: Any, files: dict[str, str], folder: Path, make_status: Callable[..., Any]) -> None:
        self.graph, self._files, self._folder, self._make_status = graph, files, folder, make_status
        action, srv = (franka_interfaces.interfaces("franka_msgs", part) for part in ("action", "srv"))
        self.state_kind = franka_interfaces.interfaces("franka_msgs", "msg").FrankaRobotState
        self._actions: list[FakeAction] = []
        self.recovery = self.offer(action.ErrorRecovery, "action_server/error_recovery")
        kinds = {
            "set_load": srv.SetLoad,
            "set_tcp_frame": srv.SetTCPFrame,
            "set_stiffness_frame": srv.SetStiffnessFrame,
            "set_full_collision_behavior": srv.SetFullCollisionBehavior,
        }
        self.services = {n: FakeService(graph.node, kind, f"service_server/{n}") for n, kind in kinds.items()}
        self.diagnostics: list[DiagnosticArray] = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
        self._state: Any = None
        graph.node.create_timer(0.1, self._repeat_state)

    def start(self, settings: dict[str, Any] | None = None, **parameters: Any) -> Any:
        path = self._folder / "franka.yaml"
        path.write_text(json.dumps(SETTINGS if settings is None else settings))
        files = {"robot_file": self._files["robot_file"], "franka_file": str(path)}
        return self.graph.start(FrankaAdapterNode, **files, **parameters)

    def offer(self, kind: Any, name: str) -> FakeAction:
        """An action server."""
        self._actions.append(FakeAction(self.graph.node, kind, name))
        return self._actions[-1]

    def close(self) -> None:
        """Takes the action servers away: left to the garbage collector, they would haunt the tests that follow."""
        for action in self._actions:
            action.destroy()

    def start_gripper(self) -> None:
        """franka_gripper's actions are there."""
        action = franka_interfaces.interfaces("franka_msgs", "action")
        self.move = self.offer(action.Move, "franka_gripper/move")
        self.grasp = self.offer(action.Grasp, "franka_gripper/grasp")

    def well(self) -> None:
        """Everything that the adapter listens to is there, and it is content."""
        self.phase(Phase.READY)
        self.say_state(mode=MOVE)
        self.graph.say(COMMAND, Float64MultiArray(data=[1.0]), topics.COMMAND)
        self.graph.until(lambda: self.move.goals)
        self.move.end(success=True)
        self.until_said(b"\x00", "")

    def phase(self, phase: Phase) -> None:
        message = episode_status_to_msg(self._make_status(phase))
        self.graph.say(topics.EPISODE_STATE, message, topics.LATCHED)

    def begin_grasp(self) -> None:
        """A goal to close the gripper is under way."""
        self.start()
        self.well()
        self.open_gripper(0.0)
        self.graph.until(lambda: self.grasp.goals)

    def open_gripper(self, opening: float) -> None:
        self.graph.say(COMMAND, Float64MultiArray(data=[opening]), topics.COMMAND)

    def say_state(self, mode: int, mass: float = 0.4, **errors: bool) -> None:
        state = self.state_kind(robot_mode=mode)
        state.inertia_load.inertia.m, state.inertia_load.inertia.com.z = mass, 0.05
        for name, value in errors.items():
            setattr(state.current_errors, name, value)
        self._state = state
        self.graph.say(STATE, state, topics.SENSOR)

    def fall_silent(self) -> None:
        """The broadcaster of the robot's state says nothing any more."""
        self._state = None

    def _repeat_state(self) -> None:
        if self._state is not None:
            self.graph.say(STATE, self._state, topics.SENSOR)

    def until_said(self, level: bytes, text: str, *, stopped: bool = False) -> None:
        def said() -> bool:
            last = [status for array in self.diagnostics[-1:] for status in array.status]
            return bool(last) and (last[0].level, self.stopped) == (level, stopped) and text in last[0].message

        self.graph.until(said)

    @property
    def stopped(self) -> bool:
        """Whether the adapter says that the arm has stopped for good."""
        return any(value.key == STOPPED for array in self.diagnostics[-1:] for value in array.status[0].values)

    def call(self, name: str) -> Any:
        client = self.graph.node.create_client(Trigger, name)
        self.graph.until(client.service_is_ready)
        return client.call_async(Trigger.Request())


@pytest.fixture
def without_gripper(
    graph: Any, files: dict[str, str], tmp_path: Path, status: Callable[..., Any]
) -> Iterator[Workstation]:
    workstation = Workstation(graph, files, tmp_path, status)
    yield workstation
    workstation.close()


@pytest.fixture
def workstation(without_gripper: Workstation) -> Workstation:
    without_gripper.start_gripper()
    return without_gripper


def test_at_the_start_the_arm_is_told_its_load_frames_and_thresholds(workstation: Workstation) -> None:
    workstation.start()
    services = workstation.services
    workstation.graph.until(lambda: all(service.requests for service in services.values()))
    (load,) = services["set_load"].requests
    assert (load.mass, list(load.center_of_mass)) == (0.4, [0.0, 0.0, 0.05])
    np.testing.assert_array_equal(np.reshape(load.load_inertia, (3, 3)), np.eye(3) * 0.001)
    (frame,) = services["set_tcp_frame"].requests
    assert list(frame.transformation[12:]) == [0.0, 0.0, 0.1, 1.0], "column by column"
    (thresholds,) = services["set_full_collision_behavior"].requests
    assert list(thresholds.lower_force_thresholds_nominal) == [15.0] * 6
    assert list(thresholds.upper_torque_thresholds_acceleration) == [20.0] * 7
    workstation.well()


def test_a_refused_setting_is_an_error_until_the_operator_asks_again(workstation: Workstation) -> None:
    load = workstation.services["set_load"]
    load.refusal = "command not possible in the current mode"
    workstation.start()
    workstation.until_said(b"\x02", "service_server/set_load: refused: command not possible in the current mode")
    load.refusal = ""
    workstation.graph.spin(0.2)
    assert len(load.requests) == 1, "nothing is tried again by itself"
    answer = workstation.call("configure_robot")
    workstation.graph.until(answer.done)
    assert (answer.result().success, len(load.requests)) == (True, 2)
    workstation.well()


def test_a_robot_that_counts_with_another_load_than_it_was_told_is_an_error(workstation: Workstation) -> None:
    workstation.start()
    workstation.well()
    workstation.say_state(mode=MOVE, mass=0.0)
    workstation.until_said(b"\x02", "load: the robot counts with 0.000 kg, wanted 0.400 kg")


def test_an_arm_that_has_not_taken_its_settings_is_not_ready(workstation: Workstation, tmp_path: Path) -> None:
    workstation.start({"service_server": "another_server", "load": {"mass": 0.1}, "gripper": None})
    workstation.phase(Phase.READY)
    workstation.say_state(mode=MOVE)
    workstation.until_said(b"\x03", "waits for another_server/set_load")


def test_the_gripper_closes_with_a_grasp_and_opens_with_a_move_each_once(workstation: Workstation) -> None:
    workstation.start()
    workstation.well()
    (goal,) = workstation.move.goals
    assert (goal.width, goal.speed) == (0.08, 0.1)
    for _ in range(5):
        workstation.open_gripper(0.0)
    workstation.graph.until(lambda: workstation.grasp.goals)
    workstation.grasp.end(success=True)
    workstation.open_gripper(0.0)
    workstation.graph.spin(0.2)
    (grasp,) = workstation.grasp.goals
    assert (grasp.width, grasp.force, grasp.epsilon.outer) == (0.0, 40.0, 0.1)
    assert len(workstation.move.goals) == 1


def test_a_new_command_overtakes_the_goal_under_way(workstation: Workstation) -> None:
    workstation.begin_grasp()
    workstation.open_gripper(1.0)
    workstation.graph.until(lambda: len(workstation.move.goals) == 2)
    assert workstation.grasp.cancelled == 1
    workstation.move.end(success=True)
    workstation.until_said(b"\x00", "")


def test_a_gripper_that_takes_long_keeps_nobody_waiting(workstation: Workstation) -> None:
    workstation.begin_grasp()
    beats = len(workstation.diagnostics)
    workstation.graph.until(lambda: len(workstation.diagnostics) >= beats + 2)
    assert workstation.diagnostics[-1].status[0].level == b"\x00"


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ({"well": False, "success": False, "error": "libfranka gripper: timed out"}, "libfranka gripper: timed out"),
        ({"well": True, "success": False}, "the gripper gave no reason"),
    ],
    ids=["aborted", "unsuccessful"],
)
def test_a_goal_that_fails_is_told(workstation: Workstation, ending: dict[str, Any], told: str) -> None:
    workstation.begin_grasp()
    workstation.grasp.end(**ending)
    workstation.until_said(b"\x02", told)


def test_a_gripper_that_starts_later_than_the_adapter_gets_the_wish_that_waits_for_it(
    without_gripper: Workstation,
) -> None:
    workstation = without_gripper
    workstation.start(SETTINGS | {"gripper": {"patience": 0.3}})
    workstation.phase(Phase.READY)
    workstation.say_state(mode=MOVE)
    workstation.open_gripper(1.0)
    workstation.until_said(b"\x03", "gripper: waits for the action server franka_gripper/")
    workstation.graph.spin(0.5)
    assert "waits for the action server" in workstation.diagnostics[-1].status[0].message, "a late server is no error"
    workstation.start_gripper()
    workstation.graph.until(lambda: workstation.move.goals)
    workstation.move.end(success=True)
    workstation.until_said(b"\x00", "")


def test_an_error_of_the_gripper_stands_until_the_operator_has_looked_after_it(workstation: Workstation) -> None:
    workstation.begin_grasp()
    workstation.grasp.end(well=False, success=False, error="libfranka gripper: timed out")
    workstation.until_said(b"\x02", "libfranka gripper: timed out")
    workstation.graph.spin(0.3)
    assert workstation.diagnostics[-1].status[0].level == b"\x02", "it does not go away by itself"
    answer = workstation.call("configure_robot")
    workstation.graph.until(answer.done)
    workstation.until_said(b"\x00", "")
    workstation.open_gripper(0.0)
    workstation.graph.until(lambda: len(workstation.grasp.goals) == 2)


def test_a_rejected_goal_is_told(workstation: Workstation) -> None:
    workstation.start()
    workstation.well()
    workstation.grasp.rejects = True
    workstation.open_gripper(0.0)
    workstation.until_said(b"\x02", "gripper: opening 0.00 failed: the action server rejected the goal")


@pytest.mark.parametrize("data", [[], [0.5, 0.5], [float("nan")], [2.0]])
def test_a_malformed_command_moves_nothing(workstation: Workstation, data: list[float]) -> None:
    workstation.start()
    workstation.well()
    workstation.graph.say(COMMAND, Float64MultiArray(data=data), topics.COMMAND)
    workstation.until_said(b"\x02", "gripper: a command is one opening in 0 .. 1")
    assert (len(workstation.move.goals), len(workstation.grasp.goals)) == (1, 0)


def test_a_gripper_command_action_serves_other_grippers(graph: Any, workstation: Workstation) -> None:
    kind = franka_interfaces.interfaces("control_msgs", "action").GripperCommand
    action = workstation.offer(kind, "gripper/gripper_cmd")
    gripper = {"interface": "gripper_command", "action": "gripper/gripper_cmd", "timeout": 30.0}
    workstation.start({"gripper": gripper})
    workstation.phase(Phase.READY)
    workstation.say_state(mode=MOVE)
    workstation.open_gripper(1.0)
    graph.until(lambda: action.goals)
    assert (action.goals[0].command.position, action.goals[0].command.max_effort) == (0.04, 40.0), "one finger's way"
    action.end(reached_goal=True)
    workstation.open_gripper(0.0)
    graph.until(lambda: len(action.goals) == 2)
    action.end(well=False, stalled=True, position=0.02)
    workstation.until_said(b"\x02", "aborted")


def test_a_reflex_is_told_and_nobody_recovers_by_himself(workstation: Workstation) -> None:
    workstation.start()
    workstation.well()
    workstation.say_state(mode=REFLEX, cartesian_reflex=True)
    workstation.until_said(b"\x02", "robot: a reflex stopped the arm (cartesian_reflex)", stopped=True)
    workstation.graph.spin(0.3)
    assert workstation.recovery.goals == []


@pytest.mark.parametrize("mode", [GUIDING, USER_STOPPED, RECOVERING, 0])
def test_an_arm_that_does_not_follow_its_controller_ends_the_episode_at_once(
    workstation: Workstation, mode: int
) -> None:
    workstation.start()
    workstation.well()
    workstation.phase(Phase.RUNNING)
    workstation.say_state(mode=mode)
    workstation.until_said(b"\x02", "robot: ", stopped=True)


def test_an_arm_without_a_controller_is_not_ready_and_an_error_where_it_has_to_move(workstation: Workstation) -> None:
    workstation.start()
    workstation.well()
    workstation.phase(Phase.ENDED)
    workstation.say_state(mode=IDLE)
    workstation.until_said(b"\x03", "robot: no controller is active (conrft episode configure activates it)")
    workstation.phase(Phase.RESETTING)
    workstation.until_said(b"\x02", "robot: no controller is active, the arm does not follow")
    workstation.phase(Phase.RUNNING)
    workstation.until_said(b"\x02", "robot: no controller is active", stopped=True)


def test_an_arm_that_says_nothing_any_more_counts_as_stopped(workstation: Workstation) -> None:
    workstation.start(SETTINGS | {"state_timeout": 0.5})
    workstation.well()
    workstation.fall_silent()
    workstation.until_said(b"\x02", f"{STATE}: silent", stopped=True)


def test_an_arm_that_has_said_nothing_yet_is_not_ready(workstation: Workstation) -> None:
    workstation.start({"gripper": None})
    workstation.phase(Phase.READY)
    workstation.graph.publisher(STATE, workstation.state_kind, topics.SENSOR)
    workstation.until_said(b"\x03", f"{STATE}: nothing received yet")


def test_of_states_that_come_fast_the_newest_counts(workstation: Workstation) -> None:
    workstation.start()
    workstation.well()
    for mode in [MOVE] * 20 + [REFLEX]:
        workstation.say_state(mode=mode)
    workstation.fall_silent()
    workstation.until_said(b"\x02", "a reflex stopped the arm", stopped=True)


def test_a_state_that_cannot_be_read_is_an_error_until_one_can(workstation: Workstation) -> None:
    node = workstation.start()
    workstation.well()
    node._on_robot_state(b"\x00\x01\x00\x00 of another version")
    workstation.fall_silent()
    workstation.until_said(b"\x02", f"{STATE}: cannot be read, another franka_msgs?")
    workstation.say_state(mode=MOVE)
    workstation.until_said(b"\x00", "")


def test_the_operators_service_recovers_the_arm(workstation: Workstation) -> None:
    workstation.start()
    workstation.well()
    answer = workstation.call("recover_robot")
    workstation.graph.until(lambda: workstation.recovery.goals)
    assert not answer.done(), "the answer says how it ended"
    workstation.recovery.end()
    workstation.graph.until(answer.done)
    assert (answer.result().success, len(workstation.recovery.goals)) == (True, 1)
    answer = workstation.call("recover_robot")
    workstation.graph.until(lambda: len(workstation.recovery.goals) == 2)
    workstation.recovery.end(well=False)
    workstation.graph.until(answer.done)
    assert "aborted" in answer.result().message


def test_an_arm_is_not_recovered_while_an_episode_runs(workstation: Workstation) -> None:
    node = workstation.start(recover_button=1)
    workstation.well()
    workstation.phase(Phase.RUNNING)
    workstation.graph.until(lambda: node._phase is Phase.RUNNING)
    answer = workstation.call("recover_robot")
    workstation.graph.until(answer.done)
    assert (answer.result().success, answer.result().message) == (False, "an episode is running; end it first")
    for buttons in ([0, 0], [0, 1]):
        workstation.graph.say(topics.SPACENAV_JOY, Joy(buttons=buttons))
    workstation.graph.spin(0.2)
    assert workstation.recovery.goals == []


def test_the_operators_button_recovers_the_arm_only_if_one_was_named(workstation: Workstation) -> None:
    workstation.start(recover_button=1)
    workstation.well()
    for buttons in ([0, 0], [1, 0], [0, 1], [0, 1]):
        workstation.graph.say(topics.SPACENAV_JOY, Joy(buttons=buttons))
    workstation.graph.until(lambda: workstation.recovery.goals)
    workstation.graph.spin(0.2)
    assert len(workstation.recovery.goals) == 1


def test_a_button_that_is_held_while_the_arm_moves_does_not_recover_it(workstation: Workstation) -> None:
    with pytest.raises(ValueError, match="deadman_button and recover_button are both 1"):
        workstation.start(recover_button=1, deadman_button=1)


def test_recovery_without_an_answer_is_given_up(workstation: Workstation) -> None:
    node = workstation.start({"service_timeout": 0.3, "gripper": None})
    workstation.graph.until(node._recovery.ready)
    answer = workstation.call("recover_robot")
    workstation.graph.until(answer.done)
    assert "no answer within 0.3 s" in answer.result().message
    workstation.recovery.end()


CONTROLLERS = {"controllers": ["arm_controller"], "broadcasters": ["pose_broadcaster"]}
SETTING_UP = ["set_load", "set_tcp_frame", "set_stiffness_frame", "set_full_collision_behavior"]
SETTING_UP_AGAIN = [
    "FrankaHardwareInterface active",
    "arm_controller inactive",
    "pose_broadcaster active",
    *SETTING_UP,
    "arm_controller active",
]


@pytest.fixture
def ros2_control(workstation: Workstation) -> FakeControllerManager:
    srv = franka_interfaces.interfaces("controller_manager_msgs", "srv")
    return FakeControllerManager(workstation.graph.node, srv, list(workstation.services.values()))


def test_the_controller_is_activated_once_it_is_loaded_and_the_arm_has_taken_its_settings(
    workstation: Workstation, ros2_control: FakeControllerManager
) -> None:
    del ros2_control.states["arm_controller"]
    workstation.start(SETTINGS | {"controllers": CONTROLLERS})
    workstation.phase(Phase.READY)
    workstation.say_state(mode=IDLE)
    workstation.graph.until(lambda: ros2_control.events == SETTING_UP)
    workstation.graph.spin(1.5)
    assert ros2_control.events == SETTING_UP
    ros2_control.states["arm_controller"] = "inactive"
    workstation.graph.until(lambda: ros2_control.events == [*SETTING_UP, "arm_controller active"])
    workstation.well()


def test_a_controller_that_does_not_become_active_is_an_error(
    workstation: Workstation, ros2_control: FakeControllerManager
) -> None:
    ros2_control.activates = False
    workstation.start(SETTINGS | {"controllers": CONTROLLERS})
    workstation.say_state(mode=MOVE)
    workstation.until_said(b"\x02", "controller_manager/list_controllers: arm_controller is inactive")


def test_a_reflex_is_not_ended_by_activating_a_controller(
    workstation: Workstation, ros2_control: FakeControllerManager
) -> None:
    workstation.start(SETTINGS | {"controllers": CONTROLLERS, "service_timeout": 2.0})
    workstation.say_state(mode=REFLEX)
    workstation.until_said(b"\x02", "controller_manager/switch_controller: not called: robot: a reflex", stopped=True)
    workstation.say_state(mode=IDLE)
    workstation.until_said(b"\x02", "controller_manager/switch_controller: not called: robot: a reflex")
    workstation.graph.spin(1.5)
    assert "arm_controller active" not in ros2_control.events, "only a person goes on after a reflex"


def test_recovery_sets_up_the_arm_from_its_hardware_on_and_activates_the_controller_last(
    workstation: Workstation, ros2_control: FakeControllerManager
) -> None:
    workstation.start(SETTINGS | {"controllers": CONTROLLERS})
    workstation.say_state(mode=MOVE)
    workstation.graph.until(lambda: "arm_controller active" in ros2_control.events)
    workstation.phase(Phase.ENDED)
    workstation.say_state(mode=REFLEX)
    workstation.until_said(b"\x02", "a reflex stopped the arm", stopped=True)
    ros2_control.go_off()
    ros2_control.events.clear()
    answer = workstation.call("recover_robot")
    workstation.graph.until(lambda: workstation.recovery.goals)
    assert not ros2_control.events
    workstation.say_state(mode=IDLE)
    workstation.recovery.end()
    workstation.graph.until(answer.done)
    assert (answer.result().message, ros2_control.events) == ("", SETTING_UP_AGAIN)


def test_the_settings_that_an_active_controller_refused_are_taken_when_the_operator_sets_up_the_arm_again(
    workstation: Workstation, ros2_control: FakeControllerManager
) -> None:
    ros2_control.activate("arm_controller")
    workstation.start(SETTINGS | {"controllers": CONTROLLERS})
    workstation.say_state(mode=MOVE)
    workstation.until_said(b"\x02", "service_server/set_load: refused: command not possible in the current mode")
    assert ros2_control.events == ["set_load"], "what moves the arm is not taken off by itself"
    ros2_control.events.clear()
    answer = workstation.call("configure_robot")
    workstation.graph.until(answer.done)
    assert (answer.result().message, ros2_control.events) == ("", SETTING_UP_AGAIN)


@pytest.mark.parametrize(
    ("phase", "refusal"),
    [
        (Phase.RUNNING, "an episode is running; end it first"),
        (Phase.RESETTING, "the arm is on its way home; stop it first"),
    ],
)
def test_an_arm_that_may_be_moving_is_not_set_up_again(
    workstation: Workstation, ros2_control: FakeControllerManager, phase: Phase, refusal: str
) -> None:
    node = workstation.start(SETTINGS | {"controllers": CONTROLLERS})
    workstation.say_state(mode=MOVE)
    workstation.graph.until(lambda: "arm_controller active" in ros2_control.events)
    ros2_control.events.clear()
    workstation.phase(phase)
    workstation.graph.until(lambda: node._phase is phase)
    for service in ("configure_robot", "recover_robot"):
        answer = workstation.call(service)
        workstation.graph.until(answer.done)
        assert (answer.result().success, answer.result().message) == (False, refusal)
    assert (ros2_control.events, workstation.recovery.goals) == ([], [])


def test_stiffness_has_the_range_of_the_robot() -> None:
    usual = FrankaSettings(
        joint_stiffness=(3000, 3000, 3000, 2500, 2500, 2000, 2000), cartesian_stiffness=(750, 750, 750, 15, 15, 15)
    )
    joint, cartesian = franka_interfaces.setup_calls(usual)
    assert list(joint.request.joint_stiffness) == [3000, 3000, 3000, 2500, 2500, 2000, 2000]
    assert list(cartesian.request.cartesian_stiffness) == [750, 750, 750, 15, 15, 15]
    with pytest.raises(ValidationError, match=r"joint_stiffness.6\n.*less than or equal to 14250"):
        FrankaSettings(joint_stiffness=(3000, 3000, 3000, 3000, 3000, 3000, 15000))
    with pytest.raises(ValidationError, match=r"cartesian_stiffness.3\n.*less than or equal to 300"):
        FrankaSettings(cartesian_stiffness=(750, 750, 750, 750, 15, 15))


def test_a_missing_package_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "franka_msgs.srv", None)
    with pytest.raises(ConfigError, match=r"franka_msgs cannot be imported .* build franka_ros2"):
        list(franka_interfaces.setup_calls(FrankaSettings()))
