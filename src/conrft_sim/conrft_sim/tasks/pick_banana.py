"""Pick Banana: a banana lies on the table and has to be put on the plate (ConRFT, task 1)."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_data.config import Camera, Reset, RewardConfig, TaskConfig, Workspace
from conrft_sim import plate, scene
from conrft_sim.pick_and_place import Grasp, PickAndPlacePlan, Placing
from conrft_sim.plan import Servo
from conrft_sim.scene import TaskScene
from conrft_sim.start_area import wide_pair
from conrft_sim.task import Randomisation, Task

Float64 = NDArray[np.float64]

BANANA_RADIUS = 0.017  # m
BANANA_ARC_RADIUS = 0.115  # of its centre line, m
BANANA_ARC_ANGLE = 1.15  # of its centre line, rad
BANANA_SEGMENTS = 5  # those at both ends are thinner
LYING_ANGLE = (0.5 - 1 / BANANA_SEGMENTS) * BANANA_ARC_ANGLE  # from the middle to where it is thinner, rad
BANANA_MASS = 0.11  # kg
BANANA_START = (0.50, 0.11)  # middle of the start area, m
BANANA_YAW = 0.0  # rad
START_SPREAD = 0.03  # +-, in x and y, m (paper, Section V)

PLATE_POSITION = (0.50, -0.13)  # m
WIDE_DISTANCE = plate.RADIUS + 0.09  # between plate and banana at least, m

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
            reset=Reset(position=(0.45, 0.0, 0.25), euler_xyz=(math.pi, 0.0, 0.0), kind="human"),
            workspace=Workspace(low=(0.30, -0.25, 0.015), high=(0.65, 0.25, 0.40), max_tilt=0.3),
            reward=RewardConfig(threshold=0.7, min_gripper_opening=OPEN_GRIPPER, min_tcp_height=CLEAR_HEIGHT),
        )

    @classmethod
    def scene(cls) -> TaskScene:
        """The banana, which can be moved, and the plate, which cannot."""
        green = {"rim": "0.13 0.52 0.24 1", "bottom": "0.20 0.66 0.32 1", "middle": "0.28 0.74 0.40 1"}
        return TaskScene(bodies=_banana() + plate.plate_body(PLATE_POSITION, **green))

    @classmethod
    def plan(cls, config: TaskConfig) -> PickAndPlacePlan:
        """Grasp the banana, put it on the plate, leave."""
        return PickAndPlacePlan(
            Servo.for_task(config),
            grasp=Grasp(),
            placing=Placing(
                rest=plate.THICKNESS + BANANA_RADIUS,
                settled_radius=0.020,
                retreat=max(config.reward.min_tcp_height, 0.0) + 0.03,
            ),
            item="banana",
            place="plate",
            look_about=LOOK_ABOUT,
        )

    def place(self, data: mujoco.MjData, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Banana within three centimetres, plate fixed; ``wide`` moves and turns both."""
        if randomisation == "wide":
            place, banana, yaw = wide_pair(rng, WIDE_DISTANCE)
        else:
            place, yaw = np.array(PLATE_POSITION), BANANA_YAW
            banana = np.array(BANANA_START) + rng.uniform(-START_SPREAD, START_SPREAD, 2)
        self.set_fixture(data, "plate", [*place, 0.0])
        self.set_free_body(data, "banana", [*banana, BANANA_RADIUS], yaw)

    def object_poses(self, data: mujoco.MjData) -> dict[str, Float64]:
        """Pose (7,) by name.

        The banana's origin is the middle of its centre line, its x axis the direction of the line there;
        the plate's origin lies on the table.
        """
        return {name: self.body_pose(data, name) for name in ("banana", "plate")}

    def achieved(self, data: mujoco.MjData) -> bool:
        """The banana is on the plate, inside the rim but for its thin ends, which touch nothing where it lies."""
        banana, plate_body = data.body("banana"), data.body("plate")
        for angle in (-LYING_ANGLE, LYING_ANGLE):
            beside = banana.xpos + banana.xmat.reshape(3, 3) @ _on_centre_line(angle) - plate_body.xpos
            if math.hypot(*beside[:2]) > plate.RADIUS:
                return False
        return "plate" in self.touching(data, "banana")

    def success(self, data: mujoco.MjData, *, tcp_pose: Float64, gripper_opening: float) -> bool:
        """Ground truth: the banana rests on the plate, untouched, and the open hand is clear above."""
        alone = self.touching(data, "banana") == {"plate"}
        rests = self.achieved(data) and alone and self.is_at_rest(data, "banana")
        return rests and self.gates_passed(tcp_pose, gripper_opening)


def _on_centre_line(angle: float) -> Float64:
    """Place (3,) in the banana's frame, m, ``angle`` rad along its centre line from the middle."""
    return BANANA_ARC_RADIUS * np.array([math.sin(angle), 1 - math.cos(angle), 0.0])


def _banana() -> str:
    """Five capsules along an arc that lies flat on the table, darker towards the ends."""
    segments, geoms = BANANA_SEGMENTS, []
    for index in range(segments):
        start, end = ((index + k) / segments - 0.5 for k in (0, 1))
        points = []
        for fraction in (start, end):
            points += list(_on_centre_line(fraction * BANANA_ARC_ANGLE))
        outer = index in (0, segments - 1)
        radius = BANANA_RADIUS - (0.003 if outer else 0.0)
        colour = "0.86 0.74 0.12 1" if outer else "0.96 0.84 0.14 1"
        line = " ".join(f"{c:.5f}" for c in points)
        geoms.append(
            f'<geom type="capsule" fromto="{line}" size="{radius}" mass="{BANANA_MASS / segments}" rgba="{colour}" '
            f'condim="4" friction="0.8 0.02 0.001" {scene.OBJECT}/>'
        )
    tip = " ".join(f"{c:.5f}" for c in _on_centre_line(BANANA_ARC_ANGLE / 2 + 0.13))
    geoms.append(f'<geom type="sphere" pos="{tip}" size="0.008" mass="0" rgba="0.36 0.27 0.10 1" {scene.VISUAL}/>')
    shapes = "\n      ".join(geoms)
    return f"""
    <body name="banana" pos="{BANANA_START[0]} {BANANA_START[1]} {BANANA_RADIUS}">
      <freejoint name="banana"/>
      {shapes}
    </body>"""
