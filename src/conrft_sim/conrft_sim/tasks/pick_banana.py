"""Pick Banana: a banana lies on the table and has to be put on the plate (ConRFT, task 1)."""

from __future__ import annotations

import math
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_data.config import Camera, Reset, RewardConfig, TaskConfig, Workspace
from conrft_sim import scene

Float64 = NDArray[np.float64]
Randomisation = Literal["task", "wide"]

NAME = "pick_banana"

BANANA_RADIUS = 0.017  # m
BANANA_ARC_RADIUS = 0.115  # of its centre line, m
BANANA_ARC_ANGLE = 1.15  # of its centre line, rad
BANANA_MASS = 0.11  # kg
BANANA_START = (0.50, 0.11)  # middle of the start area, m
BANANA_YAW = 0.0  # rad
START_SPREAD = 0.03  # +-, in x and y, m (paper, Section V)

PLATE_RADIUS = 0.095  # to the rim, m
PLATE_THICKNESS = 0.008  # m
_PLATE_BOX = 0.078  # half a side of the box that is touched, m
PLATE_POSITION = (0.50, -0.13)  # m

WIDE_AREA = ((0.38, 0.62), (-0.20, 0.20))  # plate and banana anywhere in here: x and y range, m
WIDE_SPREAD = 0.15  # banana within +- this of the middle of its area, m

REST_SPEED = 0.03  # m/s
REST_SPIN = 0.5  # rad/s
OPEN_GRIPPER = 0.5  # gate: opening, 0..1 (official code)
CLEAR_HEIGHT = 0.16  # gate: tool centre point above the table, m (official code)


def default_config() -> TaskConfig:
    """The task as it is shipped."""
    return TaskConfig(
        name=NAME,
        instruction="Put the yellow banana on the green plate.",
        action_dim=7,
        max_steps=100,
        demonstrations=20,
        cameras={"side": Camera(width=256, height=256), "wrist": Camera(width=128, height=128)},
        reset=Reset(position=(0.45, 0.0, 0.25), euler_xyz=(math.pi, 0.0, 0.0), kind="script"),
        workspace=Workspace(low=(0.30, -0.25, 0.015), high=(0.65, 0.25, 0.40), max_tilt=0.5),
        reward=RewardConfig(min_gripper_opening=OPEN_GRIPPER, min_tcp_height=CLEAR_HEIGHT),
    )


