"""Put Bread: a slice of bread lies on the cutting board and has to be put on the plate (ConRFT, task 6)."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_data.config import Camera, Reset, RewardConfig, TaskConfig, Workspace
from conrft_sim import bread_slice, plate, scene
from conrft_sim.bread_slice import SliceGraspPlan
from conrft_sim.pick_and_place import PickAndPlacePlan, Placing
from conrft_sim.plan import Servo
from conrft_sim.scene import TaskScene
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.start_area import wide_pair
from conrft_sim.task import Randomisation, Task

Float64 = NDArray[np.float64]

BOARD_POSITION = (0.52, 0.14)  # m
BOARD_SIZE = (0.20, 0.15, 0.012)  # m
START_SPREAD = 0.02  # +-, of the slice on the board, in x and y, m (paper)
PLATE_POSITION = (0.48, -0.15)  # m
WIDE_DISTANCE = 0.225  # between the middles of plate and board at least, m

SIDE_CAMERA = (0.99, -0.37, 0.52)  # nearer than usual, m
SIDE_CAMERA_TARGET = (0.47, 0.0, 0.10)

ON_THE_PLATE = 0.050  # from the plate's middle to the slice's: no corner then reaches the rim, m
OPEN_GRIPPER = 0.9  # gate: opening, 0..1; a hand that still holds the slice is up to 0.7 open
CLEAR_HEIGHT = 0.16  # gate: tool centre point above the table, m


class PutBread(Task):
    """The slice, the cutting board and the plate."""

    @classmethod
    def default_config(cls) -> TaskConfig:
        """The task as it is shipped."""
        return TaskConfig(
            name="put_bread",
            instruction="Put the bread on the white plate.",
            action_dim=7,
            max_steps=120,
            demonstrations=30,
            cameras={"side": Camera(width=256, height=256), "wrist": Camera(width=128, height=128)},
            reset=Reset(position=(0.45, 0.0, 0.28), euler_xyz=(math.pi, 0.0, 0.0), kind="human"),
            workspace=Workspace(low=(0.30, -0.27, 0.015), high=(0.65, 0.27, 0.40), max_tilt=0.6),
            reward=RewardConfig(threshold=0.7, min_gripper_opening=OPEN_GRIPPER, min_tcp_height=CLEAR_HEIGHT),
        )

    @classmethod
    def scene(cls) -> TaskScene:
        """The slice, which can be moved; board and plate, which cannot."""
        white = {"rim": "0.80 0.82 0.86 1", "bottom": "0.90 0.91 0.94 1", "middle": "0.96 0.96 0.98 1"}
        slice_body = bread_slice.slice_body((*BOARD_POSITION, 0.05))
        bodies = _board() + plate.plate_body(PLATE_POSITION, **white) + slice_body
        return TaskScene(bodies=bodies, side_camera=SIDE_CAMERA, side_camera_target=SIDE_CAMERA_TARGET)

    @classmethod
    def plan(cls, config: TaskConfig) -> PutBreadPlan:
        """Grasp the slice from edge to edge, put it on the plate, leave."""
        return PutBreadPlan(
            Servo.for_task(config),
            grasp=bread_slice.SLICE_GRASP,
            placing=Placing(
                rest=plate.THICKNESS + bread_slice.THICKNESS / 2,
                lift=0.012,
                radius=0.028,
                settled_radius=0.012,
                retreat=max(config.reward.min_tcp_height, 0.0) + 0.03,
            ),
            item="slice",
            place="plate",
            look_about=((0.36, -0.22, CLEAR_HEIGHT + 0.02), (0.60, 0.22, CLEAR_HEIGHT + 0.14)),
        )

    def place(self, data: mujoco.MjData, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Slice within two centimetres of the board's middle; ``wide`` moves board and plate and turns the slice."""
        if randomisation == "wide":
            place, board, yaw = wide_pair(rng, WIDE_DISTANCE)
        else:
            place, board, yaw = np.array(PLATE_POSITION), np.array(BOARD_POSITION), 0.0
        start = board + rng.uniform(-START_SPREAD, START_SPREAD, 2)
        self.set_fixture(data, "plate", [*place, 0.0])
        self.set_fixture(data, "board", [*board, 0.0])
        self.set_free_body(data, "slice", [*start, BOARD_SIZE[2] + bread_slice.THICKNESS / 2], yaw)
        mujoco.mju_mulQuat(data.joint("slice").qpos[3:], data.joint("slice").qpos[3:].copy(), bread_slice.FLAT)

    def object_poses(self, data: mujoco.MjData) -> dict[str, Float64]:
        """Pose (7,) by name: the slice's middle; board and plate on the table."""
        return {name: self.body_pose(data, name) for name in ("slice", "plate", "board")}

    def achieved(self, data: mujoco.MjData) -> bool:
        """The slice is on the plate, with all its corners."""
        away = data.body("slice").xpos[:2] - data.body("plate").xpos[:2]
        return math.hypot(*away) < ON_THE_PLATE and "plate" in self.touching(data, "slice")

    def success(self, data: mujoco.MjData, *, tcp_pose: Float64, gripper_opening: float) -> bool:
        """Ground truth: all of the slice rests within the plate, untouched, and the open hand is clear above."""
        lies = self.achieved(data) and self.is_at_rest(data, "slice")
        alone = self.touching(data, "slice") == {"plate"}
        return lies and alone and self.gates_passed(tcp_pose, gripper_opening)


class PutBreadPlan(SliceGraspPlan, PickAndPlacePlan):
    """The slice's way to grasp, then the usual way to a place; a slice that was taken upright is put down upright."""

    def rest_height(self, scene: SceneSnapshot) -> float:
        """Height of the slice's middle on the plate, the way it is held."""
        slice_pose = scene.objects["slice"]
        bottom = float(slice_pose[2]) - bread_slice.lowest_point(slice_pose)
        return float(scene.objects["plate"][2]) + plate.THICKNESS + bottom


def _board() -> str:
    length, width, height = BOARD_SIZE
    return f"""
    <body name="board" mocap="true" pos="{BOARD_POSITION[0]} {BOARD_POSITION[1]} 0">
      <geom name="board" type="box" pos="0 0 {height / 2}" size="{length / 2} {width / 2} {height / 2}"
            rgba="0.42 0.24 0.12 1" friction="0.7 0.02 0.001" {scene.SURROUNDINGS}/>
    </body>"""
