"""Pick Banana: a banana lies on the table and has to be put on the plate (ConRFT, task 1)."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_data.config import Camera, Reset, RewardConfig, TaskConfig, Workspace
from conrft_sim import scene
from conrft_sim.pick_and_place import Grasp, PickAndPlacePlan, Placing
from conrft_sim.plan import Servo
from conrft_sim.scene import TaskScene
from conrft_sim.task import Randomisation, Task

Float64 = NDArray[np.float64]

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

OPEN_GRIPPER = 0.5  # gate: opening, 0..1 (official code)
CLEAR_HEIGHT = 0.16  # gate: tool centre point above the table, m (official code)
LOOK_ABOUT = ((0.35, -0.20, CLEAR_HEIGHT + 0.02), (0.60, 0.20, CLEAR_HEIGHT + 0.14))  # corners of the free box, m


class PickBanana(Task):
    """The banana and the plate."""

    @classmethod
    def default_config(cls) -> TaskConfig:
        """The task as it is shipped."""
        return TaskConfig(
            name="pick_banana",
            instruction="Put the yellow banana on the green plate.",
            action_dim=7,
            max_steps=100,
            demonstrations=20,
            cameras={"side": Camera(width=256, height=256), "wrist": Camera(width=128, height=128)},
            reset=Reset(position=(0.45, 0.0, 0.25), euler_xyz=(math.pi, 0.0, 0.0), kind="script"),
            workspace=Workspace(low=(0.30, -0.25, 0.015), high=(0.65, 0.25, 0.40), max_tilt=0.5),
            reward=RewardConfig(min_gripper_opening=OPEN_GRIPPER, min_tcp_height=CLEAR_HEIGHT),
        )

    @classmethod
    def scene(cls) -> TaskScene:
        """The banana, which can be moved, and the plate, which cannot."""
        return TaskScene(bodies=_banana() + _plate())

    @classmethod
    def plan(cls, config: TaskConfig) -> PickAndPlacePlan:
        """Grasp the banana, put it on the plate, leave."""
        return PickAndPlacePlan(
            Servo.for_task(config),
            grasp=Grasp(),
            placing=Placing(
                rest=PLATE_THICKNESS + BANANA_RADIUS, retreat=max(config.reward.min_tcp_height, 0.0) + 0.03
            ),
            item="banana",
            place="plate",
            look_about=LOOK_ABOUT,
        )

    def place(self, data: mujoco.MjData, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Banana within three centimetres, plate fixed; ``wide`` moves and turns both."""
        if randomisation == "wide":
            plate, banana, yaw = _wide_layout(rng)
        else:
            plate, yaw = np.array(PLATE_POSITION), BANANA_YAW
            banana = np.array(BANANA_START) + rng.uniform(-START_SPREAD, START_SPREAD, 2)
        self.set_fixture(data, "plate", [*plate, 0.0])
        self.set_free_body(data, "banana", [*banana, BANANA_RADIUS], yaw)

    def object_poses(self, data: mujoco.MjData) -> dict[str, Float64]:
        """Pose (7,) by name.

        The banana's origin is the middle of its centre line, its x axis the direction of the line there;
        the plate's origin lies on the table.
        """
        return {name: self.body_pose(data, name) for name in ("banana", "plate")}

    def success(self, data: mujoco.MjData, *, tcp_pose: Float64, gripper_opening: float) -> bool:
        """Ground truth: the banana rests on the plate, untouched, and the open hand is clear above."""
        return self.gates_passed(tcp_pose, gripper_opening) and self._banana_rests_on_plate(data)

    def _banana_rests_on_plate(self, data: mujoco.MjData) -> bool:
        """Whether the plate alone carries the banana, at rest and with its middle inside the rim."""
        away = data.body("banana").xpos[:2] - data.body("plate").xpos[:2]
        inside = math.hypot(*away) < PLATE_RADIUS
        return inside and self.is_at_rest(data, "banana") and self.touching(data, "banana") == {"plate"}


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
