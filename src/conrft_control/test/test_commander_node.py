"""The commander as a node: the only publisher of target_pose."""

import re
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.exceptions import InvalidParameterValueException
from std_msgs.msg import Float64MultiArray

from conrft_control.nodes.commander_node import CommanderNode
from conrft_data import rotations, topics
from conrft_data.config import ConfigError
from conrft_data.conversion import command_to_msg, episode_status_to_msg, pose_from_msg, stamp_to_ns
from conrft_data.node_process import STOPPED
from conrft_data.ticks import Tick
from conrft_data.types import ActionSource, Command, Phase

MS = 1_000_000
POSE, GRIPPER = "current_pose", "gripper/joint_states"
WRENCH = "franka_robot_state_broadcaster/external_wrench_in_stiffness_frame"
GRIPPER_COMMAND = "gripper/gripper_position_controller/commands"


class Commanded:
    """A commander between a supervisor, a mux and a robot that the test plays."""

    def __init__(self, graph: Any, robot: Any, files: dict[str, str], make_status: Any, **parameters: Any) -> None:
        self.graph, self.robot, self.make_status = graph, robot, make_status
        self.targets: list[PoseStamped] = graph.listen(PoseStamped, "target_pose", topics.COMMAND)
        self.diagnostics = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
        graph.start(CommanderNode, **files, **parameters)
        self.sense(0)

    def state(self, phase: Phase, stamp_ns: int = 0, episode: int = 1) -> None:
        self.graph.say(
            topics.EPISODE_STATE,
            episode_status_to_msg(self.make_status(phase, episode, stamp_ns=stamp_ns)),
            topics.LATCHED,
        )
        self.graph.spin(0.03)

    def sense(self, stamp_ns: int, *topics: str) -> None:
        messages = self.robot.messages(stamp_ns)
        for topic in topics or (WRENCH, POSE, GRIPPER):
            self.graph.say(topic, messages[topic])

    def act(self, tick: Tick, *action: float) -> None:
        command = Command(action=np.array([*action, *[0.0] * 7][:7], np.float32), source=ActionSource.POLICY)
        self.graph.say(topics.ACTION, command_to_msg(command, tick), topics.TICK)

    def says(self, level: bytes, words: str, *, stopped: bool = False) -> bool:
        """Whether its newest word on /diagnostics is this one."""
        newest = [array.status[0] for array in self.diagnostics[-1:]]
        return any(
            status.level == level
            and words in status.message
            and stopped == any(value.key == STOPPED for value in status.values)
            for status in newest
        )

    def target(self, count: int = 1) -> PoseStamped:
        self.graph.until(lambda: len(self.targets) >= count)
        return self.targets[-1]


@pytest.fixture
def lockstep(graph: Any, robot: Any, files: dict[str, str], status: Any) -> Commanded:
    return Commanded(graph, robot, files, status, lockstep=True)


@pytest.fixture
def real_time(graph: Any, robot: Any, files: dict[str, str], status: Any) -> Commanded:
    return Commanded(graph, robot, files, status)


def test_an_action_becomes_a_target_with_the_ticks_stamp(lockstep: Commanded) -> None:
    lockstep.sense(100 * MS)
    lockstep.state(Phase.RUNNING, 100 * MS)
    lockstep.act(Tick(100 * MS, 1, 0), 1.0)
    message = lockstep.target()
    assert stamp_to_ns(message.header.stamp) == 100 * MS
    assert message.header.frame_id == "base"
    np.testing.assert_allclose(
        pose_from_msg(message.pose)[:3], lockstep.robot.pose[:3] + np.array([0.03, 0, 0]), atol=1e-6
    )


def test_going_home_opens_the_gripper_and_stops_at_home(lockstep: Commanded) -> None:
    commands = lockstep.graph.listen(Float64MultiArray, GRIPPER_COMMAND, topics.COMMAND)
    lockstep.graph.until(lambda: lockstep.graph.node.count_publishers(GRIPPER_COMMAND) > 0)
    lockstep.robot.pose[0] += 0.03
    lockstep.robot.opening = 0.5
    lockstep.sense(100 * MS)
    lockstep.state(Phase.RESETTING, 100 * MS)
    pose = lockstep.target().pose
    assert pose.position.x < lockstep.robot.pose[0]
    lockstep.robot.pose[0] -= 0.03
    lockstep.robot.opening = 1.0
    lockstep.sense(200 * MS)
    lockstep.graph.spin(0.3)
    assert len(lockstep.targets) == 1
    assert [list(command.data) for command in commands] == [[1.0]]


def test_each_way_home_opens_the_gripper_even_if_it_was_told_so_before(lockstep: Commanded) -> None:
    graph, commands = lockstep.graph, lockstep.graph.listen(Float64MultiArray, GRIPPER_COMMAND, topics.COMMAND)
    graph.until(lambda: graph.node.count_publishers(GRIPPER_COMMAND) > 0)
    for episode in (1, 2, 3):  # whoever received it may have been started anew, or may have failed
        lockstep.state(Phase.RESETTING, episode * 100 * MS, episode)
        graph.until(lambda count=episode: len(commands) == count)
        lockstep.state(Phase.READY, episode * 100 * MS, episode)
    assert [list(command.data) for command in commands] == [[1.0]] * 3


def test_in_real_time_the_watchdog_holds_the_arm_and_says_so(real_time: Commanded) -> None:
    real_time.sense(real_time.graph.now_ns())
    real_time.state(Phase.RUNNING)
    now_ns = real_time.graph.now_ns()
    real_time.sense(now_ns)
    real_time.act(Tick(now_ns, 1, 0), 1.0)
    moved = real_time.target().pose
    count = len(real_time.targets)

    def said() -> bool:
        real_time.sense(real_time.graph.now_ns())
        return real_time.says(b"\x02", "action: none for")

    real_time.graph.until(said)
    assert len(real_time.targets) > count
    assert all(target.pose == moved for target in real_time.targets[count:])


