"""Insert Wheel: put a wheel's pin into the socket of a chair base, with half a millimetre to spare (ConRFT, task 7)."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_data import rotations
from conrft_data.config import ActionScale, Camera, Reset, RewardConfig, TaskConfig, Workspace
from conrft_sim import scene
from conrft_sim.pick_and_place import Grasp, GraspPlan
from conrft_sim.plan import Plan, PlanStep, Servo, at_most_one
from conrft_sim.scene import TaskScene
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.task import Randomisation, Task

Float64 = NDArray[np.float64]

# The wheel: a tyre that lies flat, a pin under it and a hub on top by which it is held. Its origin is the middle of the
# tyre's lower face. The pin is heavy: a wheel that was dropped on the table rights itself on its end.
PIN_RADIUS = 0.005  # m
PIN_LENGTH = 0.012  # m
TYRE_RADIUS = 0.024  # m
TYRE_HEIGHT = 0.014  # m
HUB_RADIUS = 0.008  # m
HUB_TOP = 0.048  # m
GRASP_HEIGHT = 0.028  # of the tool centre point that holds it, m
PIN_MASS, TYRE_MASS, HUB_MASS = 0.10, 0.012, 0.004  # kg

# The chair base lies upside down. The socket is a square hole in a block on the leg that has no wheel yet; its origin
# is the middle of the hole, at the height of the rim.
CLEARANCE = 0.0005  # between pin and socket on each side, m
CHAMFER_WIDTH, CHAMFER_DEPTH = 0.0045, 0.0070  # of the socket's edges, m
RIM_HEIGHT = 0.040  # above the table, m
BLOCK_HALF_WIDTH = 0.023  # m
LEG_LENGTH = 0.085  # from the middle of the chair base to the socket, m

WHEEL_START = (0.48, 0.08)  # middle of the start area, m
SOCKET_PLACE = (0.50, -0.04)  # m
START_SPREAD = 0.02  # +-, in x and y, m (paper)
WIDE_WHEEL = ((0.40, 0.54), (0.08, 0.20))  # x and y range, m
WIDE_SOCKET = ((0.44, 0.56), (-0.08, -0.01))

INSERTED_GAP = 0.0015  # between tyre and rim at most, m
INSERTED_TILT = 0.05  # rad
OPEN_GRIPPER = 0.5  # gate: opening, 0..1
CLEAR_HEIGHT = 0.11  # gate: tool centre point above the table, m


class InsertWheel(Task):
    """A wheel on the table, and a chair base with one empty socket."""

    @classmethod
    def default_config(cls) -> TaskConfig:
        """The task as it is shipped."""
        return TaskConfig(
            name="insert_wheel",
            instruction="Insert the wheel into the chair base.",
            action_dim=7,
            max_steps=100,
            demonstrations=30,
            cameras={"side": Camera(width=256, height=256), "wrist": Camera(width=128, height=128)},
            reset=Reset(position=(0.48, 0.05, 0.12), euler_xyz=(math.pi, 0.0, 0.0), kind="human"),
            workspace=Workspace(low=(0.33, -0.20, 0.03), high=(0.65, 0.25, 0.35), max_tilt=0.7),
            action_scale=ActionScale(translation=0.016, rotation=0.1, leash=0.018),
            reward=RewardConfig(threshold=0.7, min_gripper_opening=OPEN_GRIPPER, min_tcp_height=CLEAR_HEIGHT),
        )

    @classmethod
    def scene(cls) -> TaskScene:
        """Wheel and chair base, seen from the front."""
        return TaskScene(
            bodies=_chair_base() + _wheel(),
            side_camera=(0.86, -0.20, 0.30),
            side_camera_target=(0.48, 0.02, 0.05),
        )

    @classmethod
    def plan(cls, config: TaskConfig) -> Plan:
        """Take the wheel by its hub, carry it over the socket, search for the hole and let it sink."""
        return InsertWheelPlan(Servo.for_task(config), retreat=config.reward.min_tcp_height + 0.03)

    def place(self, data: mujoco.MjData, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """The wheel stands on its pin where ``rng`` says; ``wide`` also moves the chair base."""
        if randomisation == "wide":
            wheel, socket = (rng.uniform(*np.transpose(area)) for area in (WIDE_WHEEL, WIDE_SOCKET))
        else:
            wheel = np.array(WHEEL_START) + rng.uniform(-START_SPREAD, START_SPREAD, 2)
            socket = np.array(SOCKET_PLACE)
        self.set_free_body(data, "wheel", np.array([*wheel, PIN_LENGTH]))
        self.set_fixture(data, "chair_base", np.array([*socket, 0.0]))

    def object_poses(self, data: mujoco.MjData) -> dict[str, Float64]:
        """``wheel``: middle of the tyre's lower face, its z axis away from the pin; ``socket``: middle of the rim."""
        socket = self.body_pose(data, "chair_base")
        socket[2] += RIM_HEIGHT
        return {"wheel": self.body_pose(data, "wheel"), "socket": socket}

    def achieved(self, data: mujoco.MjData) -> bool:
        """The whole pin is in the socket."""
        objects = self.object_poses(data)
        wheel, socket = objects["wheel"], objects["socket"]
        beside = float(np.hypot(*(wheel[:2] - socket[:2])))
        upright = rotations.rotate(wheel[3:], [0.0, 0.0, 1.0])[2] > math.cos(INSERTED_TILT)
        return bool(beside < 3 * CLEARANCE and abs(wheel[2] - socket[2]) < INSERTED_GAP and upright)

    def success(self, data: mujoco.MjData, *, tcp_pose: Float64, gripper_opening: float) -> bool:
        """The tyre lies on the rim with the whole pin in the socket, at rest, carried by the chair base alone."""
        alone = self.touching(data, "wheel") == {"chair_base"}
        rests = self.achieved(data) and alone and self.is_at_rest(data, "wheel")
        return rests and self.gates_passed(tcp_pose, gripper_opening)


