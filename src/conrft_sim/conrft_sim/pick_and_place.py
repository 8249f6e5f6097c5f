"""State feedback for grasping an object from above, and for putting it on a place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conrft_sim.plan import HALF_TURN, Plan, PlanStep, Point, Servo
from conrft_sim.scene_snapshot import SceneSnapshot

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Grasp:
    """How a hand takes an object from above. Lengths in metres, angles in radians, openings 0..1.

    Attributes:
        hover: height above the grasp at which the hand flies while it is not yet above the object.
        aligned: horizontal distance below which the hand goes straight down.
        tolerance, height_tolerance, yaw_tolerance: how exactly the hand is placed before it closes.
        held_opening: largest opening of a hand that holds the object; empty_opening: smallest.
        held_distance: largest distance of a held object from the tool centre point.
        symmetry: turn of the object that makes no difference to the grasp.
    """

    hover: float = 0.07
    aligned: float = 0.015
    tolerance: float = 0.010
    height_tolerance: float = 0.008
    yaw_tolerance: float = 0.12
    held_opening: float = 0.47
    empty_opening: float = 0.30
    held_distance: float = 0.035
    symmetry: float = HALF_TURN


@dataclass(frozen=True, kw_only=True)
class Placing:
    """How a held object is put on a place. Lengths in metres.

    Attributes:
        rest: height of the object's origin above that of the place when it lies there.
        carry: height of the carried object above its rest.
        lift: height above its rest from which it may be moved sideways at full speed.
        radius: distance from the middle of the place within which the object is let go.
        settled_radius: so much farther out an object that was let go may lie.
        retreat: height of the tool centre point at which the hand has left.
    """

    rest: float
    carry: float = 0.055
    lift: float = 0.03
    radius: float = 0.035
    settled_radius: float = 0.025
    retreat: float = 0.19


class GraspPlan(Plan):
    """The part of a plan that ends with the object in the hand."""

    def __init__(self, servo: Servo | None, grasp: Grasp, item: str) -> None:
        """``item`` is the name of the object."""
        super().__init__(servo)
        self.grasp, self.item = grasp, item
        self.held_opening = grasp.held_opening

    def grasp_point(self, scene: SceneSnapshot) -> Float64:
        """Where the tool centre point has to be (3,) to take the object; its origin, unless a task says otherwise."""
        return scene.objects[self.item][:3]

    def grasp_turn(self, scene: SceneSnapshot) -> float:
        """Turn of the hand, rad, that is left until it can take the object."""
        return self.servo.yaw_error(scene.tcp_pose, scene.objects[self.item], symmetry=self.grasp.symmetry)

    def held_range(self, scene: SceneSnapshot) -> tuple[float, float]:
        """Smallest and largest opening of a hand that holds the object as it lies now."""
        return self.grasp.empty_opening, self.grasp.held_opening

    def released_opening(self, scene: SceneSnapshot) -> float:
        """Opening, 0..1, beyond which the fingers are off the object that was held."""
        return self.held_range(scene)[1] + 0.15

    def is_held(self, scene: SceneSnapshot) -> bool:
        """Whether the hand has closed on the object."""
        to_tool = float(np.linalg.norm(scene.objects[self.item][:3] - scene.tcp_pose[:3]))
        low, high = self.held_range(scene)
        return to_tool < self.grasp.held_distance and low < scene.gripper_opening < high

    def reach(self, scene: SceneSnapshot, way_after: float) -> PlanStep:
        """Fly above the object, turn with it, sink and close. ``way_after``: metres to go once it is held."""
        g, tcp, point = self.grasp, scene.tcp_pose, self.grasp_point(scene)
        yaw_error = self.grasp_turn(scene)
        away = float(np.linalg.norm(point[:2] - tcp[:2]))
        above = tcp[2] - point[2]
        near = away < g.tolerance and above < g.height_tolerance and abs(yaw_error) < g.yaw_tolerance
        closing = scene.gripper_opening < 0.97 and away < 2 * g.tolerance and above < 2 * g.height_tolerance
        still_open = scene.gripper_opening > self.held_range(scene)[0]
        close = near or (closing and still_open and abs(yaw_error) < 2 * g.yaw_tolerance)
        # A funnel: the farther from the spot above the object, the higher; and wide open before going in.
        unready = max(0.0, away - g.aligned) + 0.12 * max(0.0, abs(yaw_error) - g.yaw_tolerance)
        opening_left = 0.0 if close else max(0.0, 0.9 - scene.gripper_opening)
        height = min(g.hover, 1.2 * unready + 0.08 * opening_left)
        goal = np.array([point[0], point[1], point[2] + height])
        error = goal - tcp[:3]
        if above < 0.5 * g.hover and away > 0.05:
            error[:2] *= 0.15  # rise first: the way is not free down here
        path = away + abs(above - height) + height + way_after
        ticks = (
            path / self.servo.translation_scale + 9.0 + 8.0 * opening_left + abs(yaw_error) / self.servo.rotation_scale
        )
        return PlanStep(
            phase="reach",
            twist=self.servo.twist(error, tcp, yaw_error),
            gripper="close" if close else "open",
            ticks_to_go=ticks,
        )


class PickAndPlacePlan(GraspPlan):
    """State feedback for "put the object on the place".

    The phase is read from the scene, so the plan goes on from anything that a policy left behind.
    """

    phases = ("reach", "carry", "release", "retreat", "done")

    def __init__(
        self,
        servo: Servo | None = None,
        *,
        grasp: Grasp,
        placing: Placing,
        item: str,
        place: str,
        look_about: tuple[Point, Point],
    ) -> None:
        """``item`` and ``place`` are names of objects; ``look_about`` holds the corners of the free box."""
        super().__init__(servo, grasp, item)
        self.placing, self.place = placing, place
        self.aimed = (item, place)
        self.look_low, self.look_high = look_about

    def rest_height(self, scene: SceneSnapshot) -> float:
        """Height of the object's origin when it lies on the place, base frame, m."""
        return float(scene.objects[self.place][2] + self.placing.rest)

    def step(self, scene: SceneSnapshot) -> PlanStep:
        """The plan's wish for this moment."""
        p, item, place = self.placing, scene.objects[self.item], scene.objects[self.place]
        rest = self.rest_height(scene)
        to_place = float(np.linalg.norm(item[:2] - place[:2]))
        to_tool = float(np.linalg.norm(item[:3] - scene.tcp_pose[:3]))
        released = scene.gripper_opening > self.held_range(scene)[1]
        near = to_place < p.radius + (p.settled_radius if released else 0.0) and item[2] < rest + 0.010
        if near or (scene.achieved and not self.is_held(scene)):
            return self._leave(scene, beside=to_tool < 0.06)
        if self.is_held(scene):
            return self._carry(scene, rest)
        return self.reach(scene, to_place + 2 * p.carry + p.retreat)

    def _carry(self, scene: SceneSnapshot, rest: float) -> PlanStep:
        """Lift, move above the place and lower."""
        p, tcp, item, place = self.placing, scene.tcp_pose, scene.objects[self.item], scene.objects[self.place]
        offset = place[:2] - item[:2]
        away = float(np.linalg.norm(offset))
        height = min(p.carry, 1.2 * max(0.0, away - self.grasp.aligned))
        up = rest + height - item[2]
        error = np.array([*offset, up])
        free = np.clip((item[2] - rest + 0.002) / p.lift, 0.0, 1.0) if away > p.radius else 1.0
        error[:2] *= free  # no dragging along the table or against the rim
        lift_left = max(0.0, height + rest - item[2])
        ticks = (away + lift_left + max(0.0, item[2] - rest) + p.retreat) / self.servo.translation_scale + 4.0
        return PlanStep(phase="carry", twist=self.servo.twist(error, tcp), gripper="close", ticks_to_go=ticks)

    def _leave(self, scene: SceneSnapshot, *, beside: bool) -> PlanStep:
        """Open where the object lies well, then go straight up."""
        tcp = scene.tcp_pose
        up = self.placing.retreat - tcp[2]
        ticks = max(0.0, up) / self.servo.translation_scale + 5.0 * max(0.0, 0.9 - scene.gripper_opening)
        if scene.success and up <= 0.01:
            return PlanStep(phase="done", twist=np.zeros(6), gripper="open", ticks_to_go=0.0)
        if beside and scene.gripper_opening < self.released_opening(scene):
            hold_still = self.servo.twist(np.zeros(3), tcp)
            return PlanStep(phase="release", twist=hold_still, gripper="open", ticks_to_go=ticks + 1.0)
        rise = self.servo.twist(np.array([0.0, 0.0, up + 0.02]), tcp)
        return PlanStep(phase="retreat", twist=rise, gripper="open", ticks_to_go=ticks)
