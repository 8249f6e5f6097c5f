"""``conrft bench safety``: what makes the arm hold, triggered in the running nodes, and how long it takes.

Observer, intervention mux, commander and supervisor run in one process; robot, cameras, SpaceMouse, policy and reward
are played. ROS time is played too and goes on in steps of 10 ms, after everybody had time to answer: what is measured
are the deadlines and watchdogs of the nodes, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from conrft_bringup.chaos.valid_messages import EPISODE, ValidMessages
from conrft_bringup.demo.graph_run import graph_environment
from conrft_bringup.launch_runner.ament_index import package_share
from conrft_control.nodes.commander_node import CommanderNode
from conrft_control.nodes.intervention_mux_node import InterventionMuxNode
from conrft_control.nodes.observer_node import ObserverNode
from conrft_control.nodes.supervisor_node import SupervisorNode
from conrft_data import topics
from conrft_data.config import RobotConfig, TaskConfig, load_config
from conrft_data.conversion import ns_to_stamp, pose_from_msg, stamp_to_ns, tick_of
from conrft_data.ticks import Tick
from conrft_data.types import ActionSource
from conrft_msgs.msg import Action, Observation

STEP_NS = 10_000_000
_MS = 1_000_000
DEADMAN_BUTTON = 5
_IDLE_S = 0.004  # nothing came for so long: everybody has answered
_PATIENCE_S = 1.0  # of wall time, for an Action that must come
_ANSWER_NS = 20 * _MS  # the played policy and reward take so long
_STILL_NS, _LONGEST_NS, _START_NS = 400 * _MS, 4_000 * _MS, 60_000 * _MS
_MOVED_M = 1e-6
_TICKS_BEFORE = 8
_ONE_WAY = 5  # motions, farther than the retreat goes
_WAY = 0.05  # m to either side of the reset pose


@dataclass(frozen=True, slots=True)
class StoppingTime:
    """What one cause led to; times in ROS time from the cause.

    Attributes:
        cause: what was done.
        detected_ms: until the first HOLD, or the first word of it on /diagnostics.
        last_motion_ms: until the last target that led the arm on; 0: there was none after the cause.
        from_detection_ms: from detection to that target; 0: it came before.
        word: what was said about it first.
    """

    cause: str
    detected_ms: float | None
    last_motion_ms: float
    from_detection_ms: float | None
    word: str


class PlayedWorld(Node):
    """Everybody but the nodes under test. Its attributes are what can go wrong."""

    def __init__(self, valid: ValidMessages) -> None:
        super().__init__("played_world")
        self.valid, robot = valid, valid.robot
        self.now_ns = time.time_ns() // STEP_NS * STEP_NS
        self.silent: set[str] = set()
        self.force_n = 0.0
        self.deadman = True
        self.bad_pose = self.bad_proposal = False
        self.moves: list[tuple[int, np.ndarray]] = []
        self.words: list[tuple[int, str]] = []
        self.followed = self.observed = 0
        self.waits = self.mux_frozen = False
        self._target = valid.pose.copy()
        self._home = valid.pose.copy()
        self._forwards = 1.0
        self._due: list[tuple[int, Tick]] = []
        self._periods = {
            **dict.fromkeys([robot.current_pose, robot.twist, robot.wrench, robot.gripper_state], 10 * _MS),
            **dict.fromkeys([camera.topic for camera in robot.cameras.values()], 50 * _MS),
            **dict.fromkeys([topics.SPACENAV_TWIST, topics.SPACENAV_JOY], 30 * _MS),
        }
        probe = Tick(0, EPISODE, 0)
        answers = [topics.POLICY_OUTPUT, topics.REWARD]
        self._senders = {
            topic: self.create_publisher(type(valid.make(topic, probe)), topic, topics.TICK if topic in answers else 10)
            for topic in [*self._periods, *answers]
        }
        self._clock = self.create_publisher(Clock, "/clock", 10)
        self.emergency = self.create_publisher(Bool, topics.EMERGENCY_STOP, topics.LATCHED)
        self.reset_stop = self.create_client(Trigger, topics.RESET_STOP)
        self.create_subscription(PoseStamped, robot.target_pose, self._on_target, topics.TICK)
        self.create_subscription(Observation, topics.OBSERVATION, self._on_observation, topics.TICK)
        self.create_subscription(Action, topics.ACTION, self._on_action, topics.TICK)
        self.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, 100)

    def advance(self) -> None:
        """ROS time goes on by a step; what is due is sent."""
        self.now_ns += STEP_NS
        self._clock.publish(Clock(clock=ns_to_stamp(self.now_ns)))
        # The arm is where it was told to be, one step later.
        self.valid.pose = self._target
        for topic, period in self._periods.items():
            if topic not in self.silent and self.now_ns % period == 0:
                self._senders[topic].publish(self._spoilt(topic, self.valid.make(topic, Tick(self.now_ns, EPISODE, 0))))
        due, self._due = [t for at, t in self._due if at <= self.now_ns], [d for d in self._due if d[0] > self.now_ns]
        for tick in due:
            self._answer(tick)

    def _spoilt(self, topic: str, message: Any) -> Any:
        robot = self.valid.robot
        if topic == robot.wrench:
            message.wrench.force.z = self.force_n
        elif topic == robot.current_pose and self.bad_pose:
            message.pose.position.x = math.nan
        elif topic == topics.SPACENAV_JOY:
            message.buttons = [int(self.deadman and index == DEADMAN_BUTTON) for index in range(DEADMAN_BUTTON + 1)]
        return message

    def _answer(self, tick: Tick) -> None:
        proposal = self.valid.make(topics.POLICY_OUTPUT, tick)
        away = self.valid.pose[0] - self._home[0]
        self._forwards = -1.0 if away > _WAY else 1.0 if away < -_WAY else self._forwards
        proposal.action = [math.nan if self.bad_proposal else 0.3 * self._forwards, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
        for topic, message in ((topics.REWARD, self.valid.make(topics.REWARD, tick)), (topics.POLICY_OUTPUT, proposal)):
            if topic not in self.silent:
                self._senders[topic].publish(message)
        self.waits = topics.POLICY_OUTPUT not in self.silent and not self.mux_frozen

    def _on_observation(self, message: Observation) -> None:
        self.observed += 1
        self._due.append((stamp_to_ns(message.header.stamp) + _ANSWER_NS, tick_of(message)))

    def _on_target(self, message: PoseStamped) -> None:
        target = pose_from_msg(message.pose, "target_pose")
        if np.linalg.norm(target[:3] - self._target[:3]) > _MOVED_M:
            self.moves.append((self.now_ns, target[:3] - self._target[:3]))
        self._target = target

    def _on_action(self, message: Action) -> None:
        self.waits = False
        self.followed += message.source == ActionSource.POLICY
        if message.source == ActionSource.HOLD:
            self.words.append((self.now_ns, f"HOLD: {message.reason}"))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.level[0] in (1, 2):
                self.words.append((self.now_ns, f"{status.name}: {status.message}"))


class SafetyBench:
    """The nodes under test around a played world; needs ROS to be down, and takes it down again in ``close``."""

    def __init__(self, task_file: Path, robot_file: Path) -> None:
        task, robot = load_config(TaskConfig, task_file), load_config(RobotConfig, robot_file)
        rclpy.init(args=_arguments(task_file, robot_file))
        self.world = PlayedWorld(ValidMessages(task, robot, 0))
        kinds = (ObserverNode, InterventionMuxNode, CommanderNode, SupervisorNode)
        self.nodes: dict[str, Node] = {kind.__name__: kind() for kind in kinds}
        self._observer: Any = self.nodes[ObserverNode.__name__]
        self._executor = SingleThreadedExecutor()
        for node in [self.world, *self.nodes.values()]:
            self._executor.add_node(node)

    def measure(self, cause: str) -> StoppingTime:
        """Waits until the policy has driven for some ticks, brings the cause about, and takes it away again."""
        begin, end = _causes(self)[cause]
        world = self.world
        world.followed = 0
        self._run(lambda: world.followed >= _TICKS_BEFORE, _START_NS, "the policy does not drive")
        # Right after a motion, in the middle of the way: what leads back is no motion onwards.
        world.moves.clear()
        self._run(self._is_on_its_way, _START_NS, "the arm does not move")
        world.words.clear()
        began_ns, direction = world.now_ns, world.moves[-1][1]
        moves = len(world.moves)
        begin()
        self._run(lambda: self._stands(began_ns), _LONGEST_NS, "")
        retreats = world.force_n > 0
        onwards = [at for at, move in world.moves[moves:] if not retreats or float(move @ direction) > 0]
        last_ns = max(onwards, default=began_ns)
        word_ns, word = world.words[0] if world.words else (None, "")
        end()
        self._call_reset()
        detected_ms = None if word_ns is None else (word_ns - began_ns) / _MS
        return StoppingTime(
            cause=cause,
            detected_ms=detected_ms,
            last_motion_ms=(last_ns - began_ns) / _MS,
            from_detection_ms=None if word_ns is None else max(0.0, (last_ns - word_ns) / _MS),
            word=word,
        )

    def freeze(self, name: str) -> None:
        """The node does nothing any more."""
        self.world.mux_frozen = name == "InterventionMuxNode"
        self._executor.remove_node(self.nodes[name])

    def thaw(self, name: str) -> None:
        """The node goes on."""
        self.world.mux_frozen = False
        self._executor.add_node(self.nodes[name])

    def close(self) -> None:
        """Ends all nodes."""
        self._executor.shutdown(timeout_sec=0)
        for node in [self.world, *self.nodes.values()]:
            node.destroy_node()
        rclpy.try_shutdown()

    def _is_on_its_way(self) -> bool:
        """Whether the newest motions all went one way."""
        newest = [move for _, move in self.world.moves[-_ONE_WAY:]]
        return len(newest) == _ONE_WAY and all(float(move @ newest[-1]) > 0 for move in newest)

    def _stands(self, began_ns: int) -> bool:
        """Whether the cause is known, and the arm has not been led anywhere for some time."""
        world = self.world
        last_ns = max(began_ns, world.moves[-1][0])
        return bool(world.words) and world.now_ns - max(last_ns, world.words[0][0]) > _STILL_NS

    def _run(self, condition: Callable[[], bool], longest_ns: int, problem: str) -> None:
        end_ns = self.world.now_ns + longest_ns
        while not condition():
            if self.world.now_ns > end_ns:
                if problem:
                    raise TimeoutError(f"{problem}: {[word for _, word in self.world.words[-3:]]}")
                return
            self.world.advance()
            self._drain()

    def _drain(self) -> None:
        patience = time.monotonic() + _PATIENCE_S
        while True:
            began = time.monotonic()
            self._executor.spin_once(timeout_sec=_IDLE_S)
            answered = not self.world.waits and self.world.observed >= self._observer._published
            if time.monotonic() - began >= _IDLE_S and (answered or began > patience):
                return

    def _call_reset(self) -> None:
        """The operator's leave to go on, where there was a stop."""
        self._run(self.world.reset_stop.service_is_ready, _START_NS, "nobody offers the reset")
        done = self.world.reset_stop.call_async(Trigger.Request())
        self._run(done.done, _START_NS, "the reset is not answered")