class InsertWheelPlan(GraspPlan):
    """The phase is read from where the wheel is: out of the hand, in it, with its pin on the rim, in the socket.

    A misjudged socket is found by feel: as long as the pin's end rests on the rim, the hand circles over it.
    """

    phases = ("reach", "carry", "search", "push", "release", "retreat", "done")
    aimed = ("wheel",)  # in the hand, the pin beside the socket is what is misjudged
    astray = ((-0.02, -0.02, 0.0), (0.02, 0.02, 0.0))  # onto the rim
    look_low = (0.40, -0.15, 0.15)
    look_high = (0.60, 0.20, 0.25)

    def __init__(self, servo: Servo, *, retreat: float) -> None:
        """``retreat``: height at which the hand has left, m."""
        grasp = Grasp(
            held_opening=0.32,
            empty_opening=0.10,
            held_distance=GRASP_HEIGHT + 0.028,
            tolerance=0.006,
            height_tolerance=0.010,
        )
        super().__init__(servo, grasp, "wheel")
        self.retreat = retreat
        self.carry = 0.014  # of the pin's end above the rim on the way to the socket, m
        self.near = 0.010  # from where the socket seems to be, where the pin may come down on the rim, m
        self.widest = 0.003  # largest radius of the search around where the socket seems to be, m
        self.search_period = 2.5  # from one beginning to the next, s
        self.search_speed = 0.006  # m in a tick
        self.most_tilt = 0.12  # of a wheel that may go on searching, rad
        self.press = 0.2  # downwards, in full actions

    def grasp_point(self, scene: SceneSnapshot) -> Float64:
        """On the hub, above the middle of the wheel; higher where an open finger would meet the socket's block."""
        wheel, socket = scene.objects["wheel"], scene.objects["socket"]
        x, y = np.abs(wheel[:2] - socket[:2])
        beside_block = wheel[2] < socket[2] - 0.01 and x < BLOCK_HALF_WIDTH + 0.012 and y < BLOCK_HALF_WIDTH + 0.060
        height = GRASP_HEIGHT + (0.012 if beside_block else 0.0)
        return np.asarray(wheel[:3] + rotations.rotate(wheel[3:], [0.0, 0.0, height]))

    def step(self, scene: SceneSnapshot) -> PlanStep:
        """The plan's wish for this moment."""
        wheel, socket = scene.objects["wheel"], scene.objects["socket"][:3]
        axis = rotations.rotate(wheel[3:], [0.0, 0.0, 1.0])
        end = wheel[:3] - PIN_LENGTH * axis - socket  # of the pin, from the middle of the rim
        away, tilt = math.hypot(*end[:2]), math.acos(min(1.0, float(axis[2])))
        if away < 0.015 and wheel[2] - socket[2] < INSERTED_GAP:
            return self._leave(scene)
        if not self.is_held(scene):
            # Ticks of feeling for the socket, which _carry counts as well: a grasp must not look like a step back.
            feeling = 8.0 * self.servo.translation_scale
            return self.reach(scene, away + 4 * self.carry + self.retreat + feeling)
        if away < 0.015 and end[2] < -0.001:
            return self._sink(scene, end[2])
        if away < self.near + 0.008 and end[2] < 0.003 and tilt < self.most_tilt:
            return self._search(scene, end[:2], away)
        return self._carry(scene, end, away, tilt)

    def _carry(self, scene: SceneSnapshot, end: Float64, away: float, tilt: float) -> PlanStep:
        """Lift, move over the socket and lower, keeping the wheel upright."""
        if tilt > 0.5 * self.most_tilt or away > 0.05:
            height = self.carry
        elif away > self.near:
            height = min(self.carry, 2.0 * (away - self.near))
        else:
            height = -0.02  # down onto the rim, or into the socket
        sideways = -1.5 * end[:2] * min(1.0, 0.03 / max(away, 1e-6))  # not so much that the lift comes late
        error = np.array([*sideways, height - end[2]])
        free = float(np.clip((end[2] + RIM_HEIGHT + 0.002) / 0.03, 0.0, 1.0)) if away > 0.05 else 1.0
        if self.near + 0.008 < away < BLOCK_HALF_WIDTH + 0.035:
            free = float(np.clip(end[2] / 0.008, 0.0, 1.0))  # not against the side of the block
        error[:2] *= free  # no dragging along the table or against the chair base
        ticks = (away + abs(height - end[2]) + self.carry + self.retreat) / self.servo.translation_scale + 12.0
        twist = self._level(self.servo.twist(error, scene.tcp_pose), scene)
        if away < 0.03 and end[2] < 0.5 * self.carry:
            twist[2] = max(twist[2], -0.8)  # gently onto the rim
        return PlanStep(phase="carry", twist=twist, gripper="close", ticks_to_go=ticks)

    def _search(self, scene: SceneSnapshot, offset: Float64, away: float) -> PlanStep:
        """Circles around where the socket seems to be, wider and wider, again and again, with a light press."""
        radius = self.widest * (scene.stamp_ns * 1e-9 / self.search_period % 1.0) ** 2
        outwards = offset / max(away, 1e-6)
        around = np.array([-outwards[1], outwards[0]])
        if away > self.widest + 0.002:
            slide = -0.012 * outwards  # strayed: straight back
        else:
            slide = self.search_speed * at_most_one(around + 0.5 * (radius - away) / self.search_speed * outwards)
        slide /= self.servo.translation_scale
        twist = self._level(np.array([*slide, -self.press, 0.0, 0.0, 0.0]), scene)
        ticks = (PIN_LENGTH + self.retreat) / self.servo.translation_scale + 12.0
        return PlanStep(phase="search", twist=twist, gripper="close", ticks_to_go=ticks)

    def _sink(self, scene: SceneSnapshot, end: float) -> PlanStep:
        """Down, without a wish of one's own where the socket is."""
        twist = self._level(np.array([0.0, 0.0, -0.9, 0.0, 0.0, 0.0]), scene)
        ticks = (end + PIN_LENGTH + self.retreat) / self.servo.translation_scale + 5.0
        return PlanStep(phase="push", twist=twist, gripper="close", ticks_to_go=ticks)

    def _leave(self, scene: SceneSnapshot) -> PlanStep:
        """Open, then straight up."""
        tcp = scene.tcp_pose
        up = self.retreat - tcp[2]
        ticks = max(0.0, up) / self.servo.translation_scale + 5.0 * max(0.0, 0.9 - scene.gripper_opening)
        if scene.success and up <= 0.01:
            return PlanStep(phase="done", twist=np.zeros(6), gripper="open", ticks_to_go=0.0)
        beside = float(np.linalg.norm(self.grasp_point(scene) - tcp[:3])) < 0.06
        if beside and scene.gripper_opening < self.grasp.held_opening + 0.15:
            hold_still = self.servo.twist(np.zeros(3), tcp)
            return PlanStep(phase="release", twist=hold_still, gripper="open", ticks_to_go=ticks + 1.0)
        rise = self.servo.twist(np.array([0.0, 0.0, up + 0.02]), tcp)
        return PlanStep(phase="retreat", twist=rise, gripper="open", ticks_to_go=ticks)

    def _level(self, twist: Float64, scene: SceneSnapshot) -> Float64:
        """``twist`` (6,) with the rotation that rights the wheel and brings the hand's yaw back."""
        axis = rotations.rotate(scene.objects["wheel"][3:], [0.0, 0.0, 1.0])
        turn = np.cross(axis, [0.0, 0.0, 1.0])
        turn[2] = self.servo.yaw_error(scene.tcp_pose, _AHEAD)
        twist[3:] = at_most_one(self.servo.gain * turn / self.servo.rotation_scale)
        return twist


