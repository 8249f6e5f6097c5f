"""Q of what was executed, by the critic of a checkpoint: for a person who watches, and for nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from conrft_data.config import TaskConfig
from conrft_data.types import Float32
from conrft_learner.checkpoints import CheckpointDamaged, read_checkpoint
from conrft_learner.critics import States
from conrft_learner.networks import InputScaling, make_critic
from conrft_learner.presets import Preset
from conrft_policy.policy_weights import architecture_fingerprint


class CriticValue:
    """The critic of one checkpoint.

    Attributes:
        updates: gradient updates behind it.
    """

    def __init__(self, checkpoint: Path, task: TaskConfig) -> None:
        """Loads critic and scaling of the inputs.

        Raises:
            ValueError: the checkpoint is damaged, is of another task, or its critic sees more than the embedding and
                the proprioception.
        """
        tensors, state = read_checkpoint(checkpoint)
        try:
            identity = state["identity"]
            self._fingerprint = str(identity["fingerprint"])
            preset, trained_for = Preset.model_validate(identity["preset"]), str(identity["task"])
            self.updates = int(state["offline_step"]) + int(state["online_updates"])
            embedding_dim = len(tensors["scaling.embedding_mean"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointDamaged(f"checkpoint {checkpoint} cannot be used: {error}") from error
        if trained_for != task.name:
            raise ValueError(f"checkpoint {checkpoint} is of task {trained_for}, expected {task.name}")
        if preset.critic == "paper":
            raise ValueError(
                f"checkpoint {checkpoint}: its critic sees images, and only one without them can be watched"
            )
        self._head = preset.head_config(task, embedding_dim)
        self._critic = make_critic(preset, self._head, ()).requires_grad_(False)
        self._scaling = InputScaling(embedding_dim, self._head.proprio_dim)
        for prefix, module in (("critic.", self._critic), ("scaling.", self._scaling)):
            module.load_state_dict({name: tensors[f"{prefix}{name}"] for name in module.state_dict()})

    def sees(self, embedding_fingerprint: str) -> bool:
        """Whether it was trained on the embeddings of this backbone."""
        return architecture_fingerprint(self._head, embedding_fingerprint) == self._fingerprint

    @torch.inference_mode()
    def value(self, embedding: Float32, proprio: Float32, action: Float32) -> float:
        """The least Q of the ensemble.

        Args:
            embedding: ``(D,)`` of the observation.
            proprio: ``(38,)`` of the observation before and of this one.
            action: ``(7,)`` in [-1, 1].
        """
        rows = (torch.from_numpy(np.asarray(row, dtype=np.float32))[None] for row in (embedding, proprio, action))
        embedding_row, proprio_row, action_row = rows
        features = self._critic.encode(self._scaling(States(embedding=embedding_row, proprio=proprio_row)))
        return float(self._critic.ensemble(features, action_row).min())
