"""Put Spoon: a spoon lies on the table and has to be put on the towel (ConRFT, task 2)."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_data import rotations
from conrft_data.config import Camera, Reset, RewardConfig, TaskConfig, Workspace
from conrft_sim import scene
from conrft_sim.pick_and_place import Grasp, PickAndPlacePlan, Placing
from conrft_sim.plan import Servo
from conrft_sim.scene import TaskScene
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.start_area import wide_pair
from conrft_sim.task import Randomisation, Task

Float64 = NDArray[np.float64]

SPOON_START = (0.50, 0.11)  # middle of the start area, m
START_SPREAD = 0.03  # +-, in x and y, m (paper)
HANDLE_RADIUS = 0.007  # m
HANDLE_HEIGHT = 0.011  # of the middle of the handle above what it lies on, m
HANDLE_END = -0.062  # x of the handle's end, from the middle, m
BOWL = (0.052, 0.018, 0.015, 0.009)  # x of its middle; half its length, width and height, m
SPOON_MASS = 0.05  # kg

TOWEL_POSITION = (0.49, -0.12)  # m
TOWEL_HALF = 0.105  # half a side, m
TOWEL_THICKNESS = 0.004  # m
TOWEL_DEPTH = 0.03  # in the table, where nobody sees it, m
WIDE_DISTANCE = 0.22  # between towel and spoon at least, m

SIDE_CAMERA = (0.94, -0.35, 0.48)  # nearer than usual: the spoon is thin, m
SIDE_CAMERA_TARGET = (0.48, 0.0, 0.09)

OPEN_GRIPPER = 0.5  # gate: opening, 0..1
CLEAR_HEIGHT = 0.16  # gate: tool centre point above the table, m


class PutSpoon(Task):
    """The spoon and the towel."""

    @classmethod
    def default_config(cls) -> TaskConfig:
        """The task as it is shipped."""
        return TaskConfig(
            name="put_spoon",
            instruction="Put the red spoon on the blue towel.",
            action_dim=7,
            max_steps=100,
            demonstrations=20,
            cameras={"side": Camera(width=256, height=256), "wrist": Camera(width=128, height=128)},
            reset=Reset(position=(0.45, 0.0, 0.25), euler_xyz=(math.pi, 0.0, 0.0), kind="human"),
            workspace=Workspace(low=(0.30, -0.25, 0.012), high=(0.65, 0.25, 0.40), max_tilt=0.5),
            reward=RewardConfig(threshold=0.7, min_gripper_opening=OPEN_GRIPPER, min_tcp_height=CLEAR_HEIGHT),
        )

    @classmethod
    def scene(cls) -> TaskScene:
        """The spoon, which can be moved, and the towel, which cannot."""
        return TaskScene(bodies=_towel() + _spoon(), side_camera=SIDE_CAMERA, side_camera_target=SIDE_CAMERA_TARGET)

    @classmethod
    def plan(cls, config: TaskConfig) -> PutSpoonPlan:
        """Grasp the spoon by the middle of its handle, lay it on the towel, leave."""
        return PutSpoonPlan(
            Servo.for_task(config),
            grasp=Grasp(held_opening=0.32, empty_opening=0.08, tolerance=0.015),
            placing=Placing(
                rest=TOWEL_THICKNESS + HANDLE_HEIGHT,
                lift=0.012,
                radius=0.022,
                settled_radius=0.008,
                retreat=max(config.reward.min_tcp_height, 0.0) + 0.03,
            ),
            item="spoon",
            place="towel",
            look_about=((0.35, -0.20, CLEAR_HEIGHT + 0.02), (0.60, 0.20, CLEAR_HEIGHT + 0.14)),
        )

    def place(self, data: mujoco.MjData, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Spoon within three centimetres, towel fixed; ``wide`` moves both and turns the spoon."""
        if randomisation == "wide":
            place, spoon, yaw = wide_pair(rng, WIDE_DISTANCE)
        else:
            place, yaw = np.array(TOWEL_POSITION), 0.0
            spoon = np.array(SPOON_START) + rng.uniform(-START_SPREAD, START_SPREAD, 2)
        self.set_fixture(data, "towel", [*place, 0.0])
        self.set_free_body(data, "spoon", [*spoon, HANDLE_HEIGHT], yaw)

    def object_poses(self, data: mujoco.MjData) -> dict[str, Float64]:
        """Pose (7,) by name: the middle of the spoon's handle, its x axis towards the bowl; the towel on the table."""
        return {name: self.body_pose(data, name) for name in ("spoon", "towel")}

    def achieved(self, data: mujoco.MjData) -> bool:
        """The spoon is on the towel, from end to end."""
        return self._lies_within_towel(data) and "towel" in self.touching(data, "spoon")

    def success(self, data: mujoco.MjData, *, tcp_pose: Float64, gripper_opening: float) -> bool:
        """Ground truth: the whole spoon rests on the towel, untouched, and the open hand is clear above."""
        lies = self.achieved(data) and self.is_at_rest(data, "spoon")
        alone = self.touching(data, "spoon") == {"towel"}
        return lies and alone and self.gates_passed(tcp_pose, gripper_opening)

    def _lies_within_towel(self, data: mujoco.MjData) -> bool:
        """Whether both ends of the spoon are above the towel."""
        spoon, towel = self.body_pose(data, "spoon"), self.body_pose(data, "towel")
        for end in (HANDLE_END - HANDLE_RADIUS, BOWL[0] + BOWL[1]):
            beside = spoon[:3] + rotations.rotate(spoon[3:], [end, 0.0, 0.0]) - towel[:3]
            if np.abs(rotations.rotate(rotations.inverse(towel[3:]), beside)[:2]).max() > TOWEL_HALF:
                return False
        return True


