"""The reward node in a real graph: one verdict for each observation, and a clean stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from drawn_episodes import TASK, observation
from rclpy.executors import SingleThreadedExecutor

from conrft_data import topics
from conrft_data.conversion import observation_to_msg, tick_of
from conrft_msgs.msg import Observation as ObservationMessage
from conrft_msgs.msg import Reward
from conrft_reward.nodes.reward_node import RewardNode
from conrft_reward.training import Trained


@pytest.fixture
def files(trained: Trained, tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(TASK.model_dump(mode="json")))
    trained.classifier.save(tmp_path / "reward.safetensors")
    return {"task_file": tmp_path / "task.yaml", "classifier": tmp_path / "reward.safetensors"}


class Graph:
    """The reward node and, as another participant, everybody else."""

    def __init__(self, files: dict[str, Path]) -> None:
        arguments = [part for name, file in files.items() for part in ("-p", f"{name}:={file}")]
        rclpy.init(args=["--ros-args", *arguments])
        self.rewards: list[Reward] = []
        self.health: list[str] = []
        self.others = rclpy.create_node("others")
        self.observe = self.others.create_publisher(ObservationMessage, topics.OBSERVATION, topics.TICK)
        self.others.create_subscription(Reward, topics.REWARD, self.rewards.append, topics.TICK)
        self.others.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_health, 10)
        self.reward = RewardNode()
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.others)
        self._executor.add_node(self.reward)
        self.until(lambda: self.observe.get_subscription_count() == 1)

    def _on_health(self, message: DiagnosticArray) -> None:
        self.health += [status.message for status in message.status]

    def until(self, condition: Callable[[], bool], limit_s: float = 60.0) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {limit_s} s; health {self.health[-3:]}"
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._executor.shutdown()
        self.reward.destroy_node()
        self.others.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def graph(files: dict[str, Path]) -> Iterator[Graph]:
    graph = Graph(files)
    yield graph
    graph.close()


def test_every_observation_gets_a_verdict_and_success_needs_two_in_a_row(graph: Graph, trained: Trained) -> None:
    frames = [observation(1, step, thing=0.1 if step < 2 else 0.92, hand=0.4) for step in range(4)]
    for frame in frames:
        graph.observe.publish(observation_to_msg(frame, "fr3_link0"))
    graph.until(lambda: len(graph.rewards) == 4)
    assert [tick_of(reward) for reward in graph.rewards] == [(f.stamp_ns, f.episode, f.step) for f in frames]
    assert [reward.success for reward in graph.rewards] == [False, False, False, True]
    assert all(reward.gates_passed for reward in graph.rewards)
    assert all(reward.header.frame_id == "fr3_link0" for reward in graph.rewards)
    expected = [trained.classifier.probability(frame) for frame in frames]
    assert [reward.probability for reward in graph.rewards] == pytest.approx(expected, abs=1e-6)


def test_an_observation_without_a_camera_gets_no_verdict_but_a_reason(graph: Graph) -> None:
    message = observation_to_msg(observation(1, 0))
    message.images = message.images[1:]
    graph.observe.publish(message)
    graph.until(lambda: any("no verdict" in text and "camera 'side'" in text for text in graph.health))
    graph.observe.publish(observation_to_msg(observation(1, 1)))
    graph.until(lambda: bool(graph.rewards))
    assert graph.rewards[0].step == 1


def start(*parameters: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "conrft_reward.nodes.reward_node", "--ros-args"]
    command += [part for parameter in parameters for part in ("-p", parameter)]
    return subprocess.Popen(command, env=os.environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_it_stops_with_code_0_on_two_interrupts(files: dict[str, Path]) -> None:
    process = start(*(f"{name}:={file}" for name, file in files.items()))
    assert process.stdout is not None
    assert "judges with threshold" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


def test_a_missing_classifier_is_one_sentence_and_code_1(files: dict[str, Path]) -> None:
    process = start(f"task_file:={files['task_file']}", "classifier:=/nowhere/reward.safetensors")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "/nowhere/reward.safetensors: cannot be read" in output
    assert "Traceback" not in output
