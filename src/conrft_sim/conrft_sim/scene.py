"""The simulated scene as MJCF text, from plain shapes: a Franka arm with its hand, a table, and what a task adds.

Few triangles, one headlight, no textures and no shadows: a software renderer then needs a millisecond for an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from conrft_sim import kinematics

TIMESTEP = 0.005  # s
CONTROL_SUBSTEPS = 1  # the impedance controller runs at 200 Hz
ROBOT_DOFS = 9  # seven joints and two fingers come first in the model
FINGER_STIFFNESS = 1000.0  # N/m
FINGER_FORCE = 40.0  # N, of each finger

SIDE_CAMERA = (1.05, -0.40, 0.57)  # in front of the table, to the robot's right, m
SIDE_CAMERA_TARGET = (0.475, 0.0, 0.115)

# Who touches whom: bit 1 the surroundings, bit 2 the task's objects, bit 4 the gripper.
SURROUNDINGS = 'contype="1" conaffinity="0"'
OBJECT = 'contype="2" conaffinity="5"'
GRIPPER = 'contype="4" conaffinity="3"'
VISUAL = 'contype="0" conaffinity="0"'

_WHITE = "0.93 0.93 0.95 1"
_GREY = "0.30 0.31 0.34 1"
_DARK = "0.16 0.16 0.18 1"

_LINK_MASSES = (
    2.0,
    1.6,
    1.2,
    1.0,
    0.8,
    0.5,
    0.3,
)  # kg, of the moving links; lighter than the real ones, whose inertia the robot compensates
_HAND_MASS = 0.5
_FINGER_MASS = 0.03

# Shapes of the moving links in their joint frames: (start, end, radius in m, colour). The first carries the link's
# mass.
_Capsule = tuple[Sequence[float], Sequence[float], float, str]
_LINK_SHAPES: tuple[tuple[_Capsule, ...], ...] = (
    (((0, 0, -0.17), (0, 0, -0.02), 0.062, _WHITE), ((0, -0.055, 0), (0, 0.055, 0), 0.063, _GREY)),
    (((0, -0.03, 0), (0, -0.19, 0), 0.059, _WHITE), ((0, 0, -0.03), (0, 0, 0.06), 0.058, _WHITE)),
    (((0, 0, -0.09), (0.045, 0, -0.01), 0.056, _WHITE), ((0.0825, -0.055, 0), (0.0825, 0.055, 0), 0.053, _GREY)),
    (((-0.02, 0.01, 0), (-0.0825, 0.10, 0), 0.054, _WHITE), ((0, 0, -0.04), (0, 0, 0.04), 0.053, _WHITE)),
    (
        ((0, 0.03, -0.23), (0, 0.065, -0.09), 0.050, _WHITE),
        ((0, 0.055, -0.09), (0, 0.02, -0.01), 0.046, _WHITE),
        ((0, -0.05, 0), (0, 0.07, 0), 0.047, _GREY),
    ),
    (((0, 0, 0), (0.055, 0, 0), 0.046, _WHITE), ((0.088, 0.055, 0), (0.088, -0.05, 0), 0.044, _WHITE)),
    (((0, 0, 0.03), (0, 0, 0.075), 0.043, _WHITE),),
)


@dataclass(frozen=True, kw_only=True)
class TaskScene:
    """What a task adds to the arm and the table, as MJCF text.

    Attributes:
        bodies: for inside ``worldbody``; they come after the arm, whose joints stay first.
        sections: further sections of the model, such as ``<equality>``, ``<tendon>``, ``<contact>``.
        side_camera, side_camera_target: where the side camera stands and what it looks at, base frame, m.
        side_camera_fovy: its vertical field of view, degrees.
    """

    bodies: str
    sections: str = ""
    side_camera: tuple[float, float, float] = SIDE_CAMERA
    side_camera_target: tuple[float, float, float] = SIDE_CAMERA_TARGET
    side_camera_fovy: float = 42


def scene_xml(task: TaskScene) -> str:
    """The whole scene.

    Names: joints ``joint1..joint7``, ``finger_left``, ``finger_right``; site ``tcp``; cameras ``side``, ``wrist``;
    actuators like their joints.
    """
    motors = "\n".join(
        f'<motor name="joint{i + 1}" joint="joint{i + 1}" ctrlrange="{-limit} {limit}"/>'
        for i, limit in enumerate(kinematics.TORQUE_LIMIT)
    )
    fingers = "\n".join(
        f'<position name="finger_{side}" joint="finger_{side}" kp="{FINGER_STIFFNESS}" '
        f'forcerange="{-FINGER_FORCE} {FINGER_FORCE}" ctrlrange="-0.01 {kinematics.FINGER_TRAVEL}"/>'
        for side in ("left", "right")
    )
    return f"""
