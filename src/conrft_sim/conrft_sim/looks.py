"""How the scene looks: colours, light and camera poses; disturbed on purpose, and put back as they were."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_WIDE_BRIGHTNESS = 0.2  # +-, share of a colour
_WIDE_TINT = 0.06  # +-, of each of red, green and blue
_WIDE_CAMERAS = (("side", 0.03, 0.03), ("wrist", 0.004, 0.03))  # name, shift +- m on each axis, turn up to rad


class Looks:
    """Colours, light and cameras of one model."""

    def __init__(self, model: mujoco.MjModel) -> None:
        """Remembers how ``model`` looks now."""
        self._model = model
        self._colours = model.geom_rgba.copy()
        self._cameras = (model.cam_pos.copy(), model.cam_quat.copy())
        self._light = (model.vis.headlight.ambient.copy(), model.vis.headlight.diffuse.copy())

    def restore(self) -> None:
        """Makes everything look as at first."""
        self._model.geom_rgba[:] = self._colours
        self._model.cam_pos[:], self._model.cam_quat[:] = self._cameras
        self.light(np.ones(3))

    def disturb(self, rng: np.random.Generator) -> None:
        """Varies every colour and both cameras a little, so that a backbone trained on it cannot rely on them."""
        rgb = self._colours[:, :3] * rng.uniform(
            1 - _WIDE_BRIGHTNESS, 1 + _WIDE_BRIGHTNESS, (len(self._colours), 1)
        ) + rng.uniform(-_WIDE_TINT, _WIDE_TINT, (len(self._colours), 3))
        self._model.geom_rgba[:, :3] = np.clip(rgb, 0.0, 1.0)
        for camera, shift, turn in _WIDE_CAMERAS:
            self.move_camera(camera, rng.uniform(-shift, shift, 3), rng.normal(size=3), rng.uniform(0.0, turn))

    def light(self, factor: Float64) -> None:
        """Makes the light ``factor`` (3,), red, green and blue, times as bright as at first."""
        headlight = self._model.vis.headlight
        headlight.ambient[:], headlight.diffuse[:] = (part * factor for part in self._light)

    def move_camera(self, camera: str, shift: Float64, axis: Float64, turn: float) -> None:
        """Shifts a camera by ``shift`` (3,) m and turns it by ``turn`` rad about ``axis`` (3,), from where it is."""
        index = self._model.camera(camera).id
        self._model.cam_pos[index] += shift
        small = np.zeros(4)
        mujoco.mju_axisAngle2Quat(small, axis, turn)
        before = self._model.cam_quat[index].copy()
        mujoco.mju_mulQuat(self._model.cam_quat[index], before, small / np.linalg.norm(small))
