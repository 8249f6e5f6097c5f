"""The simulation as Gymnasium environments, ``ConRFT/PickBanana-v0`` and so on: one step is one tick, without ROS."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from conrft_data.config import TaskConfig
from conrft_data.reference_pose import ReferencePose
from conrft_data.types import ACTION_DIM, PROPRIOCEPTION_DIM, Observation, proprioception
from conrft_sim.perturbation import Perturbation
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.simulation import TICK, Simulation
from conrft_sim.task import Randomisation, task_class, task_names

_GRIPPER_DECISION = 0.5  # an action beyond +-0.5 opens or closes, in between the gripper stays

Float32 = NDArray[np.float32]
StepResult = tuple[dict[str, Any], float, bool, bool, dict[str, Any]]


class TaskEnv(gymnasium.Env[dict[str, Any], Float32]):
    """One task.

    Observation: the task's cameras, uint8 RGB (H, W, 3), and ``proprioception`` (19,) float32. Action: (7,) in [-1, 1],
    translation and rotation in the end-effector frame, gripper -1 closed .. 1 open; (6,) for a task in which the
    gripper stays as it is. ``terminated`` is success by ground truth, with the task's reward; ``truncated`` is its
    step limit. ``reset(options={"episode": n})`` chooses the start state; otherwise episodes count up from 0, and a
    new seed begins at 0 again.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / TICK)}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(
        self,
        task: TaskConfig | str,
        *,
        randomisation: Randomisation = "task",
        perturbation: str = "none",
        render_mode: str | None = None,
    ) -> None:
        """``task`` is a configuration, or the name of a task as it is shipped.

        ``perturbation`` is what ``Perturbation.parse`` reads. Raises UnknownTask, and ValueError for a perturbation
        that there is not.
        """
        self.task = task_class(task).default_config() if isinstance(task, str) else task
        self.render_mode = render_mode
        self.simulation = Simulation(
            self.task, randomisation=randomisation, perturbation=Perturbation.parse(perturbation)
        )
        self._reference = ReferencePose(self.task.motion_limits())
        self._seed, self._episode, self._steps = 0, -1, 0
        self._start_pose = self.simulation.tcp_pose
        images: dict[str, spaces.Space[Any]] = {
            name: spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8)
            for name, camera in self.task.cameras.items()
        }
        state = spaces.Box(-np.inf, np.inf, (PROPRIOCEPTION_DIM,), np.float32)
        self.observation_space = spaces.Dict({**images, "proprioception": state})
        self.action_space = spaces.Box(-1.0, 1.0, (self.task.action_dim,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start state of (seed, episode); the seed stays until another is given."""
        super().reset(seed=seed)
        if seed is not None:
            self._seed, self._episode = seed, -1
        self._episode = int((options or {}).get("episode", self._episode + 1))
        self._steps = 0
        self.simulation.reset(self._seed, self._episode)
        self._start_pose = self.simulation.tcp_pose
        self._reference.start(self._start_pose)
        return self._observe(), {"success": False, "episode": self._episode}

    def step(self, action: Float32) -> StepResult:
        """Executes one action for a tick; raises ValueError when it is not ``action_dim`` finite numbers."""
        if np.shape(action) != self.action_space.shape:
            raise ValueError(f"action must be {self.task.action_dim} finite numbers, got {np.asarray(action).tolist()}")
        whole = np.zeros(ACTION_DIM)  # a gripper that the task leaves alone is kept
        whole[: self.task.action_dim] = action
        target = self._reference.apply(whole, self.simulation.tcp_pose)
        gripper = float(whole[-1])
        opening = None if abs(gripper) < _GRIPPER_DECISION else float(gripper > 0)
        self.simulation.set_target(target, opening)
        self.simulation.advance()
        self._steps += 1
        success = self.simulation.success()
        reward = self.task.reward.success if success else self.task.reward.step
        truncated = not success and self._steps >= self.task.max_steps
        return self._observe(), float(reward), success, truncated, {"success": success, "episode": self._episode}

    def scene(self) -> SceneSnapshot:
        """Privileged state, for a scripted operator."""
        return self.simulation.scene()

    def render(self) -> NDArray[np.uint8] | None:
        """The first camera's image (H, W, 3) in mode ``rgb_array``."""
        if self.render_mode != "rgb_array":
            return None
        return self.simulation.render(next(iter(self.task.cameras))).copy()

    def close(self) -> None:
        """Frees the renderer; must be called by the thread that used the environment."""
        self.simulation.close()

    def _observe(self) -> dict[str, Any]:
        state = self.simulation.robot_state()
        observation = Observation(
            stamp_ns=state.stamp_ns,
            episode=self._episode,
            step=self._steps,
            images={name: self.simulation.render(name).copy() for name in self.task.cameras},
            tcp_pose=state.tcp_pose,
            reset_pose=self._start_pose,
            tcp_twist=state.tcp_twist,
            tcp_wrench=state.tcp_wrench,
            gripper_opening=self.simulation.gripper_opening,
        )
        return {**observation.images, "proprioception": proprioception(observation)}


def environment_id(task: str) -> str:
    """The Gymnasium id of a task: ``pick_banana`` is ``ConRFT/PickBanana-v0``."""
    return f"ConRFT/{''.join(word.capitalize() for word in task.split('_'))}-v0"


def register() -> None:
    """Makes every task known to ``gymnasium.make``; harmless when called again."""
    for name in task_names():
        if environment_id(name) not in gymnasium.registry:
            entry_point = "conrft_sim.environment:TaskEnv"
            gymnasium.register(environment_id(name), entry_point=entry_point, kwargs={"task": name})
