"""Presets: every number that the learner can be tuned with, described and bounded. One YAML file for each named set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from conrft_data.config import Config, TaskConfig
from conrft_data.types import ACTION_DIM, PROPRIOCEPTION_DIM
from conrft_learner.transitions import TakeOverRules
from conrft_policy.consistency_head import Activation, HeadConfig


class Preset(Config):
    """Settings of both stages; ``offline_`` is Cal-ConRFT, ``online_`` is HIL-ConRFT. An unknown key is an error."""

    name: str = Field(pattern="^[a-z][a-z0-9_]*$", description="name of the preset")
    description: str = Field(default="", max_length=500, description="what it is for, one or two sentences")

    # The policy: consistency head
    head_hidden: tuple[Annotated[int, Field(ge=8, le=4096)], ...] = Field(
        default=(256, 256), min_length=1, max_length=4, description="widths of the head's hidden layers"
    )
    head_activation: Activation = Field(default="tanh", description="of the head, after each LayerNorm")
    num_scales: int = Field(default=40, ge=2, le=1000, description="noise levels of the schedule")
    sigma_max: float = Field(
        default=80.0, gt=0.1, le=1000, description="largest noise level, where one-step sampling starts"
    )
    binary_gripper: bool = Field(default=False, description="acting opens or closes the gripper, it never keeps it")
    bc_weighting: Literal["karras", "snr", "snr+1", "uniform"] = Field(
        default="karras", description="weight of the denoising error by noise level"
    )
    bc_distance: Literal["squared", "euclidean"] = Field(
        default="squared", description="of the denoised from the true action: squared (official code) or not (paper)"
    )
    bc_gripper_weight: float = Field(
        default=1.0, ge=0, le=100, description="weight of the gripper's error beside the other dimensions' 1"
    )
    bc_successes_only: bool = Field(
        default=False,
        description="clone the operator, and of the policy's actions only those that led to a success without a later "
        "take-over, not its errors",
    )
    inward_gradients: bool = Field(
        default=False,
        description="where an action is clipped, a gradient passes that leads back inside; official code: none does, "
        "and a saturated action stays",
    )
    q_moves_gripper: bool = Field(
        default=True, description="the gripper follows Q as the arm does; else it learns from imitation alone"
    )
    scale_inputs: bool = Field(
        default=False, description="standardise embedding and proprioception by the demonstrations' mean and spread"
    )

    # The critic
    critic: Literal["light", "paper"] = Field(
        default="light",
        description="light: on the frozen embedding and the proprioception; paper: on frozen ResNet-10 feature maps of "
        "every camera and the proprioception",
    )
    resnet_weights: str = Field(
        default="",
        max_length=1000,
        description="critic 'paper': safetensors file of the ResNet-10; 'random': one that has learned nothing",
    )
    crop_bank: int = Field(
        default=1,
        ge=1,
        le=16,
        description="critic 'paper': random crops in which each frame is stored, a batch takes one; 1: the whole image",
    )
    critic_hidden: int = Field(default=256, ge=8, le=4096, description="width of both hidden layers")
    critic_activation: Activation = Field(default="tanh", description="of the critic, after each LayerNorm")
    critic_members: int = Field(default=2, ge=1, le=20, description="size of the ensemble")
    critic_subset: int | None = Field(
        default=None, ge=1, le=20, description="members drawn for each TD target (REDQ); none: all"
    )
    critic_shared_output: bool = Field(default=False, description="one last layer for all members (official code)")
    proprio_latent: int = Field(
        default=64, ge=1, le=1024, description="width of the proprioception's latent, head and critic"
    )

    # Optimisation
    batch_size: int = Field(default=256, ge=2, le=65536, description="transitions in an offline batch")
    online_batch_size: int = Field(default=256, ge=2, le=65536, description="transitions in an online batch")
    demonstration_fraction: float = Field(
        default=0.5, ge=0, le=1, description="of an online batch, from demonstrations and interventions"
    )
    actor_lr: float = Field(default=3e-4, gt=0, le=0.1, description="Adam's rate for the head")
    online_actor_lr: float | None = Field(default=None, gt=0, le=0.1, description="the same online; none: unchanged")
    critic_lr: float = Field(default=3e-4, gt=0, le=0.1, description="Adam's rate for the critic")
    discount: float | None = Field(default=None, gt=0, lt=1, description="gamma; none: the task's")
    n_step: int = Field(
        default=1,
        ge=1,
        le=20,
        description="transitions that the TD target sums rewards over before it bootstraps, fewer where policy and "
        "operator change places",
    )
    tau: float = Field(default=0.005, gt=0, le=1, description="rate of the target critic")
    critic_steps_per_actor_step: int = Field(
        default=2, ge=1, le=100, description="critic updates in an update, the last of them with the actor"
    )
    acting_ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the head's weights that acts; 0: the newest weights act",
    )
    max_grad_norm: float | None = Field(
        default=None, gt=0, le=1e6, description="clip gradients to this norm; none: no clipping"
    )

    # What the critic learns
    target_minimum: bool = Field(
        default=True, description="TD target from the least optimistic member; else from their mean"
    )
    target_return_bound: bool = Field(
        default=False, description="the TD target may not fall below the Monte-Carlo return"
    )
    drop_rescued_returns: bool = Field(default=True, description="a return earned by a later take-over bounds nothing")
    takeover_is_terminal: bool = Field(
        default=False,
        description="no value follows the policy's last action before a take-over: what the operator earns is not "
        "its own",
    )
    cql_actions: int = Field(
        default=10, ge=1, le=100, description="random, policy's and next policy's actions for each state, each so many"
    )
    cql_states: float = Field(
        default=1.0, gt=0, le=1, description="share of the batch on which the conservative loss is computed"
    )
    cql_temperature: float = Field(default=1.0, gt=0, le=100, description="of its log-sum-exp")

    # Stage I, offline: Cal-ConRFT
    offline_steps: int = Field(default=20_000, ge=0, le=10_000_000, description="joint updates")
    offline_bc_steps: int = Field(
        default=0, ge=0, le=10_000_000, description="before them: actor alone, behaviour cloning only"
    )
    offline_critic_steps: int = Field(
        default=0, ge=0, le=10_000_000, description="after those: critic alone, actor frozen"
    )
    offline_bc_weight: float = Field(default=1.0, ge=0, le=1000, description="beta")
    offline_q_weight: float = Field(default=0.1, ge=0, le=1000, description="eta")
    offline_cql_alpha: float = Field(default=0.1, ge=0, le=1000, description="alpha of the conservative loss")

    # Stage II, online: HIL-ConRFT
    training_starts: int = Field(
        default=100, ge=0, le=1_000_000, description="online transitions in the replay before the first update"
    )
    updates_per_tick: float = Field(default=1.0, gt=0, le=100, description="updates for each transition ingested")
    online_critic_warmup: int = Field(default=0, ge=0, le=1_000_000, description="first online updates, critic alone")
    online_bc_weight: float = Field(default=0.5, ge=0, le=1000, description="beta, before the schedule")
    online_bc_weight_final: float | None = Field(
        default=None, ge=0, le=1000, description="beta after the schedule; none: unchanged"
    )
    online_q_weight: float = Field(default=1.0, ge=0, le=1000, description="eta, before the schedule")
    online_q_weight_final: float | None = Field(
        default=None, ge=0, le=1000, description="eta after the schedule; none: unchanged"
    )
    online_cql_alpha: float = Field(
        default=0.0, ge=0, le=1000, description="alpha before the schedule; 0: plain TD, as in the paper"
    )
    online_cql_alpha_final: float | None = Field(
        default=None, ge=0, le=1000, description="alpha after the schedule; none: unchanged"
    )
    schedule_start: int = Field(
        default=20, ge=0, le=1_000_000, description="online episode at which the linear schedules begin"
    )
    schedule_end: int = Field(default=50, ge=0, le=1_000_000, description="online episode at which they end")
    normalise_q: bool = Field(default=False, description="divide eta by the mean absolute Q of the batch")

    # Housekeeping
    replay_capacity: int = Field(default=200_000, ge=100, le=100_000_000, description="frames that the replay holds")
    prefetch_batches: int = Field(
        default=0, ge=0, le=16, description="batches that a thread draws and gathers ahead of the updates; 0: no thread"
    )
    publish_every: int = Field(
        default=50, ge=1, le=1_000_000, description="updates between publications of weights, unless in lockstep"
    )
    checkpoint_every: int = Field(default=500, ge=1, le=10_000_000, description="updates between checkpoints")
    keep_checkpoints: int = Field(
        default=3, ge=1, le=10_000, description="newest checkpoints that are kept, beside the best"
    )
    best_episodes: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="newest online episodes whose successes without a take-over decide which checkpoint is the best",
    )
    log_every: int = Field(default=50, ge=1, le=1_000_000, description="updates between lines of figures")

    @model_validator(mode="after")
    def _schedule_runs_forward(self) -> Preset:
        if self.schedule_end < self.schedule_start:
            raise ValueError(
                f"schedule_end {self.schedule_end} must not lie before schedule_start {self.schedule_start}"
            )
        return self

    @model_validator(mode="after")
    def _subset_is_of_the_ensemble(self) -> Preset:
        if self.critic_subset is not None and self.critic_subset > self.critic_members:
            raise ValueError(f"critic_subset {self.critic_subset} must not exceed critic_members {self.critic_members}")
        return self

    @property
    def offline_updates(self) -> int:
        """Length of the offline stage."""
        return self.offline_bc_steps + self.offline_critic_steps + self.offline_steps

    @property
    def takeover_rules(self) -> TakeOverRules:
        """What a take-over means for the actions before it."""
        return TakeOverRules(drop_rescued=self.drop_rescued_returns, terminal=self.takeover_is_terminal)

    def head_config(self, task: TaskConfig, embedding_dim: int) -> HeadConfig:
        """Sizes of the head for a task and a backbone with embeddings of width ``embedding_dim``."""
        return HeadConfig(
            embedding_dim=embedding_dim,
            action_dim=ACTION_DIM,
            fix_gripper=task.action_dim < ACTION_DIM,
            binary_gripper=self.binary_gripper,
            proprio_dim=2 * PROPRIOCEPTION_DIM,
            proprio_latent=self.proprio_latent,
            hidden=self.head_hidden,
            activation=self.head_activation,
            sigma_max=self.sigma_max,
            num_scales=self.num_scales,
        )

    def scheduled(self, first: float, last: float | None, episodes: int) -> float:
        """Linear from ``first`` to ``last`` between the schedule's episodes."""
        if last is None or episodes <= self.schedule_start:
            return first
        if episodes >= self.schedule_end:
            return last
        share = (episodes - self.schedule_start) / (self.schedule_end - self.schedule_start)
        return first + share * (last - first)
