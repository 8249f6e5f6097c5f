"""What the recording of one trial says: who moved the arm, how the scene began, and when the task was truly done."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conrft_bringup.episode_figures import episode_number
from conrft_data import topics
from conrft_data.bags import EpisodeInfo
from conrft_data.bags.definitions import ACTION, OBSERVATION, POLICY_OUTPUT, unpack, unpack_as_recorded
from conrft_data.bags.mcap_messages import complete_messages
from conrft_data.conversion import stamp_from_cdr, stamp_to_ns, tick_from_cdr
from conrft_data.types import ActionSource, Mode, Outcome

SCENE_STATE_TYPE = "conrft_msgs/msg/SceneState"
SCENE_TOPIC = f"{topics.SCENE_STATE} {SCENE_STATE_TYPE}"
"""As the recorder's parameter ``extra_topics`` wants it."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TrialRecording:
    """One trial, without its images.

    Attributes:
        info: of the bag.
        sources: of the action of each step, the final one included.
        altered: steps whose POLICY action is not the one that the policy put out.
        weights_versions: of the policy's answers.
        start: pose ``(7,)`` of each object when the trial began, base frame; empty where no simulator tells it.
        truth: by step, whether the task was done; empty where no simulator tells it.
    """

    info: EpisodeInfo
    sources: dict[int, ActionSource] = field(default_factory=dict)
    altered: list[int] = field(default_factory=list)
    weights_versions: frozenset[int] = frozenset()
    start: dict[str, Float64] = field(default_factory=dict)
    truth: dict[int, bool] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Of the trial; the start state is a function of it and the seed."""
        return episode_number(self.info.episode_id)

    @property
    def success(self) -> bool:
        """How it ended, by the simulator's ground truth or by a person's word."""
        return self.info.outcome is Outcome.SUCCESS

    @property
    def length(self) -> int:
        """Steps."""
        return self.info.final_step

    def count(self, source: ActionSource) -> int:
        """How many actions were of this source."""
        return Counter(self.sources.values())[source]

    def why_void(self) -> str:
        """Why this is no trial without intervention; empty: it is one, and the recording proves it."""
        operator = sorted(step for step, source in self.sources.items() if source is ActionSource.OPERATOR)
        unproven = sorted(set(range(self.length)) - set(self.sources))
        if self.info.mode is not Mode.EVALUATION:
            return f"it was run in mode {self.info.mode.name}, not EVALUATION"
        if operator:
            return f"the operator moved the arm in {len(operator)} steps, first in step {operator[0]}"
        if unproven:
            return f"nothing tells who moved the arm in step {unproven[0]}"
        if self.altered:
            return f"the action of step {self.altered[0]} is not what the policy put out"
        if len(self.weights_versions) > 1:
            return f"the policy's weights changed, versions {sorted(self.weights_versions)}"
        return ""

    def contradiction(self) -> str:
        """How the outcome differs from the simulator's truth at the final step; empty: it does not, or nobody knows."""
        done = self.truth.get(self.length, self.success)
        if done == self.success:
            return ""
        return f"it ended as {self.info.outcome.name}, but the task was {'' if done else 'not '}done in its last step"


def read_trial(info: EpisodeInfo) -> TrialRecording:
    """Reads everything but the images; raises ValueError when a message is damaged."""
    actions: dict[int, Any] = {}
    outputs: dict[int, Any] = {}
    step_at: dict[int, int] = {}
    scenes: list[Any] = []
    for file in info.files:
        for message in complete_messages(file):
            if message.topic == ACTION.name:
                action = unpack(message.raw, message.type_name)
                actions[int(action.step)] = action
            elif message.topic == POLICY_OUTPUT.name:
                output = unpack(message.raw, message.type_name)
                outputs[int(output.step)] = output
            elif message.topic == OBSERVATION.name:
                step_at[stamp_from_cdr(message.raw)] = tick_from_cdr(message.raw).step
            elif message.type_name == SCENE_STATE_TYPE:
                scenes.append(unpack_as_recorded(message))
    return TrialRecording(
        info=info,
        sources={step: ActionSource(action.source) for step, action in actions.items()},
        altered=[step for step in sorted(actions) if _altered(actions[step], outputs.get(step))],
        weights_versions=frozenset(int(output.weights_version) for output in outputs.values()),
        start=_start(scenes),
        truth=_truth(scenes, step_at, info.final_step),
    )


def _altered(action: Any, output: Any) -> bool:
    """Whether an action is said to be the policy's and is not.

    A recorder may miss the policy's first answer while the graph is being connected; the proposal that the action
    carries with it then stands for it.
    """
    if action.source != ActionSource.POLICY:
        return False
    proposals = [action.proposal, *([] if output is None else [output.action])]
    return not action.has_proposal or any(
        not np.array_equal(action.action, np.clip(proposal, -1.0, 1.0)) for proposal in proposals
    )


def _start(scenes: list[Any]) -> dict[str, Float64]:
    if not scenes:
        return {}
    first = min(scenes, key=lambda scene: stamp_to_ns(scene.header.stamp))
    return {str(name): _pose(pose) for name, pose in zip(first.objects, first.poses, strict=True)}


def _pose(pose: Any) -> Float64:
    place, turn = pose.position, pose.orientation
    return np.array([place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w])


def _truth(scenes: list[Any], step_at: dict[int, int], final_step: int) -> dict[int, bool]:
    """Ground truth of the steps up to the final one; the scene of a tick carries the observation's stamp."""
    steps = {step_at.get(stamp_to_ns(scene.header.stamp)): bool(scene.success) for scene in scenes}
    return {step: done for step, done in steps.items() if step is not None and step <= final_step}
