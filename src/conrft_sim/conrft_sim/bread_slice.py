"""A slice of bread that a gripper can take as it lies or stands, across its thickness or from edge to edge."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from conrft_data import rotations
from conrft_sim import kinematics, scene
from conrft_sim.pick_and_place import Grasp, GraspPlan
from conrft_sim.scene_snapshot import SceneSnapshot

Float64 = NDArray[np.float64]

SIDE = 0.056  # of the square slice, m: even from corner to corner it fits between the open fingers
THICKNESS = 0.016  # m
HALF_SIZE = np.array([SIDE / 2, THICKNESS / 2, SIDE / 2])  # along its own axes, m
FLAT = (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0)  # w x y z of a slice that lies; upright it has no rotation
MASS = 0.03  # kg

_TIP_DEPTH = 0.013  # of the tool centre point below the upper edge of an upright slice, m
_LOWEST_GRASP = 0.016  # of the tool centre point above the table: the finger tips reach 8 mm below it, m
_LOOSER = 0.12  # opening of a hand that holds it, beyond the slice's own width
_EMPTY = 0.08  # opening of a hand that missed it: less than its thickness
_WIDEST = 0.88  # opening that still counts as closed on a slice
_OPEN = 0.93  # opening at which the fingers are off it


def slice_body(position: tuple[float, float, float]) -> str:
    """MJCF of the body ``slice``: crust and crumb; its y axis goes through its thickness, z is up when it stands."""
    crust = f"{SIDE / 2} {THICKNESS / 2} {SIDE / 2}"
    crumb = f"{SIDE / 2 - 0.005} {THICKNESS / 2 + 0.0006} {SIDE / 2 - 0.005}"
    return f"""
    <body name="slice" pos="{position[0]} {position[1]} {position[2]}">
      <freejoint name="slice"/>
      <geom name="slice" type="box" size="{crust}" mass="{MASS}" rgba="0.62 0.36 0.12 1" condim="4"
            friction="0.7 0.02 0.001" {scene.OBJECT}/>
      <geom type="box" size="{crumb}" mass="0" rgba="0.97 0.86 0.62 1" {scene.VISUAL}/>
    </body>"""


def lowest_point(pose: Float64) -> float:
    """Height, m, of the lowest corner of a slice at ``pose`` (7,)."""
    return float(pose[2]) - _half_extent(pose, np.array([0.0, 0.0, 1.0]))


class SliceGraspPlan(GraspPlan):
    """The part of a plan that ends with the slice in the hand, however it lies."""

    def grasp_point(self, scene: SceneSnapshot) -> Float64:
        """The middle of a slice that lies; near the upper edge of one that stands."""
        pose = scene.objects[self.item]
        above_middle = max(0.0, _half_extent(pose, np.array([0.0, 0.0, 1.0])) - _TIP_DEPTH)
        return np.array([pose[0], pose[1], max(_LOWEST_GRASP, pose[2] + above_middle)])

    def grasp_turn(self, scene: SceneSnapshot) -> float:
        """Fingers along two of the slice's faces; any two will do, so at most an eighth of a turn."""
        axes = [rotations.rotate(scene.objects[self.item][3:], axis) for axis in np.eye(3)]
        most_level = min(axes, key=lambda axis: abs(axis[2]))
        return self.servo.turn_to(scene.tcp_pose, most_level, symmetry=math.pi / 2)

    def held_range(self, scene: SceneSnapshot) -> tuple[float, float]:
        """More than closed, and not wider than the slice reaches between the fingers."""
        across = rotations.rotate(scene.tcp_pose[3:], [0.0, 1.0, 0.0])
        width = _half_extent(scene.objects[self.item], across) / kinematics.FINGER_TRAVEL
        return _EMPTY, min(_WIDEST, width + _LOOSER)

    def released_opening(self, scene: SceneSnapshot) -> float:
        """Nearly as far as the gripper goes, where the slice is held from edge to edge."""
        return min(_OPEN, self.held_range(scene)[1] + _LOOSER)


SLICE_GRASP = Grasp(hover=0.06, tolerance=0.012, yaw_tolerance=0.15)


def _half_extent(pose: Float64, direction: Float64) -> float:
    """Half the slice's size, m, along ``direction`` (3,) of the base frame."""
    return float(HALF_SIZE @ np.abs(rotations.rotate(rotations.inverse(pose[3:]), direction)))
