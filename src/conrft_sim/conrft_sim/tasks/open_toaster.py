"""Open Toaster: press the toaster's lever down until it latches (ConRFT, task 5)."""

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

TOASTER_START = (0.60, 0.0, 0.03)  # middle of the front and height of the feet, m
START_SPREAD = 0.02  # +-, in y and z, m (paper)
WIDE_AREA = ((0.57, 0.63), (-0.14, 0.14), (0.01, 0.05))  # x, y and z range, m

TOASTER_SIZE = (0.15, 0.25, 0.14)  # depth, width, height, m
LEVER_TOP = 0.115  # middle of the knob above the feet, at rest, m
LEVER_TRAVEL = 0.045  # m
KNOB_REACH = 0.050  # from the front to the middle of the knob, m
KNOB_SIZE = (0.040, 0.044, 0.012)  # x, y, z, m

# The latch: a compressed spring whose far end sits beside the lever's way, near its lower end. Above that point it
# pushes the lever up, below it pushes it down.
LATCH_DEPTH = 0.037  # m from the top; from here on the lever stays down
_SPRING_SIDE = 0.018  # of the spring's far end, beside the lever's way, m
_SPRING_LENGTH = 0.050  # unloaded, m
_SPRING_STIFFNESS = 220.0  # N/m

PRESSED = LEVER_TRAVEL - 0.003  # depth, m
REST_SPEED = 0.01  # m/s
CLEAR_HEIGHT = 0.19  # gate: tool centre point above the table, m: above the lever at rest on the highest toaster

_MOVED_BY_HAND = 'contype="0" conaffinity="4"'  # touches the gripper alone; its joint keeps it in the toaster
_AHEAD = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])  # a pose whose x axis points away from the robot


