"""What the Franka adapter takes for granted holds for libfranka itself, against simulated arms that speak its protocol.

pylibfranka is the client; franky-sim and, for reflexes, franka-sim are the robot. All run in an interpreter of their
own, which LIBFRANKA_PYTHON names: their NumPy and MuJoCo are other ones than this workspace's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionServer
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import Float64MultiArray

from conrft_control import franka_interfaces
from conrft_control.franka_settings import CollisionBehavior, Frame, FrankaSettings, GripperSettings, Load
from conrft_control.gripper_opening import gripper_opening
from conrft_control.nodes.franka_adapter_node import FrankaAdapterNode
from conrft_data import rotations
from conrft_data.config import RobotConfig, load_config
from conrft_sim import kinematics

pytestmark = pytest.mark.skipif(
    "LIBFRANKA_PYTHON" not in os.environ,
    reason="LIBFRANKA_PYTHON names no interpreter with pylibfranka, franky-sim and franka-sim",
)

ROOT = Path(__file__).parents[1]
ROBOTS = ROOT / "src/conrft_bringup/config/robots"
SCRIPTS = ROOT / "tests/libfranka"
BLOCK_WIDTH = 0.03  # m, of what is between the fingers
FLOAT32 = 1e-5  # the state's numbers are of single precision
PATIENCE_S = 60.0


class Script:
    """A process of one of the files in tests/libfranka; every line that it prints is JSON."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self._output, self._errors = folder / f"{name}.out", folder / f"{name}.err"
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
        command = [os.environ["LIBFRANKA_PYTHON"], str(SCRIPTS / name), *arguments]
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=errors, env=environment
            )

    def said(self) -> list[Any]:
        return [json.loads(line) for line in self._output.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, count: int) -> Any:
        """The last of ``count`` lines."""
        deadline = time.monotonic() + PATIENCE_S
        while len(lines := self.said()) < count:
            assert self._process.poll() is None, self._errors.read_text()[-3000:]
            assert time.monotonic() < deadline, f"no answer: {self._errors.read_text()[-3000:]}"
            time.sleep(0.01)
        return lines[count - 1]

    def tell(self, call: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(call).encode() + b"\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


class Libfranka:
    """A robot and pylibfranka, connected to it."""

    def __init__(self, folder: Path, robot: str, *arguments: str) -> None:
        self._scripts = [Script(folder, robot, *arguments)]
        self._answers = 1
        try:
            self._scripts.append(Script(folder, "client.py", self._scripts[0].wait_for(1)["address"]))
            self._scripts[1].wait_for(1)
        except BaseException:
            self.end()
            raise

    def try_to(self, name: str, *arguments: Any, device: str = "robot") -> dict[str, Any]:
        """The ``result`` of a method of pylibfranka, or its ``error``."""
        self._scripts[1].tell({"device": device, "name": name, "arguments": arguments})
        self._answers += 1
        answer: dict[str, Any] = self._scripts[1].wait_for(self._answers)
        return answer

    def robot(self, name: str, *arguments: Any) -> Any:
        answer = self.try_to(name, *arguments)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def gripper(self, name: str, *arguments: Any) -> Any:
        answer = self.try_to(name, *arguments, device="gripper")
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def commands(self) -> list[str]:
        """Names of all commands that the robot got."""
        return [said["command"] for said in self._scripts[0].said() if "command" in said]

    def told(self, command: str) -> bool:
        """Whether the robot got a command of this name."""
        return command in self.commands()

    def received(self, command: str) -> dict[str, Any]:
        """What the robot got with the last command of this name."""
        fields: dict[str, Any] = [said for said in self._scripts[0].said() if said.get("command") == command][-1]
        return fields

    def end(self) -> None:
        for script in reversed(self._scripts):
            script.end()


@pytest.fixture(scope="module", autouse=True)
def interfaces() -> None:
    source = ROOT / "src/conrft_control/test/franka_ros2.py"
    spec = importlib.util.spec_from_file_location("franka_ros2", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.provide_interfaces()


@pytest.fixture(scope="module")
def franka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libfranka]:
    """An arm in Franka's ready posture, the gripper open around a block."""
    connected = Libfranka(tmp_path_factory.mktemp("franky"), "franky_robot.py")
    yield connected
    connected.end()


@pytest.fixture
def sensitive(tmp_path: Path) -> Iterator[Libfranka]:
    """An arm that a reflex stops when its commands do not come."""
    connected = Libfranka(tmp_path, "reflex_robot.py", str(tmp_path))
    yield connected
    connected.end()


def transform(column_major: list[float]) -> np.ndarray:
    return np.reshape(column_major, (4, 4), order="F")


def request(name: str, **settings: Any) -> Any:
    """The one request that these settings make."""
    (call,) = franka_interfaces.setup_calls(FrankaSettings(**settings))
    assert call.service == f"service_server/{name}"
    return call.request


def state_message(state: dict[str, Any]) -> Any:
    """The fields that the adapter reads of what franka_ros2 makes of a libfranka state."""
    message = franka_interfaces.interfaces("franka_msgs", "msg").FrankaRobotState(robot_mode=state["robot_mode"])
    load = message.inertia_load.inertia
    load.m, (load.com.x, load.com.y, load.com.z) = state["m_load"], state["F_x_Cload"]
    position = message.ee_t_k.pose.position
    position.x, position.y, position.z = transform(state["EE_T_K"])[:3, 3].tolist()
    for name in state["current_errors"]:
        setattr(message.current_errors, name, True)
    return message


def test_joints_and_pose_of_the_tool_are_those_of_the_simulated_arm(franka: Libfranka) -> None:
    for state in franka.robot("drive", [0.05, 0.1, 0.0, 0.0, 0.1, 0.3], 500)[::10]:  # joints 1, 3 and 5 turn too
        pose = transform(state["O_T_EE"])
        np.testing.assert_allclose(pose, kinematics.forward(state["q"]), rtol=0, atol=1e-3)
    assert np.abs(state["q"]).min() > 0.01


def test_a_twist_is_linear_before_angular_and_in_the_base_frame(franka: Libfranka) -> None:
    twist = [0.03, -0.02, 0.04, 0.0, -0.1, 0.2]
    states = franka.robot("drive", twist, 500)
    start, end = states[20], states[39]  # the arm has its speed
    np.testing.assert_allclose(end["O_dP_EE_d"], twist, atol=2e-3)
    duration = end["time"] - start["time"]
    before, after = transform(start["O_T_EE"]), transform(end["O_T_EE"])
    np.testing.assert_allclose((after - before)[:3, 3] / duration, twist[:3], atol=6e-3)
    turn = after[:3, :3] @ before[:3, :3].T
    spin = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2 / duration
    np.testing.assert_allclose(spin, twist[3:], atol=0.04)
    assert before[2, 2] < -0.9, "the tool's frame is not the base's"


def test_the_tool_frame_is_set_column_by_column_and_moves_the_tool(franka: Libfranka) -> None:
    frame = Frame(position=(0.01, 0.02, 0.1), euler_xyz=(0.3, -0.2, 0.5))
    wanted = np.eye(4)
    wanted[:3, :3] = rotations.to_matrix(rotations.from_euler_xyz(frame.euler_xyz))
    wanted[:3, 3] = frame.position
    before = franka.robot("read_once")
    franka.robot("set_EE", request("set_tcp_frame", tcp_frame=frame).transformation.tolist())
    after = franka.robot("read_once")
    np.testing.assert_allclose(transform(after["NE_T_EE"]), wanted, atol=FLOAT32)
    np.testing.assert_allclose(transform(after["F_T_EE"]), transform(after["F_T_NE"]) @ wanted, atol=FLOAT32)
    np.testing.assert_allclose(transform(after["O_T_EE"]), transform(before["O_T_EE"]) @ wanted, atol=1e-3)
    franka.robot("set_EE", request("set_tcp_frame", tcp_frame=Frame()).transformation.tolist())


def test_the_state_shows_whether_the_stiffness_frame_was_taken(franka: Libfranka) -> None:
    settings = FrankaSettings(stiffness_frame=Frame(position=(0.01, -0.02, 0.1), euler_xyz=(0.3, -0.2, 0.5)))
    (problem,) = franka_interfaces.unlike_settings(state_message(franka.robot("read_once")), settings)
    assert problem.startswith("stiffness frame: the robot's is at (0.0, 0.0, 0.0), wanted (0.01, -0.02, 0.1)")
    wanted = request("set_stiffness_frame", stiffness_frame=settings.stiffness_frame).transformation
    franka.robot("set_K", wanted.tolist())
    state = franka.robot("read_once")
    np.testing.assert_allclose(state["EE_T_K"], wanted, atol=FLOAT32)
    assert franka_interfaces.unlike_settings(state_message(state), settings) == []


def test_the_state_shows_whether_the_load_was_taken(franka: Libfranka) -> None:
    settings = FrankaSettings(load=Load(mass=0.4, center_of_mass=(0.01, -0.02, 0.05), inertia=(0.003, 0.002, 0.001)))
    (problem,) = franka_interfaces.unlike_settings(state_message(franka.robot("read_once")), settings)
    assert problem == "load: the robot counts with 0.000 kg, wanted 0.400 kg"
    load = request("set_load", load=settings.load)
    franka.robot("set_load", load.mass, load.center_of_mass.tolist(), load.load_inertia.tolist())
    state = franka.robot("read_once")
    assert franka_interfaces.unlike_settings(state_message(state), settings) == []
    assert state["m_total"] - state["m_ee"] == pytest.approx(0.4, abs=FLOAT32)
    np.testing.assert_allclose(np.reshape(state["I_load"], (3, 3)), np.diag([0.003, 0.002, 0.001]), atol=FLOAT32)


def test_thresholds_arrive_as_seven_torques_and_six_forces_each_in_its_place(franka: Libfranka) -> None:
    collision = CollisionBehavior(
        contact_torque=(11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0),
        collision_torque=(21.0, 22.0, 23.0, 24.0, 25.0, 26.0, 27.0),
        contact_force=(31.0, 32.0, 33.0, 34.0, 35.0, 36.0),
        collision_force=(41.0, 42.0, 43.0, 44.0, 45.0, 46.0),
    )
    ours = request("set_full_collision_behavior", collision=collision)
    franka.robot(
        "set_collision_behavior",
        ours.lower_torque_thresholds_nominal.tolist(),
        ours.upper_torque_thresholds_nominal.tolist(),
        ours.lower_force_thresholds_nominal.tolist(),
        ours.upper_force_thresholds_nominal.tolist(),
    )
    # libfranka takes these for accelerated motion too, as the adapter does.
    received = franka.received("SetCollisionBehaviorCommand")
    assert {name: list(getattr(ours, name)) for name in received if name != "command"} == {
        name: values for name, values in received.items() if name != "command"
    }
    assert len(received) == 1 + len(ours.get_fields_and_field_types())


def test_stiffness_arrives_for_seven_joints_and_six_directions(franka: Libfranka) -> None:
    joint, cartesian = (3000.0, 3001.0, 3002.0, 2503.0, 2504.0, 2005.0, 2006.0), (1000.0, 1001.0, 1002.0, 40, 41, 42)
    franka.robot("set_joint_impedance", request("set_joint_stiffness", joint_stiffness=joint).joint_stiffness.tolist())
    assert franka.received("SetJointImpedanceCommand")["K_theta"] == list(joint)
    ours = request("set_cartesian_stiffness", cartesian_stiffness=cartesian)
    franka.robot("set_cartesian_impedance", ours.cartesian_stiffness.tolist())
    assert franka.received("SetCartesianImpedanceCommand")["K_x"] == list(cartesian)


def test_a_gripper_that_closes_holds_what_is_between_its_fingers(franka: Libfranka) -> None:
    max_width = load_config(RobotConfig, ROBOTS / "fr3.yaml").gripper_max_width
    assert franka.gripper("read_once")["max_width"] == pytest.approx(max_width)
    settings = GripperSettings()
    grasp = franka_interfaces.gripper_goal(settings, 0.0, max_width).goal
    tight = franka.try_to("grasp", grasp.width, grasp.speed, grasp.force, device="gripper")
    assert tight.get("result") is not True, "libfranka's own tolerance refuses anything but empty fingers"
    goal = (grasp.width, grasp.speed, grasp.force, grasp.epsilon.inner, grasp.epsilon.outer)
    assert franka.gripper("grasp", *goal) is True
    assert franka.received("GripperGraspCommand") == {
        "command": "GripperGraspCommand", "width": 0.0, "speed": settings.speed, "force": settings.force,
        "epsilon_inner": grasp.epsilon.inner, "epsilon_outer": grasp.epsilon.outer,
    }  # fmt: skip
    state = franka.gripper("read_once")
    assert state["is_grasped"] is True
    # franka_gripper gives each finger half of libfranka's width.
    holding = gripper_opening([state["width"] / 2, state["width"] / 2], max_width)
    assert holding == pytest.approx(BLOCK_WIDTH / max_width, abs=0.05)

    move = franka_interfaces.gripper_goal(settings, 1.0, max_width).goal
    assert franka.gripper("move", move.width, move.speed) is True
    state = franka.gripper("read_once")
    assert state["is_grasped"] is False
    assert gripper_opening([state["width"] / 2, state["width"] / 2], max_width) == pytest.approx(1.0, abs=0.05)


def test_homing_measures_the_gripper_and_leaves_it_where_it_was(franka: Libfranka) -> None:
    before = franka.gripper("read_once")
    assert franka.gripper("homing") is True
    after = franka.gripper("read_once")
    assert after["max_width"] == pytest.approx(
        load_config(RobotConfig, ROBOTS / "fr3.yaml").gripper_max_width, abs=1e-3
    )
    assert after["width"] == pytest.approx(before["width"], abs=2e-3)


def test_the_robots_modes_have_the_numbers_that_the_adapter_knows(franka: Libfranka) -> None:
    modes = franka.robot("modes")

    def problem(mode: str) -> str:
        kind = franka_interfaces.interfaces("franka_msgs", "msg").FrankaRobotState
        return franka_interfaces.robot_problem(kind(robot_mode=modes[mode]))

    assert problem("Move") == ""
    assert "a reflex stopped the arm" in problem("Reflex")
    assert "the arm is stopped by hand" in problem("UserStopped")
    assert (modes["Idle"], modes["Guiding"], modes["AutomaticErrorRecovery"]) == (1, 3, 6)


class FrankaRos2(Node):
    """franka_ros2's and franka_gripper's servers and state, each request passed on to libfranka."""

    def __init__(self, franka: Libfranka) -> None:
        super().__init__("franka_ros2")
        self._franka = franka
        srv, action, msg = (franka_interfaces.interfaces("franka_msgs", part) for part in ("srv", "action", "msg"))
        for name, kind, method in (
            ("set_load", srv.SetLoad, "set_load"),
            ("set_tcp_frame", srv.SetTCPFrame, "set_EE"),
            ("set_stiffness_frame", srv.SetStiffnessFrame, "set_K"),
        ):
            self.create_service(kind, f"service_server/{name}", partial(self._pass_on, method))
        behaviour = "service_server/set_full_collision_behavior"
        self.create_service(srv.SetFullCollisionBehavior, behaviour, partial(self._pass_on, "set_collision_behavior"))
        self._actions = [
            ActionServer(self, kind, f"franka_gripper/{kind.__name__.lower()}", partial(self._drive, kind))
            for kind in (action.Move, action.Grasp)
        ]
        self._states = self.create_publisher(msg.FrankaRobotState, "franka_robot_state_broadcaster/robot_state", 1)
        self.create_timer(0.1, lambda: self._states.publish(state_message(franka.robot("read_once"))))

    def _pass_on(self, method: str, request: Any, response: Any) -> Any:
        fields = [name for name in request.get_fields_and_field_types() if not name.endswith("_acceleration")]
        values = [getattr(request, name) for name in fields]
        answer = self._franka.try_to(method, *(v if isinstance(v, float) else v.tolist() for v in values))
        response.success, response.error = "error" not in answer, answer.get("error", "")
        return response

    def _drive(self, kind: Any, handle: Any) -> Any:
        goal, method = handle.request, kind.__name__.lower()
        arguments = [goal.width, goal.speed]
        if method == "grasp":
            arguments += [goal.force, goal.epsilon.inner, goal.epsilon.outer]
        answer = self._franka.try_to(method, *arguments, device="gripper")
        handle.succeed()
        return kind.Result(success=answer.get("result") is True, error=answer.get("error", ""))

    def destroy_node(self) -> None:
        for server in self._actions:
            server.destroy()
        super().destroy_node()


def test_the_adapter_itself_sets_up_the_arm_and_drives_its_gripper(tmp_path: Path) -> None:
    wanted: dict[str, Any] = {
        "load": {"mass": 0.3, "center_of_mass": [0.0, 0.01, 0.05], "inertia": [0.001, 0.001, 0.001]},
        "tcp_frame": {"position": [0.0, 0.0, 0.02]},
        "stiffness_frame": {"position": [0.0, 0.0, 0.03]},
        "collision": {"contact_torque": [15.0] * 7, "collision_torque": [30.0] * 7, "contact_force": [20.0] * 6,
                      "collision_force": [40.0] * 6},
        "gripper": {"timeout": 30.0},
    }  # fmt: skip
    file = tmp_path / "franka.yaml"
    file.write_text(json.dumps(wanted))
    files = {"robot_file": str(ROBOTS / "fr3.yaml"), "franka_file": str(file)}
    franka = Libfranka(tmp_path, "franky_robot.py")
    rclpy.init()
    bridge, executor = FrankaRos2(franka), SingleThreadedExecutor()
    adapter = FrankaAdapterNode(parameter_overrides=[Parameter(name, value=value) for name, value in files.items()])
    said: list[str] = []
    adapter.create_subscription(DiagnosticArray, "/diagnostics", lambda m: said.append(m.status[0].message), 10)
    command = bridge.create_publisher(
        Float64MultiArray, load_config(RobotConfig, ROBOTS / "fr3.yaml").gripper_command, 1
    )
    for node in (bridge, adapter):
        executor.add_node(node)

    def until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, said[-5:]
            executor.spin_once(timeout_sec=0.02)

    def holds(holding: bool) -> bool:
        command.publish(Float64MultiArray(data=[0.0 if holding else 1.0]))
        state = franka.gripper("read_once")
        return state["is_grasped"] is holding and (holding or state["width"] > 0.07)

    try:
        until(lambda: franka.told("SetCollisionBehaviorCommand"))
        state = franka.robot("read_once")
        assert state["m_load"] == pytest.approx(0.3)
        np.testing.assert_allclose(transform(state["EE_T_K"])[:3, 3], [0, 0, 0.03], atol=FLOAT32)
        np.testing.assert_allclose(transform(state["NE_T_EE"])[:3, 3], [0, 0, 0.02], atol=FLOAT32)
        until(lambda: holds(True))
        until(lambda: holds(False))
        assert len([c for c in franka.commands() if c == "GripperGraspCommand"]) == 1, "never twice for one wish"
        assert not [word for word in said if "refused" in word or "failed" in word]
    finally:
        executor.shutdown()
        for node in (bridge, adapter):
            node.destroy_node()
        rclpy.shutdown()
        franka.end()


def test_a_reflex_stays_until_the_arm_is_recovered(sensitive: Libfranka) -> None:
    def problem() -> str:
        return franka_interfaces.robot_problem(state_message(sensitive.robot("read_once")))

    assert problem() == ""
    assert "communication_constraints_violation" in sensitive.try_to("fall_silent")["error"]
    reflex = "robot: a reflex stopped the arm (communication_constraints_violation)"
    assert problem() == reflex
    assert "command not possible in the current mode" in sensitive.try_to("drive", [0.0] * 6, 2)["error"]
    assert problem() == reflex
    sensitive.robot("automatic_error_recovery")
    assert problem() == ""
    sensitive.robot("drive", [0.0] * 6, 20)


def test_errors_have_the_names_that_the_state_message_gives_them(franka: Libfranka) -> None:
    names = franka_interfaces.interfaces("franka_msgs", "msg").Errors.get_fields_and_field_types()
    assert set(names) <= set(franka.robot("error_names"))
