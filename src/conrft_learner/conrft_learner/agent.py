"""ConRFT's two stages (arXiv 2502.05450): Cal-ConRFT offline (section IV-A) and HIL-ConRFT online (section IV-B).

Both train the same consistency policy with the same actor objective, ``beta * behaviour cloning - eta * Q``; they
differ in the critic's loss.
Notation: s states, a the data's actions, a~ the policy's, s' next states; E critics, B states, N sampled actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from conrft_learner import objectives
from conrft_learner.critics import States
from conrft_learner.data_parallel import DataParallel
from conrft_learner.networks import Networks
from conrft_learner.objectives import Figures
from conrft_learner.presets import Preset
from conrft_learner.replay import Batch
from conrft_policy.consistency_head import clamp_inward, executable
from conrft_policy.noise_schedule import denoising_weight


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is trained at one moment and with which weights, after schedules.

    Attributes:
        bc_weight: beta.
        q_weight: eta; 0 leaves the Q term out.
        cql_alpha: weight of the conservative loss; 0 leaves it out.
        critic: whether the critic is trained.
        actor: whether the actor is trained.
    """

    bc_weight: float
    q_weight: float
    cql_alpha: float
    critic: bool = True
    actor: bool = True

    def critic_only(self) -> Objective:
        """The same with the actor frozen."""
        return replace(self, critic=True, actor=False)


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """A batch on the device: states and next_states scaled, actions ``(B, A)``, all others ``(B,)``."""

    states: States
    actions: Tensor
    rewards: Tensor
    masks: Tensor
    bounds: Tensor
    operator: Tensor
    next_states: States


