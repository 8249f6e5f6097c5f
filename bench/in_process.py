"""The loop of one tick without ROS: the nodes' cores (mux, reference pose, actor, operator), called in turn.

For comparing presets over many seeds; the demo and its results run through the real graph.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from conrft_control.intervention_mux import InterventionMux, MuxSettings
from conrft_data.config import TaskConfig
from conrft_data.reference_pose import ReferencePose
from conrft_data.ticks import Tick
from conrft_data.types import ActionSource, Command, Episode, Mode, Observation, Outcome
from conrft_policy.acting import Actor, CannotAct
from conrft_policy.backbone import EmbeddingStream
from conrft_sim.operator import ScriptedOperator
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.simulation import Simulation
from conrft_sim.task import task_class

OPERATOR_MODES = {Mode.DEMONSTRATION: "demonstrate", Mode.TRAINING: "intervene", Mode.EVALUATION: "judge"}


@dataclass
class Rollout:
    """Runs episodes of one task; the reward is the simulator's ground truth.

    Attributes:
        task: what is practised.
        simulation: of that task.
        seed: of start states, operator and mux.
        stream: embeds the frames of demonstrations as they come.
    """

    task: TaskConfig
    simulation: Simulation
    seed: int
    stream: EmbeddingStream

    def __post_init__(self) -> None:
        self.reference = ReferencePose(self.task.motion_limits())
        self.plan = task_class(self.task.name).plan(self.task)

    def run(self, mode: Mode, number: int, actor: Actor | None, scene_seed: int | None = None) -> Episode:
        """One episode; its start state is a function of (scene_seed, number)."""
        sim = self.simulation
        sim.reset(self.seed if scene_seed is None else scene_seed, number)
        operator = ScriptedOperator(OPERATOR_MODES[mode], self.plan, self.seed)
        operator.reset(number)
        mux = InterventionMux(MuxSettings(policy_expected=actor is not None, lockstep=True))
        self.reference.start(sim.tcp_pose)
        self.stream.reset()
        reset_pose = sim.tcp_pose
        observations: list[Observation] = []
        commands: list[Command] = []
        embeddings: list[np.ndarray] = []
        outcome = Outcome.TIMEOUT
        for step in range(self.task.max_steps + 1):
            scene = sim.scene()
            observation = self._observe(number, step, reset_pose)
            observations.append(observation)
            proposal = None
            if actor is not None:
                proposal, embedding = self._propose(actor, observation)
                embeddings.append(embedding)
            else:
                embeddings.append(self.stream.step(observation.images))
            command = self._decide(mux, operator, scene, observation, proposal)
            commands.append(command)
            if scene.success:
                outcome = Outcome.SUCCESS
                break
            self._execute(command)
        tail = self._tail(number, len(observations), reset_pose) if mode is Mode.DEMONSTRATION else []
        return Episode(
            episode_id=f"inprocess-{mode.name.lower()}-{number:06d}",
            task=self.task.name,
            instruction=self.task.instruction,
            mode=mode,
            outcome=outcome,
            final_step=len(observations) - 1,
            observations=observations,
            commands=commands,
            tail=tail,
            embeddings=np.stack(embeddings),
        )

    def _observe(self, number: int, step: int, reset_pose: np.ndarray) -> Observation:
        sim, state = self.simulation, self.simulation.robot_state()
        return Observation(
            stamp_ns=sim.time_ns,
            episode=number,
            step=step,
            images={name: sim.render(name).copy() for name in self.task.cameras},
            tcp_pose=state.tcp_pose,
            reset_pose=reset_pose,
            tcp_twist=state.tcp_twist,
            tcp_wrench=state.tcp_wrench,
            gripper_opening=sim.gripper_opening,
        )

    def _propose(self, actor: Actor, observation: Observation) -> tuple[np.ndarray | None, np.ndarray]:
        try:
            return actor.act(observation)
        except CannotAct as error:
            raise SystemExit(f"the policy cannot act: {error}") from error

    def _decide(
        self,
        mux: InterventionMux,
        operator: ScriptedOperator,
        scene: SceneSnapshot,
        observation: Observation,
        proposal: np.ndarray | None,
    ) -> Command:
        now, wall = observation.stamp_ns, time.monotonic()
        hand = operator.act(replace(scene, stamp_ns=now))
        tick = Tick(now, observation.episode, observation.step)
        mux.device.put_twist(hand.twist, now)
        decisions = mux.observe(tick, observation.tcp_pose[3:], now, wall)
        if proposal is not None:
            decisions += mux.propose(tick, proposal, now, wall)
        decisions += mux.operate([int(hand.close), int(hand.open), 0, 0, 0], now, now, wall)
        (decision,) = decisions
        return decision.command

    def _execute(self, command: Command) -> None:
        sim = self.simulation
        gripper = None
        if command.source is not ActionSource.HOLD:
            self.reference.apply(command.action, sim.tcp_pose)
            gripper = 0.0 if command.action[6] <= -0.5 else 1.0 if command.action[6] >= 0.5 else None
        sim.set_target(self.reference.pose, gripper)
        sim.advance()

    def _tail(self, number: int, first_step: int, reset_pose: np.ndarray, ticks: int = 6) -> list[Observation]:
        """Frames after the success, with the arm at rest."""
        tail = []
        for step in range(first_step, first_step + ticks):
            self.simulation.advance()
            tail.append(self._observe(number, step, reset_pose))
        return tail
