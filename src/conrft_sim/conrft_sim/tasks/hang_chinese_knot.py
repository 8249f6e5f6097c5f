"""Hang Chinese Knot: take the knot by the bead of its loop and hang it on a hook (ConRFT, task 8)."""

from __future__ import annotations

import math
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_data.config import ActionScale, Camera, Reset, RewardConfig, TaskConfig, Workspace
from conrft_sim import scene
from conrft_sim.pick_and_place import Grasp, GraspPlan
from conrft_sim.plan import Plan, PlanStep, Servo
from conrft_sim.scene import TaskScene
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.task import Randomisation, Task

Float64 = NDArray[np.float64]

# The knot: a flat diamond, a loop of cord above it with a bead in the middle, a tassel below. The cord is a
# chain of capsules on springy ball joints, closed by a constraint; its shape without a load is half an ellipse.
LINKS = 5  # on each side of the loop
CORD_RADIUS = 0.003  # m
LOOP_LENGTH = 0.078  # from the diamond to the bead, m
LOOP_HALF_WIDTH = 0.036  # m
CORD_STIFFNESS, CORD_DAMPING = 0.010, 0.0014  # of each joint, N m/rad and N m s/rad
BEAD_RADIUS, BEAD_HALF_LENGTH = 0.009, 0.010  # half its thickness, and half its length, m
DIAMOND = 0.024  # half a side, m
KNOT_HALF_THICKNESS = 0.006  # m
LINK_MASS, BEAD_MASS, DIAMOND_MASS, TASSEL_MASS = 0.003, 0.010, 0.040, 0.010  # kg

# The hook: a shaft that points along +y, with an upturned tip, on a post. Its origin is the middle of the shaft.
SHAFT_HALF_LENGTH = 0.048  # m
SHAFT_RADIUS = 0.005  # m
TIP_HEIGHT = 0.014  # of the middle of the tip's end above the shaft, m
POST_PLACE = -SHAFT_HALF_LENGTH - 0.006  # along the shaft, m

HOOK_START = (0.48, -0.12, 0.22)  # m
START_SPREAD = 0.03  # +-, in y and z, m (paper)
BEAD_START = (0.47, 0.09)  # m
WIDE_HOOK = ((0.44, 0.54), (-0.17, -0.08), (0.19, 0.26))  # x, y and z range, m
WIDE_BEAD = ((0.42, 0.54), (0.04, 0.12))
WIDE_YAW = 0.5  # +-, rad

REST_SPEED = 0.08  # of diamond and bead, m/s
CARRIED_SHARE = 0.85  # of the weight that the hook must carry, at least
TIP_SHARE = 0.5  # of the weight that the hook's tip may carry, less than
OPEN_GRIPPER = 0.5  # gate: opening, 0..1
CLEAR_HEIGHT = 0.295  # gate: tool centre point above the table, m

_PARTS = 2 * LINKS + 3  # links, bead, diamond, tassel