class ConRFT:
    """What both stages share: critic's loss, actor's loss and update. The stages below say with which weights."""

    def __init__(
        self,
        networks: Networks,
        preset: Preset,
        discount: float,
        generator: torch.Generator,
        parallel: DataParallel | None = None,
    ) -> None:
        """``generator`` is the only source of randomness; ``parallel`` shares batches out to several processes."""
        self.networks = networks
        self.preset = preset
        self.discount = discount
        self.generator = generator
        self.parallel = parallel or DataParallel()
        dim = networks.head.config.denoised_dim
        self._dimension_weights: Tensor | None = None
        if preset.bc_gripper_weight != 1.0 and not networks.head.config.fix_gripper:
            self._dimension_weights = torch.ones(dim, device=generator.device)
            self._dimension_weights[-1] = preset.bc_gripper_weight

    def transitions(self, batch: Batch) -> Transitions:
        """A drawn batch as scaled tensors."""
        tensors = {name: torch.from_numpy(array).to(self.generator.device) for name, array in batch.arrays.items()}
        known = {"embedding", "proprio", "action", "reward", "mask", "bound", "mc_return", "operator"}
        frozen = [name for name in tensors if name not in known and not name.startswith("next_")]
        states = States(
            embedding=tensors["embedding"], proprio=tensors["proprio"], frozen={n: tensors[n] for n in frozen}
        )
        next_states = States(
            embedding=tensors["next_embedding"],
            proprio=tensors["next_proprio"],
            frozen={n: tensors[f"next_{n}"] for n in frozen},
        )
        return Transitions(
            states=self.networks.scaling(states),
            actions=tensors["action"],
            rewards=tensors["reward"],
            masks=tensors["mask"],
            bounds=tensors["bound"],
            operator=tensors["operator"],
            next_states=self.networks.scaling(next_states),
        )

    def critic_loss(self, batch: Transitions, features: Tensor, objective: Objective) -> tuple[Tensor, Figures]:
        """TD loss plus ``alpha`` times the calibrated conservative loss (eq. 2; with alpha 0, eq. 5).

        ``features``: the critic's, ``(B, F)`` of the batch's states.
        """
        values = self.networks.critic.ensemble(features, batch.actions)
        loss, figures = self.td_loss(values, batch)
        if objective.cql_alpha:
            conservative, conservative_figures = self.calibrated_conservative_loss(features, values, batch)
            loss = loss + objective.cql_alpha * conservative
            figures |= conservative_figures
        return loss, figures | {"critic_loss": loss.item()}

    def td_loss(self, values: Tensor, batch: Transitions) -> tuple[Tensor, Figures]:
        """``(Q(s, a) - r - gamma mask min Q_target(s', a~'))^2`` for values ``(E, B)``, with one sample a~' (eq. 3)."""
        networks = self.networks
        with torch.no_grad():
            next_actions = self.policy_actions(batch.next_states)
            next_values = networks.target.ensemble(networks.target.encode(batch.next_states), next_actions)
            target = objectives.td_target(
                batch.rewards,
                batch.masks,
                self._subset(next_values),
                self.discount,
                minimum=self.preset.target_minimum,
                lower_bound=batch.bounds if self.preset.target_return_bound else None,
            )
        return objectives.td_loss(values, target)

    def calibrated_conservative_loss(
        self, features: Tensor, values: Tensor, batch: Transitions
    ) -> tuple[Tensor, Figures]:
        """Cal-QL's term (eq. 2) for features ``(B, F)`` and values ``(E, B)`` of the data.

        The sampled actions are random, the policy's at s, and the policy's at s', all valued at s.
        """
        count = self.preset.cql_actions
        rows = self._conservative_rows(len(values[0])).to(values.device)
        states, next_states = select(batch.states, rows), select(batch.next_states, rows)
        with torch.no_grad():
            shape = (len(rows), count, batch.actions.shape[1])
            random_actions = self._uniform(shape) * 2 - 1
            if self.networks.head.config.fix_gripper:
                random_actions[..., -1] = 0.0
            sampled = torch.cat(
                [
                    executable(random_actions, self.networks.head.config),
                    self.policy_actions(states, count),
                    self.policy_actions(next_states, count),
                ],
                dim=1,
            )
        bounds = batch.bounds[rows]
        sampled_values = self.networks.critic.ensemble.values_above(features[rows], sampled, bounds)
        return objectives.calibrated_conservative_loss(
            values[:, rows], sampled_values, bounds, self.preset.cql_temperature
        )

    def actor_loss(self, batch: Transitions, features: Tensor | None, objective: Objective) -> tuple[Tensor, Figures]:
        """``beta * BC - eta * Q(s, a~)`` (eq. 4 and 6), the critic's parameters frozen.

        ``features``: the critic's, ``(B, F)`` of the batch's states; None: they are not known yet.
        """
        head, critic = self.networks.head, self.networks.critic
        encoding = head.encode(batch.states.embedding, batch.states.proprio)
        actions = head.trained_part(batch.actions)
        sigmas = head.levels[self._whole_numbers(len(head.levels) - 1, len(actions))]
        noised = actions + sigmas[:, None] * self._noise(actions.shape)
        denoised = self._clipped(head.denoise(encoding, noised, sigmas, clip=False))
        weights = denoising_weight(sigmas, sigma_data=head.config.sigma_data, scheme=self.preset.bc_weighting)
        if self.preset.bc_successes_only:
            weights = weights * share_of_mean_one(batch.operator | (batch.bounds > 0), self.parallel)
        cloning, figures = objectives.behaviour_cloning_loss(
            denoised,
            actions,
            weights,
            dimension_weights=self._dimension_weights,
            euclidean=self.preset.bc_distance == "euclidean",
        )
        loss = objective.bc_weight * cloning
        if objective.q_weight:
            policy_actions = self._clipped(head.sample(encoding, self._noise(actions.shape), clip=False))
            with torch.no_grad():
                known = critic.encode(batch.states) if features is None else features.detach()
            values = self._values(known, policy_actions)
            magnitude = self.parallel.mean(values.detach().abs().mean()) if self.preset.normalise_q else None
            q_term, q_figures = objectives.q_objective(values, magnitude=magnitude)
            loss = loss + objective.q_weight * q_term
            figures |= q_figures
        return loss, figures | {"actor_loss": loss.item()}

    def update(self, batch: Transitions, objective: Objective) -> Figures:
        """One gradient step of critic, actor or both, from one batch.

        Both gradients are taken at the parameters before the step.
        """
        networks = self.networks
        figures: Figures = {}
        features: Tensor | None = None
        if objective.critic:
            features = networks.critic.encode(batch.states)
            loss, critic_figures = self.critic_loss(batch, features, objective)
            self._set_gradients(networks.critic_parameters, loss)
            figures |= critic_figures
        if objective.actor:
            loss, actor_figures = self.actor_loss(batch, features, objective)
            self._set_gradients(networks.actor_parameters, loss)
            figures |= actor_figures
        if objective.critic:
            self._step(networks.critic_optimiser, networks.critic_parameters)
            networks.follow_critic()
        if objective.actor:
            self._step(networks.actor_optimiser, networks.actor_parameters)
            networks.follow_head()
        return self.parallel.figures(figures)

    def policy_actions(self, states: States, count: int | None = None) -> Tensor:
        """One-step samples of the newest policy as they would be executed: ``(B, A)``, or ``(B, count, A)``."""
        head = self.networks.head
        encoding = head.encode(states.embedding, states.proprio)
        shape = (
            (len(encoding), head.config.denoised_dim)
            if count is None
            else (len(encoding), count, head.config.denoised_dim)
        )
        return executable(head.sample(encoding, self._noise(shape)), head.config)

    def _values(self, features: Tensor, actions: Tensor) -> Tensor:
        """Values ``(E, B)`` of the policy's actions ``(B, A)``, to be differentiated by them.

        A binary gripper is open or closed in every transition: a number g between is worth what either is, open with
        probability (1 + g) / 2, and not what the critic makes of a gripper that it has never seen. No gradient reaches
        the gripper where the preset leaves it to imitation.
        """
        ensemble, config = self.networks.critic.ensemble, self.networks.head.config
        if not self.preset.q_moves_gripper:
            actions = torch.cat([actions[:, :-1], actions[:, -1:].detach()], dim=1)
        if not config.binary_gripper or config.fix_gripper:
            return ensemble(features, actions)
        arm, gripper = actions[:, :-1], actions[:, -1]
        ends = [torch.cat([arm, torch.full_like(arm[:, :1], end)], dim=1) for end in (-1.0, 1.0)]
        closed, opened = ensemble(features, torch.stack(ends, dim=1)).unbind(dim=-1)
        return closed + (1 + gripper) / 2 * (opened - closed)

    def _clipped(self, actions: Tensor) -> Tensor:
        """Actions in [-1, 1], with the gradient that the preset asks for."""
        if not self.networks.head.config.clip_denoised:
            return actions
        return clamp_inward(actions) if self.preset.inward_gradients else actions.clamp(-1, 1)

    def _noise(self, shape: Sequence[int]) -> Tensor:
        generator = self.generator
        return self.parallel.draw(lambda s: torch.randn(s, generator=generator, device=generator.device), shape)

    def _uniform(self, shape: Sequence[int]) -> Tensor:
        generator = self.generator
        return self.parallel.draw(lambda s: torch.rand(s, generator=generator, device=generator.device), shape)

    def _whole_numbers(self, below: int, count: int) -> Tensor:
        generator = self.generator
        return self.parallel.draw(
            lambda s: torch.randint(below, s, generator=generator, device=generator.device), (count,)
        )

    def _subset(self, values: Tensor) -> Tensor:
        """The members of values ``(E, B)`` that this TD target is taken from (REDQ, arXiv 2101.05982)."""
        subset = self.preset.critic_subset
        if subset is None or subset == len(values):
            return values
        generator = self.generator
        return values[torch.randperm(len(values), generator=generator, device=generator.device)[:subset]]

    def _conservative_rows(self, count: int) -> Tensor:
        """Rows of the batch's ``count`` that the conservative loss is computed on, evenly spread."""
        rows = torch.arange(0, count * self.parallel.world, 1.0 / self.preset.cql_states).long()
        if self.parallel.world == 1:
            return rows
        first = self.parallel.rank * count
        own = rows[(rows >= first) & (rows < first + count)] - first
        if len(own) * self.parallel.world != len(rows):
            raise ValueError(
                f"cql_states {self.preset.cql_states} of {count * self.parallel.world} rows cannot be shared out "
                f"evenly to {self.parallel.world} processes"
            )
        return own

    def _set_gradients(self, parameters: list[nn.Parameter], loss: Tensor) -> None:
        gradients = self.parallel.average(torch.autograd.grad(loss, parameters))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    def _step(self, optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
        if self.preset.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.preset.max_grad_norm)
        optimiser.step()