class PickBanana:
    """Scene, start states and ground truth of the task."""

    name = NAME
    objects = ("banana", "plate")

    @staticmethod
    def bodies() -> str:
        """MJCF of the banana and the plate."""
        return _banana() + _plate()

    def __init__(self, model: mujoco.MjModel, gates: RewardConfig) -> None:
        """Looks up the task's bodies in the compiled scene; ``gates`` are those of the task's reward."""
        self._model = model
        self._gates = gates
        self._banana = model.body("banana").id
        self._plate = model.body("plate").id
        self._plate_mocap = int(model.body_mocapid[self._plate])
        joint = model.joint("banana")
        self._qpos, self._dof = int(joint.qposadr[0]), int(joint.dofadr[0])
        self._body_of_geom = model.geom_bodyid.copy()
        self._colours = model.geom_rgba.copy()
        self._cameras = (model.cam_pos.copy(), model.cam_quat.copy())

    def place(self, data: mujoco.MjData, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Draws a start state from ``rng``; ``wide`` also moves the plate and changes colours and cameras."""
        self._model.geom_rgba[:] = self._colours
        self._model.cam_pos[:], self._model.cam_quat[:] = self._cameras
        if randomisation == "wide":
            plate, banana, yaw = _wide_layout(rng)
            self._disturb_looks(rng)
        else:
            plate, yaw = np.array(PLATE_POSITION), BANANA_YAW
            banana = np.array(BANANA_START) + rng.uniform(-START_SPREAD, START_SPREAD, 2)
        data.mocap_pos[self._plate_mocap] = [*plate, 0.0]
        data.qpos[self._qpos : self._qpos + 7] = [
            *banana,
            BANANA_RADIUS,
            math.cos(yaw / 2),
            0.0,
            0.0,
            math.sin(yaw / 2),
        ]
        data.qvel[self._dof : self._dof + 6] = 0.0

    def object_poses(self, data: mujoco.MjData) -> dict[str, Float64]:
        """Pose (7,) by name.

        The banana's origin is the middle of its centre line, its x axis the direction of the line there;
        the plate's origin lies on the table.
        """
        poses = {}
        for name, body in (("banana", self._banana), ("plate", self._plate)):
            w, x, y, z = data.xquat[body]
            poses[name] = np.array([*data.xpos[body], x, y, z, w])
        return poses

    def success(self, data: mujoco.MjData, *, tcp_height: float, gripper_opening: float) -> bool:
        """Ground truth: the banana rests on the plate, untouched, and the open hand is clear above."""
        gates_passed = gripper_opening > self._gates.min_gripper_opening and tcp_height > self._gates.min_tcp_height
        return gates_passed and self.banana_rests_on_plate(data)

    def banana_rests_on_plate(self, data: mujoco.MjData) -> bool:
        """Whether the plate alone carries the banana, at rest and with its middle inside the rim."""
        away = data.xpos[self._banana][:2] - data.xpos[self._plate][:2]
        velocity = data.qvel[self._dof : self._dof + 6]
        resting = np.linalg.norm(velocity[:3]) < REST_SPEED and np.linalg.norm(velocity[3:]) < REST_SPIN
        touched = self._bodies_touching_banana(data)
        return bool(math.hypot(*away) < PLATE_RADIUS and resting and touched == {self._plate})

    def _bodies_touching_banana(self, data: mujoco.MjData) -> set[int]:
        touching = set()
        for pair in data.contact.geom[: data.ncon]:
            first, second = int(self._body_of_geom[pair[0]]), int(self._body_of_geom[pair[1]])
            if first == self._banana:
                touching.add(second)
            elif second == self._banana:
                touching.add(first)
        return touching

    def _disturb_looks(self, rng: np.random.Generator) -> None:
        """Varies colours and the side camera's pose, so that a backbone trained on it cannot rely on them."""
        rgb = self._colours[:, :3] * rng.uniform(0.8, 1.2, (len(self._colours), 1)) + rng.uniform(
            -0.06, 0.06, (len(self._colours), 3)
        )
        self._model.geom_rgba[:, :3] = np.clip(rgb, 0.0, 1.0)
        for camera, shift, turn in (("side", 0.03, 0.03), ("wrist", 0.004, 0.03)):
            index = self._model.camera(camera).id
            self._model.cam_pos[index] += rng.uniform(-shift, shift, 3)
            small = np.zeros(4)
            mujoco.mju_axisAngle2Quat(small, rng.normal(size=3), rng.uniform(0.0, turn))
            mujoco.mju_mulQuat(self._model.cam_quat[index], self._cameras[1][index], small / np.linalg.norm(small))


def _wide_layout(rng: np.random.Generator) -> tuple[Float64, Float64, float]:
    """Plate (2,), banana (2,) apart from it, and the banana's yaw, anywhere in the wide area."""
    (x_low, x_high), (y_low, y_high) = WIDE_AREA
    while True:
        plate = rng.uniform((x_low + 0.04, y_low), (x_high - 0.04, y_high))
        banana = np.array([0.50, 0.0]) + rng.uniform(-WIDE_SPREAD, WIDE_SPREAD, 2)
        if math.hypot(*(plate - banana)) > PLATE_RADIUS + 0.09:
            return plate, banana, float(rng.uniform(-math.pi, math.pi))


def _banana() -> str:
    """Five capsules along an arc that lies flat on the table, darker towards the ends."""
    segments, geoms = 5, []
    for index in range(segments):
        start, end = ((index + k) / segments - 0.5 for k in (0, 1))
        points = []
        for fraction in (start, end):
            angle = fraction * BANANA_ARC_ANGLE
            points += [BANANA_ARC_RADIUS * math.sin(angle), BANANA_ARC_RADIUS * (1 - math.cos(angle)), 0.0]
        outer = index in (0, segments - 1)
        radius = BANANA_RADIUS - (0.003 if outer else 0.0)
        colour = "0.86 0.74 0.12 1" if outer else "0.96 0.84 0.14 1"
        line = " ".join(f"{c:.5f}" for c in points)
        geoms.append(
            f'<geom type="capsule" fromto="{line}" size="{radius}" mass="{BANANA_MASS / segments}" rgba="{colour}" '
            f'condim="4" friction="0.8 0.02 0.001" {scene.OBJECT}/>'
        )
    tip_angle = BANANA_ARC_ANGLE / 2 + 0.13
    tip = f"{BANANA_ARC_RADIUS * math.sin(tip_angle):.5f} {BANANA_ARC_RADIUS * (1 - math.cos(tip_angle)):.5f} 0"
    geoms.append(f'<geom type="sphere" pos="{tip}" size="0.008" mass="0" rgba="0.36 0.27 0.10 1" {scene.VISUAL}/>')
    shapes = "\n      ".join(geoms)
    return f"""
    <body name="banana" pos="{BANANA_START[0]} {BANANA_START[1]} {BANANA_RADIUS}">
      <freejoint name="banana"/>
      {shapes}
    </body>"""


def _plate() -> str:
    """A flat green plate.

    What is drawn is round with a rim; what is touched is a flat box about as large, because contacts of
    capsules with boxes are exact.
    """
    half = PLATE_THICKNESS / 2
    rim, count = [], 18
    for index in range(count):
        a, b = (2 * math.pi * (index + k) / count for k in (0, 1))
        r = PLATE_RADIUS - 0.004
        line = " ".join(f"{r * math.cos(c):.5f} {r * math.sin(c):.5f} {PLATE_THICKNESS}" for c in (a, b))
        rim.append(f'<geom type="capsule" fromto="{line}" size="0.005" rgba="0.13 0.52 0.24 1" {scene.VISUAL}/>')
    rims = "\n      ".join(rim)
    return f"""
    <body name="plate" mocap="true" pos="{PLATE_POSITION[0]} {PLATE_POSITION[1]} 0">
      <geom name="plate" type="box" pos="0 0 {half}" size="{_PLATE_BOX} {_PLATE_BOX} {half}" rgba="0 0 0 0"
            friction="0.8 0.02 0.001" condim="4" {scene.SURROUNDINGS}/>
      <geom type="cylinder" pos="0 0 {half}" size="{PLATE_RADIUS} {half}" rgba="0.20 0.66 0.32 1" {scene.VISUAL}/>
      <geom type="cylinder" pos="0 0 {PLATE_THICKNESS}" size="0.060 0.0006" rgba="0.28 0.74 0.40 1" {scene.VISUAL}/>
      {rims}
    </body>"""