_AHEAD = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])  # a pose whose x axis points away from the robot


def _wheel() -> str:
    """What is touched of pin and tyre are capsules, whose contacts with boxes are exact; the round shapes are drawn."""
    edge = 0.0012  # rounding of the pin's end, m
    pins, tyres = [], []
    for index in range(8):
        angle, following = 2 * math.pi * index / 8, 2 * math.pi * (index + 1) / 8
        x, y = (PIN_RADIUS - edge) * math.cos(angle), (PIN_RADIUS - edge) * math.sin(angle)
        pins.append(
            f'<geom type="capsule" fromto="{x:.6f} {y:.6f} 0.002 {x:.6f} {y:.6f} {edge - PIN_LENGTH}" size="{edge}" '
            f'mass="0" rgba="0 0 0 0" friction="0.1 0.005 0.0001" {scene.OBJECT}/>'
        )
        tube = TYRE_HEIGHT / 2
        points = " ".join(
            f"{(TYRE_RADIUS - tube) * math.cos(a):.6f} {(TYRE_RADIUS - tube) * math.sin(a):.6f} {tube}"
            for a in (angle, following)
        )
        tyres.append(
            f'<geom type="capsule" fromto="{points}" size="{tube}" mass="{TYRE_MASS / 8}" rgba="0 0 0 0" '
            f'condim="4" friction="0.4 0.01 0.001" {scene.OBJECT}/>'
        )
    shapes = "\n      ".join([*pins, *tyres])
    black, steel, orange = "0.12 0.12 0.13 1", "0.75 0.77 0.80 1", "0.95 0.50 0.10 1"
    return f"""
    <body name="wheel" pos="{WHEEL_START[0]} {WHEEL_START[1]} {PIN_LENGTH}">
      <freejoint name="wheel"/>
      {shapes}
      <geom type="sphere" pos="0 0 {-0.8 * PIN_LENGTH}" size="0.003" mass="{PIN_MASS}" rgba="0 0 0 0" {scene.VISUAL}/>
      <geom type="cylinder" pos="0 0 {-PIN_LENGTH / 2}" size="{PIN_RADIUS} {PIN_LENGTH / 2}" mass="0" rgba="{steel}"
            {scene.VISUAL}/>
      <geom type="cylinder" pos="0 0 {TYRE_HEIGHT / 2}" size="{TYRE_RADIUS} {TYRE_HEIGHT / 2}" mass="0" rgba="{black}"
            {scene.VISUAL}/>
      <geom name="hub" type="capsule" fromto="0 0 {TYRE_HEIGHT - 0.004} 0 0 {HUB_TOP - HUB_RADIUS}" size="{HUB_RADIUS}"
            mass="{HUB_MASS}" rgba="{orange}" condim="4" friction="0.8 0.02 0.001" {scene.OBJECT}/>
    </body>"""


