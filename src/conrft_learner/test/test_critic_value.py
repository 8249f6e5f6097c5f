"""What a person is told of the critic is what the learner's critic says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import torch
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

from conrft_data import topics
from conrft_data.config import TaskConfig
from conrft_data.conversion import command_to_msg, observation_to_msg, proposal_to_msg
from conrft_data.ticks import Proposal, Tick
from conrft_data.types import Episode, proprioception
from conrft_learner.critic_value import CriticValue
from conrft_learner.critics import States
from conrft_learner.nodes.critic_node import CriticNode
from conrft_learner.trainer import Trainer
from conrft_msgs.msg import Action, Observation, PolicyOutput, Value

FINGERPRINT = "backbone of the tests"

MakeEpisode = Callable[..., Episode]


@pytest.fixture
def trainer(tmp_path: Path, make_trainer: Callable[..., Trainer]) -> Trainer:
    made = make_trainer(tmp_path / "run")
    made.offline()
    made.save()
    return made


def checkpoint(trainer: Trainer) -> Path:
    return max((trainer.run_dir / "checkpoints").glob("step-*"))


def inputs(episode: Episode, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert episode.embeddings is not None
    frames = [proprioception(episode.observations[k]) for k in (max(0, step - 1), step)]
    return episode.embeddings[step], np.concatenate(frames), episode.commands[step].action


def expected(trainer: Trainer, episode: Episode, step: int) -> float:
    embedding, proprio, action = (torch.from_numpy(x)[None] for x in inputs(episode, step))
    networks = trainer.networks
    states = networks.scaling(States(embedding=embedding, proprio=proprio))
    return networks.critic.ensemble(networks.critic.encode(states), action).min().item()


def test_the_value_is_the_learners_own(trainer: Trainer, task: TaskConfig, make_episode: MakeEpisode) -> None:
    critic, episode = CriticValue(checkpoint(trainer), task), make_episode(7)
    values = [critic.value(*inputs(episode, step)) for step in range(5)]
    assert values == pytest.approx([expected(trainer, episode, step) for step in range(5)], abs=1e-6)
    assert len(set(values)) == 5
    assert critic.updates == trainer.updates > 0


def test_embeddings_of_another_backbone_are_known(trainer: Trainer, task: TaskConfig) -> None:
    critic = CriticValue(checkpoint(trainer), task)
    assert critic.sees(FINGERPRINT)
    assert not critic.sees("another backbone")


def test_a_checkpoint_that_does_not_fit_is_refused(trainer: Trainer, task: TaskConfig) -> None:
    with pytest.raises(ValueError, match="is of task pick_banana, expected open_drawer"):
        CriticValue(checkpoint(trainer), task.model_copy(update={"name": "open_drawer"}))
    (checkpoint(trainer) / "state.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read"):
        CriticValue(checkpoint(trainer), task)


@pytest.fixture
def task_file(tmp_path: Path, task: TaskConfig) -> Path:
    file = tmp_path / "task.yaml"
    file.write_text(task.model_dump_json(exclude_none=True))  # JSON is YAML
    return file


@pytest.fixture
def executor() -> Iterator[SingleThreadedExecutor]:
    rclpy.init()
    made = SingleThreadedExecutor()
    yield made
    for node in made.get_nodes():
        node.destroy_node()
    made.shutdown()
    rclpy.try_shutdown()


def until(executor: SingleThreadedExecutor, condition: Callable[[], Any], step: Callable[[], None]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing came"
        step()
        executor.spin_once(timeout_sec=0.02)


def test_the_node_tells_the_value_of_each_tick_while_somebody_listens(
    trainer: Trainer, task_file: Path, make_episode: MakeEpisode, executor: SingleThreadedExecutor
) -> None:
    parameters = {"task_file": str(task_file), "run_dir": str(trainer.run_dir), "source": "playback"}
    node = CriticNode(parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()])
    graph = Node("graph")
    executor.add_node(node)
    executor.add_node(graph)
    publishers = {
        kind: graph.create_publisher(kind, f"playback/{name}", topics.TICK)
        for kind, name in (
            (Observation, topics.OBSERVATION), (PolicyOutput, topics.POLICY_OUTPUT), (Action, topics.ACTION),
        )
    }  # fmt: skip
    for _ in range(30):
        executor.spin_once(timeout_sec=0.02)
    assert graph.count_subscribers("playback/observation") == 0
    told: dict[int, float] = {}
    graph.create_subscription(Value, "playback/value", lambda m: told.update({m.step: m.value}), topics.TICK)
    episode = make_episode(7)
    assert episode.embeddings is not None
    steps = iter(list(range(8)) * 2000)

    def tick() -> None:
        step = next(steps)
        seen = episode.observations[step]
        key = Tick(seen.stamp_ns, seen.episode, seen.step)
        proposal = Proposal(
            action=episode.commands[step].action,
            embedding=episode.embeddings[step],
            embedding_fingerprint=FINGERPRINT,
            weights_version=1,
            inference_time=0.0,
        )
        publishers[Observation].publish(observation_to_msg(seen))
        publishers[PolicyOutput].publish(proposal_to_msg(proposal, key))
        publishers[Action].publish(command_to_msg(episode.commands[step], key))
        patience = time.monotonic() + 0.5  # a message may be lost
        while step not in told and time.monotonic() < patience:
            executor.spin_once(timeout_sec=0.02)

    until(executor, lambda: len(told) == 8, tick)
    assert told[0] == pytest.approx(expected(trainer, episode, 0), abs=1e-5)
    assert told[5] == pytest.approx(expected(trainer, episode, 5), abs=1e-5)
