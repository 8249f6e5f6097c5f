"""Reads one episode bag into an Episode, and refuses what nobody may learn from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from conrft_data.bags import definitions
from conrft_data.bags.definitions import (
    ACTION,
    EPISODE_STATE,
    EPISODE_TOPICS,
    OBSERVATION,
    POLICY_OUTPUT,
    REQUIRED_TOPICS,
    REWARD,
)
from conrft_data.bags.errors import BagError
from conrft_data.bags.listing import EpisodeInfo, read_info
from conrft_data.bags.mcap_messages import McapMessage, complete_messages, is_whole
from conrft_data.config import TaskConfig
from conrft_data.conversion import (
    CameraSizes,
    MessageError,
    command_from_msg,
    episode_status_from_msg,
    observation_from_msg,
    proposal_from_msg,
    tick_of,
    verdict_from_msg,
)
from conrft_data.ticks import EpisodeStatus, Proposal, Tick
from conrft_data.types import ACTION_DIM, ActionSource, Command, Episode, Float32, Observation, Verdict

_ADVICE = "`conrft demos salvage` recovers what is complete"


def read_episode(path: Path | str, expect: TaskConfig | None = None) -> Episode:
    """The recorded episode in folder ``path``, with the outcome of its label.

    Args:
        path: a finished episode bag.
        expect: the task that it must be of; exactly its cameras are returned, in its order.

    Raises:
        BagError: one sentence that says what is wrong: another task, camera size, message version or definition, a
            missing topic, a missing or repeated tick, a number that is not finite, an image of the wrong size, or a
            recording that is cut off.
    """
    bag = Path(path)
    info = read_info(bag)
    cameras = _expected_cameras(info, expect)
    contents = _Contents()
    for message in _messages(info):
        try:
            contents.add(message.topic, definitions.unpack(message.raw, message.type_name), cameras)
        except (MessageError, ValueError) as error:
            raise BagError(f"{bag}: {error}") from error
    return contents.episode(info)


def _expected_cameras(info: EpisodeInfo, expect: TaskConfig | None) -> CameraSizes:
    if expect is None:
        return info.cameras
    if info.task != expect.name:
        raise BagError(f"{info.path}: was recorded for task '{info.task}', expected '{expect.name}'")
    sizes = {name: (camera.width, camera.height) for name, camera in expect.cameras.items()}
    for name, (width, height) in sizes.items():
        if name not in info.cameras:
            raise BagError(f"{info.path}: has no camera '{name}', only {sorted(info.cameras)}")
        if info.cameras[name] != (width, height):
            recorded = "x".join(map(str, info.cameras[name]))
            raise BagError(f"{info.path}: camera '{name}' was recorded at {recorded} pixels, expected {width}x{height}")
    return sizes


def _messages(info: EpisodeInfo) -> Iterator[McapMessage]:
    """Messages of the episode's topics in recorded order, after a check of topics and definitions."""
    _check_topics(info)
    wanted = {topic.name for topic in EPISODE_TOPICS if topic.name in info.topics}
    left = {name: info.topics[name].number for name in wanted}
    checked: set[str] = set()
    for file in info.files:
        _check_whole(file)
        for message in complete_messages(file):
            if message.topic not in wanted:
                continue
            if message.topic not in checked and not info.topics[message.topic].digest:
                where = f"{info.path}: {message.topic}"
                definitions.check_definition(message.type_name, where, text=message.definition, idl=message.idl)
            checked.add(message.topic)
            left[message.topic] -= 1
            yield message
    if missing := {name: count for name, count in left.items() if count}:
        name, count = next(iter(missing.items()))
        found = info.topics[name].number - count
        raise BagError(
            f"{info.path}: is damaged, {found} of {info.topics[name].number} messages on {name} can be read; {_ADVICE}"
        )


def _check_topics(info: EpisodeInfo) -> None:
    for topic in EPISODE_TOPICS:
        recorded = info.topics.get(topic.name)
        if recorded is None or not recorded.number:
            # An episode that ended at its first observation has no transition, and may have no action.
            if topic in REQUIRED_TOPICS and (topic != ACTION or info.final_step):
                raise BagError(f"{info.path}: has no messages on {topic.name}")
            continue
        if recorded.type_name != topic.type_name:
            raise BagError(f"{info.path}: {topic.name} holds {recorded.type_name}, expected {topic.type_name}")
        definitions.check_definition(topic.type_name, f"{info.path}: {topic.name}", digest=recorded.digest)