class HangChineseKnot(Task):
    """A knot on the table, and a hook on a post."""

    @classmethod
    def default_config(cls) -> TaskConfig:
        """The task as it is shipped."""
        return TaskConfig(
            name="hang_chinese_knot",
            instruction="Hang the Chinese knot on the hook.",
            action_dim=7,
            max_steps=100,
            demonstrations=30,
            cameras={"side": Camera(width=256, height=256), "wrist": Camera(width=128, height=128)},
            reset=Reset(position=(0.47, 0.07, 0.12), euler_xyz=(math.pi, 0.0, 0.0), kind="human"),
            workspace=Workspace(low=(0.33, -0.20, 0.009), high=(0.65, 0.25, 0.45), max_tilt=0.8),
            action_scale=ActionScale(translation=0.03, leash=0.05),
            reward=RewardConfig(threshold=0.7, min_gripper_opening=OPEN_GRIPPER, min_tcp_height=CLEAR_HEIGHT),
        )

    @classmethod
    def scene(cls) -> TaskScene:
        """Knot and hook, seen from the front and the right."""
        return TaskScene(
            bodies=_hook() + _knot(),
            sections=f"""
  <option noslip_iterations="3"/>
  <equality>
    <connect body1="knot_link_{2 * LINKS - 1}" body2="knot" anchor="{_closing_anchor()}" solref="0.01 1"/>
  </equality>""",
            side_camera=(0.93, -0.34, 0.38),
            side_camera_target=(0.48, -0.01, 0.14),
        )

    @classmethod
    def plan(cls, config: TaskConfig) -> Plan:
        """Take the bead, bring the loop over the tip, let it down on the shaft."""
        return HangKnotPlan(Servo.for_task(config), retreat=config.reward.min_tcp_height + 0.03)

    def __init__(self, model: mujoco.MjModel, config: TaskConfig) -> None:
        super().__init__(model, config)
        links = [model.body(f"knot_link_{index}").id for index in range(2 * LINKS)]
        self._bead, self._knot = model.body("bead").id, model.body("knot").id
        self._loop = [self._knot, *links[:LINKS], self._bead, *links[LINKS:]]
        parts = {*self._loop, model.body("tassel").id}
        self._is_part = np.array([body in parts for body in model.geom_bodyid])
        self._weight = 9.81 * float(sum(model.body_mass[body] for body in parts))
        self._tip = model.geom("hook_tip").id
        self._hook = model.body("hook").id
        first = int(model.joint("knot").qposadr[0])
        self._joints = slice(first, first + 7 + 4 * (2 * LINKS + 2))
        self._velocities = slice(*(int(model.joint("knot").dofadr[0]) + k for k in (0, 6 + 3 * (2 * LINKS + 2))))

    def place(self, data: mujoco.MjData, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """The knot lies flat on the table; the hook is where ``rng`` says, ``wide`` also moves and turns the knot."""
        hook, bead, yaw = np.array(HOOK_START), np.array(BEAD_START), 0.0
        if randomisation == "wide":
            hook = rng.uniform(*np.transpose(WIDE_HOOK))
            bead = rng.uniform(*np.transpose(WIDE_BEAD))
            yaw = float(rng.uniform(-WIDE_YAW, WIDE_YAW))
        else:
            hook[1:] += rng.uniform(-START_SPREAD, START_SPREAD, 2)
        self.set_fixture(data, "hook", hook)
        data.qpos[self._joints] = self.model.qpos0[self._joints]
        data.qvel[self._velocities] = 0.0
        to_knot = _BEAD_AT[1] * np.array([math.sin(yaw), -math.cos(yaw)])
        self.set_free_body(data, "knot", np.array([*(bead + to_knot), KNOT_HALF_THICKNESS + 0.002]), yaw)

    def object_poses(self, data: mujoco.MjData) -> dict[str, Float64]:
        """``bead``: its x axis along it; ``knot``: middle of the diamond; ``hook``: middle of the shaft."""
        poses = {name: self.body_pose(data, name) for name in ("bead", "knot", "hook")}
        poses["bead"][:3] = data.geom("bead").xpos  # the body's origin is where the cord enters
        return poses

    def achieved(self, data: mujoco.MjData) -> bool:
        """The loop is around the hook, however far inside, and it is not the tip that carries the knot."""
        return self.is_threaded(data) and self._load(data).on_tip < TIP_SHARE * self._weight

    def success(self, data: mujoco.MjData, *, tcp_pose: Float64, gripper_opening: float) -> bool:
        """The loop is around the hook, which alone carries the knot, at rest, and the hand has left."""
        return (
            self.gates_passed(tcp_pose, gripper_opening)
            and self._is_still(data)
            and self.achieved(data)
            and self._hangs_on_hook(data)
        )

    def is_threaded(self, data: mujoco.MjData) -> bool:
        """Whether the hook passes through the loop: an odd number of times through a surface that the loop spans.

        The hook is the line from the tip along the shaft to the post, and down the post.
        """
        loop = data.xpos[self._loop] - data.xpos[self._hook]
        fan = np.stack([np.broadcast_to(loop.mean(axis=0), loop.shape), loop, np.roll(loop, -1, axis=0)], axis=1)
        along_shaft, along_post = _crossings(fan, axis=1), _crossings(fan - [0.0, POST_PLACE, 0.0], axis=2)
        on_shaft = (along_shaft > POST_PLACE) & (along_shaft < SHAFT_HALF_LENGTH)
        return bool((on_shaft.sum() + (along_post < 0.0).sum()) % 2)

    def _is_still(self, data: mujoco.MjData) -> bool:
        speed = np.zeros(6)
        for body in (self._bead, self._knot):
            mujoco.mj_objectVelocity(self.model, data, mujoco.mjtObj.mjOBJ_BODY, body, speed, 0)
            if np.linalg.norm(speed[3:]) > REST_SPEED:
                return False
        return True

    def _hangs_on_hook(self, data: mujoco.MjData) -> bool:
        """Whether the knot touches nothing but the hook, which carries its weight."""
        load = self._load(data)
        return load.on_hook > CARRIED_SHARE * self._weight and not load.touches_other

    def _load(self, data: mujoco.MjData) -> _Load:
        on_hook, on_tip, touches_other, force = 0.0, 0.0, False, np.zeros(6)
        for index in range(data.ncon):
            first, second = data.contact.geom[index]
            if self._is_part[first] == self._is_part[second]:
                continue
            other = first if self._is_part[second] else second
            if self.model.geom_bodyid[other] != self._hook:
                touches_other = True
                continue
            mujoco.mj_contactForce(self.model, data, index, force)
            upwards = float(data.contact.frame[index].reshape(3, 3)[:, 2] @ force[:3])  # on the second geom
            carried = upwards if other == first else -upwards
            on_hook += carried
            on_tip += carried if other == self._tip else 0.0
        return _Load(on_hook, on_tip, touches_other)


class _Load(NamedTuple):
    """What carries the knot: forces upwards from the hook, and from its tip, N; whether it touches anything else."""

    on_hook: float
    on_tip: float
    touches_other: bool


_FREE = SHAFT_HALF_LENGTH + 0.135  # of the bead in the hand, before the hook: from here on the palm may rise, m
_PALM_HEIGHT = 0.115  # from the tool centre point to the top of the palm, and a little more, m
_BESIDE = 0.055  # between hook and tool centre point, across the shaft: there fingers and palm pass the hook, m
_ALONG_X = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])  # a pose whose x axis points away from the robot