def _causes(bench: SafetyBench) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """What is done, and how it is taken back, by name."""
    world, robot = bench.world, bench.world.valid.robot

    def silence(*names: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
        return lambda: world.silent.update(names), lambda: world.silent.difference_update(names)

    def setting(name: str, value: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
        normal = getattr(world, name)
        return lambda: setattr(world, name, value), lambda: setattr(world, name, normal)

    def press(pressed: bool) -> None:
        world.emergency.publish(Bool(data=pressed))

    camera = next(iter(robot.cameras.values())).topic
    return {
        "emergency stop pressed": (lambda: press(True), lambda: press(False)),
        "force of 60 N, limit 40 N": setting("force_n", 60.0),
        "deadman button released": setting("deadman", False),
        "SpaceMouse silent, deadman button held before": silence(topics.SPACENAV_JOY, topics.SPACENAV_TWIST),
        "policy silent": silence(topics.POLICY_OUTPUT),
        "policy proposes NaN": setting("bad_proposal", True),
        "reward node silent": silence(topics.REWARD),
        "camera silent": silence(camera),
        "measured pose silent": silence(robot.current_pose),
        "measured pose NaN": setting("bad_pose", True),
        "measured wrench silent": silence(robot.wrench),
        "observer frozen": (lambda: bench.freeze("ObserverNode"), lambda: bench.thaw("ObserverNode")),
        "intervention mux frozen": (
            lambda: bench.freeze("InterventionMuxNode"),
            lambda: bench.thaw("InterventionMuxNode"),
        ),
    }


def _arguments(task_file: Path, robot_file: Path) -> list[str]:
    parameters: dict[str, object] = {
        "task_file": task_file,
        "robot_file": robot_file,
        "use_sim_time": "true",
        "policy_expected": "true",
        "reward_expected": "true",
        "deadman_button": DEADMAN_BUTTON,
        "supervisor:mode": "training",
        "supervisor:session": "safety",
        "supervisor:after_fault": "continue",
        "supervisor:wait_for_learner": "false",
        "supervisor:required_nodes": "[observer, intervention_mux, commander]",
        # Wall time means nothing here.
        "supervisor:node_timeout": 120.0,
        "supervisor:action_timeout": 600.0,
        "supervisor:error_patience": 600.0,
        "supervisor:reset_timeout": 600.0,
        "intervention_mux:guard": 600.0,
    }
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    return ["--ros-args", "--log-level", "fatal", *words]


def measure_all(robot: str = "fr3", causes: Sequence[str] = ()) -> list[StoppingTime]:
    """Measures ``causes`` (all by default) with the limits of a robot of config/robots."""
    config = package_share("conrft_bringup", os.environ) / "config"
    bench = SafetyBench(config / "tasks/pick_banana.yaml", config / f"robots/{robot}.yaml")
    try:
        return [bench.measure(cause) for cause in causes or _causes(bench)]
    finally:
        bench.close()


def safety(argv: Sequence[str]) -> int:
    """Measures and prints a table; the last line of stdout is one JSON object."""
    parser = argparse.ArgumentParser(prog="conrft bench safety", description=__doc__)
    parser.add_argument("--robot", default="fr3", help="name in config/robots (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="only the JSON object")
    args = parser.parse_args(argv)
    # No other graph may hear any of this.
    os.environ.update(graph_environment())
    times = measure_all(args.robot)
    if not args.json:
        print("| cause | detected, ms | last motion, ms | from detection, ms | first word |\n|---|---|---|---|---|")
        for t in times:
            print(f"| {t.cause} | {t.detected_ms} | {t.last_motion_ms} | {t.from_detection_ms} | {t.word} |")
    print(json.dumps({"robot": args.robot, "stopping_times": [asdict(t) for t in times]}))
    late = [t.cause for t in times if t.from_detection_ms is None or t.from_detection_ms > 100.0]
    if late:
        print(f"conrft bench safety: not within 100 ms of detection: {', '.join(late)}", file=sys.stderr)
    return 1 if late else 0
