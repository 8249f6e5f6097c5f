"""Open Drawer: pull a drawer open by its handle, and leave it (ConRFT, task 3)."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_data.config import ActionScale, Camera, Reset, RewardConfig, TaskConfig, Workspace
from conrft_sim import scene
from conrft_sim.plan import Plan, PlanStep, Servo
from conrft_sim.scene import TaskScene
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.task import Randomisation, Task

Float64 = NDArray[np.float64]

CABINET_START = (0.62, 0.0)  # middle of the front, on the table, m
START_SPREAD = 0.03  # +-, in x and y, m (paper)
WIDE_AREA = ((0.58, 0.66), (-0.14, 0.14))  # x and y range, m

CABINET_SIZE = (0.20, 0.25, 0.118)  # depth, width, height, m
DRAWER_TRAVEL = 0.18  # m
HANDLE_REACH = 0.074  # from the front to the middle of the bar, m
HANDLE_RADIUS = 0.006  # m
FRONT_THICKNESS = 0.012  # m
HANDLE_HALF_WIDTH = 0.070  # m
HANDLE_HEIGHT = 0.100  # m
DRAWER_FRICTION = 2.0  # N

OPEN_DISTANCE = 0.12  # m
REST_SPEED = 0.01  # m/s
CLEAR_HEIGHT = 0.16  # gate: tool centre point above the table, m

_SLOT = (HANDLE_REACH - FRONT_THICKNESS + HANDLE_RADIUS) / 2  # from the bar to the middle of the gap behind it, m
_AHEAD = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])  # a pose whose x axis points away from the robot
_MOVED_BY_HAND = 'contype="0" conaffinity="4"'  # touches the gripper alone; its joint keeps it in the cabinet


class OpenDrawer(Task):
    """A cabinet with one drawer; the closed hand hooks behind the bar from above."""

    gripper_start = 0.0

    @classmethod
    def default_config(cls) -> TaskConfig:
        """The task as it is shipped."""
        return TaskConfig(
            name="open_drawer",
            instruction="Pull the drawer open.",
            action_dim=6,
            max_steps=100,
            demonstrations=20,
            cameras={"side": Camera(width=256, height=256), "wrist": Camera(width=128, height=128)},
            reset=Reset(position=(0.45, 0.0, 0.29), euler_xyz=(math.pi, 0.0, 0.0), kind="script"),
            workspace=Workspace(low=(0.30, -0.25, 0.05), high=(0.65, 0.25, 0.40), max_tilt=0.3),
            action_scale=ActionScale(leash=0.04),
            reward=RewardConfig(threshold=0.7, min_tcp_height=CLEAR_HEIGHT),
        )

    @classmethod
    def scene(cls) -> TaskScene:
        """The cabinet, seen from its left."""
        return TaskScene(
            bodies=_cabinet(),
            side_camera=(0.36, -0.62, 0.44),
            side_camera_target=(0.54, 0.0, 0.12),
        )

    @classmethod
    def plan(cls, config: TaskConfig) -> Plan:
        """Hook behind the bar, pull, rise."""
        return OpenDrawerPlan(Servo.for_task(config), retreat=config.reward.min_tcp_height + 0.03)

    def __init__(self, model: mujoco.MjModel, config: TaskConfig) -> None:
        super().__init__(model, config)
        joint = model.joint("drawer")
        self._qpos, self._dof = int(joint.qposadr[0]), int(joint.dofadr[0])

    def place(self, data: mujoco.MjData, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """The closed drawer; the cabinet stands where ``rng`` says."""
        if randomisation == "wide":
            (x_low, x_high), (y_low, y_high) = WIDE_AREA
            front = rng.uniform((x_low, y_low), (x_high, y_high))
        else:
            front = np.array(CABINET_START) + rng.uniform(-START_SPREAD, START_SPREAD, 2)
        self.set_fixture(data, "cabinet", np.array([*front, 0.0]))
        data.qpos[self._qpos] = data.qvel[self._dof] = 0.0

    def object_poses(self, data: mujoco.MjData) -> dict[str, Float64]:
        """``cabinet``: middle of its front at table height; ``handle``: middle of the bar."""
        return {name: self.body_pose(data, name) for name in ("cabinet", "handle")}

    def achieved(self, data: mujoco.MjData) -> bool:
        """The drawer is open far enough."""
        return bool(data.qpos[self._qpos] > OPEN_DISTANCE)

    def success(self, data: mujoco.MjData, *, tcp_pose: Float64, gripper_opening: float) -> bool:
        """The drawer stays open by itself: far enough, at rest, untouched, and the hand has risen clear of it."""
        still = abs(data.qvel[self._dof]) < REST_SPEED
        untouched = not self.touching(data, "drawer") | self.touching(data, "handle")
        return bool(self.achieved(data) and still and untouched and self.gates_passed(tcp_pose, gripper_opening))


class OpenDrawerPlan(Plan):
    """The phase is read from the handle's place before the cabinet and from the hand's place around the bar."""

    phases = ("reach", "pull", "retreat", "done")
    aimed = ("handle",)
    look_low = (0.35, -0.20, 0.21)
    look_high = (0.60, 0.20, 0.32)

    def __init__(self, servo: Servo, *, retreat: float) -> None:
        """``retreat``: height at which the hand has left, m."""
        super().__init__(servo)
        self.retreat = retreat
        self.hover = HANDLE_HEIGHT + 0.055  # tool centre point of a hand that flies over the bar, m
        self.depth = HANDLE_HEIGHT - 0.026  # and of one that is hooked in
        self.goal = OPEN_DISTANCE + 0.015
        self.care = 0.5  # largest speed down at the handle and of the pull, in full actions

    def step(self, scene: SceneSnapshot) -> PlanStep:
        """The plan's wish for this moment."""
        tcp, handle = scene.tcp_pose, scene.objects["handle"]
        opening = float(scene.objects["cabinet"][0] - HANDLE_REACH - handle[0])
        behind = tcp[:3] - handle[:3] - [_SLOT, 0.0, 0.0]
        in_gap = -_SLOT < behind[0] < 0.03 and abs(behind[1]) < 0.045
        hooked = in_gap and tcp[2] < HANDLE_HEIGHT + 0.004
        if opening > self.goal or (opening > OPEN_DISTANCE + 0.005 and not hooked):
            return self._leave(scene)
        if hooked:
            return self._pull(scene, opening)
        return self._reach(scene, behind, opening)

    def _reach(self, scene: SceneSnapshot, behind: Float64, opening: float) -> PlanStep:
        """Fly above the gap between bar and drawer, then sink into it."""
        tcp = scene.tcp_pose
        away = float(np.linalg.norm(behind[:2]))
        in_gap = -_SLOT < behind[0] < 0.03 and abs(behind[1]) < 0.042 and tcp[2] < HANDLE_HEIGHT + 0.010
        if in_gap or (abs(behind[0]) < 0.011 and abs(behind[1]) < 0.030):
            height = self.depth
        else:  # a funnel: the farther from the gap, the higher, and never resting on bar or drawer
            height = min(self.hover, HANDLE_HEIGHT + 0.03 + away)
        error = np.array([-behind[0], -behind[1], height - tcp[2]])
        if tcp[2] < HANDLE_HEIGHT + 0.024 and away > 0.03:
            error[:2] *= 0.15  # rise first: bar and cabinet are in the way down here
        path = away + abs(tcp[2] - height) + (height - self.depth) + self._after_hooking(opening)
        return self._step("reach", error, tcp, path, careful=tcp[2] < self.hover)

    def _pull(self, scene: SceneSnapshot, opening: float) -> PlanStep:
        """Back, towards the robot, staying hooked in."""
        tcp, handle = scene.tcp_pose, scene.objects["handle"]
        back = min(0.04, self.goal + 0.02 - opening)  # no faster, so that some effort is left to stay hooked in
        error = np.array([-back, handle[1] - tcp[1], self.depth - tcp[2]])
        return self._step("pull", error, tcp, self._after_hooking(opening), careful=True)

    def _leave(self, scene: SceneSnapshot) -> PlanStep:
        """Straight up, off the bar."""
        up = self.retreat - scene.tcp_pose[2]
        if scene.success and up < 0.01:
            return PlanStep(phase="done", twist=np.zeros(6), gripper="keep", ticks_to_go=0.0)
        return self._step("retreat", np.array([0.0, 0.0, up + 0.02]), scene.tcp_pose, max(0.0, up))

    def _after_hooking(self, opening: float) -> float:
        return max(0.0, self.goal - opening) + self.retreat - self.depth

    def _step(self, phase: str, error: Float64, tcp: Float64, path: float, *, careful: bool = False) -> PlanStep:
        twist = self.servo.twist(error, tcp, self.servo.yaw_error(tcp, _AHEAD))
        if careful:
            slowed = [0, 2] if phase == "pull" else [2]
            twist[slowed] = np.clip(twist[slowed], -self.care, self.care)
        return PlanStep(
            phase=phase,
            twist=twist,
            gripper="keep",
            ticks_to_go=path / self.servo.translation_scale,
        )


