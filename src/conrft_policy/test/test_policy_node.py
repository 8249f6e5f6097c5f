"""The policy node in a real graph: it answers with the newest weights, says why it does not, and stops cleanly."""

from __future__ import annotations

import array
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor

from conrft_data import topics
from conrft_data.conversion import observation_to_msg, tick_of
from conrft_data.types import Observation
from conrft_msgs.msg import LearnerStatus, PolicyOutput, Weights
from conrft_msgs.msg import Observation as ObservationMessage
from conrft_policy.acting import HISTORY, Actor, head_config
from conrft_policy.backbone import load_backbone
from conrft_policy.consistency_head import ConsistencyHead
from conrft_policy.nodes.policy_node import PolicyNode
from conrft_policy.policy_weights import PolicyWeights, pack, save, unpack

TASK = """
name: pick_banana
instruction: Put the yellow banana on the green plate.
action_dim: 7
max_steps: 100
cameras: {side: {width: 256, height: 256}, wrist: {width: 128, height: 128}}
reset: {position: [0.45, 0.0, 0.25], euler_xyz: [3.14159, 0.0, 0.0], kind: script}
workspace: {low: [0.3, -0.3, 0.0], high: [0.7, 0.3, 0.5]}
"""
BACKBONE = load_backbone("octo-nano", "pick_banana")


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    file = tmp_path / "pick_banana.yaml"
    file.write_text(TASK)
    return file


def weights(version: int, backbone: str = BACKBONE.fingerprint) -> PolicyWeights:
    torch.manual_seed(version)
    head = ConsistencyHead(head_config(actor_task(), BACKBONE.embedding_dim))
    return pack(head, version=version, backbone_fingerprint=backbone)


def opposite(weights: PolicyWeights, version: int) -> PolicyWeights:
    """A head that pushes every number to one end of its range."""
    head = unpack(weights, backbone_fingerprint=BACKBONE.fingerprint)
    with torch.no_grad():
        head.denoiser.output.bias.fill_(9.0)
    return pack(head, version=version, backbone_fingerprint=BACKBONE.fingerprint)


def actor_task() -> Any:
    import yaml

    from conrft_data.config import TaskConfig

    return TaskConfig.model_validate(yaml.safe_load(TASK))


def weights_message(weights: PolicyWeights) -> Weights:
    return Weights(
        version=weights.version,
        fingerprint=weights.fingerprint,
        sha256=weights.sha256,
        data=array.array("B", weights.data),
    )


def observation(step: int, episode: int = 1) -> Observation:
    pose = np.array([0.45, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0])
    random = np.random.default_rng([episode, step])
    return Observation(
        stamp_ns=1_000_000_000 + step * 100_000_000,
        episode=episode,
        step=step,
        images={
            "side": random.integers(0, 255, (256, 256, 3), dtype=np.uint8),
            "wrist": random.integers(0, 255, (128, 128, 3), dtype=np.uint8),
        },
        tcp_pose=pose,
        reset_pose=pose,
        tcp_twist=np.zeros(6),
        tcp_wrench=np.zeros(6),
        gripper_opening=1.0,
    )


class Graph:
    """The policy node and, as another participant, everybody else."""

    def __init__(self, task_file: Path, **parameters: object) -> None:
        arguments = ["--ros-args", "-p", f"task_file:={task_file}"]
        for name, value in parameters.items():
            arguments += ["-p", f"{name}:={value}"]
        rclpy.init(args=arguments)
        self.outputs: list[PolicyOutput] = []
        self.health: list[tuple[int, str]] = []
        self.others = rclpy.create_node("others")
        self.observe = self.others.create_publisher(ObservationMessage, topics.OBSERVATION, topics.TICK)
        self.weights = self.others.create_publisher(Weights, topics.WEIGHTS, topics.LATCHED)
        self.status = self.others.create_publisher(LearnerStatus, topics.LEARNER_STATUS, topics.LATCHED)
        self.others.create_subscription(PolicyOutput, topics.POLICY_OUTPUT, self.outputs.append, topics.TICK)
        self.others.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_health, 10)
        self.policy = PolicyNode()
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.others)
        self._executor.add_node(self.policy)
        self.until(lambda: self.observe.get_subscription_count() == 1 and self.weights.get_subscription_count() == 1)

    def _on_health(self, message: DiagnosticArray) -> None:
        self.health += [(int.from_bytes(s.level, "little"), s.message) for s in message.status]

    def until(self, condition: Callable[[], bool], limit_s: float = 60.0) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {limit_s} s; health {self.health[-3:]}"
            self._executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.02)

    def said(self, level: int, words: str) -> bool:
        return any(level == said and words in message for said, message in self.health)

    def close(self) -> None:
        self._executor.shutdown()
        self.policy.destroy_node()
        self.others.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def graph(task_file: Path, request: pytest.FixtureRequest) -> Iterator[Graph]:
    graph = Graph(task_file, **getattr(request, "param", {}))
    yield graph
    graph.close()


def test_without_weights_it_says_so_and_publishes_nothing(graph: Graph) -> None:
    graph.observe.publish(observation_to_msg(observation(0)))
    graph.until(lambda: graph.said(2, "no weights"))
    graph.spin(0.3)
    assert graph.outputs == []