class HangKnotPlan(GraspPlan):
    """The phase is read from where the bead is: out of the hand, in it, over the shaft, on the shaft."""

    phases = ("reach", "carry", "thread", "lower", "release", "retreat", "done")
    aimed = ("bead",)  # in the hand, the loop beside the hook is what is misjudged
    astray = ((-0.010, 0.050, TIP_HEIGHT), (0.010, 0.065, TIP_HEIGHT))  # onto the tip
    look_low = (0.38, -0.15, CLEAR_HEIGHT + 0.02)  # above the hook, where a success would be seen
    look_high = (0.58, 0.20, CLEAR_HEIGHT + 0.11)

    def __init__(self, servo: Servo, *, retreat: float) -> None:
        """``retreat``: height at which the hand has left, m."""
        super().__init__(servo, Grasp(held_opening=0.34, empty_opening=0.10, held_distance=0.025, hover=0.06), "bead")
        self.retreat = retreat
        self.clear = 0.046  # of the bead over the shaft while the loop passes the tip, m
        self.before = 0.045  # of the bead before the tip, where the passage begins, m
        self.high = self.clear + 0.060  # of the bead over the shaft while a loop that is beside it is taken out, m
        self.inwards = 0.008  # of the place for the bead, from the middle of the shaft towards the post, m
        self.rest = SHAFT_RADIUS + BEAD_RADIUS  # of the bead over the shaft, m

    def grasp_point(self, scene: SceneSnapshot) -> Float64:
        """The bead, above its middle where it lies on the table or where the fingers would meet the hook."""
        bead, hook = scene.objects["bead"][:3], scene.objects["hook"][:3]
        height, (x, y, z) = max(bead[2], 0.010), bead - hook
        if abs(x) < 0.03 and abs(y) < 0.10 and z > -0.02:
            height = max(height, hook[2] + (0.027 if y > 0.02 else 0.019))
        return np.array([bead[0], bead[1], height])

    def step(self, scene: SceneSnapshot) -> PlanStep:
        """The plan's wish for this moment."""
        bead, knot, hook = (scene.objects[name][:3] for name in ("bead", "knot", "hook"))
        over = bead - hook + [0.0, self.inwards, 0.0]
        below = hook - knot
        held = self.is_held(scene)
        low = abs(over[0]) < 0.018 and abs(over[1]) < 0.024 and abs(over[2]) < self.rest + 0.008
        if scene.achieved and (low or not held):
            return self._leave(scene)
        if not held:
            return self._around(scene, over) or self.reach(scene, float(np.linalg.norm(over)) + 0.1)
        within = over[1] < SHAFT_HALF_LENGTH + 0.5 * self.before
        if not scene.achieved and within and (over[1] < 0.02 or over[2] > self.high - 0.010):
            return self._take_off(scene, over)
        if over[1] < _FREE - 0.01 and (over[2] < -0.02 or (abs(over[0]) > 0.035 and over[2] < 0.03)):
            down = -0.04 if -0.10 < over[2] < -0.02 and abs(over[0]) < 0.06 else 0.0
            return self._go(scene, "carry", np.array([0.0, 0.05, down]), 0.5)  # beside or under the hook: back out
        if over[1] > SHAFT_HALF_LENGTH + 0.5 * self.before:
            return self._carry(scene, over)
        return self._thread(scene, over, beside=0.5 * (over[0] - below[0]))

    def _around(self, scene: SceneSnapshot, over: Float64) -> PlanStep | None:
        """For a bead that lies where the hook is above it: down beside the hook first; None where the way is free."""
        tcp, hook = scene.tcp_pose, scene.objects["hook"]
        under = hook[2] - _PALM_HEIGHT
        if over[1] > _FREE or abs(over[0]) > _BESIDE or over[2] > -0.06 or tcp[2] < under:
            return None
        aside = hook[0] - _BESIDE - 0.02 - tcp[0]
        error = np.array([aside, 0.0, max(0.0, hook[2] + 0.03 - tcp[2])])
        if aside > -0.015:
            error = np.array([aside, scene.objects["bead"][1] - tcp[1], under - 0.02 - tcp[2]])
        twist = self.servo.twist(error, tcp, self.servo.yaw_error(tcp, _ALONG_X))
        return PlanStep(phase="reach", twist=twist, gripper="open", ticks_to_go=40.0)

    def _carry(self, scene: SceneSnapshot, over: Float64) -> PlanStep:
        """Lift where the palm is clear of the hook, and fly to a place before the tip."""
        up, begin = self.clear - over[2], SHAFT_HALF_LENGTH + self.before
        if up > 0.03:
            error = np.array([-over[0], min(0.03, max(-0.03, _FREE - over[1])), up])
        elif abs(over[0]) < 0.016 and abs(up) < 0.016:
            error = np.array([-1.6 * over[0], -0.05, 1.6 * up])  # aligned: on, over the tip
        else:
            error = np.array([-1.6 * over[0], min(0.05, max(-0.05, begin - over[1])), 1.6 * up])
        return self._go(scene, "carry", error, float(np.linalg.norm(over)) + 0.1)

    def _thread(self, scene: SceneSnapshot, over: Float64, *, beside: float) -> PlanStep:
        """Over the tip to the middle of the shaft, then down. ``beside``: of the loop's middle from the shaft, m."""
        inside = abs(over[1]) < 0.022
        height = self.rest if inside and abs(over[0]) < 0.016 else self.clear
        error = np.array([-1.6 * over[0], -over[1], 1.6 * (height - over[2])])
        low = over[2] < TIP_HEIGHT + self.rest + 0.004
        if over[1] > SHAFT_HALF_LENGTH - 0.005 and (low or abs(over[0]) > 0.014 or abs(beside) > 0.016):
            error[1] = max(0.0, SHAFT_HALF_LENGTH + 0.02 - over[1])  # back, and rise or align first
        elif abs(beside) > 0.024:
            error[1:] = [0.05, max(0.0, self.clear - over[2])]  # the shaft is not in the loop: out again
        elif over[2] < 0.0:
            error[:] = [0.0, 0.05, 0.0]  # beside the shaft: back out
        return self._go(scene, "lower" if inside else "thread", error, abs(over[1]) + self.clear + 0.08)

    def _take_off(self, scene: SceneSnapshot, over: Float64) -> PlanStep:
        """For a knot in the hand beside the hook, its loop not around it: straight up, then out over the tip."""
        up = self.high - over[2]
        error = np.array([0.0, 0.0 if up > 0.01 else 0.05, up])
        return self._go(scene, "carry", error, 0.5)

    def _leave(self, scene: SceneSnapshot) -> PlanStep:
        """Open, then straight up."""
        tcp = scene.tcp_pose
        up = self.retreat - tcp[2]
        ticks = max(0.0, up) / self.servo.translation_scale + 5.0 * max(0.0, 0.9 - scene.gripper_opening)
        if scene.success and up <= 0.01:
            return PlanStep(phase="done", twist=np.zeros(6), gripper="open", ticks_to_go=0.0)
        beside = float(np.linalg.norm(self.grasp_point(scene) - tcp[:3])) < 0.05
        if beside and scene.gripper_opening < self.grasp.held_opening + 0.15:
            hold_still = self.servo.twist(np.zeros(3), tcp)
            return PlanStep(phase="release", twist=hold_still, gripper="open", ticks_to_go=ticks + 1.0)
        rise = self.servo.twist(np.array([0.0, 0.0, up + 0.02]), tcp)
        return PlanStep(phase="retreat", twist=rise, gripper="open", ticks_to_go=ticks)

    def _go(self, scene: SceneSnapshot, phase: str, error: Float64, path: float) -> PlanStep:
        yaw = self.servo.yaw_error(scene.tcp_pose, _ALONG_X)
        twist = self.servo.twist(error, scene.tcp_pose, yaw)
        ticks = (path + 0.05) / self.servo.translation_scale + 5.0
        return PlanStep(phase=phase, twist=twist, gripper="close", ticks_to_go=ticks)


