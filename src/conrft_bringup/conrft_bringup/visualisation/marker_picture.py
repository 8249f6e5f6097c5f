"""Draws a MarkerArray into a picture, for a person, or a test, without rviz."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from visualization_msgs.msg import Marker

from conrft_data.rotations import Array, rotate, to_matrix

Picture = NDArray[np.uint8]

_SOLIDS = {
    Marker.CUBE: mujoco.mjtGeom.mjGEOM_BOX,
    Marker.SPHERE: mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    Marker.CYLINDER: mujoco.mjtGeom.mjGEOM_CYLINDER,
}
_MOST_SHAPES = 2000
# Nothing but light, a buffer of the right size, and the table's plane at z = 0.
_STAGE = """
<mujoco>
  <visual>
    <global offwidth="{width}" offheight="{height}"/>
    <headlight ambient="0.5 0.5 0.5" diffuse="0.5 0.5 0.5" specular="0 0 0"/>
    <map znear="0.01" zfar="10"/>
  </visual>
  <statistic center="0.4 0 0.2" extent="1"/>
  <asset>
    <texture type="skybox" builtin="flat" rgb1="0.16 0.17 0.19" width="8" height="48"/>
    <texture name="grid" type="2d" builtin="checker" rgb1="0.24 0.25 0.27" rgb2="0.28 0.29 0.31" width="64"
      height="64"/>
    <material name="grid" texture="grid" texrepeat="5 5" texuniform="true"/>
  </asset>
  <worldbody><geom type="plane" pos="0.35 0 0" size="0.6 0.5 0.1" material="grid"/></worldbody>
</mujoco>"""


def draw_markers(
    markers: Sequence[Marker],
    *,
    size: tuple[int, int] = (960, 720),
    focus: Sequence[float] = (0.3, 0.0, 0.3),
    distance: float = 1.6,
    azimuth: float = 140.0,
    elevation: float = -25.0,
) -> Picture:
    """The markers seen from one side, RGB ``(H, W, 3)``; texts stand in the corner, in white.

    Args:
        markers: cubes, spheres, cylinders, arrows, lines and texts, all in one frame; others are left out, and so are
            those that are to be deleted.
        size: width and height, pixels.
        focus: point ``(3,)`` in the middle of the picture, m.
        distance: of the camera from it, m.
        azimuth: direction in which the camera looks, about z, degrees.
        elevation: the same, above the horizon, degrees.
    """
    shown = [marker for marker in markers if marker.action == Marker.ADD]
    model = mujoco.MjModel.from_xml_string(_STAGE.format(width=size[0], height=size[1]))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = focus, distance, azimuth, elevation
    # EGL needs no display. MuJoCo looks at this variable when its renderer is first used.
    os.environ.setdefault("MUJOCO_GL", "egl")
    with mujoco.Renderer(model, height=size[1], width=size[0], max_geom=_MOST_SHAPES) as renderer:
        renderer.update_scene(data, camera)
        for marker in shown:
            _add(renderer.scene, marker)
        picture = Image.fromarray(renderer.render())
    return _with_text(picture, [marker.text for marker in shown if marker.type == Marker.TEXT_VIEW_FACING])


def _add(scene: Any, marker: Marker) -> None:
    """Adds a marker to MuJoCo's scene."""
    pose, scale = _pose(marker), np.array([marker.scale.x, marker.scale.y, marker.scale.z])
    colours = [_colour(colour) for colour in marker.colors] or [_colour(marker.color)]
    if marker.type in _SOLIDS:
        # A cylinder is radius and half length, the others three half extents.
        size = np.array([scale[0], scale[2], 0]) / 2 if marker.type == Marker.CYLINDER else scale / 2
        _new_geom(scene, _SOLIDS[marker.type], colours[0], size, pose[:3], to_matrix(pose[3:]).ravel())
        return
    points = [pose[:3] + rotate(pose[3:], [point.x, point.y, point.z]) for point in marker.points]
    if marker.type == Marker.ARROW and len(points) == 2:
        _connect(scene, mujoco.mjtGeom.mjGEOM_ARROW, colours[0], scale[0] / 2, points[0], points[1])
    elif marker.type in (Marker.LINE_LIST, Marker.LINE_STRIP):
        for i in range(0, len(points) - 1, 2 if marker.type == Marker.LINE_LIST else 1):
            colour = colours[min(i, len(colours) - 1)]
            _connect(scene, mujoco.mjtGeom.mjGEOM_CAPSULE, colour, scale[0] / 2, points[i], points[i + 1])


def _connect(scene: Any, kind: mujoco.mjtGeom, colour: Array, radius: float, start: Array, end: Array) -> None:
    if np.any(start != end) and (geom := _new_geom(scene, kind, colour)) is not None:
        mujoco.mjv_connector(geom, kind, radius, start, end)
        if kind == mujoco.mjtGeom.mjGEOM_ARROW:
            geom.size[2] *= 2  # half the length is what is set, and for an arrow drawn as the whole


def _new_geom(scene: Any, kind: mujoco.mjtGeom, colour: Array, *placement: Array) -> mujoco.MjvGeom | None:
    """The next visual geom of the scene, None when it is full; ``placement`` is size, position and rotation."""
    if scene.ngeom >= scene.maxgeom:
        return None
    geom = scene.geoms[scene.ngeom]
    size, position, rotation = placement or (np.zeros(3), np.zeros(3), np.eye(3).ravel())
    mujoco.mjv_initGeom(geom, kind, size, position, rotation, colour.astype(np.float32))
    scene.ngeom += 1
    return geom


def _with_text(picture: Image.Image, texts: Sequence[str]) -> Picture:
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=picture.height // 30)
    lines = "\n".join(texts)
    draw.multiline_text(
        (12, 10), lines, fill=(255, 255, 255), font=font, spacing=6, stroke_width=2, stroke_fill=(0, 0, 0)
    )
    return np.asarray(picture)


def _pose(marker: Marker) -> Array:
    p, q = marker.pose.position, marker.pose.orientation
    return np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])


def _colour(colour: Any) -> Array:
    return np.array([colour.r, colour.g, colour.b, colour.a])