def _socket_walls(colour: str) -> str:
    """A square hole from four sides, each of two upright boxes and a slanting one that makes the chamfer."""
    hole, outer, half, thin = PIN_RADIUS + CLEARANCE, BLOCK_HALF_WIDTH, RIM_HEIGHT / 2, 0.002
    wide, low = hole + CHAMFER_WIDTH, (RIM_HEIGHT - CHAMFER_DEPTH) / 2
    slope = math.atan2(CHAMFER_DEPTH, CHAMFER_WIDTH)
    slant = math.hypot(CHAMFER_DEPTH, CHAMFER_WIDTH) / 2
    boxes = (  # distance from the middle, height, half sizes across, along and up, slope
        ((outer + wide) / 2, half, (outer - wide) / 2, outer, half, 0.0),
        ((wide + hole) / 2, low, CHAMFER_WIDTH / 2, wide, low, 0.0),
        (
            (wide + hole) / 2 + thin * math.sin(slope),
            RIM_HEIGHT - CHAMFER_DEPTH / 2 - thin * math.cos(slope),
            slant,
            wide,
            thin,
            slope,
        ),
    )
    walls = []
    for sign in (1, -1):
        for middle, height, across, along, up, turn in boxes:
            for place, size, euler in (
                (f"{sign * middle:.6f} 0", f"{across:.6f} {along:.6f}", f"0 {-sign * turn:.6f} 0"),
                (f"0 {sign * middle:.6f}", f"{along:.6f} {across:.6f}", f"{sign * turn:.6f} 0 0"),
            ):
                walls.append(
                    f'<geom type="box" pos="{place} {height:.6f}" size="{size} {up:.6f}" euler="{euler}" '
                    f'rgba="{colour}" friction="0.1 0.005 0.0001" {scene.SURROUNDINGS}/>'
                )
    return "\n      ".join(walls)