def _loop_points() -> list[tuple[float, float]]:
    """Joints of the cord in the diamond's frame, x and y: up the left side to the bead, and down the right side."""
    corner = DIAMOND * math.sqrt(2) - 0.004
    left = []
    for index in range(LINKS + 1):
        angle = math.pi / 2 * index / LINKS
        x = -BEAD_HALF_LENGTH - (LOOP_HALF_WIDTH - BEAD_HALF_LENGTH) * math.sin(2 * angle)
        left.append((x if index else -0.004, -corner - LOOP_LENGTH * index / LINKS))
    return [*left, *((-x, y) for x, y in reversed(left))]


_BEAD_AT = (0.0, _loop_points()[LINKS][1])  # middle of the bead in the diamond's frame, m


def _closing_anchor() -> str:
    """Where the last link ends, in its own frame."""
    points = _loop_points()
    (x0, y0), (x1, y1) = points[-2], points[-1]
    return f"{x1 - x0:.6f} {y1 - y0:.6f} 0"


def _crossings(triangles: Float64, axis: int) -> Float64:
    """Places (m,) along a coordinate axis where it passes through triangles (n, 3 corners, 3)."""
    a, to_b, to_c = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    first, second = (axis + 1) % 3, (axis + 2) % 3

    def area(p: Float64, q: Float64) -> Float64:
        return np.asarray(p[:, first] * q[:, second] - p[:, second] * q[:, first])

    whole = area(to_b, to_c)
    whole[whole == 0.0] = np.nan  # a triangle seen edge on: nothing passes through it
    u, v = area(to_c, a) / whole, area(a, to_b) / whole
    through = (u >= 0) & (v >= 0) & (u + v <= 1)
    return np.asarray((a + u[:, None] * to_b + v[:, None] * to_c)[through, axis])


