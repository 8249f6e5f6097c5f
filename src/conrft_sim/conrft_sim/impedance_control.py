"""Cartesian impedance control with a null-space posture, as crisp_controllers does it on the real arm."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_sim import kinematics

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ImpedanceGains:
    """Gains of the controller. Damping of -1 means critical for a unit mass, 2 sqrt(k).

    Attributes:
        k_pos, k_rot: stiffness, N/m and N m/rad.
        d_pos, d_rot: damping, N s/m and N m s/rad.
        k_nullspace, d_nullspace: pull to the home posture, N m/rad and N m s/rad.
        error_clip_pos, error_clip_rot: largest error that acts on each axis, m and rad.
    """

    k_pos: float = 600.0
    k_rot: float = 40.0
    d_pos: float = 65.0
    d_rot: float = 7.0
    k_nullspace: float = 10.0
    d_nullspace: float = 4.0
    error_clip_pos: float = 0.1
    error_clip_rot: float = 0.5


class CartesianImpedance:
    """Joint torques that pull the tool centre point to a target pose like a spring and a damper."""

    def __init__(self, model: mujoco.MjModel, home: Float64, gains: ImpedanceGains | None = None) -> None:
        """``home`` (7,) is the posture that the null space prefers, rad.

        The arm's joints are the first seven degrees of freedom of ``model``.
        """
        self._model = model
        self._home = home
        g = gains or ImpedanceGains()
        self._clip = np.repeat([g.error_clip_pos, g.error_clip_rot], 3)
        self._stiffness = np.repeat([g.k_pos, g.k_rot], 3)
        d_pos = 2 * g.k_pos**0.5 if g.d_pos < 0 else g.d_pos
        d_rot = 2 * g.k_rot**0.5 if g.d_rot < 0 else g.d_rot
        self._damping = np.repeat([d_pos, d_rot], 3)
        self._nullspace = (g.k_nullspace, g.d_nullspace)
        self._site = model.site("tcp").id
        self._jacobian = np.zeros((6, model.nv))
        self._regularisation = 1e-6 * np.eye(6)
        self._quaternion, self._error = np.zeros(4), np.zeros(6)

    @property
    def jacobian(self) -> Float64:
        """Jacobian (6, 7) of the tool centre point at the last ``torques`` call: linear rows first, base frame."""
        return self._jacobian[:, :7]

    def torques(self, data: mujoco.MjData, target_position: Float64, target_quaternion_wxyz: Float64) -> Float64:
        """Joint torques (7,) in N m towards a target in the base frame; gravity and Coriolis are compensated."""
        jacobian, velocity = self._update_jacobian(data), data.qvel[:7]
        error = self._pose_error(data, target_position, target_quaternion_wxyz)
        wrench = self._stiffness * error - self._damping * (jacobian @ velocity)
        k, d = self._nullspace
        posture = k * (self._home - data.qpos[:7]) - d * velocity
        # The part of the posture torque that would move the tool is taken out, (I - J^T J^+T) posture.
        seen = np.linalg.solve(jacobian @ jacobian.T + self._regularisation, jacobian @ posture)
        torques = jacobian.T @ (wrench - seen) + posture + data.qfrc_bias[:7] - self._overspeed(velocity)
        return np.clip(torques, -kinematics.TORQUE_LIMIT, kinematics.TORQUE_LIMIT)

    def external_wrench(self, data: mujoco.MjData) -> Float64:
        """Wrench (6,) on the tool, base frame, N and N m, estimated from contact torques as on the robot."""
        jacobian = self._jacobian[:, :7]
        return np.linalg.solve(jacobian @ jacobian.T + self._regularisation, jacobian @ data.qfrc_constraint[:7])

    def _update_jacobian(self, data: mujoco.MjData) -> Float64:
        mujoco.mj_jacSite(self._model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        return self._jacobian[:, :7]

    def _pose_error(self, data: mujoco.MjData, position: Float64, quaternion: Float64) -> Float64:
        """Clipped error (6,): metres, and rotation vector in the base frame."""
        mujoco.mju_mat2Quat(self._quaternion, data.site_xmat[self._site])
        mujoco.mju_negQuat(self._quaternion, self._quaternion)
        mujoco.mju_mulQuat(self._quaternion, quaternion, self._quaternion)
        self._error[:3] = position - data.site_xpos[self._site]
        mujoco.mju_quat2Vel(self._error[3:], self._quaternion, 1.0)
        return np.clip(self._error, -self._clip, self._clip)

    @staticmethod
    def _overspeed(velocity: Float64) -> Float64:
        """Braking torque (7,) for joints faster than their published limit."""
        excess = velocity - np.clip(velocity, -kinematics.VELOCITY_LIMIT, kinematics.VELOCITY_LIMIT)
        return 50.0 * excess