def _chair_base() -> str:
    """Five legs from a middle; four carry wheels, the block on the fifth has the socket."""
    blue, black, dark = "0.16 0.34 0.62 1", "0.12 0.12 0.13 1", "0.05 0.05 0.06 1"
    hole, walls = PIN_RADIUS + CLEARANCE, _socket_walls(blue)
    legs = []
    for index in range(5):
        angle = math.pi / 2 + 2 * math.pi * index / 5
        along, inner = (math.cos(angle), math.sin(angle)), 0.5 * LEG_LENGTH
        end = (LEG_LENGTH * along[0], LEG_LENGTH * (along[1] - 1.0))
        length = inner - (BLOCK_HALF_WIDTH if index == 0 else 0.0) / 2
        legs.append(
            f'<geom type="box" pos="{length * along[0]:.5f} {length * along[1] - LEG_LENGTH:.5f} 0.014" '
            f'size="{length:.5f} 0.010 0.010" euler="0 0 {angle:.5f}" rgba="{blue}" {scene.SURROUNDINGS}/>'
        )
        if index:
            legs.append(
                f'<geom type="cylinder" pos="{end[0]:.5f} {end[1]:.5f} 0.031" size="{TYRE_RADIUS} 0.007" '
                f'rgba="{black}" {scene.SURROUNDINGS}/>'
            )
    parts = "\n      ".join(legs)
    return f"""
    <body name="chair_base" mocap="true" pos="{SOCKET_PLACE[0]} {SOCKET_PLACE[1]} 0">
      {walls}
      {parts}
      <geom type="box" pos="0 0 0.010" size="{hole} {hole} 0.001" rgba="{dark}" {scene.VISUAL}/>
    </body>"""