def _knot() -> str:
    """The diamond with its tassel, and the chain, link in link, from its upper corner around and back."""
    red, gold, jade = "0.82 0.10 0.12 1", "0.93 0.74 0.22 1", "0.30 0.72 0.52 1"
    joint = f'type="ball" stiffness="{CORD_STIFFNESS}" damping="{CORD_DAMPING}" armature="0.000003"'
    points, inner = _loop_points(), ""
    for index in reversed(range(len(points) - 1)):
        (x0, y0), (x1, y1) = points[index], points[index + 1]
        previous = points[index - 1] if index else (0.0, 0.0)
        name = f"knot_link_{index if index < LINKS else index - 1}"
        if index == LINKS:
            previous, name = points[LINKS - 1], "bead"
        place = f"{x0 - previous[0]:.6f} {y0 - previous[1]:.6f} 0"
        line = f"0 0 0 {x1 - x0:.6f} {y1 - y0:.6f} 0"
        if name == "bead":
            shape = (
                f'<geom name="bead" type="box" pos="{BEAD_HALF_LENGTH} 0 0" '
                f'size="{BEAD_HALF_LENGTH} {BEAD_RADIUS} {BEAD_RADIUS}" mass="{BEAD_MASS}" '
                f'rgba="{jade}" condim="4" priority="2" friction="1.5 0.05 0.001" solref="0.01 1" {scene.OBJECT}/>'
            )
        else:
            shape = (
                f'<geom type="capsule" fromto="{line}" size="{CORD_RADIUS}" mass="{LINK_MASS}" rgba="{red}" '
                f'friction="0.6 0.01 0.001" {scene.OBJECT}/>'
            )
        inner = f"""
      <body name="{name}" pos="{place}">
        <joint name="{name}" {joint}/>
        {shape}
        {inner}
      </body>"""
    turned, half = f"{math.cos(math.pi / 8):.6f} 0 0 {math.sin(math.pi / 8):.6f}", KNOT_HALF_THICKNESS
    corner = DIAMOND * math.sqrt(2)
    return f"""
    <body name="knot" pos="{BEAD_START[0]} {BEAD_START[1] - _BEAD_AT[1]} {half + 0.002}">
      <freejoint name="knot"/>
      <geom name="knot" type="box" quat="{turned}" size="{DIAMOND} {DIAMOND} {half}" mass="{DIAMOND_MASS}" rgba="{red}"
            friction="0.6 0.01 0.001" {scene.OBJECT}/>
      <geom type="box" quat="{turned}" size="{0.5 * DIAMOND} {0.5 * DIAMOND} {half + 0.001}" mass="0" rgba="{gold}"
            {scene.VISUAL}/>
      <body name="tassel" pos="0 {corner:.6f} 0">
        <joint name="tassel" {joint}/>
        <geom type="capsule" fromto="0 0.006 0 0 0.030 0" size="0.006" mass="{TASSEL_MASS}" rgba="{red}"
              friction="0.6 0.01 0.001" {scene.OBJECT}/>
        <geom type="sphere" pos="0 0.004 0" size="0.007" mass="0" rgba="{gold}" {scene.VISUAL}/>
      </body>
      {inner}
    </body>"""


def _hook() -> str:
    """A round shaft with an upturned tip, on a post that reaches through the table when the hook is low."""
    blue, dark, reach = "0.15 0.35 0.80 1", "0.25 0.27 0.30 1", SHAFT_HALF_LENGTH
    rubber = f'friction="0.5 0.01 0.001" {scene.SURROUNDINGS}'
    return f"""
    <body name="hook" mocap="true" pos="{HOOK_START[0]} {HOOK_START[1]} {HOOK_START[2]}">
      <geom name="hook_shaft" type="capsule" fromto="0 {-reach} 0 0 {reach} 0" size="{SHAFT_RADIUS}" rgba="{blue}"
            {rubber}/>
      <geom name="hook_tip" type="capsule" fromto="0 {reach} 0 0 {reach + 0.004} {TIP_HEIGHT}" size="{SHAFT_RADIUS}"
            rgba="{blue}" {rubber}/>
      <geom name="hook_post" type="capsule" fromto="0 {POST_PLACE} 0 0 {POST_PLACE} -0.34" size="0.010"
            rgba="{dark}" {rubber}/>
    </body>"""
