"""The simulated robot and scene behind a small interface, without ROS: reset, set a target, advance one tick, look."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from conrft_data import rotations
from conrft_data.config import TaskConfig
from conrft_sim import kinematics, scene
from conrft_sim.impedance_control import CartesianImpedance, ImpedanceGains
from conrft_sim.looks import Looks
from conrft_sim.perturbation import Perturbation, Perturber
from conrft_sim.rendering import CameraRenderer
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.task import Randomisation, task_class

Float64 = NDArray[np.float64]
Image = NDArray[np.uint8]

TICK = 0.1  # s
CONTROL_PERIOD_NS = round(scene.TIMESTEP * scene.CONTROL_SUBSTEPS * 1e9)
START_NS = 1_000_000_000
_STEPS_OF_A_TICK = round(TICK / (scene.TIMESTEP * scene.CONTROL_SUBSTEPS))
_GRIPPER_SPEED = 0.1  # of each finger's set-point, m/s: open to closed in four ticks
_SQUEEZE = 0.008  # how far a closing finger's set-point goes beyond closed, m
_PERTURBATION_STREAM = 2  # of random numbers, beside those of the start state and of the operator
_WRENCH_SMOOTHING = 0.1  # weight of the newest sample at 200 Hz


class TargetRefused(ValueError):
    """A target that the impedance controller must not follow; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RobotState:
    """What the robot's own sensors say.

    Attributes:
        stamp_ns: simulated time.
        tcp_pose: ``(7,)`` tool centre point, base frame.
        tcp_twist: ``(6,)`` linear m/s, angular rad/s, base frame.
        tcp_wrench: ``(6,)`` external force N and torque N m on the stiffness frame, expressed in it.
        joint_positions, joint_velocities, joint_torques: ``(7,)`` rad, rad/s, N m.
        finger_positions: ``(2,)`` m from closed.
    """

    stamp_ns: int
    tcp_pose: Float64
    tcp_twist: Float64
    tcp_wrench: Float64
    joint_positions: Float64
    joint_velocities: Float64
    joint_torques: Float64
    finger_positions: Float64


