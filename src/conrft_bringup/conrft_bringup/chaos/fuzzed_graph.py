"""The nodes of the loop in one process, under wrong, late, doubled and reordered messages on every topic."""

from __future__ import annotations

import importlib.util
import json
import math
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from conrft_bringup.chaos.message_fuzzer import MessageFuzzer
from conrft_bringup.chaos.message_mix import MessageMix
from conrft_bringup.chaos.quiet_ros import QuietRos
from conrft_bringup.chaos.valid_messages import EPISODE, ValidMessages
from conrft_bringup.visualisation.nodes import visualiser_node as view
from conrft_control.nodes.commander_node import CommanderNode
from conrft_control.nodes.episode_server_node import EpisodeServerNode
from conrft_control.nodes.franka_adapter_node import FrankaAdapterNode
from conrft_control.nodes.impedance_phases_node import ImpedancePhasesNode
from conrft_control.nodes.intervention_mux_node import InterventionMuxNode
from conrft_control.nodes.observer_node import ObserverNode
from conrft_control.nodes.recorder_node import RecorderNode
from conrft_control.nodes.supervisor_node import SupervisorNode
from conrft_data import topics
from conrft_data.config import RobotConfig, TaskConfig, load_config
from conrft_data.conversion import episode_status_to_msg, ns_to_stamp, pose_from_msg
from conrft_data.ticks import Tick
from conrft_data.types import ActionSource, Phase
from conrft_learner.nodes.learner_node import LearnerNode
from conrft_msgs.msg import Action
from conrft_msgs.srv import DescribeEpisode, ListEpisodes, ReadEpisodeChunk
from conrft_policy.acting import head_config
from conrft_policy.backbone import load_backbone
from conrft_policy.consistency_head import ConsistencyHead
from conrft_policy.nodes.policy_node import PolicyNode
from conrft_policy.policy_weights import pack, save
from conrft_reward.classifier import ClassifierConfig, SuccessClassifier, camera_sizes
from conrft_reward.nodes.reward_node import RewardNode
from conrft_sim.nodes.scripted_operator_node import ScriptedOperatorNode
from conrft_sim.nodes.simulator_node import SimulatorNode

# The arm stands at its reset pose all the time. Farther from there no target may be: the leash, and what a measured
# pose may be wrong by before it is doubted.
FARTHEST_TARGET = 0.3
_SPIN_EVERY, _RESET_EVERY = 20, 100  # rounds
_LEVEL_ERROR = 2
_CLOCK_STEP_NS = 20_000_000
_ANSWER_WALL_S = 5.0
_STILL_M = 1e-9
_STOP_M = 0.09  # one leash, and what a contact pushed the arm back
# They are fuzzed, but what they need to be well is not played.
_BYSTANDERS = frozenset(["simulator", "franka_adapter", "impedance_phases", "episode_server", "learner", "visualiser"])
_BAG = "fuzz-training-000000"
_REQUESTS: dict[Any, dict[str, Any]] = {
    ListEpisodes: {},
    DescribeEpisode: {"episode_id": _BAG},
    ReadEpisodeChunk: {"episode_id": _BAG, "file": "metadata.yaml", "length": 100},
}


def has_franka_msgs() -> bool:
    """Whether the interfaces of a robot workstation are here, without which there is no Franka adapter."""
    return all(importlib.util.find_spec(name) is not None for name in ("franka_msgs", "control_msgs"))


@dataclass
class FuzzReport:
    """What came of it.

    Attributes:
        messages: sent, by topic.
        failures: exceptions, each with its node and topic, and how often; empty is what is wanted.
        targets: target poses that were published meanwhile.
        farthest_m: of a target from where the arm stood.
        moved_without_command: targets that moved although nobody had sent an Action.
        recovered_s: until an episode ran, the policy drove and every node was well; None: never.
        still_wrong: the last word of each node that was not well by then.
    """

    messages: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    targets: int = 0
    farthest_m: float = 0.0
    moved_without_command: int = 0
    recovered_s: float | None = None
    still_wrong: list[str] = field(default_factory=list)