def _check_whole(file: Path) -> None:
    try:
        whole = is_whole(file)
    except OSError as error:
        raise BagError(f"{file}: cannot be read: {error.strerror or error}") from error
    if not whole:
        raise BagError(f"{file}: is cut off, it has no end; {_ADVICE}")


@dataclass
class _Contents:
    """Messages of one bag by step."""

    observations: dict[int, Observation] = field(default_factory=dict)
    commands: dict[int, Command] = field(default_factory=dict)
    proposals: dict[int, Proposal] = field(default_factory=dict)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    ticks: dict[int, Tick] = field(default_factory=dict)
    status: EpisodeStatus | None = None

    def add(self, topic: str, message: Any, cameras: CameraSizes) -> None:
        """Files one message under its step; raises ValueError when it cannot be used."""
        if topic == EPISODE_STATE.name:
            self.status = episode_status_from_msg(message, topic)
            return
        tick = tick_of(message)
        where = f"{topic} step {tick.step}"
        steps: dict[int, Any]
        item: Any
        if topic == OBSERVATION.name:
            steps, item = self.observations, observation_from_msg(message, cameras, where)
        elif topic == ACTION.name:
            steps, item = self.commands, command_from_msg(message, where)
        elif topic == POLICY_OUTPUT.name:
            steps, item = self.proposals, proposal_from_msg(message, where)
        else:
            assert topic == REWARD.name
            steps, item = self.verdicts, verdict_from_msg(message, where)
        if tick.step in steps:
            raise ValueError(f"{where}: is there twice")
        if self.ticks.setdefault(tick.step, tick) != tick:
            raise ValueError(
                f"{where}: expected stamp and episode of the other messages of this step "
                f"{tuple(self.ticks[tick.step])}, got {tuple(tick)}"
            )
        steps[tick.step] = item

    def episode(self, info: EpisodeInfo) -> Episode:
        """The episode, once every message is filed; raises BagError when ticks are missing."""
        assert self.status is not None  # the topic is required, so at least one message was there
        self._check_complete(info)
        last = info.final_step
        tail = sorted(step for step in self.observations if step > last)
        # The operator may end an episode before the last observation is answered; that command leads nowhere anyway.
        unanswered = Command(
            action=np.zeros(ACTION_DIM, np.float32), source=ActionSource.HOLD, reason="the episode ended"
        )
        embeddings, fingerprint = self._embeddings(last)
        return Episode(
            episode_id=info.episode_id,
            task=info.task,
            instruction=self.status.instruction,
            mode=info.mode,
            outcome=info.outcome,
            final_step=last,
            observations=[self.observations[step] for step in range(last + 1)],
            commands=[*(self.commands[step] for step in range(last)), self.commands.get(last, unanswered)],
            tail=[self.observations[step] for step in tail],
            verdicts=dict(sorted(self.verdicts.items())),
            embeddings=embeddings,
            embedding_fingerprint=fingerprint,
            recorded_outcome=info.recorded_outcome,
            weights_versions={
                step: self.proposals[step].weights_version for step in range(last + 1) if step in self.proposals
            },
        )

    def _check_complete(self, info: EpisodeInfo) -> None:
        if len({tick.episode for tick in self.ticks.values()}) > 1:
            raise BagError(f"{info.path}: holds several episodes (`conrft demos import` splits them)")
        # Beyond the final step a bag may be cut off anywhere: those ticks only show the outcome.
        transitions = {step for step in self.commands if step <= info.final_step}
        if orphans := sorted(transitions - set(self.observations)):
            raise BagError(f"{info.path}: has an action but no observation at step {orphans[0]}")
        for step in range(info.final_step + 1):
            if step not in self.observations:
                raise BagError(f"{info.path}: has no observation at step {step} of {info.final_step}")
            if step < info.final_step and step not in self.commands:
                raise BagError(f"{info.path}: has no action at step {step} of {info.final_step}")

    def _embeddings(self, last: int) -> tuple[Float32 | None, str]:
        """The policy's embeddings ``(T+1, D)`` and their fingerprint, if one backbone made them all."""
        proposals = [self.proposals[step] for step in range(last + 1) if step in self.proposals]
        kinds = {(proposal.embedding_fingerprint, proposal.embedding.shape) for proposal in proposals}
        if len(proposals) != last + 1 or len(kinds) != 1 or not proposals[0].embedding.size:
            return None, ""
        return np.stack([proposal.embedding for proposal in proposals]), proposals[0].embedding_fingerprint
