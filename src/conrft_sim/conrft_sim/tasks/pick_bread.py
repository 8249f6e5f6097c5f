"""Pick Bread: a slice of bread stands in the toaster's slot and has to be pulled out of it (ConRFT, task 4)."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_data.config import Camera, Reset, RewardConfig, TaskConfig, Workspace
from conrft_sim import bread_slice, scene
from conrft_sim.bread_slice import SliceGraspPlan
from conrft_sim.plan import PlanStep, Servo
from conrft_sim.scene import TaskScene
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.task import Randomisation, Task

Float64 = NDArray[np.float64]

TOASTER_START = (0.53, 0.05)  # m
START_SPREAD = 0.02  # +-, in x and y, m (paper)
WIDE_AREA = ((0.42, 0.60), (-0.16, 0.16))  # x and y range, m
WIDE_YAW = 0.25  # +-, rad

TOASTER_SIZE = (0.150, 0.170, 0.075)  # x along the slots, y, z, m
SLOT = (0.066, 0.021)  # inside: x, y, m
SLOT_FLOOR = 0.050  # m
SLOT_SIDE = 0.035  # from the middle of the toaster to the middle of each slot: no open finger meets the other slot, m

SIDE_CAMERA = (0.95, -0.32, 0.42)  # nearer and lower than usual, m
SIDE_CAMERA_TARGET = (0.49, 0.02, 0.13)

PULLED_OUT = 0.05  # the slice's lowest corner above the toaster, m
HOLDING = 0.10  # gate: opening of a hand that has something between its fingers, 0..1
CLEAR_HEIGHT = 0.155  # gate: tool centre point above the table, m
STEADY_SPEED = 0.15  # of a slice that is held, m/s


class PickBread(Task):
    """The slice and the toaster. There is nowhere to put the slice: it is held up when the task is done."""

    @classmethod
    def default_config(cls) -> TaskConfig:
        """The task as it is shipped."""
        return TaskConfig(
            name="pick_bread",
            instruction="Pick up the bread from the toaster.",
            action_dim=7,
            max_steps=100,
            demonstrations=30,
            cameras={"side": Camera(width=256, height=256), "wrist": Camera(width=128, height=128)},
            reset=Reset(position=(0.42, -0.04, 0.33), euler_xyz=(math.pi, 0.0, 0.0), kind="human"),
            workspace=Workspace(low=(0.30, -0.25, 0.015), high=(0.65, 0.25, 0.40), max_tilt=0.6),
            reward=RewardConfig(threshold=0.7, min_gripper_opening=HOLDING, min_tcp_height=CLEAR_HEIGHT),
        )

    @classmethod
    def scene(cls) -> TaskScene:
        """The slice, which can be moved, and the toaster, which cannot."""
        bodies = _toaster() + bread_slice.slice_body((*TOASTER_START, 0.1))
        return TaskScene(bodies=bodies, side_camera=SIDE_CAMERA, side_camera_target=SIDE_CAMERA_TARGET)

    @classmethod
    def plan(cls, config: TaskConfig) -> PickBreadPlan:
        """Grasp the slice and lift it."""
        return PickBreadPlan(Servo.for_task(config), retreat=max(config.reward.min_tcp_height, 0.0) + 0.035)

    def place(self, data: mujoco.MjData, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Toaster with the slice within two centimetres; ``wide`` moves and turns them farther."""
        if randomisation == "wide":
            (x_low, x_high), (y_low, y_high) = WIDE_AREA
            place, yaw = rng.uniform((x_low, y_low), (x_high, y_high)), float(rng.uniform(-WIDE_YAW, WIDE_YAW))
        else:
            place, yaw = np.array(TOASTER_START) + rng.uniform(-START_SPREAD, START_SPREAD, 2), 0.0
        slot = place + SLOT_SIDE * np.array([-math.sin(yaw), math.cos(yaw)])
        self.set_fixture(data, "toaster", [*place, 0.0], yaw)
        self.set_free_body(data, "slice", [*slot, SLOT_FLOOR + bread_slice.SIDE / 2], yaw)

    def object_poses(self, data: mujoco.MjData) -> dict[str, Float64]:
        """Pose (7,) by name: the slice's middle; the toaster's middle on the table."""
        return {name: self.body_pose(data, name) for name in ("slice", "toaster")}

    def achieved(self, data: mujoco.MjData) -> bool:
        """Both fingers hold the slice, all of it so far above the toaster that nothing else can."""
        lowest = bread_slice.lowest_point(self.body_pose(data, "slice"))
        out = lowest > TOASTER_SIZE[2] + PULLED_OUT
        return out and {"finger_left", "finger_right"} <= self.touching(data, "slice")

    def success(self, data: mujoco.MjData, *, tcp_pose: Float64, gripper_opening: float) -> bool:
        """Ground truth: both fingers hold the slice steadily, all of it well above the toaster."""
        steady = bool(np.linalg.norm(data.joint("slice").qvel[:3]) < STEADY_SPEED)
        return self.achieved(data) and steady and self.gates_passed(tcp_pose, gripper_opening)