class PutSpoonPlan(PickAndPlacePlan):
    """The handle is so thin that the finger tips come close to the table."""

    def grasp_point(self, scene: SceneSnapshot) -> Float64:
        """A little above the middle of the handle."""
        return scene.objects["spoon"][:3] + np.array([0.0, 0.0, 0.003])


def _spoon() -> str:
    """A handle that rises towards the bowl, so that both ends touch what it lies on.

    The bowl is drawn round and touched as a box: it does not roll.
    """
    x, length, width, height = BOWL
    material = f'condim="4" friction="0.8 0.02 0.001" {scene.OBJECT}'
    end, neck = HANDLE_RADIUS - HANDLE_HEIGHT, 0.003
    bowl = height - HANDLE_HEIGHT
    return f"""
    <body name="spoon" pos="{SPOON_START[0]} {SPOON_START[1]} {HANDLE_HEIGHT}">
      <freejoint name="spoon"/>
      <geom type="capsule" fromto="{HANDLE_END} 0 {end} {x - length} 0 {neck}" size="{HANDLE_RADIUS}"
            mass="{0.6 * SPOON_MASS}" rgba="0.86 0.14 0.12 1" {material}/>
      <geom type="box" pos="{x} 0 {bowl}" size="{0.7 * length} {0.7 * width} {height}" mass="{0.4 * SPOON_MASS}"
            rgba="0 0 0 0" {material}/>
      <geom type="ellipsoid" pos="{x} 0 {bowl}" size="{length} {width} {height}" mass="0" rgba="0.86 0.14 0.12 1"
            {scene.VISUAL}/>
      <geom type="ellipsoid" pos="{x} 0 {bowl + 0.003}" size="{length - 0.005} {width - 0.005} {height - 0.002}"
            mass="0" rgba="0.55 0.07 0.07 1" {scene.VISUAL}/>
    </body>"""


def _towel() -> str:
    # As a body it reaches into the table: through one as thin as it looks, a hand could push the spoon.
    half = (TOWEL_THICKNESS + TOWEL_DEPTH) / 2
    stripe = TOWEL_HALF - 0.02
    stripes = "\n      ".join(
        f'<geom type="box" pos="{side * stripe} 0 {TOWEL_THICKNESS}" size="0.005 {TOWEL_HALF} 0.0004" '
        f'rgba="0.85 0.90 0.98 1" {scene.VISUAL}/>'
        for side in (-1, 1)
    )
    return f"""
    <body name="towel" mocap="true" pos="{TOWEL_POSITION[0]} {TOWEL_POSITION[1]} 0">
      <geom name="towel" type="box" pos="0 0 {TOWEL_THICKNESS - half}" size="{TOWEL_HALF} {TOWEL_HALF} {half}"
            rgba="0.16 0.36 0.78 1" friction="0.9 0.02 0.001" condim="4" {scene.SURROUNDINGS}/>
      {stripes}
    </body>"""