<mujoco model="conrft">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <statistic center="0.45 0 0.1" extent="1.0"/>
  <visual>
    <global offwidth="256" offheight="256"/>
    <quality shadowsize="0" offsamples="0" numslices="14" numstacks="6" numquads="1"/>
    <headlight ambient="0.45 0.45 0.45" diffuse="0.6 0.6 0.6" specular="0.05 0.05 0.05" active="1"/>
    <map znear="0.01" zfar="6"/>
  </visual>
  <worldbody>
    {_surroundings()}
    {_arm()}
    {task.bodies}
    <camera name="side" mode="fixed" {_pose_of_camera(task.side_camera, task.side_camera_target)}
            fovy="{task.side_camera_fovy}"/>
  </worldbody>
  <equality>
    <joint joint1="finger_left" joint2="finger_right" polycoef="0 1 0 0 0" solref="0.005 1"/>
  </equality>
  <actuator>
    {motors}
    {fingers}
  </actuator>
  {task.sections}
</mujoco>
"""


def camera_axes(position: Sequence[float], target: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Image axes (right, up) in the world of an upright camera at ``position`` (3,) that looks at ``target`` (3,)."""
    back = [p - t for p, t in zip(position, target, strict=True)]
    length = math.sqrt(sum(c * c for c in back))
    back = [c / length for c in back]
    across = math.hypot(back[0], back[1])
    right = (-back[1] / across, back[0] / across, 0.0)
    up = (-back[2] * right[1], back[2] * right[0], back[0] * right[1] - back[1] * right[0])
    return right, up


def _pose_of_camera(position: Sequence[float], target: Sequence[float]) -> str:
    right, up = camera_axes(position, target)
    place, axes = (" ".join(f"{c:.6f}" for c in values) for values in (position, (*right, *up)))
    return f'pos="{place}" xyaxes="{axes}"'


def _surroundings() -> str:
    """Table with its top at z = 0 (the robot stands on it), floor and back walls."""
    return f"""
    <geom name="table" type="box" pos="0.40 0 -0.03" size="0.62 0.60 0.03" rgba="0.62 0.55 0.47 1"
          friction="0.7 0.01 0.001" {SURROUNDINGS}/>
    <geom name="floor" type="box" pos="0 0 -0.76" size="3 3 0.01" rgba="0.46 0.48 0.50 1" {VISUAL}/>
    <geom name="wall_back" type="box" pos="-1.2 0 0.6" size="0.01 3 1.4" rgba="0.72 0.75 0.78 1" {VISUAL}/>
    <geom name="wall_left" type="box" pos="0 1.6 0.6" size="3 0.01 1.4" rgba="0.66 0.69 0.73 1" {VISUAL}/>
    <geom name="pedestal" type="box" pos="-0.04 0 0.015" size="0.13 0.11 0.015" rgba="{_GREY}" {VISUAL}/>
    <geom name="link0" type="cylinder" fromto="0 0 0.02 0 0 0.14" size="0.075" rgba="{_WHITE}" {VISUAL}/>
    <geom name="link0_back" type="box" pos="-0.085 0 0.07" size="0.05 0.055 0.045" rgba="{_WHITE}" {VISUAL}/>"""