def _cabinet() -> str:
    """A box open to the front, and in it the drawer: a tray with a front and a bar handle."""
    depth, width, height = CABINET_SIZE
    back, wall = depth / 2, 0.008
    wood, inside, front, steel = "0.80 0.70 0.55 1", "0.55 0.46 0.35 1", "0.90 0.90 0.86 1", "0.16 0.30 0.62 1"
    bar = f"0 {-HANDLE_HALF_WIDTH} 0 0 {HANDLE_HALF_WIDTH} 0"
    posts = "\n          ".join(
        f'<geom type="capsule" fromto="0 {y} 0 {HANDLE_REACH - FRONT_THICKNESS} {y} 0" size="{HANDLE_RADIUS}" '
        f'mass="0.02" rgba="{steel}" friction="0.4 0.01 0.001" {_MOVED_BY_HAND}/>'
        for y in (-HANDLE_HALF_WIDTH, HANDLE_HALF_WIDTH)
    )
    middle = height / 2
    return f"""
    <body name="cabinet" mocap="true" pos="{CABINET_START[0]} {CABINET_START[1]} 0">
      <geom type="box" pos="{back} 0 {height - wall / 2}" size="{back} {width / 2} {wall / 2}" rgba="{wood}"
            {scene.SURROUNDINGS}/>
      <geom type="box" pos="{back} {width / 2} {middle}" size="{back} {wall / 2} {middle}" rgba="{wood}"
            {scene.SURROUNDINGS}/>
      <geom type="box" pos="{back} {-width / 2} {middle}" size="{back} {wall / 2} {middle}" rgba="{wood}"
            {scene.SURROUNDINGS}/>
      <geom type="box" pos="{depth} 0 {middle}" size="{wall / 2} {width / 2} {middle}" rgba="{wood}"
            {scene.SURROUNDINGS}/>
      <geom type="box" pos="{back} 0 0.004" size="{back} {width / 2} 0.004" rgba="{inside}" {scene.SURROUNDINGS}/>
      <body name="drawer">
        <joint name="drawer" type="slide" axis="-1 0 0" range="0 {DRAWER_TRAVEL}" damping="5"
               frictionloss="{DRAWER_FRICTION}"/>
        <geom name="drawer_front" type="box" pos="{-FRONT_THICKNESS / 2} 0 0.060"
              size="{FRONT_THICKNESS / 2} 0.117 0.052" mass="0.4" rgba="{front}" {_MOVED_BY_HAND}/>
        <geom type="box" pos="0.09 0 0.020" size="0.09 0.105 0.004" mass="0.4" rgba="{inside}" {scene.VISUAL}/>
        <geom type="box" pos="0.09 0.105 0.045" size="0.09 0.004 0.025" mass="0" rgba="{front}" {scene.VISUAL}/>
        <geom type="box" pos="0.09 -0.105 0.045" size="0.09 0.004 0.025" mass="0" rgba="{front}" {scene.VISUAL}/>
        <body name="handle" pos="{-HANDLE_REACH} 0 {HANDLE_HEIGHT}">
          <geom name="handle" type="capsule" fromto="{bar}" size="{HANDLE_RADIUS}" mass="0.05" rgba="{steel}"
                friction="0.4 0.01 0.001" {_MOVED_BY_HAND}/>
          {posts}
        </body>
      </body>
    </body>"""
