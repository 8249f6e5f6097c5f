"""Node ``simulator``: stands where the robot, its impedance controller, its gripper and its cameras stand."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from std_msgs.msg import Float64MultiArray

from conrft_data import topics
from conrft_data.config import CameraTopic, RobotConfig, TaskConfig, load_config
from conrft_data.conversion import ns_to_stamp, stamp_to_ns
from conrft_data.node_process import STOPPED, described, diagnostic_array, run
from conrft_msgs.srv import ResetScene
from conrft_sim.nodes.predecessor import Predecessor
from conrft_sim.nodes.robot_publishers import Outgoing, RobotPublishers
from conrft_sim.perturbation import KINDS, Perturbation
from conrft_sim.simulation import CONTROL_PERIOD_NS, TICK, Simulation, TargetRefused
from conrft_sim.target_gate import Judgement, TargetGate
from conrft_sim.task import DEFAULT_TASK, task_class

_STEP_PERIOD_S = 0.01  # of the real-time loop
_CATCH_UP_NS = 50_000_000  # at most so much motion in one go; beyond it the scene runs slower than the clock
_DIAGNOSTICS_PERIOD_S = 1.0
_TICK_NS = round(TICK * 1e9)
_REJOIN_DISTANCE = 0.08  # m
_TARGET_TIMEOUT_S = 0.5  # without a target for so long the arm is said to hold
_SCENE_LOST_S = 1.5  # two reports
_WAITS_FOR_SCENE = "started again in the middle of a run: waits for reset_scene"


def default_robot() -> RobotConfig:
    """The topics of the real drivers."""
    cameras = {name: CameraTopic(topic=f"{name}/color/image_raw") for name in ("side", "wrist")}
    return RobotConfig(name="sim", cameras=cameras)


class SimulatorNode(Node):
    """Publishes robot state, images and ``scene_state``; follows ``target_pose`` and the gripper command.

    In lockstep it makes the time (``/clock``): it publishes one tick and waits for the ``target_pose`` that carries the
    tick's stamp; then it advances by 0.1 s. In real time it stamps with the system's time, as the real drivers do.
    Without a new target the simulated controller keeps the last one.

    One that takes the place of another that died in the middle of a run goes on with its time, and neither publishes
    nor moves before the scene is put back (service ``reset_scene``): its arm and objects stand elsewhere than those
    that the episode under way has seen.
    """

    def __init__(self) -> None:
        super().__init__("simulator")
        self._declare_parameters()
        task_file, robot_file = self._value("task_file"), self._value("robot_file")
        task = load_config(TaskConfig, Path(task_file)) if task_file else task_class(DEFAULT_TASK).default_config()
        self._robot = load_config(RobotConfig, Path(robot_file)) if robot_file else default_robot()
        self._lockstep: bool = self._value("lockstep")
        self._simulation = Simulation(
            task,
            self._value("seed"),
            randomisation=self._value("randomisation"),
            perturbation=Perturbation.parse(self._value("perturbation")),
        )
        self._gate = TargetGate(lockstep=self._lockstep)
        self._ignored: Counter[str] = Counter()
        self._problem, self._ticks, self._rejoining = "", 0, False
        self._tick: list[Outgoing] = []
        self._begun = False
        self._due: dict[str, int] = {}
        self._last_publication = self._last_target = time.monotonic()
        self._replaced_at: float | None = None
        self._connect()
        wait_s = self._value("predecessor_wait")
        self._predecessor = Predecessor(self, wait_s, lockstep=self._lockstep, decided=self._take_over)

    def destroy_node(self) -> None:
        """Frees the renderer with the node."""
        self._simulation.close()
        super().destroy_node()

    def _declare_parameters(self) -> None:
        declare = self.declare_parameter
        declare("task_file", "", described("YAML file of the task; empty: Pick Banana as shipped"))
        declare("robot_file", "", described("YAML file of the robot; empty: the real drivers' topic names"))
        declare("lockstep", True, described("wait for each tick's target_pose; false: follow the wall clock"))
        declare("seed", 0, described("of the start state before the first reset_scene", integers=(0, 2**31 - 1)))
        declare("randomisation", "task", described("of start states: task, or wide (colours and cameras vary too)"))
        declare(
            "perturbation",
            "none",
            described(f"for robustness: none, all, or of {', '.join(KINDS)}, with commas; a strength after a colon"),
        )
        declare("image_rate", 15.0, described("of the cameras in real time, Hz", numbers=(1.0, 60.0)))
        declare("state_rate", 100.0, described("of the robot state in real time, Hz", numbers=(10.0, 200.0)))
        declare("scene_rate", 10.0, described("of scene_state in real time, Hz", numbers=(1.0, 100.0)))
        declare(
            "resend_period",
            0.5,
            described("lockstep: a tick that stays unanswered is sent again, s", numbers=(0.05, 60.0)),
        )
        declare(
            "predecessor_wait",
            10.0,  # discovery beside a node that has just been killed takes seconds
            described("at the start, longest wait for a supervisor that goes on with a run, s", numbers=(0.0, 60.0)),
        )

    def _value(self, name: str):  # type: ignore[no-untyped-def]  # the type is the parameter's
        return self.get_parameter(name).value

    def _connect(self) -> None:
        self._publishers_of_robot = RobotPublishers(self, self._robot, self._simulation, lockstep=self._lockstep)
        # Reliable: rclpy's time source subscribes best effort and takes either, and in lockstep no step may be missed.
        self._clock_publisher = self.create_publisher(ClockMessage, "/clock", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
        self._target_topic = self.resolve_topic_name(self._robot.target_pose)
        # The gripper before the target: where both wait, the executor takes them in this order, and the target sets
        # simulated time going. Gripper commands are sent on change only, so none may be lost.
        self.create_subscription(Float64MultiArray, self._robot.gripper_command, self._on_gripper, topics.TICK)
        self.create_subscription(PoseStamped, self._robot.target_pose, self._on_target, topics.COMMAND)
        # Steady time for every timer: this node makes ROS time, it cannot wait for it.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_DIAGNOSTICS_PERIOD_S, self._report, clock=self._steady)

    def _take_over(self, left_ns: int | None) -> None:
        """Begins at once, or waits for the scene if a simulator before this one got as far as ``left_ns``."""
        self.create_service(ResetScene, topics.RESET_SCENE, self._on_reset)
        if left_ns is None:
            self._begin()
            return
        self._replaced_at = time.monotonic()
        if self._lockstep:
            # One more tick may have been under way.
            self._simulation.skip(max(left_ns - self._simulation.time_ns, 0) + 2 * _TICK_NS)
        self.get_logger().warning(_WAITS_FOR_SCENE)
        self._report()

    def _begin(self) -> None:
        self._begun = True
        if self._lockstep:
            self.create_timer(self._value("resend_period") / 2, self._resend, clock=self._steady)
            self._open_tick()
        else:
            self._simulation.skip(time.time_ns() - self._simulation.time_ns)
            self._wall_offset_ns = time.monotonic_ns() - self._simulation.time_ns
            self.create_timer(_STEP_PERIOD_S, self._follow_wall_clock, clock=self._steady)

    def _open_tick(self) -> None:
        """Publishes everything that is seen at this tick, each with its stamp, and waits for the target."""
        robot = self._publishers_of_robot
        self._tick = [*robot.scene(), *robot.state(self._simulation.robot_state()), *robot.images()]
        self._gate.open(self._simulation.time_ns)
        self._ticks += 1
        self._send_tick()

    def _send_tick(self) -> None:
        self._publish_clock()
        _send(self._tick)
        self._last_publication = time.monotonic()

    def _resend(self) -> None:
        """Sends the waiting tick again, for a node that started late or missed a best-effort message."""
        if time.monotonic() - self._last_publication >= self._value("resend_period"):
            self._send_tick()

    def _follow_wall_clock(self) -> None:
        """Advances the scene to the wall clock and publishes what has become due."""
        behind = time.monotonic_ns() - self._wall_offset_ns - self._simulation.time_ns
        if behind > _CATCH_UP_NS:
            self._simulation.skip(behind - _CATCH_UP_NS)
            behind = _CATCH_UP_NS
        for _ in range(behind // CONTROL_PERIOD_NS):
            self._simulation.control_step()
        robot = self._publishers_of_robot
        if self._is_due("scene_rate"):
            _send(robot.scene())
        if self._is_due("state_rate"):
            _send(robot.state(self._simulation.robot_state()))
        if self._is_due("image_rate"):
            _send(robot.images())

    def _is_due(self, rate: str) -> bool:
        """Whether the next message of this rate is due at the present simulated time."""
        period, now = round(1e9 / self._value(rate)), self._simulation.time_ns
        if now < self._due.get(rate, 0):
            return False
        self._due[rate] = max(self._due.get(rate, now) + period, now)
        return True

    def _publish_clock(self) -> None:
        self._clock_publisher.publish(ClockMessage(clock=ns_to_stamp(self._simulation.time_ns)))

    def _on_target(self, message: PoseStamped) -> None:
        if not self._begun:
            self._ignored["before the start"] += 1
            return
        publishers = self.count_publishers(self._target_topic)
        judgement = self._gate.judge(stamp_to_ns(message.header.stamp), publishers)
        if judgement is not Judgement.FOLLOW:
            self._ignored[judgement.value] += 1
            if judgement is Judgement.SEVERAL_PUBLISHERS:
                self._complain(f"target_pose ignored: {publishers} nodes publish it")
            return
        p, q = message.pose.position, message.pose.orientation
        target = [p.x, p.y, p.z, q.x, q.y, q.z, q.w]
        try:
            if not self._is_left_behind(target):
                self._simulation.set_target(target)
                self._last_target = time.monotonic()
        except TargetRefused as error:
            self._complain(f"target refused, the last one is held: {error}")
        if self._lockstep:
            self._simulation.advance()
            self._open_tick()

    def _is_left_behind(self, target: list[float]) -> bool:
        """Real time, after a reset: whether the target still belongs to where the arm was before."""
        self._rejoining = self._rejoining and not self._lockstep
        if self._rejoining and math.isfinite(sum(target)):
            self._rejoining = math.dist(target[:3], self._simulation.tcp_pose[:3]) > _REJOIN_DISTANCE
            return self._rejoining
        return False

    def _on_gripper(self, message: Float64MultiArray) -> None:
        try:
            if len(message.data) != 1:
                raise TargetRefused(f"gripper command must be one number, got {len(message.data)}")
            self._simulation.set_gripper(message.data[0])
        except TargetRefused as error:
            self._complain(f"gripper command refused: {error}")

    def _on_reset(self, request: ResetScene.Request, response: ResetScene.Response) -> ResetScene.Response:
        self._simulation.reset(int(request.seed), int(request.episode))
        self._rejoining = True
        if not self._begun:
            self._begin()
        elif self._lockstep:
            self._simulation.advance()  # the new scene needs a stamp of its own
            self._open_tick()
        response.success = True
        response.message = f"start state of seed {request.seed}, episode {request.episode}"
        return response

    def _complain(self, problem: str) -> None:
        """Reports a problem at once, and with the next regular report."""
        if problem != self._problem:
            self.get_logger().error(problem)
        self._problem = problem
        self._report(keep=True)

    def _report(self, *, keep: bool = False) -> None:
        silent = time.monotonic() - self._last_target
        level, message = DiagnosticStatus.OK, "lockstep" if self._lockstep else "real time"
        if not self._begun:
            level, message = DiagnosticStatus.WARN, _WAITS_FOR_SCENE if self._replaced_at else "starting"
        elif not self._lockstep and silent > _TARGET_TIMEOUT_S:
            level, message = DiagnosticStatus.WARN, "no target_pose: the arm holds its last target"
        if self._problem:
            level, message = DiagnosticStatus.ERROR, self._problem
        values: dict[str, object] = {
            "simulated_time_s": f"{self._simulation.time_ns / 1e9:.2f}",
            "ticks": self._ticks,
            "target_age_s": f"{silent:.2f}",
        }
        if self._replaced_at and time.monotonic() - self._replaced_at < _SCENE_LOST_S and not self._begun:
            # The episode under way cannot go on. No error later: the next one may begin, and puts the scene back.
            level, values = DiagnosticStatus.ERROR, values | {STOPPED: message}
        values |= {f"ignored, {reason}": count for reason, count in self._ignored.items()}
        self._diagnostics.publish(diagnostic_array(self, level, message, values))
        if not keep:
            self._problem = ""


def _send(outgoing: Iterable[Outgoing]) -> None:
    for publisher, message in outgoing:
        publisher.publish(message)


def main() -> None:
    """Entry point."""
    sys.exit(run(SimulatorNode, "simulator"))


if __name__ == "__main__":
    main()