class PickBreadPlan(SliceGraspPlan):
    """State feedback for "pull the slice out": the phase is read from the scene."""

    phases = ("reach", "lift", "done")
    aimed = ("slice",)
    look_low, look_high = (0.38, -0.18, 0.21), (0.60, 0.18, 0.34)

    def __init__(self, servo: Servo, *, retreat: float) -> None:
        """``retreat``: height of the tool centre point, m, at which the slice is well out of the slot."""
        super().__init__(servo, bread_slice.SLICE_GRASP, "slice")
        self.retreat = retreat

    def step(self, scene: SceneSnapshot) -> PlanStep:
        """The plan's wish for this moment."""
        if scene.success:
            return PlanStep(phase="done", twist=np.zeros(6), gripper="close", ticks_to_go=0.0)
        if not self.is_held(scene):
            return self.reach(scene, self.retreat)
        lowest = bread_slice.lowest_point(scene.objects["slice"])
        up = max(self.retreat - scene.tcp_pose[2], TOASTER_SIZE[2] + PULLED_OUT + 0.01 - lowest)
        twist = self.servo.twist(np.array([0.0, 0.0, up]), scene.tcp_pose)
        ticks = max(0.0, up) / self.servo.translation_scale + 2.0
        return PlanStep(phase="lift", twist=twist, gripper="close", ticks_to_go=ticks)


def _toaster() -> str:
    """A box with two slots, built from walls, so that a slice stands in a slot and leans against nothing else."""
    length, width, height = TOASTER_SIZE
    steel, dark, knob = "0.78 0.80 0.83 1", "0.14 0.14 0.15 1", "0.85 0.16 0.12 1"
    end = (length - SLOT[0]) / 4  # half a wall at each end of the slots
    inner = SLOT_SIDE - SLOT[1] / 2  # half the wall between the slots
    outer = (width / 2 - SLOT_SIDE - SLOT[1] / 2) / 2  # half a wall at each side
    walls = [((side * (length / 2 - end), 0.0), (end, width / 2)) for side in (-1, 1)]
    walls += [((0.0, side * (width / 2 - outer)), (SLOT[0] / 2, outer)) for side in (-1, 1)]
    walls += [((0.0, 0.0), (SLOT[0] / 2, inner))]
    shapes = [
        f'<geom type="box" pos="{x} {y} {height / 2}" size="{a} {b} {height / 2}" rgba="{steel}" {scene.SURROUNDINGS}/>'
        for (x, y), (a, b) in walls
    ]
    floor = f'size="{SLOT[0] / 2} {width / 2 - 2 * outer} {SLOT_FLOOR / 2}" rgba="{dark}" {scene.SURROUNDINGS}'
    shapes += [
        f'<geom type="box" pos="0 0 {SLOT_FLOOR / 2}" {floor}/>',
        f'<geom type="box" pos="{-length / 2 - 0.008} 0 0.050" size="0.010 0.016 0.006" rgba="{knob}" {scene.VISUAL}/>',
    ]
    text = "\n      ".join(shapes)
    return f"""
    <body name="toaster" mocap="true" pos="{TOASTER_START[0]} {TOASTER_START[1]} 0">
      {text}
    </body>"""
