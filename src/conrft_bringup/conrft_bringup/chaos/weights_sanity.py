"""What the policy node makes of weights that act quite differently, in the running loop."""

from __future__ import annotations

import array
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from conrft_bringup.chaos.watched_loop import WatchedLoop
from conrft_data import topics
from conrft_data.config import TaskConfig, load_config
from conrft_msgs.msg import PolicyOutput, Weights
from conrft_policy.acting import head_config
from conrft_policy.backbone import load_backbone
from conrft_policy.consistency_head import ConsistencyHead
from conrft_policy.nodes.policy_node import PolicyNode
from conrft_policy.policy_weights import PolicyWeights, pack, save

_FIRST = 1  # version of the weights that act
_TICKS = 5
# Added to every output of the head, by version: next to no change, a large one, from end to end, and no number at all.
_SHIFTS = {2: 0.02, 3: 0.9, 4: -9.0, 5: float("nan")}


@dataclass(frozen=True, slots=True)
class WeightsVerdict:
    """What became of new weights.

    Attributes:
        shift: of the actions, by construction of the weights, full actions.
        told_ms: wall time until the policy said on /diagnostics that something is wrong; None: it found nothing.
        acted: Actions proposed with them in the ticks that followed.
        word: what the policy said.
    """

    shift: float
    told_ms: float | None
    acted: int
    word: str


class PolicyLoop(WatchedLoop):
    """The loop with the real policy node, whose head knows nothing but has the right form."""

    def __init__(self, folder: Path, task_file: Path, robot_file: Path) -> None:
        task = load_config(TaskConfig, task_file)
        self._backbone = load_backbone("octo-nano", task.instruction)
        self._task = task
        save(self.weights(_FIRST, 0.0), folder / "policy.safetensors")
        parameters = {"policy:checkpoint": folder / "policy.safetensors", "policy:task_file": task_file}
        super().__init__(task_file, robot_file, parameters, (PolicyNode,))
        self.versions: list[int] = []
        self.sender = self.world.create_publisher(Weights, topics.WEIGHTS, topics.LATCHED)
        self.world.create_subscription(
            PolicyOutput, topics.POLICY_OUTPUT, lambda m: self.versions.append(m.weights_version), topics.TICK
        )

    def weights(self, version: int, shift: float) -> PolicyWeights:
        """The first weights with every output of the head shifted."""
        torch.manual_seed(0)
        head = ConsistencyHead(head_config(self._task, self._backbone.embedding_dim))
        with torch.no_grad():
            head.denoiser.output.bias.add_(shift)
        return pack(head, version=version, backbone_fingerprint=self._backbone.fingerprint)


def measure_weights(loop: PolicyLoop) -> list[WeightsVerdict]:
    """Sends weights that change the actions more and more while the policy drives."""
    loop.until(lambda: loop.sender.get_subscription_count() > 0, "the policy does not listen")
    return [_offer(loop, loop.weights(version, shift), shift) for version, shift in _SHIFTS.items()]


def _offer(loop: PolicyLoop, weights: PolicyWeights, shift: float) -> WeightsVerdict:
    world = loop.world
    loop.until_driven(_TICKS)
    world.words.clear()
    loop.versions.clear()
    told: list[float] = []

    def is_told() -> bool:
        if not told and any(f"version {weights.version} " in word for _, word in world.words):
            told.append(time.monotonic())
        return bool(told)

    began = time.monotonic()
    loop.sender.publish(
        Weights(
            version=weights.version,
            fingerprint=weights.fingerprint,
            sha256=weights.sha256,
            data=array.array("B", weights.data),
        )
    )
    loop.until(is_told, "", 500_000_000)
    loop.until_driven(_TICKS)
    return WeightsVerdict(
        shift=shift,
        told_ms=round(1e3 * (told[0] - began), 1) if told else None,
        acted=loop.versions.count(weights.version),
        word=next((word for _, word in world.words if f"version {weights.version} " in word), ""),
    )