class FuzzedGraph:
    """Builds the nodes in real-time mode; needs ROS to be down, and takes it down again in ``close``."""

    def __init__(self, folder: Path, task_file: Path, robot_file: Path, seed: int) -> None:
        self.task, self.robot = load_config(TaskConfig, task_file), load_config(RobotConfig, robot_file)
        self.valid = ValidMessages(self.task, self.robot, seed)
        self.report = FuzzReport()
        self._random = np.random.default_rng(seed)
        self._mix, self._fuzzer = MessageMix(self.valid, self._random, seed), MessageFuzzer(seed)
        self._last_target: np.ndarray | None = None
        self._commanded = True
        self._ros = QuietRos(_arguments(self.task, folder, task_file, robot_file))
        self._executor = SingleThreadedExecutor()
        kinds = (SimulatorNode, ObserverNode, InterventionMuxNode, CommanderNode, SupervisorNode, RecorderNode,
                 PolicyNode, RewardNode, ScriptedOperatorNode, ImpedancePhasesNode, EpisodeServerNode, LearnerNode,
                 view.VisualiserNode, *([FrankaAdapterNode] if has_franka_msgs() else []))  # fmt: skip
        self.nodes: list[Node] = [kind() for kind in kinds]
        for node in self.nodes:
            # The simulator is fuzzed, but its own arm and clock would be a second robot in this graph.
            if not isinstance(node, SimulatorNode):
                self._executor.add_node(node)
        self._commander = next(node for node in self.nodes if isinstance(node, CommanderNode))
        self._observer = next(node for node in self.nodes if isinstance(node, ObserverNode))
        self._world = _World(self.valid)
        self._executor.add_node(self._world)
        self.nodes.append(self._world)
        self._watch_targets()
        visualiser = next(node for node in self.nodes if isinstance(node, view.VisualiserNode))
        end = time.monotonic() + _ANSWER_WALL_S
        while not visualiser.watches and time.monotonic() < end:  # it listens only once somebody looks
            self._spin(0.01)

    def fuzz(
        self,
        rounds: int,
        without: frozenset[str] = frozenset(),
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Sends one message a round on every topic but ``without``, in an order that changes."""
        subscriptions = self._subscriptions(without)
        self._commanded = topics.ACTION not in without
        self._last_target = None
        self._begin(subscriptions)
        for number in range(rounds):
            self._world.advance(self._clock_step_ns(), send=False)
            tick = Tick(self._world.now_ns, EPISODE, number)
            for topic in self._random.permutation(list(subscriptions)):
                self._send(str(topic), subscriptions[topic], tick)
            self._ask_episode_server()
            self._let_adapter_read()
            if number % _SPIN_EVERY == 0:
                self._spin(0.0)
            if progress is not None:
                progress(number)
            if number % _RESET_EVERY == 0:
                self._commander._on_reset_stop(Trigger.Request(), Trigger.Response())

    def _begin(self, subscriptions: dict[str, list[tuple[Node, Any]]]) -> None:
        """All is well at first: where the arm stands is known before anybody says otherwise."""
        self._world.advance(_CLOCK_STEP_NS, send=False)
        self._spin(0.05)
        for step in range(3):
            for topic, receivers in subscriptions.items():
                message = self.valid.make(topic, Tick(self._world.now_ns, EPISODE, step))
                for _, subscription in receivers:
                    subscription.callback(bytes(serialize_message(message)) if subscription.raw else message)

    def recover(self, timeout_s: float = 120.0) -> None:
        """From now on everybody sends what is valid: an episode has to run, driven by the policy, all nodes well.

        ROS time goes on only when everybody had time to answer, so that it does not matter how fast the machine is.
        """
        self._commanded = True
        self._commander._on_emergency_stop(Bool(data=False))
        self._commander._on_reset_stop(Trigger.Request(), Trigger.Response())
        world, end = self._world, time.monotonic() + timeout_s
        # Whoever spoke in the supervisor's name ends the episode that it had begun: nobody else knows of that one.
        ended = episode_status_to_msg(self.valid.status(Tick(world.now_ns, EPISODE, 0), Phase.ENDED))
        for _, subscription in self._subscriptions(frozenset())[topics.EPISODE_STATE]:
            subscription.callback(bytes(serialize_message(ended)) if subscription.raw else ended)
        self._spin(0.2)
        began_ns, observed = world.listen(), self._observer._published
        while self.report.recovered_s is None and time.monotonic() < end:
            world.advance(_CLOCK_STEP_NS, send=True)
            self._spin(0.01)
            patience = time.monotonic() + _ANSWER_WALL_S
            while self._observer._published - observed > world.actions and time.monotonic() < patience:
                self._spin(0.01)
            if world.is_well():
                self.report.recovered_s = (world.now_ns - began_ns) / 1e9
        self.report.still_wrong = world.wrong()

    def close(self) -> None:
        """Ends all nodes."""
        for node in self.nodes:
            if (stop := getattr(node, "stop", None)) is not None:
                stop()
        self._executor.shutdown(timeout_sec=0)
        for node in self.nodes:
            node.destroy_node()
        self._ros.close()

    def _subscriptions(self, without: frozenset[str]) -> dict[str, list[tuple[Node, Any]]]:
        """Every node's subscriptions, by topic as the robot's configuration and the suite name it."""
        found: dict[str, list[tuple[Node, Any]]] = {}
        for node in self.nodes:
            for subscription in node.subscriptions:
                topic = subscription.topic_name.lstrip("/")
                topic = topics.DIAGNOSTICS if topic == topics.DIAGNOSTICS.lstrip("/") else topic
                if topic in self.valid.topics and topic not in without:
                    found.setdefault(topic, []).append((node, subscription))
        return found

    def _send(self, topic: str, subscriptions: list[tuple[Node, Any]], tick: Tick) -> None:
        message = self._mix.make(topic, tick)
        self.report.messages[topic] += 1
        raw: bytes | None = None
        for node, subscription in subscriptions:
            if subscription.raw and raw is None:
                raw = self._mix.serialized(message)
            try:
                subscription.callback(raw if subscription.raw else message)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                self.report.failures[f"{node.get_name()} {topic}: {type(error).__name__}: {error} ({place})"] += 1

    def _ask_episode_server(self) -> None:
        """Wrong requests to the services that read files."""
        for node in self.nodes:
            for service in node.services if isinstance(node, EpisodeServerNode) else ():
                valid = _REQUESTS.get(service.srv_type)
                if valid is None:
                    continue
                name = service.srv_name.lstrip("/")
                self.report.messages[name] += 1
                request = self._fuzzer.wrong(service.srv_type.Request(**valid))
                try:
                    service.callback(request, service.srv_type.Response())
                except Exception as error:
                    self.report.failures[f"{node.get_name()} {name}: {type(error).__name__}: {error}"] += 1

    def _let_adapter_read(self) -> None:
        """It reads the robot's state now and then only: here each one that came."""
        for node in self.nodes:
            if isinstance(node, FrankaAdapterNode) and node._robot is not None:
                node._robot._read_wall_s = -math.inf
                try:
                    node._step()
                except Exception as error:
                    self.report.failures[f"{node.get_name()}: {type(error).__name__}: {error}"] += 1

    def _clock_step_ns(self) -> int:
        """How far ROS time goes on until the next round; now and then it leaps, forwards or backwards."""
        if self._random.random() > 0.01:
            return _CLOCK_STEP_NS
        return int(self._random.choice([-1, 1]) * 10 ** self._random.uniform(7, 12))

    def _spin(self, idle_s: float) -> None:
        """Lets the nodes' timers run and what they tell each other arrive, until nothing comes for ``idle_s``."""
        for _ in range(200):
            began = time.monotonic()
            try:
                self._executor.spin_once(timeout_sec=idle_s)
                if time.monotonic() - began >= idle_s:
                    return
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                self.report.failures[f"spinning: {type(error).__name__}: {error} ({place})"] += 1

    def _watch_targets(self) -> None:
        publisher: Any = self._commander._target_publisher
        publish = publisher.publish

        def watched(message: PoseStamped) -> None:
            self._judge(message)
            publish(message)

        publisher.publish = watched

    def _judge(self, message: PoseStamped) -> None:
        target, report = pose_from_msg(message.pose, "target_pose"), self.report
        distance = float(np.linalg.norm(target[:3] - self.valid.pose[:3]))
        report.targets += 1
        report.farthest_m = max(report.farthest_m, distance if math.isfinite(distance) else math.inf)
        if not self._commanded and self._last_target is not None:
            moved = float(np.linalg.norm(target[:3] - self._last_target[:3]))
            # A stop brings the target back to where the arm says that it is.
            allowed = _STOP_M if self._commander._commander.stop.reason else _STILL_M
            report.moved_without_command += moved > allowed
        self._last_target = target


class _World(Node):
    """The robot's drivers and the operator's resting hand; the arm goes wherever it is told."""

    def __init__(self, valid: ValidMessages) -> None:
        super().__init__("world")
        self._valid, robot = valid, valid.robot
        self._levels: dict[str, tuple[int, str]] = {}
        self._policy_drove = 0
        cameras = [camera.topic for camera in robot.cameras.values()]
        sensors = [robot.current_pose, robot.twist, robot.wrench, robot.gripper_state, *cameras]
        hand = [topics.SPACENAV_TWIST, topics.SPACENAV_JOY]
        probe = Tick(0, EPISODE, 0)
        self._senders = {
            topic: self.create_publisher(type(valid.make(topic, probe)), topic, topics.SENSOR)
            for topic in [*sensors, *hand]
        }
        self.create_subscription(PoseStamped, robot.target_pose, self._on_target, topics.COMMAND)
        self.create_subscription(Action, topics.ACTION, self._on_action, topics.TICK)
        self.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, 100)
        for kind, topic in ((MarkerArray, view.MARKERS), (Image, view.IMAGE.format(camera="side"))):
            self.create_subscription(kind, topic, lambda message: None, topics.COMMAND)
        self._images = frozenset(cameras)
        self._beats = 0
        self._listening = False
        self.actions = 0
        self.now_ns = time.time_ns()
        self._clock = self.create_publisher(Clock, "/clock", 10)

    def listen(self) -> int:
        """What is said and done from now on counts; returns the present ROS time, ns."""
        self._listening, self._policy_drove, self.actions = True, 0, 0
        self._levels.clear()
        return self.now_ns

    def advance(self, step_ns: int, *, send: bool) -> None:
        """ROS time goes on; ``send``: and everybody sends."""
        self.now_ns = max(0, self.now_ns + step_ns)
        self._clock.publish(Clock(clock=ns_to_stamp(self.now_ns)))
        if send:
            self._send()

    def is_well(self) -> bool:
        """Whether the policy drives, has done so for some ticks, and no node complains."""
        return self._policy_drove >= 5 and not self.wrong()

    def wrong(self) -> list[str]:
        """The last word of each node that is in error."""
        return [f"{name}: {word}" for name, (level, word) in self._levels.items() if level >= _LEVEL_ERROR]

    def _send(self) -> None:
        tick = Tick(self.now_ns, EPISODE, 0)
        self._beats += 1
        for topic, sender in self._senders.items():
            if topic not in self._images or self._beats % 2:
                sender.publish(self._valid.make(topic, tick))

    def _on_target(self, message: PoseStamped) -> None:
        if self._listening:
            self._valid.pose = pose_from_msg(message.pose, "target_pose")

    def _on_action(self, message: Action) -> None:
        self.actions += 1
        self._policy_drove = self._policy_drove + 1 if message.source == ActionSource.POLICY else 0

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name not in _BYSTANDERS:
                self._levels[status.name] = (status.level[0], status.message)


