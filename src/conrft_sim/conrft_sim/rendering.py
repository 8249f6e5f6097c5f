"""Off-screen rendering of named cameras into preallocated images."""

from __future__ import annotations

import os
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


class CameraRenderer:
    """Renders cameras of one model.

    The OpenGL context belongs to the thread that calls ``render`` first, and every later call must come from it. It
    is made only then, so that a model can be
    stepped where there is no OpenGL at all.
    """

    def __init__(self, model: mujoco.MjModel, sizes: dict[str, tuple[int, int]]) -> None:
        """``sizes`` maps a camera's name to (height, width) in pixels."""
        self._model = model
        self._cameras: dict[str, mujoco.MjvCamera] = {}
        self._raw: dict[str, Image] = {}
        self._images: dict[str, Image] = {}
        for name, (height, width) in sizes.items():
            camera = mujoco.MjvCamera()
            camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = model.camera(name).id
            self._cameras[name] = camera
            self._raw[name] = np.empty((height, width, 3), dtype=np.uint8)
            self._images[name] = np.empty((height, width, 3), dtype=np.uint8)
        self._gl: Any = None

    def render(self, data: mujoco.MjData, camera: str) -> Image:
        """RGB image (H, W, 3) of ``camera``.

        The array is reused by the next call for the same camera: copy it to keep it.
        """
        if self._gl is None:
            self._open()
        raw, image = self._raw[camera], self._images[camera]
        viewport = mujoco.MjrRect(0, 0, raw.shape[1], raw.shape[0])
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._cameras[camera], mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        mujoco.mjr_render(viewport, self._scene, self._context)
        mujoco.mjr_readPixels(raw, None, viewport, self._context)
        np.copyto(image, raw[::-1])  # OpenGL's first row is the lowest
        return image

    def close(self) -> None:
        """Frees the OpenGL context; must be called by the thread that rendered. Harmless when nothing was rendered."""
        if self._gl is not None:
            self._context.free()
            self._gl.free()
            self._gl = None

    def _open(self) -> None:
        width = max(image.shape[1] for image in self._raw.values())
        height = max(image.shape[0] for image in self._raw.values())
        self._gl = _gl_context(width, height)
        self._gl.make_current()
        self._option = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(self._model, maxgeom=200)
        for flag in (
            mujoco.mjtRndFlag.mjRND_SHADOW,
            mujoco.mjtRndFlag.mjRND_REFLECTION,
            mujoco.mjtRndFlag.mjRND_SKYBOX,
            mujoco.mjtRndFlag.mjRND_HAZE,
        ):
            self._scene.flags[flag] = 0
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        if self._context.currentBuffer != mujoco.mjtFramebuffer.mjFB_OFFSCREEN:
            raise RuntimeError("this OpenGL offers no off-screen framebuffer; set MUJOCO_GL to egl or osmesa")


def _gl_context(width: int, height: int) -> Any:
    """An OpenGL context of the kind that MUJOCO_GL names; EGL, which needs no display, when it names none."""
    if os.environ.get("MUJOCO_GL"):
        return mujoco.GLContext(width, height)
    from mujoco.egl import GLContext  # imported late: it opens a device

    return GLContext(width, height)