@pytest.mark.parametrize("graph", [{"weights_warn": 2.0, "weights_refuse": 2.0}], indirect=True)
def test_it_answers_each_observation_with_the_newest_weights(graph: Graph) -> None:
    expected = Actor(BACKBONE, None, actor_task(), 0)
    for version, steps in ((1, (0, 1)), (2, (2, 3))):
        expected.set_weights(weights(version))
        graph.weights.publish(weights_message(weights(version)))
        graph.until(lambda v=version: graph.said(0, f"weights version {v}"))
        for step in steps:
            graph.observe.publish(observation_to_msg(observation(step), "fr3_link0"))
            graph.until(lambda s=step: len(graph.outputs) > s)
            output = graph.outputs[-1]
            action, embedding = expected.act(observation(step))
            assert tick_of(output) == (observation(step).stamp_ns, 1, step)
            assert output.header.frame_id == "fr3_link0"
            np.testing.assert_allclose(output.action, action, atol=1e-5)
            np.testing.assert_allclose(output.embedding, embedding, atol=1e-5)
            assert output.embedding_fingerprint == BACKBONE.fingerprint
            assert output.weights_version == version
            assert 0 < output.inference_time < 1


def test_weights_that_act_quite_differently_are_flagged_and_beyond_a_bound_refused(graph: Graph) -> None:
    graph.weights.publish(weights_message(weights(1)))
    graph.until(lambda: graph.said(0, "weights version 1"))
    graph.observe.publish(observation_to_msg(observation(0)))
    graph.until(lambda: bool(graph.outputs))
    graph.weights.publish(weights_message(weights(2)))
    graph.until(lambda: graph.said(1, "weights version 2 changed the last actions by 0."))
    graph.weights.publish(weights_message(opposite(weights(2), version=3)))
    graph.until(lambda: graph.said(1, "acts with weights version 2; refused: weights version 3 change the last 1"))


def test_weights_of_another_backbone_are_refused_and_the_old_ones_stay(graph: Graph) -> None:
    graph.weights.publish(weights_message(weights(1)))
    graph.until(lambda: graph.said(0, "weights version 1"))
    graph.weights.publish(weights_message(weights(2, backbone="another")))
    graph.until(
        lambda: graph.said(1, "acts with weights version 1; refused: weights version 2 were trained on another")
    )
    graph.observe.publish(observation_to_msg(observation(0)))
    graph.until(lambda: bool(graph.outputs))
    assert graph.outputs[0].weights_version == 1


def test_an_observation_without_a_camera_gets_no_answer_but_a_reason(graph: Graph) -> None:
    graph.weights.publish(weights_message(weights(1)))
    graph.until(lambda: graph.said(0, "weights version 1"))
    message = observation_to_msg(observation(0))
    message.images = message.images[:1]
    graph.observe.publish(message)
    graph.until(lambda: graph.said(2, "camera 'wrist'"))
    graph.observe.publish(observation_to_msg(observation(1)))
    graph.until(lambda: bool(graph.outputs))
    assert [output.step for output in graph.outputs] == [1]


@pytest.mark.parametrize("graph", [{"wait_for_weights": 30.0}], indirect=True)
def test_an_episode_begins_with_the_weights_that_the_learner_has_announced(graph: Graph) -> None:
    graph.weights.publish(weights_message(weights(1)))
    graph.until(lambda: graph.said(0, "weights version 1"))
    graph.status.publish(LearnerStatus(weights_version=2))
    graph.spin(0.3)
    graph.observe.publish(observation_to_msg(observation(0)))
    graph.spin(0.5)
    assert graph.outputs == []
    graph.weights.publish(weights_message(weights(2)))
    graph.until(lambda: bool(graph.outputs))
    assert graph.outputs[0].weights_version == 2


@pytest.mark.parametrize("graph", [{"wait_for_weights": 0.3}], indirect=True)
def test_announced_weights_are_not_waited_for_without_end(graph: Graph) -> None:
    graph.weights.publish(weights_message(weights(1)))
    graph.until(lambda: graph.said(0, "weights version 1"))
    graph.status.publish(LearnerStatus(weights_version=2))
    graph.spin(0.3)
    graph.observe.publish(observation_to_msg(observation(0)))
    graph.until(lambda: bool(graph.outputs))
    assert graph.outputs[0].weights_version == 1


def start(*parameters: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "conrft_policy.nodes.policy_node", "--ros-args"]
    command += [part for parameter in parameters for part in ("-p", parameter)]
    return subprocess.Popen(command, env=os.environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_it_starts_from_a_checkpoint_and_stops_with_code_0_on_two_interrupts(task_file: Path, tmp_path: Path) -> None:
    save(weights(9), tmp_path / "policy.safetensors")
    process = start(f"task_file:={task_file}", f"checkpoint:={tmp_path}")
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "acts with weights version 9" in line, (process.poll(), line)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (["task_file:=/nowhere/task.yaml"], "/nowhere/task.yaml: cannot be read"),
        ([], "parameter task_file is empty"),
    ],
)
def test_a_wrong_configuration_is_one_sentence_and_code_1(parameters: list[str], sentence: str) -> None:
    process = start(*parameters)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert sentence in output
    assert "Traceback" not in output


def test_the_node_stacks_as_many_frames_as_the_backbone() -> None:
    assert BACKBONE.history == HISTORY