class OpenToaster(Task):
    """A toaster with a sprung lever on its front; the closed hand presses from above."""

    gripper_start = 0.0

    @classmethod
    def default_config(cls) -> TaskConfig:
        """The task as it is shipped."""
        return TaskConfig(
            name="open_toaster",
            instruction="Press the lever of the toaster down.",
            action_dim=6,
            max_steps=100,
            demonstrations=20,
            cameras={"side": Camera(width=256, height=256), "wrist": Camera(width=128, height=128)},
            reset=Reset(position=(0.42, 0.0, 0.33), euler_xyz=(math.pi, 0.0, 0.0), kind="script"),
            workspace=Workspace(low=(0.30, -0.25, 0.07), high=(0.62, 0.25, 0.40), max_tilt=0.3),
            action_scale=ActionScale(leash=0.03),
            reward=RewardConfig(threshold=0.7, min_tcp_height=CLEAR_HEIGHT),
        )

    @classmethod
    def scene(cls) -> TaskScene:
        """The toaster, seen from its left."""
        return TaskScene(
            bodies=_toaster(),
            sections=f"""
  <tendon>
    <spatial name="latch" springlength="{_SPRING_LENGTH}" stiffness="{_SPRING_STIFFNESS}" width="0.0001"
             rgba="0 0 0 0">
      <site site="latch_toaster"/>
      <site site="latch_lever"/>
    </spatial>
  </tendon>""",
            side_camera=(0.30, -0.52, 0.40),
            side_camera_target=(0.54, 0.0, 0.14),
        )

    @classmethod
    def plan(cls, config: TaskConfig) -> Plan:
        """Above the knob, down, up again."""
        return OpenToasterPlan(Servo.for_task(config), retreat=config.reward.min_tcp_height + 0.03)

    def __init__(self, model: mujoco.MjModel, config: TaskConfig) -> None:
        super().__init__(model, config)
        joint = model.joint("lever")
        self._qpos, self._dof = int(joint.qposadr[0]), int(joint.dofadr[0])

    def place(self, data: mujoco.MjData, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """The lever up; the toaster stands where ``rng`` says."""
        if randomisation == "wide":
            low, high = zip(*WIDE_AREA, strict=True)
            place = rng.uniform(low, high)
        else:
            place = np.array(TOASTER_START)
            place[1:] += rng.uniform(-START_SPREAD, START_SPREAD, 2)
        self.set_fixture(data, "toaster", place)
        data.qpos[self._qpos] = data.qvel[self._dof] = 0.0

    def object_poses(self, data: mujoco.MjData) -> dict[str, Float64]:
        """``toaster``: middle of its front at the height of the feet; ``lever``: middle of the knob's upper face."""
        lever = self.body_pose(data, "lever")
        lever[:3] += [-KNOB_REACH, 0.0, LEVER_TOP + KNOB_SIZE[2] / 2]
        return {"toaster": self.body_pose(data, "toaster"), "lever": lever}

    def achieved(self, data: mujoco.MjData) -> bool:
        """The lever is at its lower end, where it latches."""
        return bool(data.qpos[self._qpos] > PRESSED)

    def success(self, data: mujoco.MjData, *, tcp_pose: Float64, gripper_opening: float) -> bool:
        """The lever stays down by itself: at its lower end, at rest, untouched, and the hand has risen clear of it."""
        still = abs(data.qvel[self._dof]) < REST_SPEED
        untouched = not self.touching(data, "lever")
        return bool(self.achieved(data) and still and untouched and self.gates_passed(tcp_pose, gripper_opening))


class OpenToasterPlan(Plan):
    """The phase is read from the lever's depth and from the hand's place around the knob."""

    phases = ("reach", "press", "retreat", "done")
    aimed = ("lever",)
    look_low = (0.35, -0.20, 0.24)
    look_high = (0.57, 0.20, 0.34)

    def __init__(self, servo: Servo, *, retreat: float) -> None:
        """``retreat``: height at which the hand has left, m."""
        super().__init__(servo)
        self.retreat = retreat
        self.hover = 0.05  # of the finger tips, above the knob, m
        self.fingers = 0.008  # from the tool centre point down to the finger tips, m
        self.care = 0.35  # largest speed up and down at the knob, in full actions

    def step(self, scene: SceneSnapshot) -> PlanStep:
        """The plan's wish for this moment."""
        tcp, lever = scene.tcp_pose, scene.objects["lever"]
        depth = float(scene.objects["toaster"][2] + LEVER_TOP + KNOB_SIZE[2] / 2 - lever[2])
        if depth > PRESSED:
            return self._leave(scene)
        beside = tcp[:2] - lever[:2]
        above = float(tcp[2] - self.fingers - lever[2])
        reach = 0.018 if above < 0.003 else 0.009  # how far from the knob's middle a press may go on, and may begin
        if abs(beside[0]) < reach and abs(beside[1]) < reach and -0.004 < above < 0.025:
            error = np.array([*-beside, -(LEVER_TRAVEL - depth) - 0.02])
            return self._step("press", error, tcp, self._after_reaching(depth), careful=True)
        return self._reach(scene, beside, above, depth)

    def _reach(self, scene: SceneSnapshot, beside: Float64, above: float, depth: float) -> PlanStep:
        """Fly above the knob, then sink onto it."""
        away = float(np.linalg.norm(beside))
        height = min(self.hover, 0.015 + max(0.0, away - 0.012))
        error = np.array([*-beside, height - above])
        if above < 0.008 and away > 0.025:
            error[:2] *= 0.15  # rise first: knob and toaster are in the way down here
        if above < -0.05 and beside[0] > -0.07:
            error = np.array([-0.04, 0.0, 0.0])  # so low that the palm may be under the knob: back out first
        path = away + abs(above - height) + height + self._after_reaching(depth)
        return self._step("reach", error, scene.tcp_pose, path, careful=above < self.hover)

    def _leave(self, scene: SceneSnapshot) -> PlanStep:
        """Straight up, off the knob."""
        up = self.retreat - scene.tcp_pose[2]
        if scene.success and up < 0.01:
            return PlanStep(phase="done", twist=np.zeros(6), gripper="keep", ticks_to_go=0.0)
        return self._step("retreat", np.array([0.0, 0.0, up + 0.02]), scene.tcp_pose, max(0.0, up))

    def _after_reaching(self, depth: float) -> float:
        return (LEVER_TRAVEL - depth) / self.care + self.retreat - LEVER_TOP

    def _step(self, phase: str, error: Float64, tcp: Float64, path: float, *, careful: bool = False) -> PlanStep:
        twist = self.servo.twist(error, tcp, self.servo.yaw_error(tcp, _AHEAD))
        if careful:
            twist[2] = np.clip(twist[2], -self.care, self.care)
        return PlanStep(phase=phase, twist=twist, gripper="keep", ticks_to_go=path / self.servo.translation_scale)


def _toaster() -> str:
    """A box with two slots on top and a slit in its front, in which the lever slides."""
    depth, width, height = TOASTER_SIZE
    steel, dark, foot, knob = "0.78 0.80 0.83 1", "0.14 0.14 0.15 1", "0.30 0.31 0.34 1", "0.85 0.16 0.12 1"
    bottom = LEVER_TOP - LEVER_TRAVEL
    slots = "\n      ".join(
        f'<geom type="box" pos="{depth / 2 + x} 0 {height}" size="0.013 0.085 0.0006" rgba="{dark}" {scene.VISUAL}/>'
        for x in (-0.03, 0.03)
    )
    spring_height = LEVER_TOP - LATCH_DEPTH
    return f"""
    <body name="toaster" mocap="true" pos="{TOASTER_START[0]} {TOASTER_START[1]} {TOASTER_START[2]}">
      <geom name="toaster" type="box" pos="{depth / 2} 0 {height / 2}" size="{depth / 2} {width / 2} {height / 2}"
            rgba="{steel}" {scene.SURROUNDINGS}/>
      <geom type="box" pos="{depth / 2} 0 -0.05" size="{depth / 2 + 0.015} {width / 2 + 0.015} 0.05" rgba="{foot}"
            {scene.VISUAL}/>
      <geom type="box" pos="0 0 {(LEVER_TOP + bottom) / 2}" size="0.0008 0.007 {LEVER_TRAVEL / 2 + 0.008}"
            rgba="{dark}" {scene.VISUAL}/>
      {slots}
      <site name="latch_toaster" pos="0 {_SPRING_SIDE} {spring_height}"/>
      <body name="lever">
        <joint name="lever" type="slide" axis="0 0 -1" range="0 {LEVER_TRAVEL}" damping="4"/>
        <site name="latch_lever" pos="0 0 {LEVER_TOP}"/>
        <geom type="box" pos="{-KNOB_REACH / 2} 0 {LEVER_TOP}" size="{KNOB_REACH / 2} 0.005 0.004" mass="0.02"
              rgba="{dark}" {_MOVED_BY_HAND}/>
        <geom name="knob" type="box" pos="{-KNOB_REACH} 0 {LEVER_TOP}"
              size="{KNOB_SIZE[0] / 2} {KNOB_SIZE[1] / 2} {KNOB_SIZE[2] / 2}" mass="0.03" rgba="{knob}"
              friction="0.5 0.01 0.001" {_MOVED_BY_HAND}/>
      </body>
    </body>"""