def test_in_real_time_a_stale_pose_is_an_error(real_time: Commanded) -> None:
    real_time.sense(real_time.graph.now_ns())
    real_time.state(Phase.READY)
    real_time.graph.until(lambda: real_time.says(b"\x02", "current_pose: stale"))


def test_before_the_supervisor_has_spoken_it_misses_the_robot_without_an_error(real_time: Commanded) -> None:
    def said() -> bool:
        real_time.sense(real_time.graph.now_ns(), POSE)
        return real_time.says(b"\x03", "wrench: stale")

    real_time.graph.until(said)
    assert all(array.status[0].level != b"\x02" for array in real_time.diagnostics)


def test_in_real_time_another_publisher_of_target_pose_is_an_error_and_holds_the_arm(real_time: Commanded) -> None:
    graph, robot = real_time.graph, real_time.robot
    robot.pose[0] += 0.1  # away from home
    real_time.act(Tick(0, 1, 0))
    real_time.sense(graph.now_ns())
    real_time.state(Phase.RESETTING)

    def on_its_way() -> bool:
        real_time.sense(graph.now_ns())
        return bool(real_time.targets) and real_time.targets[-1].pose.position.x < robot.pose[0] - 0.01

    graph.until(on_its_way)
    other = graph.node.create_publisher(PoseStamped, "target_pose", topics.COMMAND)

    def said() -> bool:
        real_time.sense(graph.now_ns())
        return real_time.says(b"\x02", "/target_pose has 2 publishers, the arm holds", stopped=True)

    graph.until(said)
    told = len(real_time.targets)
    for _ in range(20):
        real_time.sense(graph.now_ns())
        graph.spin(0.02)
    assert len({target.pose.position.x for target in real_time.targets[told:]}) == 1
    graph.node.destroy_publisher(other)
    graph.until(lambda: real_time.sense(graph.now_ns()) or real_time.says(b"\x00", "leads the arm home"))


def test_it_is_the_only_publisher_of_target_pose(lockstep: Commanded) -> None:
    assert lockstep.graph.node.count_publishers("target_pose") == 1


# Each is triggered through the running node in conrft_bringup's test_chaos.py, or here.
LIMITS = {
    "workspace_low_x": "m", "workspace_low_y": "m", "workspace_low_z": "m",
    "workspace_high_x": "m", "workspace_high_y": "m", "workspace_high_z": "m",
    "workspace_max_tilt": "rad", "leash": "m", "leash_angle": "rad",
    "linear_speed": "m/s", "angular_speed": "rad/s", "linear_acceleration": "m/s^2", "angular_acceleration": "rad/s^2",
    "force": "N", "torque": "N m", "retreat_distance": "m", "retreat_speed": "m/s",
    "action_timeout": "s", "state_timeout": "s", "deadman_timeout": "s", "deadman_button": "",
}  # fmt: skip


@pytest.mark.parametrize("limit", LIMITS)
def test_every_limit_is_a_parameter_with_range_and_unit(graph: Any, files: dict[str, str], limit: str) -> None:
    node = graph.start(CommanderNode, **files)
    about = node.describe_parameter(limit)
    (allowed,) = [*about.floating_point_range, *about.integer_range]
    assert allowed.from_value < allowed.to_value
    assert re.search(rf"(^|[ ,;]){re.escape(LIMITS[limit])}($|[;:, ])", about.description), about.description
    with pytest.raises(InvalidParameterValueException):
        graph.start(CommanderNode, **files, **{limit: allowed.to_value + type(allowed.to_value)(1)})


@pytest.mark.parametrize(
    ("limit", "value", "action", "reached"),
    [
        ("workspace_high_x", 0.51, [1.0], 0.01),
        ("workspace_low_x", 0.49, [-1.0], -0.01),
        ("leash", 0.02, [1.0], 0.02),
        ("leash_angle", 0.05, [0, 0, 0, 0, 0, 1.0], 0.05),
        ("workspace_max_tilt", 0.04, [0, 0, 0, 0, 0, 1.0], 0.04),
    ],
)
def test_a_limit_of_the_tasks_file_can_be_narrowed_by_its_parameter(
    graph: Any,
    robot: Any,
    files: dict[str, str],
    status: Any,
    limit: str,
    value: float,
    action: list[float],
    reached: float,
) -> None:
    commanded = Commanded(graph, robot, files, status, lockstep=True, **{limit: value})
    commanded.sense(100 * MS)
    commanded.state(Phase.RUNNING, 100 * MS)
    commanded.act(Tick(100 * MS, 1, 0), *action)
    target = pose_from_msg(commanded.target().pose)
    moved = target[0] - robot.pose[0] or rotations.angle_between(target[3:], robot.pose[3:])
    assert moved == pytest.approx(reached, abs=1e-6)


def test_a_box_that_excludes_the_reset_pose_is_refused(graph: Any, files: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"reset.position .* must lie in the workspace"):
        graph.start(CommanderNode, **files, workspace_high_x=0.4)


@pytest.mark.parametrize("parameter", ["task_file", "robot_file"])
def test_a_configuration_that_was_not_named_is_refused(graph: Any, files: dict[str, str], parameter: str) -> None:
    with pytest.raises(ConfigError, match=f"parameter {parameter} is empty: it must name the YAML file"):
        graph.start(CommanderNode, **{**files, parameter: ""})
