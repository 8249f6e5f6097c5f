"""Everything that training changes: head, critic, target, acting head, optimisers, and the scaling of the inputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from conrft_learner.critics import Ensemble, LightCritic, PaperCritic, States
from conrft_learner.presets import Preset
from conrft_policy.consistency_head import ConsistencyHead, HeadConfig

# Spread below which a proprioception signal counts as constant: what sensors resolve. Order as in `proprioception`.
PROPRIO_SPREAD = (0.05, *(0.5,) * 3, *(0.01,) * 3, *(0.05,) * 3, *(0.05,) * 3, *(0.02,) * 3, *(0.05,) * 3)


class InputScaling(nn.Module):
    """Mean and spread of embedding ``(D,)`` and stacked proprioception ``(2 P,)``; the identity until fitted."""

    embedding_mean: Tensor
    embedding_spread: Tensor
    proprio_mean: Tensor
    proprio_spread: Tensor

    def __init__(self, embedding_dim: int, proprio_dim: int) -> None:
        """``proprio_dim`` is that of the two stacked frames."""
        super().__init__()
        for name, size in (("embedding", embedding_dim), ("proprio", proprio_dim)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_spread", torch.ones(size))

    def fit(self, embeddings: Tensor, proprio: Tensor) -> None:
        """Takes mean and spread of frames: embeddings ``(N, D)``, proprioception ``(N, P)``."""
        spread = embeddings.std(dim=0)
        self.embedding_mean.copy_(embeddings.mean(dim=0))
        self.embedding_spread.copy_(spread.clamp_min(0.1 * float(spread.square().mean().sqrt()) + 1e-6))
        floor = (
            torch.tensor(PROPRIO_SPREAD)
            if proprio.shape[1] == len(PROPRIO_SPREAD)
            else torch.full((proprio.shape[1],), 1e-3)
        )
        self.proprio_mean.copy_(proprio.mean(dim=0).repeat(2))
        self.proprio_spread.copy_(torch.maximum(proprio.std(dim=0), floor).repeat(2))

    def forward(self, states: States) -> States:
        """The states in units of the spread."""
        return States(
            embedding=(states.embedding - self.embedding_mean) / self.embedding_spread,
            proprio=(states.proprio - self.proprio_mean) / self.proprio_spread,
            frozen=states.frozen,
        )

    @torch.no_grad()
    def fold_into(self, head: ConsistencyHead) -> None:
        """Changes the head's first layers so that it gives on raw inputs what it gave on scaled ones."""
        config = head.config
        first = head.denoiser.input
        columns = slice(
            config.denoised_dim + config.time_dim, config.denoised_dim + config.time_dim + config.embedding_dim
        )
        _fold(first, columns, self.embedding_mean, self.embedding_spread)
        proprio = head.proprio_encoder[0]
        assert isinstance(proprio, nn.Linear)
        _fold(proprio, slice(None), self.proprio_mean, self.proprio_spread)


def make_critic(preset: Preset, head_config: HeadConfig, cameras: Sequence[str]) -> LightCritic | PaperCritic:
    """The critic that the preset names."""
    make_ensemble = partial(
        Ensemble,
        action_dim=head_config.action_dim,
        size=preset.critic_members,
        hidden=preset.critic_hidden,
        activation=preset.critic_activation,
        shared_output=preset.critic_shared_output,
    )
    proprio_dim, latent = head_config.proprio_dim, preset.proprio_latent
    if preset.critic == "paper":
        return PaperCritic(cameras, proprio_dim, make_ensemble, latent=latent)
    return LightCritic(head_config.embedding_dim, proprio_dim, make_ensemble, latent=latent)


def _fold(layer: nn.Linear, columns: slice, mean: Tensor, spread: Tensor) -> None:
    """``W ((x - mean) / spread) + b`` as ``W' x + b'``."""
    scaled = layer.weight[:, columns].double() / spread.double()
    layer.bias.sub_((scaled @ mean.double()).to(layer.bias.dtype))
    layer.weight[:, columns] = scaled.to(layer.weight.dtype)