class Simulation:
    """One Franka arm with one task.

    Start states are a function of (seed, episode) alone. Simulated time starts at one second (zero means "no time" in
    ROS) and never jumps back, not even at
    a reset. ``render`` must always be called
    by the same thread.
    """

    def __init__(
        self,
        task: TaskConfig,
        seed: int = 0,
        *,
        randomisation: Randomisation = "task",
        perturbation: Perturbation | None = None,
        gains: ImpedanceGains | None = None,
    ) -> None:
        """Builds the scene of ``task`` and resets it to episode 0; raises UnknownTask.

        ``perturbation``, for robustness evaluations, leaves the start states of the objects as they are.
        """
        self.task_config = task
        self.randomisation: Randomisation = randomisation
        kind = task_class(task.name)
        self.perturbation = perturbation or Perturbation()
        self.model = mujoco.MjModel.from_xml_string(scene.scene_xml(self.perturbation.scene(kind.scene())))
        self.data = mujoco.MjData(self.model)
        self.task = kind(self.model, task)
        self._looks = Looks(self.model)
        self._perturber = Perturber(self.perturbation, self.model, self._looks)
        self._site = self.model.site("tcp").id
        self.reset_pose = np.concatenate([task.reset.position, rotations.from_euler_xyz(task.reset.euler_xyz)])
        self.home = self._inverse_kinematics(self.reset_pose)
        self._controller = CartesianImpedance(self.model, self.home, gains)
        self._renderer = CameraRenderer(
            self.model, {name: (camera.height, camera.width) for name, camera in task.cameras.items()}
        )
        self._elapsed_ns = START_NS
        self.reset(seed, 0)

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def time_ns(self) -> int:
        """Simulated time."""
        return self._elapsed_ns

    def skip(self, duration_ns: int) -> None:
        """Lets simulated time pass without motion; raises ValueError if it would run backwards."""
        if duration_ns < 0:
            raise ValueError(f"simulated time cannot run backwards, by {duration_ns} ns")
        self._elapsed_ns += duration_ns

    def reset(self, seed: int, episode: int) -> None:
        """Arm at the reset pose, gripper and objects at the task's start state of (``seed``, ``episode``)."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:7] = self.home
        self.data.qpos[7:9] = self.task.gripper_start * kinematics.FINGER_TRAVEL
        self.place_objects(np.random.default_rng([seed, episode]))
        mujoco.mj_forward(self.model, self.data)
        objects = self.task.object_poses(self.data).values()
        self._perturber.apply(self.data, np.random.default_rng([seed, episode, _PERTURBATION_STREAM]), objects)
        self.set_gripper(self.task.gripper_start)
        self._finger_set_point = self._finger_goal
        self._wrench = np.zeros(6)
        self.set_target(self.tcp_pose)
        self.data.ctrl[7:9] = self._finger_set_point

    def place_objects(self, rng: np.random.Generator) -> None:
        """Draws where the task's objects are; start states for pre-training (``wide``) also look different each time.

        The arm is left alone, and positions that follow from the joints are stale until ``mj_forward``.
        """
        self._looks.restore()
        self.task.place(self.data, rng, self.randomisation)
        if self.randomisation == "wide":
            self._looks.disturb(rng)

    def set_target(self, pose: ArrayLike, gripper_opening: float | None = None) -> None:
        """Target of the impedance controller ``(7,)`` and, unless None, of the gripper (0 closed .. 1 open).

        Raises TargetRefused, and keeps the old target, at a number that is not finite or a quaternion without a
        direction.
        """
        target = np.array(pose, dtype=np.float64)
        if target.shape != (7,) or not np.isfinite(target).all():
            raise TargetRefused(f"target pose must be 7 finite numbers, got {target.tolist()}")
        if np.linalg.norm(target[3:]) < 1e-3:
            raise TargetRefused("target quaternion has no direction")
        x, y, z, w = rotations.normalized(target[3:])
        if gripper_opening is not None:
            self.set_gripper(gripper_opening)
        self._target_position, self._target_quaternion = target[:3], np.array([w, x, y, z])

    def set_gripper(self, opening: float) -> None:
        """Target opening of the gripper, 0 closed .. 1 open; raises TargetRefused at a number that is not finite."""
        if not np.isfinite(opening):
            raise TargetRefused(f"gripper opening must be finite, got {opening}")
        travel = min(1.0, max(0.0, float(opening))) * kinematics.FINGER_TRAVEL
        self._finger_goal = travel if travel > 0 else -_SQUEEZE

    def advance(self) -> None:
        """One tick of 0.1 s."""
        for _ in range(_STEPS_OF_A_TICK):
            self.control_step()

    def control_step(self) -> None:
        """One period of the impedance controller, 0.005 s; twenty of them make a tick."""
        data = self.data
        data.ctrl[:7] = self._controller.torques(data, self._target_position, self._target_quaternion)
        reach = _GRIPPER_SPEED * scene.TIMESTEP * scene.CONTROL_SUBSTEPS
        self._finger_set_point += min(reach, max(-reach, self._finger_goal - self._finger_set_point))
        data.ctrl[7:9] = self._finger_set_point
        mujoco.mj_step(self.model, data, scene.CONTROL_SUBSTEPS)
        self._wrench += _WRENCH_SMOOTHING * (self._controller.external_wrench(data) - self._wrench)
        self._elapsed_ns += CONTROL_PERIOD_NS

    @property
    def tcp_pose(self) -> Float64:
        """Measured tool centre point ``(7,)``, base frame."""
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, self.data.site_xmat[self._site])
        w, x, y, z = quaternion
        return np.array([*self.data.site_xpos[self._site], x, y, z, w])

    @property
    def gripper_opening(self) -> float:
        """0 closed .. 1 open."""
        return min(1.0, max(0.0, float(self.data.qpos[7] + self.data.qpos[8]) / (2 * kinematics.FINGER_TRAVEL)))

    def robot_state(self) -> RobotState:
        """What the robot's own sensors say now."""
        data = self.data
        pose = self.tcp_pose
        jacobian = np.zeros((6, self.model.nv))
        mujoco.mj_jacSite(self.model, data, jacobian[:3], jacobian[3:], self._site)
        return RobotState(
            stamp_ns=self.time_ns,
            tcp_pose=pose,
            tcp_twist=jacobian[:, :7] @ data.qvel[:7],
            tcp_wrench=rotations.rotate_blocks(rotations.inverse(pose[3:]), self._wrench),
            joint_positions=data.qpos[:7].copy(),
            joint_velocities=data.qvel[:7].copy(),
            joint_torques=data.ctrl[:7].copy(),
            finger_positions=data.qpos[7:9].copy(),
        )

    def render(self, camera: str) -> Image:
        """RGB image (H, W, 3) of ``camera``.

        The array is reused by the next call for the same camera: copy it to keep it.
        """
        return self._renderer.render(self.data, camera)

    def success(self) -> bool:
        """Ground truth of the task."""
        return self.task.success(self.data, tcp_pose=self.tcp_pose, gripper_opening=self.gripper_opening)

    def scene(self) -> SceneSnapshot:
        """Privileged state, for the scripted operator and the judge only."""
        return SceneSnapshot(
            stamp_ns=self.time_ns,
            task=self.task_config.name,
            tcp_pose=self.tcp_pose,
            gripper_opening=self.gripper_opening,
            objects=self.task.object_poses(self.data),
            success=self.success(),
            achieved=self.task.achieved(self.data),
        )

    def close(self) -> None:
        """Frees the renderer; must be called by the thread that rendered."""
        self._renderer.close()

    def _inverse_kinematics(self, pose: Float64) -> Float64:
        """Joint angles (7,) for a tool pose, by damped least squares; raises ValueError if it is out of reach."""
        model, data = self.model, mujoco.MjData(self.model)
        data.qpos[:7] = kinematics.READY
        jacobian, quaternion, error = np.zeros((6, model.nv)), np.zeros(4), np.zeros(6)
        target = np.array([pose[6], *pose[3:6]])
        for _ in range(200):
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], self._site)
            mujoco.mju_mat2Quat(quaternion, data.site_xmat[self._site])
            mujoco.mju_negQuat(quaternion, quaternion)
            mujoco.mju_mulQuat(quaternion, target, quaternion)
            error[:3] = pose[:3] - data.site_xpos[self._site]
            mujoco.mju_quat2Vel(error[3:], quaternion, 1.0)
            if np.linalg.norm(error) < 1e-9:
                return data.qpos[:7].copy()
            j = jacobian[:, :7]
            step = j.T @ np.linalg.solve(j @ j.T + 1e-6 * np.eye(6), error)
            data.qpos[:7] = np.clip(
                data.qpos[:7] + step, kinematics.POSITION_LOW + 0.05, kinematics.POSITION_HIGH - 0.05
            )
        raise ValueError(f"the reset pose {pose.tolist()} is out of the arm's reach")