def _arm() -> str:
    """The seven links nested in one another, the hand innermost."""
    inner = _hand()
    for index in reversed(range(7)):
        a, d, alpha = kinematics.DH_PARAMETERS[index]
        position = f"{a} {-d * math.sin(alpha):.9f} {d * math.cos(alpha):.9f}"
        rotation = f"{math.cos(alpha / 2):.12f} {math.sin(alpha / 2):.12f} 0 0"
        low, high = kinematics.POSITION_LOW[index], kinematics.POSITION_HIGH[index]
        inner = f"""
    <body name="link{index + 1}" pos="{position}" quat="{rotation}">
      <joint name="joint{index + 1}" type="hinge" axis="0 0 1" range="{low} {high}" damping="0.3" armature="0.06"/>
      {_link_geoms(index)}
      {inner}
    </body>"""
    return inner


def _link_geoms(index: int) -> str:
    """Shapes of one link; they carry mass and are drawn, and touch nothing."""
    lines = []
    for shape, (start, end, radius, colour) in enumerate(_LINK_SHAPES[index]):
        mass = _LINK_MASSES[index] if shape == 0 else 0.0
        points = " ".join(str(c) for c in (*start, *end))
        lines.append(f'<geom type="capsule" fromto="{points}" size="{radius}" mass="{mass}" rgba="{colour}" {VISUAL}/>')
    return "\n      ".join(lines)


def _hand() -> str:
    """Palm, wrist camera, two coupled fingers that open along y, and the tool centre point between their tips."""
    rotation = f"{math.cos(kinematics.HAND_YAW / 2):.12f} 0 0 {math.sin(kinematics.HAND_YAW / 2):.12f}"
    return f"""
      <geom type="cylinder" fromto="0 0 0.07 0 0 0.107" size="0.038" mass="0" rgba="{_GREY}" {VISUAL}/>
      <body name="hand" pos="0 0 {kinematics.FLANGE_DISTANCE}" quat="{rotation}">
        <geom name="palm" type="box" pos="0 0 0.033" size="0.022 0.100 0.026" mass="{_HAND_MASS}"
              rgba="{_WHITE}" {GRIPPER}/>
        <geom type="box" pos="0 0 0.061" size="0.016 0.090 0.004" mass="0" rgba="{_GREY}" {VISUAL}/>
        <geom type="box" pos="0.062 0 0.030" size="0.012 0.045 0.012" mass="0" rgba="{_DARK}" {VISUAL}/>
        <geom type="box" pos="0.036 0 0.020" size="0.018 0.010 0.004" mass="0" rgba="{_DARK}" {VISUAL}/>
        <camera name="wrist" mode="fixed" pos="0.075 0 0.034" xyaxes="0 1 0 {_wrist_camera_up()}" fovy="78"/>
        <site name="tcp" pos="0 0 {kinematics.TCP_DISTANCE}" size="0.004" rgba="1 0 0 0"/>
        {_finger("left", 1)}
        {_finger("right", -1)}
      </body>"""


def _wrist_camera_up() -> str:
    """Image-up axis of the wrist camera, hand frame: it looks along the fingers, leaning towards their tips."""
    lean = 0.42
    return f"{math.cos(lean):.6f} 0 {math.sin(lean):.6f}"


def _finger(name: str, side: int) -> str:
    return f"""
        <body name="finger_{name}" pos="0 0 0.0584">
          <joint name="finger_{name}" type="slide" axis="0 {side} 0" range="0 {kinematics.FINGER_TRAVEL}"
                 damping="60" armature="0.1"/>
          <geom name="finger_{name}" type="box" pos="0 {side * 0.006} 0.0390"
                size="0.010 0.006 0.0140" mass="{_FINGER_MASS}" rgba="{_DARK}" friction="2 0.05 0.001"
                condim="4" priority="1" {GRIPPER}/>
          <geom name="finger_{name}_base" type="box" pos="0 {side * 0.011} 0.0130"
                size="0.010 0.009 0.0130" mass="{_FINGER_MASS}" rgba="{_GREY}" {GRIPPER}/>
        </body>"""