class Networks:
    """The trained networks of one run and their optimisers.

    Attributes:
        head: the policy's trainable part, on scaled inputs.
        acting: the head that acts: a moving average of ``head``, or ``head`` itself.
        critic, target: critic and target critic.
        scaling: of the inputs.
    """

    def __init__(
        self,
        preset: Preset,
        head_config: HeadConfig,
        seed: int,
        device: torch.device | str = "cpu",
        cameras: Sequence[str] = (),
    ) -> None:
        """Initialises everything from ``seed``, without touching torch's global random state.

        ``cameras``: whose feature maps the paper's critic sees.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = ConsistencyHead(head_config).to(device)
            self.critic = make_critic(preset, head_config, cameras).to(device)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.acting = copy.deepcopy(self.head).requires_grad_(False) if preset.acting_ema else self.head
        self.scaling = InputScaling(head_config.embedding_dim, head_config.proprio_dim).to(device)
        self.actor_parameters = list(self.head.parameters())
        self.critic_parameters = list(self.critic.parameters())
        self.actor_optimiser = torch.optim.Adam(self.actor_parameters, lr=preset.actor_lr, fused=True)
        self.critic_optimiser = torch.optim.Adam(self.critic_parameters, lr=preset.critic_lr, fused=True)
        self._tau = preset.tau
        self._ema = preset.acting_ema
        self._target_parameters: list[Tensor] = list(self.target.parameters())
        self._acting_parameters: list[Tensor] = list(self.acting.parameters())

    def set_actor_rate(self, rate: float) -> None:
        """Changes the learning rate of the head."""
        self.actor_optimiser.param_groups[0]["lr"] = rate

    @torch.no_grad()
    def follow_critic(self) -> None:
        """Moves the target critic: ``target <- tau critic + (1 - tau) target``."""
        torch._foreach_lerp_(self._target_parameters, list[Tensor](self.critic_parameters), self._tau)

    @torch.no_grad()
    def follow_head(self) -> None:
        """Moves the acting head towards the newest."""
        if self._ema:
            torch._foreach_lerp_(self._acting_parameters, list[Tensor](self.actor_parameters), 1.0 - self._ema)

    def acting_head(self) -> ConsistencyHead:
        """A copy of the acting head that takes raw inputs."""
        head = copy.deepcopy(self.acting)
        self.scaling.fold_into(head)
        return head

    def state(self) -> dict[str, Tensor]:
        """Every tensor by name, optimisers included."""
        tensors = {
            f"{name}.{key}": value.detach()
            for name, module in self._modules().items()
            for key, value in module.state_dict().items()
        }
        for name, optimiser, parameters in self._optimisers():
            for i, parameter in enumerate(parameters):
                tensors |= {f"{name}.{i}.{key}": value for key, value in optimiser.state.get(parameter, {}).items()}
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Takes what :meth:`state` gave; raises KeyError or RuntimeError when names or shapes do not fit."""
        for name, module in self._modules().items():
            module.load_state_dict({key: tensors[f"{name}.{key}"] for key in module.state_dict()})
        for name, optimiser, parameters in self._optimisers():
            optimiser.state.clear()
            for i, parameter in enumerate(parameters):
                if f"{name}.{i}.step" in tensors:
                    optimiser.state[parameter] = {
                        # To the parameter's device, the step too: fused Adam asks for it.
                        key: tensors[f"{name}.{i}.{key}"].to(parameter.device, copy=True)
                        for key in ("step", "exp_avg", "exp_avg_sq")
                    }

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {
            "head": self.head,
            "critic": self.critic,
            "target": self.target,
            "scaling": self.scaling,
        }
        return modules if self.acting is self.head else modules | {"acting": self.acting}

    def _optimisers(self) -> Sequence[tuple[str, torch.optim.Optimizer, list[nn.Parameter]]]:
        return (
            ("actor_optimiser", self.actor_optimiser, self.actor_parameters),
            ("critic_optimiser", self.critic_optimiser, self.critic_parameters),
        )
