"""Gains and posture of an impedance controller, against a controller's node of crisp_controllers' names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.node import Node
from sensor_msgs.msg import JointState

from conrft_control.impedance_settings import ImpedanceSettings
from conrft_control.nodes.impedance_phases_node import ImpedancePhasesNode
from conrft_data import topics
from conrft_data.config import ConfigError, load_config
from conrft_data.conversion import episode_status_to_msg
from conrft_data.types import Phase

JOINTS = [f"fr3_joint{number}" for number in range(1, 8)]
GOAL = [0.0, -0.8, 0.0, -2.4, 0.0, 1.6, 0.8]
SETTINGS: dict[str, Any] = {
    "reset": {"task.k_pos_x": 800.0, "task.k_rot_x": 40.0},
    "contact": {"task.k_pos_x": 400.0, "task.k_rot_x": 20.0},
    "joints": JOINTS,
    "timeout": 5.0,
}
MEASURED = "franka_robot_state_broadcaster/measured_joint_states"


class Controller(Node):
    """A node with the gains of crisp_controllers' CartesianController and their bounds."""

    def __init__(self, **options: Any) -> None:
        super().__init__("cartesian_impedance_controller", **options)
        bounds = ParameterDescriptor(floating_point_range=[FloatingPointRange(from_value=0.0, to_value=5000.0)])
        for name in SETTINGS["reset"]:
            self.declare_parameter(name, 500.0, bounds)

    def gains(self) -> list[float]:
        return [self.get_parameter(name).value for name in SETTINGS["reset"]]


class Arm:
    """Controller and node in one graph."""

    def __init__(self, graph: Any, task_file: Path, make_status: Callable[..., Any]) -> None:
        self.graph, self._task_file, self._make_status = graph, task_file, make_status
        self.diagnostics: list[DiagnosticArray] = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
        self.postures: list[JointState] = graph.listen(JointState, "target_joint", topics.COMMAND)

    def start(self, goal: list[float] | None = None, **changed: Any) -> None:
        task = json.loads(self._task_file.read_text())
        task["reset"]["joints"] = goal
        self._task_file.write_text(json.dumps(task))
        gains = self._task_file.with_name("impedance.yaml")
        gains.write_text(json.dumps({**SETTINGS, **changed}))
        self.graph.start(ImpedancePhasesNode, task_file=str(self._task_file), impedance_file=str(gains))

    def phase(self, phase: Phase) -> None:
        self.graph.say(topics.EPISODE_STATE, episode_status_to_msg(self._make_status(phase)), topics.LATCHED)

    def until_said(self, level: bytes, text: str) -> None:
        def said() -> bool:
            mine = [s for array in self.diagnostics[-3:] for s in array.status if s.name == "impedance_phases"]
            return bool(mine) and mine[-1].level == level and text in mine[-1].message

        self.graph.until(said)


@pytest.fixture
def arm(graph: Any, files: dict[str, str], status: Callable[..., Any]) -> Arm:
    return Arm(graph, Path(files["task_file"]), status)


def test_the_controller_gets_the_gains_of_each_phase(arm: Arm) -> None:
    controller = arm.graph.start(Controller)
    arm.start()
    for phase, gains in ((Phase.RESETTING, [800.0, 40.0]), (Phase.READY, [400.0, 20.0]), (Phase.RESETTING, [800, 40])):
        arm.phase(phase)
        arm.graph.until(lambda gains=gains: controller.gains() == gains)
    arm.until_said(b"\x00", "gains of reset")


def test_gains_that_the_controller_refuses_are_an_error(arm: Arm) -> None:
    arm.graph.start(Controller)
    arm.start(contact={"task.k_pos_x": 400.0, "task.k_rot_x": -1.0})
    arm.phase(Phase.READY)
    arm.until_said(b"\x02", "gains of contact: task.k_rot_x")


def test_a_controller_that_is_not_there_is_an_error(arm: Arm) -> None:
    arm.start(timeout=0.2)
    arm.phase(Phase.READY)
    arm.until_said(b"\x02", "the controller is not there within 0.2 s")


def test_on_the_way_home_the_posture_follows_a_line_to_the_tasks_joints(arm: Arm) -> None:
    arm.graph.start(Controller)
    arm.start(GOAL, joint_speed=1.5)
    start = np.asarray(GOAL) + 0.4
    arm.phase(Phase.RESETTING)

    def arrived() -> bool:
        arm.graph.say(MEASURED, JointState(name=JOINTS[::-1], position=start[::-1].tolist()))
        return bool(arm.postures) and list(arm.postures[-1].position) == GOAL

    arm.graph.until(arrived)
    path = np.array([posture.position for posture in arm.postures])
    assert arm.postures[0].name == JOINTS
    assert np.abs(path[0] - start).max() <= 0.15 + 1e-9
    assert np.abs(np.diff(path, axis=0)).max() <= 0.15 + 1e-9, "1.5 rad/s at 10 Hz"
    arm.phase(Phase.RUNNING)
    arm.graph.spin(0.1)
    count = len(arm.postures)
    arm.graph.say(MEASURED, JointState(name=JOINTS, position=start.tolist()))
    arm.graph.spin(0.2)
    assert len(arm.postures) == count, "in an episode the posture is left alone"


def test_without_the_tasks_joints_the_posture_is_left_alone(arm: Arm) -> None:
    arm.graph.start(Controller)
    arm.start()
    arm.phase(Phase.RESETTING)
    assert arm.graph.node.count_publishers("target_joint") == 0


def test_phases_that_name_different_gains_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "gains.yaml"
    file.write_text(json.dumps({**SETTINGS, "contact": {"task.k_pos_x": 1.0}}))
    with pytest.raises(ConfigError, match=r"reset and contact must name the same gains, only one has task\.k_rot_x"):
        load_config(ImpedanceSettings, file)


def test_a_posture_for_other_joints_is_refused(arm: Arm) -> None:
    with pytest.raises(ConfigError, match=r"names 2 joints, the task's reset\.joints has 7"):
        arm.start(GOAL, joints=JOINTS[:2])
