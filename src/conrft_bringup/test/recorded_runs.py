"""Small real episode bags and run folders."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from rclpy.serialization import serialize_message

from conrft_bringup.demo.run_folder import DemoSettings, RunFolder
from conrft_data import topics
from conrft_data.bags import write_episode
from conrft_data.bags.definitions import RecordedTopic
from conrft_data.bags.writer import EpisodeWriter
from conrft_data.conversion import command_to_msg, episode_status_to_msg, observation_to_msg, proposal_to_msg
from conrft_data.ticks import EpisodeStatus, Proposal, Tick
from conrft_data.types import (
    MESSAGE_VERSION,
    ActionSource,
    Command,
    Episode,
    Mode,
    Observation,
    Outcome,
    Phase,
)
from conrft_sim.scene_message import scene_to_msg
from conrft_sim.scene_snapshot import SceneSnapshot

DOWN = np.array([0.45, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0])


def record(folder: Path, number: int, *, outcome: Outcome, sources: str, session: str = "test") -> str:
    """Writes an episode whose transitions were driven as ``sources`` says: o operator, p policy, h hold."""
    steps = len(sources)
    names = {"o": ActionSource.OPERATOR, "p": ActionSource.POLICY, "h": ActionSource.HOLD}
    # The command of the last observation leads nowhere and must not be counted.
    kinds = [names[letter] for letter in sources] + [ActionSource.OPERATOR]
    episode_id = f"{session}-training-{number:06d}"
    write_episode(
        folder,
        Episode(
            episode_id=episode_id,
            task="pick_banana",
            instruction="Put the yellow banana on the green plate.",
            mode=Mode.TRAINING,
            outcome=outcome,
            final_step=steps,
            observations=[observation(number, step) for step in range(steps + 1)],
            commands=[
                Command(action=np.zeros(7, np.float32), source=kind, reason="late" * (kind == 0)) for kind in kinds
            ],
        ),
    )
    return episode_id


def observation(episode: int, step: int, *, enlarged: int = 1) -> Observation:
    side, wrist = 32 * enlarged, 16 * enlarged
    images = {
        "side": np.full((side, side, 3), step, np.uint8),
        "wrist": np.full((wrist, wrist, 3), 255 - step, np.uint8),
    }
    return Observation(
        stamp_ns=(1 + step) * 100_000_000,
        episode=episode,
        step=step,
        images=images,
        tcp_pose=DOWN,
        reset_pose=DOWN,
        tcp_twist=np.zeros(6),
        tcp_wrench=np.zeros(6),
        gripper_opening=1.0,
    )


def make_run(root: Path, **settings: object) -> RunFolder:
    """A run folder in which every stage has recorded something."""
    folder = RunFolder(root)
    folder.begin(DemoSettings(**settings))  # type: ignore[arg-type]
    record(folder.demonstrations, 1, outcome=Outcome.SUCCESS, sources="oooo")
    record(folder.demonstrations, 2, outcome=Outcome.TIMEOUT, sources="oooooo")
    write_trial(folder.offline_trials, 1, "pppppp")
    record(folder.episodes, 1, outcome=Outcome.SUCCESS, sources="ppoopo")
    record(folder.episodes, 2, outcome=Outcome.FAULT, sources="phhh")
    record(folder.episodes, 3, outcome=Outcome.SUCCESS, sources="phpp")
    write_trial(folder.online_trials, 1, "ppp", success=True)
    return folder


def write_trial(
    folder: Path,
    number: int,
    sources: str,
    *,
    success: bool = False,
    outcome: Outcome | None = None,
    last: str = "p",
    session: str = "test",
    mode: Mode = Mode.EVALUATION,
    banana: tuple[float, float] | None = (0.5, 0.1),
    unanswered: int | None = None,
    altered: int | None = None,
    unrecorded: int | None = None,
    versions: list[int] | None = None,
    enlarged: int = 1,
) -> None:
    """Writes a trial as the recorder does, with the policy's answers and the simulator's scene.

    Args:
        folder: of all trials.
        number: of the trial.
        sources: as in ``record``; ``last`` that of the final observation's action.
        success: whether it ended so, else at the step limit; ``outcome`` says it in full.
        session: first part of its name.
        mode: why it was run.
        banana: where it lay, and lies; None: nobody knows the scene.
        unanswered: step without an action.
        altered: step whose action is not what the policy put out.
        unrecorded: step whose answer of the policy is not in the bag.
        versions: of the weights, by step.
        enlarged: times the images; 8: as the shipped tasks have them.
    """
    outcome = outcome or (Outcome.SUCCESS if success else Outcome.TIMEOUT)
    kinds = [{"o": ActionSource.OPERATOR, "p": ActionSource.POLICY, "h": ActionSource.HOLD}[s] for s in sources + last]
    extra = RecordedTopic("/scene_state", "conrft_msgs/msg/SceneState", topics.SENSOR)
    name = f"{session}-{mode.name.lower()}-{number:06d}"
    about = {"mode": mode, "number": number, "final_step": len(sources), "episode_id": name}
    episode_state = partial(_episode_state, **about)
    with EpisodeWriter(folder, name, task="pick_banana", mode=mode, extra_topics=[extra]) as writer:

        def put(topic: str, message: object) -> None:
            writer.write(topic, serialize_message(message), seen.stamp_ns)

        for step, kind in enumerate(kinds):
            seen = observation(number, step, enlarged=enlarged)
            tick = Tick(seen.stamp_ns, number, step)
            if step == 0:
                put(topics.EPISODE_STATE, episode_state(Phase.RUNNING, Outcome.NONE, stamp_ns=seen.stamp_ns))
            if banana is not None:
                put(topics.SCENE_STATE, _scene(seen, banana, success and step == len(sources)))
            put(topics.OBSERVATION, observation_to_msg(seen))
            action = np.full(7, 0.25, np.float32) if kind is ActionSource.POLICY else np.zeros(7, np.float32)
            if step != unrecorded:
                proposed = action + (0.5 if step == altered else 0.0)
                put(topics.POLICY_OUTPUT, _proposal(proposed, versions[step] if versions else 1, tick))
            if step != unanswered:
                put(topics.ACTION, _action(action, kind, tick))
        put(topics.EPISODE_STATE, episode_state(Phase.ENDED, outcome, stamp_ns=seen.stamp_ns))
        writer.finish(outcome, len(sources))


def _action(action: np.ndarray, kind: ActionSource, tick: Tick) -> object:
    reason = "late" if kind is ActionSource.HOLD else ""
    return command_to_msg(Command(action=action, source=kind, proposal=action, reason=reason), tick)


def _proposal(action: np.ndarray, version: int, tick: Tick) -> object:
    proposal = Proposal(
        action=action,
        embedding=np.zeros(2, np.float32),
        embedding_fingerprint="f",
        weights_version=version,
        inference_time=0.0,
    )
    return proposal_to_msg(proposal, tick)


def _episode_state(
    phase: Phase, outcome: Outcome, *, mode: Mode, number: int, final_step: int, episode_id: str, stamp_ns: int
) -> object:
    status = EpisodeStatus(
        stamp_ns=stamp_ns,
        phase=phase,
        outcome=outcome,
        mode=mode,
        episode=number,
        final_step=final_step,
        episode_id=episode_id,
        task="pick_banana",
        instruction="",
        message_version=MESSAGE_VERSION,
        reason="",
    )
    return episode_status_to_msg(status)


def _scene(seen: Observation, banana: tuple[float, float], done: bool) -> object:
    flat = [0.0, 0.0, 0.0, 0.0, 1.0]
    return scene_to_msg(
        SceneSnapshot(
            stamp_ns=seen.stamp_ns,
            task="pick_banana",
            tcp_pose=DOWN,
            gripper_opening=1.0,
            objects={"banana": np.array([*banana, *flat]), "plate": np.array([0.5, -0.13, *flat])},
            success=done,
            achieved=done,
        ),
        "base",
    )
