"""Acting with a frozen backbone and the newest head: one observation in, one action out. No ROS in here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from conrft_data.config import TaskConfig
from conrft_data.types import PROPRIOCEPTION_DIM, Float32, Image, Observation, proprioception
from conrft_policy.backbone import Backbone
from conrft_policy.consistency_head import ConsistencyHead, HeadConfig, executable
from conrft_policy.policy_weights import PolicyWeights, WeightsRefused, unpack

HISTORY = 2

# Newest observations on which new weights are compared with those that act: six seconds.
_COMPARED = 64


class CannotAct(RuntimeError):
    """There is no action for this observation; the text is the reason, for a person. The arm must hold."""


@dataclass(frozen=True, slots=True)
class _Acting:
    """A head and its version: one object, so that one assignment swaps both."""

    head: ConsistencyHead
    version: int


@dataclass(frozen=True, kw_only=True)
class WeightsChange:
    """How far new weights may change the actions, as the mean of the absolute changes, in full actions.

    Both act on the newest observations, with the noise that was used there. Online training moves the actions by less
    than 0.1 altogether; those of different observations are 0.3 apart.

    Attributes:
        warn: beyond this they are taken and flagged.
        refuse: beyond this they are refused.
    """

    warn: float = 0.25
    refuse: float = 0.7

    def __post_init__(self) -> None:
        """Raises ValueError when the bounds are not in order."""
        if not 0 < self.warn <= self.refuse:
            raise ValueError(f"needs 0 < weights_warn <= weights_refuse, got {self.warn} and {self.refuse}")


def head_config(task: TaskConfig, embedding_dim: int, **constants: object) -> HeadConfig:
    """The head that a task needs on a backbone of this width; ``constants`` of HeadConfig other than the paper's."""
    needed = {"fix_gripper": task.action_dim == 6, "proprio_dim": HISTORY * PROPRIOCEPTION_DIM}
    return HeadConfig.model_validate({**constants, **needed, "embedding_dim": embedding_dim})


