"""What a task of the simulation is: scene, start states, ground truth and the operator's plan, one module each.

A task is the one ``Task`` subclass of a module in ``conrft_sim.tasks``, found by the module's name.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from conrft_data.config import TaskConfig
from conrft_sim import tasks
from conrft_sim.plan import Plan
from conrft_sim.scene import TaskScene

Float64 = NDArray[np.float64]
Randomisation = Literal["task", "wide"]

DEFAULT_TASK = "pick_banana"
REST_SPEED = 0.03  # m/s
REST_SPIN = 0.05  # rad/s: a banana that still rolls over is not at rest


class UnknownTask(KeyError):
    """A task that the simulation does not have; the text names those that it has."""

    def __str__(self) -> str:
        return str(self.args[0])


class Task(ABC):
    """Scene, start states and ground truth of one task.

    Attributes:
        gripper_start: opening at the start of an episode, 0 closed .. 1 open; it stays where the task has no gripper
            action.
    """

    gripper_start: ClassVar[float] = 1.0

    @classmethod
    @abstractmethod
    def default_config(cls) -> TaskConfig:
        """The task as it is shipped; its name is that of the module."""

    @classmethod
    @abstractmethod
    def scene(cls) -> TaskScene:
        """What the task adds to the arm and the table."""

    @classmethod
    @abstractmethod
    def plan(cls, config: TaskConfig) -> Plan:
        """The scripted operator's plan, within what the commander lets through."""

    def __init__(self, model: mujoco.MjModel, config: TaskConfig) -> None:
        """Looks up the task's bodies in the compiled scene; ``config`` holds the gates of its reward."""
        self.model = model
        self.config = config

    @abstractmethod
    def place(self, data: mujoco.MjData, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Puts the objects at a start state drawn from ``rng``: the paper's spread, or ``wide`` for pre-training.

        The scene is as ``mj_resetData`` leaves it, or as it was in the middle of an episode.
        """

    @abstractmethod
    def object_poses(self, data: mujoco.MjData) -> dict[str, Float64]:
        """Pose (7,) by name of all that the operator must see, base frame; handles and levers count as objects."""

    @abstractmethod
    def achieved(self, data: mujoco.MjData) -> bool:
        """Whether the objects are where the task wants them, whatever the hand does: held or let go, moving or at rest.

        A person who sees that does not take back a success that others called, even before it is one.
        """

    @abstractmethod
    def success(self, data: mujoco.MjData, *, tcp_pose: Float64, gripper_opening: float) -> bool:
        """Ground truth: ``achieved``, and for good. ``data`` is consistent (after a step or ``mj_forward``)."""

    def gates_passed(self, tcp_pose: Float64, gripper_opening: float) -> bool:
        """Whether gripper and tool height allow a success at all, as the reward's gates say."""
        gates = self.config.reward
        return gripper_opening >= gates.min_gripper_opening and float(tcp_pose[2]) >= gates.min_tcp_height

    def body_pose(self, data: mujoco.MjData, body: str) -> Float64:
        """Pose (7,) of a body, base frame."""
        frame = data.body(body)
        w, x, y, z = frame.xquat
        return np.array([*frame.xpos, x, y, z, w])

    def set_free_body(self, data: mujoco.MjData, joint: str, position: ArrayLike, yaw: float = 0.0) -> None:
        """Puts a body with a free joint at rest at ``position`` (3,), turned by ``yaw`` rad about the vertical."""
        data.joint(joint).qpos[:] = [*np.asarray(position), np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        data.joint(joint).qvel[:] = 0.0

    def set_fixture(self, data: mujoco.MjData, body: str, position: ArrayLike, yaw: float = 0.0) -> None:
        """Puts a mocap body, which nothing moves, at ``position`` (3,), turned by ``yaw`` rad about the vertical."""
        index = int(self.model.body(body).mocapid[0])
        data.mocap_pos[index] = position
        data.mocap_quat[index] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]

    def is_at_rest(self, data: mujoco.MjData, joint: str) -> bool:
        """Whether a body with a free joint hardly moves."""
        velocity = data.joint(joint).qvel
        return bool(np.linalg.norm(velocity[:3]) < REST_SPEED and np.linalg.norm(velocity[3:]) < REST_SPIN)

    def touching(self, data: mujoco.MjData, body: str) -> set[str]:
        """Names of the bodies that touch ``body``; the table's is ``world``."""
        index, body_of_geom, touching = self.model.body(body).id, self.model.geom_bodyid, set()
        for pair in data.contact.geom[: data.ncon]:
            first, second = int(body_of_geom[pair[0]]), int(body_of_geom[pair[1]])
            if first == index:
                touching.add(self.model.body(second).name)
            elif second == index:
                touching.add(self.model.body(first).name)
        return touching


def task_names() -> list[str]:
    """Names of all tasks, sorted; no task is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(tasks.__path__))


def task_class(name: str) -> type[Task]:
    """The task of this name.

    Raises UnknownTask for a name without a module, TypeError for a module that does not hold exactly one ``Task``.
    """
    if name not in task_names():
        raise UnknownTask(f"the simulation has no task {name!r}; it has {', '.join(task_names())}")
    module = importlib.import_module(f"{tasks.__name__}.{name}")
    found = [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, Task) and thing.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__file__}: must define exactly one subclass of Task, defines {len(found)}")
    return found[0]
