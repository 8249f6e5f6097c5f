"""How the scene looks: colours and camera poses, disturbed for pre-training and put back as they were."""

from __future__ import annotations

import mujoco
import numpy as np

_WIDE_BRIGHTNESS = 0.2  # +-, share of a colour
_WIDE_TINT = 0.06  # +-, of each of red, green and blue
_WIDE_CAMERAS = (("side", 0.03, 0.03), ("wrist", 0.004, 0.03))  # name, shift +- m on each axis, turn up to rad


class Looks:
    """Colours and cameras of one model."""

    def __init__(self, model: mujoco.MjModel) -> None:
        """Remembers how ``model`` looks now."""
        self._model = model
        self._colours = model.geom_rgba.copy()
        self._cameras = (model.cam_pos.copy(), model.cam_quat.copy())

    def restore(self) -> None:
        """Makes everything look as at first."""
        self._model.geom_rgba[:] = self._colours
        self._model.cam_pos[:], self._model.cam_quat[:] = self._cameras

    def disturb(self, rng: np.random.Generator) -> None:
        """Varies every colour and both cameras a little, so that a backbone trained on it cannot rely on them."""
        rgb = self._colours[:, :3] * rng.uniform(
            1 - _WIDE_BRIGHTNESS, 1 + _WIDE_BRIGHTNESS, (len(self._colours), 1)
        ) + rng.uniform(-_WIDE_TINT, _WIDE_TINT, (len(self._colours), 3))
        self._model.geom_rgba[:, :3] = np.clip(rgb, 0.0, 1.0)
        for camera, shift, turn in _WIDE_CAMERAS:
            self.move_camera(camera, rng.uniform(-shift, shift, 3), rng.normal(size=3), rng.uniform(0.0, turn))

    def move_camera(self, camera: str, shift: np.ndarray, axis: np.ndarray, turn: float) -> None:
        """Shifts a camera by ``shift`` (3,) m and turns it by ``turn`` rad about ``axis`` (3,), from where it was."""
        index = self._model.camera(camera).id
        self._model.cam_pos[index] += shift
        small = np.zeros(4)
        mujoco.mju_axisAngle2Quat(small, axis, turn)
        mujoco.mju_mulQuat(self._model.cam_quat[index], self._cameras[1][index], small / np.linalg.norm(small))