class Actor:
    """The policy of one robot.

    The noise of a step is a function of (seed, episode, step) alone, so actions do not depend on timing or on what was
    missed. The head is replaced between two steps by ``set_weights``, never during one.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: ConsistencyHead | None,
        task: TaskConfig,
        seed: int,
        *,
        version: int = 0,
        deterministic: bool = False,
        allowed_change: WeightsChange | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Starts with ``head``, or without any: then ``act`` raises CannotAct until ``set_weights``.

        Args:
            backbone: frozen.
            head: trainable part, None to wait for weights.
            task: its cameras are what observations must hold.
            seed: of the noise.
            version: of ``head``.
            deterministic: act from the middle of the noise (zeros). The official policy never does.
            allowed_change: of the actions, by new weights; None: the default.
            device: of the head; None: torch's default.
        """
        self._backbone = backbone
        self._stream = backbone.stream()
        self._task = task
        self._seed = seed
        self._deterministic = deterministic
        self._allowed_change = allowed_change or WeightsChange()
        self._recent: deque[tuple[Float32, Float32, Float32]] = deque(maxlen=_COMPARED)
        self.last_change = 0.0
        self._device = device if device is not None else torch.get_default_device()
        self._acting = None if head is None else _Acting(head.to(self._device).eval(), version)
        self._episode: int | None = None
        self._step = -1
        self._proprio: Float32 | None = None

    @property
    def ready(self) -> bool:
        """Whether there are weights to act with."""
        return self._acting is not None

    @property
    def weights_version(self) -> int:
        """Version of the weights that act; 0 without any."""
        return 0 if self._acting is None else self._acting.version

    def reset(self, episode: int) -> None:
        """Forgets the frames of the last episode; ``act`` does it by itself when the episode's number changes."""
        self._stream.reset()
        self._episode, self._step, self._proprio = episode, -1, None

    def act(self, observation: Observation) -> tuple[Float32, Float32]:
        """Action ``(7,)`` in [-1, 1] and the embedding ``(D,)`` that it was computed from.

        The first frame of an episode is its own predecessor. Raises CannotAct: no weights yet, images of the wrong
        size, or numbers that are not finite.
        """
        if observation.episode != self._episode or observation.step <= self._step:
            self.reset(observation.episode)
        embedding, proprio = self._history(observation)
        acting = self._acting
        if acting is None:
            raise CannotAct("there are no weights yet")
        noise = self._noise(acting.head.config, observation)
        self._recent.append((embedding, proprio, noise))
        action = self._sample(acting.head, embedding, proprio, noise)
        if not np.isfinite(action).all():
            raise CannotAct(f"the action of weights version {acting.version} is not finite")
        return executable(torch.from_numpy(action), acting.head.config).numpy(), embedding

    def set_weights(self, weights: PolicyWeights) -> None:
        """Acts with these weights from the next step on; raises WeightsRefused, and then keeps those that it has.

        All work (checks, a head of its own, a trial action) is done before the one assignment that swaps them.
        """
        head = unpack(weights, backbone_fingerprint=self._backbone.fingerprint).to(self._device)
        needed = head_config(self._task, self._backbone.embedding_dim)
        for key in ("embedding_dim", "proprio_dim", "action_dim", "fix_gripper"):
            has, needs = getattr(head.config, key), getattr(needed, key)
            if has != needs:
                raise WeightsRefused(f"weights version {weights.version} have {key} {has}, this policy needs {needs}")
        trial = self._sample(
            head,
            np.zeros(needed.embedding_dim, dtype=np.float32),
            np.zeros(needed.proprio_dim, dtype=np.float32),
            np.zeros(needed.denoised_dim, dtype=np.float32),
        )
        if not np.isfinite(trial).all():
            raise WeightsRefused(f"weights version {weights.version} give an action that is not finite")
        change = self._change(head)
        if not change <= self._allowed_change.refuse:  # also true for NaN
            raise WeightsRefused(
                f"weights version {weights.version} change the last {len(self._recent)} actions by {change:.2f} on "
                f"average, at most {self._allowed_change.refuse:.2f} is allowed"
            )
        self.last_change = change
        self._acting = _Acting(head, weights.version)

    @property
    def flagged(self) -> str:
        """Why a person should look at the weights that act; empty when there is no reason."""
        if self.last_change <= self._allowed_change.warn:
            return ""
        return f"weights version {self.weights_version} changed the last actions by {self.last_change:.2f} on average"

    def warm_up(self) -> None:
        """Embeds one black frame, so that the first real one is as fast as all others."""
        cameras = self._task.cameras
        black = {name: np.zeros((c.height, c.width, 3), dtype=np.uint8) for name, c in cameras.items()}
        stream = self._backbone.stream()
        for _ in range(HISTORY):
            stream.step(black)

    def _history(self, observation: Observation) -> tuple[Float32, Float32]:
        """Embedding ``(D,)`` and stacked proprioception ``(38,)``, old frame first; remembers this frame."""
        images = {name: self._image(observation, name) for name in self._task.cameras}
        now = proprioception(observation)
        if not np.isfinite(now).all():
            raise CannotAct("the robot state holds numbers that are not finite")
        embedding = np.asarray(self._stream.step(images), dtype=np.float32)
        before = now if self._proprio is None else self._proprio
        self._proprio, self._step = now, observation.step
        if not np.isfinite(embedding).all():
            self._stream.reset()
            raise CannotAct("the embedding is not finite")
        return embedding, np.concatenate([before, now])

    def _image(self, observation: Observation, camera: str) -> Image:
        image = observation.images.get(camera)
        expected = (self._task.cameras[camera].height, self._task.cameras[camera].width, 3)
        if image is None:
            raise CannotAct(f"the observation has no image of camera '{camera}'")
        if image.shape != expected or image.dtype != np.uint8:
            raise CannotAct(f"camera '{camera}': expected uint8 {expected}, got {image.dtype} {image.shape}")
        return image

    def _noise(self, config: HeadConfig, observation: Observation) -> Float32:
        if self._deterministic:
            return np.zeros(config.denoised_dim, dtype=np.float32)
        random = np.random.default_rng([self._seed, observation.episode, observation.step])
        return random.standard_normal(config.denoised_dim, dtype=np.float32)

    def _change(self, head: ConsistencyHead) -> float:
        """Mean absolute change of the newest actions if ``head`` had acted, each action within [-1, 1]."""
        if self._acting is None or not self._recent:
            return 0.0
        inputs = [torch.from_numpy(np.stack(rows)).to(self._device) for rows in zip(*self._recent, strict=True)]
        with torch.inference_mode():
            before, after = (h.sample(h.encode(*inputs[:2]), inputs[2]) for h in (self._acting.head, head))
            return float((after.clamp(-1, 1) - before.clamp(-1, 1)).abs().mean())

    def _sample(self, head: ConsistencyHead, embedding: Float32, proprio: Float32, noise: Float32) -> Float32:
        with torch.inference_mode():
            inputs = (torch.from_numpy(x)[None].to(self._device) for x in (embedding, proprio, noise))
            embedding_row, proprio_row, noise_row = inputs
            action = head.sample(head.encode(embedding_row, proprio_row), noise_row)
        return action[0].cpu().numpy().astype(np.float32)