class CalConRFT(ConRFT):
    """Stage I, offline from demonstrations, the critic with Cal-QL.

    Where the preset says so, behaviour cloning and the critic are each fitted alone before they train together.
    """

    def objective(self, step: int) -> Objective:
        """Of offline step ``step``, counted from 0."""
        preset = self.preset
        joint = step >= preset.offline_bc_steps + preset.offline_critic_steps
        cloning_alone = step < preset.offline_bc_steps
        return Objective(
            bc_weight=preset.offline_bc_weight,
            q_weight=preset.offline_q_weight if joint else 0.0,
            cql_alpha=preset.offline_cql_alpha,
            critic=not cloning_alone,
            actor=joint or cloning_alone,
        )

    @property
    def steps(self) -> int:
        """Length of the stage."""
        return self.preset.offline_updates


class HilConRFT(ConRFT):
    """Stage II, online from demonstrations, interventions and replay.

    The paper's critic has a plain TD loss here, that is alpha 0. Some conservatism that fades only later removes the
    dip at the start of online training.
    """

    def objective(self, updates: int, episodes: int) -> Objective:
        """After so many online updates and episodes."""
        preset = self.preset
        return Objective(
            bc_weight=preset.scheduled(preset.online_bc_weight, preset.online_bc_weight_final, episodes),
            q_weight=preset.scheduled(preset.online_q_weight, preset.online_q_weight_final, episodes),
            cql_alpha=preset.scheduled(preset.online_cql_alpha, preset.online_cql_alpha_final, episodes),
            actor=updates >= preset.online_critic_warmup,
        )


def share_of_mean_one(chosen: Tensor, parallel: DataParallel | None = None) -> Tensor:
    """Weights ``(B,)`` of mean 1 (or all 0) for the chosen rows ``(B,)``, 0 for the others.

    The mean is that of the whole batch, where ``parallel`` shares it out.
    """
    parallel = parallel or DataParallel()
    kept = chosen.to(torch.get_default_dtype())
    return kept / parallel.mean(kept.mean()).clamp_min(1.0 / (len(kept) * parallel.world))


def select(states: States, rows: Tensor) -> States:
    """Some rows of what the policy sees of the states; the critic's feature maps are large and not needed there."""
    return States(embedding=states.embedding[rows], proprio=states.proprio[rows])