def _arguments(task: TaskConfig, folder: Path, task_file: Path, robot_file: Path) -> list[str]:
    """ROS arguments of all nodes; the policy and the classifier know nothing, and have the right form."""
    backbone = load_backbone("octo-nano", task.instruction)
    torch.manual_seed(0)
    head = ConsistencyHead(head_config(task, backbone.embedding_dim))
    save(pack(head, version=1, backbone_fingerprint=backbone.fingerprint), folder / "policy.safetensors")
    config = ClassifierConfig(task=task.name, cameras=camera_sizes(task), threshold=0.99)
    SuccessClassifier(config).save(folder / "classifier.safetensors")
    shipped = task_file.parents[1]
    posture = yaml.safe_load(task_file.read_text(encoding="utf-8"))
    posture["reset"]["joints"] = [0.0] * 7
    (folder / "posture.yaml").write_text(json.dumps(posture), encoding="utf-8")
    (folder / "franka.yaml").write_text(json.dumps({"load": {"mass": 0.1}, "stiffness_frame": {}}), encoding="utf-8")
    (folder / "served" / _BAG).mkdir(parents=True)
    (folder / "served" / _BAG / "metadata.yaml").write_text("rosbag2_bagfile_information: {}", encoding="utf-8")
    parameters: dict[str, object] = {
        "task_file": task_file,
        "robot_file": robot_file,
        "lockstep": "false",
        "use_sim_time": "true",
        "policy_expected": "true",
        "reward_expected": "true",
        "simulator:state_rate": 50.0,
        "policy:checkpoint": folder / "policy.safetensors",
        "reward:classifier": folder / "classifier.safetensors",
        "recorder:episodes_dir": folder / "episodes",
        "impedance_phases:task_file": folder / "posture.yaml",
        "impedance_phases:impedance_file": shipped / "impedance/fr3.yaml",
        "franka_adapter:franka_file": folder / "franka.yaml",
        "episode_server:episodes_dir": folder / "served",
        "episode_server:max_rate": 10_000.0,
        "episode_server:niceness": 0,
        "learner:preset_file": shipped / "presets/stable.yaml",
        "learner:run_dir": folder / "learner",
        "learner:tensorboard": "false",
        "visualiser:robot_description_file": shipped.parent / "urdf/fr3.urdf",
        "supervisor:mode": "training",
        "supervisor:session": "fuzz",
        "supervisor:after_fault": "continue",
        "supervisor:wait_for_learner": "false",
        # One thread does the work of all of them.
        "supervisor:node_timeout": 60.0,
        "supervisor:action_timeout": 5.0,
        "supervisor:required_nodes": "[observer, intervention_mux, commander, recorder]",
    }
    return [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
