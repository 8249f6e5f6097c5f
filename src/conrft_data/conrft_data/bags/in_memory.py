"""Writes an episode that is held in memory, for what makes episodes without the ROS graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conrft_data import topics
from conrft_data.bags.writer import EpisodeWriter
from conrft_data.conversion import (
    command_to_msg,
    episode_status_to_msg,
    observation_to_msg,
    proposal_to_msg,
    verdict_to_msg,
)
from conrft_data.ticks import EpisodeStatus, Proposal, Tick
from conrft_data.types import MESSAGE_VERSION, Command, Episode, Observation, Outcome, Phase


def write_episode(folder: Path | str, episode: Episode, frame_id: str = "base") -> Path:
    """Writes ``episode`` as the bag ``<folder>/<episode_id>`` the way the recorder would have.

    Embeddings become policy outputs whose action is the policy's proposal. The recorded outcome is
    ``recorded_outcome``, or ``outcome`` when that is NONE.

    Args:
        folder: of all episodes.
        episode: all its observations with their commands; the tail's commands are not kept in memory, so the tail is
            written without.
        frame_id: the robot's base frame.

    Returns:
        Folder of the bag.

    Raises:
        BagError: the bag exists already, or the disk refuses.
    """
    from rclpy.serialization import serialize_message

    outcome = episode.recorded_outcome if episode.recorded_outcome is not Outcome.NONE else episode.outcome
    first, last = episode.observations[0], (*episode.observations, *episode.tail)[-1]
    with EpisodeWriter(folder, episode.episode_id, task=episode.task, mode=episode.mode) as writer:

        def put(topic: str, message: Any, stamp_ns: int) -> None:
            writer.write(topic, serialize_message(message), stamp_ns)

        put(
            topics.EPISODE_STATE,
            episode_status_to_msg(_status(episode, first, Phase.RUNNING, Outcome.NONE)),
            first.stamp_ns,
        )
        for index, observation in enumerate((*episode.observations, *episode.tail)):
            tick = Tick(observation.stamp_ns, observation.episode, observation.step)
            put(topics.OBSERVATION, observation_to_msg(observation, frame_id), tick.stamp_ns)
            if index < len(episode.commands):
                command = episode.commands[index]
                if episode.embeddings is not None:
                    put(
                        topics.POLICY_OUTPUT,
                        proposal_to_msg(_proposal(episode, index, command), tick, frame_id),
                        tick.stamp_ns,
                    )
                put(topics.ACTION, command_to_msg(command, tick, frame_id), tick.stamp_ns)
            if (verdict := episode.verdicts.get(observation.step)) is not None:
                put(topics.REWARD, verdict_to_msg(verdict, tick, frame_id), tick.stamp_ns)
        put(topics.EPISODE_STATE, episode_status_to_msg(_status(episode, last, Phase.ENDED, outcome)), last.stamp_ns)
        return writer.finish(outcome, episode.final_step)


def _status(episode: Episode, observation: Observation, phase: Phase, outcome: Outcome) -> EpisodeStatus:
    return EpisodeStatus(
        stamp_ns=observation.stamp_ns,
        phase=phase,
        outcome=outcome,
        mode=episode.mode,
        episode=observation.episode,
        final_step=episode.final_step if phase is Phase.ENDED else 0,
        episode_id=episode.episode_id,
        task=episode.task,
        instruction=episode.instruction,
        message_version=MESSAGE_VERSION,
    )


def _proposal(episode: Episode, index: int, command: Command) -> Proposal:
    assert episode.embeddings is not None
    return Proposal(
        action=command.proposal if command.proposal is not None else command.action,
        embedding=episode.embeddings[index],
        embedding_fingerprint=episode.embedding_fingerprint,
        weights_version=episode.weights_versions.get(episode.observations[index].step, 0),
        inference_time=0.0,
    )
