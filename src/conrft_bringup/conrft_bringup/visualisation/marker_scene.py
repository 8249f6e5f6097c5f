"""The scene of one tick as visualization_msgs markers: what rviz and Foxglove show, and what can be drawn without them.

Who moves the arm has one colour everywhere: the policy blue, the operator orange, HOLD grey.
"""

from __future__ import annotations

import itertools
import textwrap
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from conrft_bringup.visualisation.robot_model import Colour, Geometry, Pose, RobotModel, Shape
from conrft_data.conversion import pose_to_msg
from conrft_data.rotations import Array, inverse, multiply, rotate
from conrft_data.source_colours import SOURCE_COLOURS
from conrft_data.ticks import EpisodeStatus
from conrft_data.types import ActionSource, Command, Float32, Float64, Phase, Verdict

HAND_LINK, TCP_LINK = "fr3_hand", "fr3_hand_tcp"
FINGER_JOINTS = ("fr3_finger_joint1", "fr3_finger_joint2")

_MARKER_TYPES = {Geometry.BOX: Marker.CUBE, Geometry.CYLINDER: Marker.CYLINDER, Geometry.SPHERE: Marker.SPHERE}
_AXIS_COLOURS: tuple[Colour, ...] = ((0.9, 0.2, 0.2, 1.0), (0.2, 0.8, 0.3, 1.0), (0.3, 0.4, 1.0, 1.0))  # REP-103
_SMALLEST_ARROW = 0.002  # m
_TEXT_HEIGHT = 0.032  # m, of a capital letter
_TEXT_WIDTH = 60  # letters; no viewer breaks lines by itself


class Workspace(NamedTuple):
    """Corners ``(3,)`` of the workspace box, base frame, m."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]


@dataclass
class Moment:
    """What is known of the present tick; None: nobody said.

    Attributes:
        step: of the episode.
        measured: ``(7,)`` tool centre point.
        gripper_opening: 0 closed .. 1 open.
        reference: ``(7,)`` commanded pose.
        joints: positions of the arm's joints by name, rad; empty where nobody publishes them.
        proposal: ``(7,)`` the policy's action.
        command: what was executed.
        verdict: of the success classifier.
        value: Q of the executed action.
        status: of the episode.
        trace: ``(position (3,), source)`` of the episode's ticks.
    """

    step: int = 0
    measured: Float64 | None = None
    gripper_opening: float = 1.0
    reference: Float64 | None = None
    joints: dict[str, float] = field(default_factory=dict)
    proposal: Float32 | None = None
    command: Command | None = None
    verdict: Verdict | None = None
    value: float | None = None
    status: EpisodeStatus | None = None
    trace: list[tuple[Float64, ActionSource]] = field(default_factory=list)

    def text(self) -> str:
        """The lines that a person reads."""
        lines = []
        if self.status is not None:
            outcome = f" {self.status.outcome.name}" if self.status.phase is Phase.ENDED else ""
            lines.append(f"episode {self.status.episode} {self.status.phase.name}{outcome}  step {self.step}")
        if self.command is not None:
            driver = {
                ActionSource.HOLD: f"HOLD: {self.command.reason}",
                ActionSource.POLICY: "policy drives",
                ActionSource.OPERATOR: "OPERATOR intervenes" if self.proposal is not None else "operator drives",
            }
            lines.append(driver[self.command.source])
        figures = []
        if self.verdict is not None:
            gates = "" if self.verdict.gates_passed else " (gates closed)"
            figures.append(f"success {self.verdict.probability:.2f}{gates}")
        if self.value is not None:
            figures.append(f"Q {self.value:.2f}")
        lines = [line for whole in lines for line in textwrap.wrap(whole, _TEXT_WIDTH)]
        return "\n".join([*lines, *(["  ".join(figures)] if figures else [])])


class MarkerScene:
    """Makes the markers of a moment. They are made once and changed in place, because a tick has no time to waste."""

    def __init__(
        self,
        workspace: Workspace,
        model: RobotModel,
        *,
        frame_id: str = "base",
        finger_travel: float = 0.04,
        arrow_length: float = 0.15,
    ) -> None:
        """Raises RobotModelError when the model has no hand.

        Args:
            workspace: the box that the reference stays in.
            model: of the robot, with its root in the base frame.
            frame_id: the robot's base frame.
            finger_travel: of each finger, m.
            arrow_length: of a full action of 1, m.
        """
        self._frame_id, self._travel, self._arrow_length = frame_id, finger_travel, arrow_length
        self._arm, self._hand = model, model.subtree(HAND_LINK)
        self._tcp_in_hand = self._hand.link_poses({})[TCP_LINK]
        hand_links = set(self._hand.link_poses({}))
        self._arm_shapes = [i for i, shape in enumerate(model.shapes) if shape.link not in hand_links]
        self._markers: list[Marker] = []
        self._box = self._lines("workspace", _box_edges(workspace), (1.0, 0.85, 0.2, 0.9), width=0.003)
        self._arm_markers = [self._solid("arm", i, model.shapes[i]) for i in self._arm_shapes]
        self._hand_markers = [self._solid("hand", i, shape) for i, shape in enumerate(self._hand.shapes)]
        self._measured = self._axes("measured pose", length=0.08, width=0.006)
        self._reference = self._axes("reference pose", length=0.12, width=0.002)
        self._trace = self._marker("trace", 0, Marker.LINE_STRIP, (0.004, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0))
        self._arrows = {
            (source, kind): self._marker(
                f"{source.name.lower()} {kind}", 0, Marker.ARROW, shaft, _colour(source, 1.0 if kind == "move" else 0.5)
            )
            for source in (ActionSource.POLICY, ActionSource.OPERATOR)
            for kind, shaft in (("move", (0.010, 0.020, 0.03)), ("turn", (0.005, 0.012, 0.02)))
        }
        above = (np.array(workspace.low) + np.array(workspace.high)) / 2
        self._text = self._marker("state", 0, Marker.TEXT_VIEW_FACING, (0.0, 0.0, _TEXT_HEIGHT), (1.0, 1.0, 1.0, 1.0))
        self._text.pose = pose_to_msg([above[0], above[1], workspace.high[2] + 0.15, 0, 0, 0, 1])

    def markers(self, moment: Moment, stamp: Time) -> MarkerArray:
        """The scene at ``stamp``; the messages are the scene's own and change at the next call."""
        self._place_robot(moment)
        self._place(self._measured, _floats(moment.measured))
        self._place(self._reference, _floats(moment.reference))
        self._place_arrows(moment)
        self._extend_trace(moment)
        self._text.text = moment.text()
        _show(self._text, bool(self._text.text))
        for marker in self._markers:
            marker.header.stamp = stamp
        return MarkerArray(markers=self._markers)

    def _place_robot(self, moment: Moment) -> None:
        poses = self._arm.shape_poses(moment.joints) if moment.joints else None
        for index, marker in zip(self._arm_shapes, self._arm_markers, strict=True):
            self._place(marker, None if poses is None else poses[index])
        hand_poses = None
        if moment.measured is not None:
            turned = multiply(moment.measured[3:], inverse(self._tcp_in_hand[3:]))
            root = np.concatenate([moment.measured[:3] - rotate(turned, self._tcp_in_hand[:3]), turned])
            fingers = dict.fromkeys(FINGER_JOINTS, moment.gripper_opening * self._travel)
            hand_poses = self._hand.shape_poses(fingers, root)
        for index, marker in enumerate(self._hand_markers):
            self._place(marker, None if hand_poses is None else hand_poses[index])

    def _place_arrows(self, moment: Moment) -> None:
        command = moment.command
        operator = command.action if command is not None and command.source is ActionSource.OPERATOR else None
        for (source, kind), marker in self._arrows.items():
            action = moment.proposal if source is ActionSource.POLICY else operator
            if action is None or moment.measured is None:
                _show(marker, False)
                continue
            part = action[:3] if kind == "move" else action[3:6]
            arrow = rotate(moment.measured[3:], part) * self._arrow_length
            _show(marker, float(np.linalg.norm(arrow)) > _SMALLEST_ARROW)
            marker.points = [_point(moment.measured[:3]), _point(moment.measured[:3] + arrow)]

    def _extend_trace(self, moment: Moment) -> None:
        drawn = len(self._trace.points)
        if len(moment.trace) < drawn:  # of another episode
            self._trace.points, self._trace.colors, drawn = [], [], 0
        for position, source in moment.trace[drawn:]:
            self._trace.points.append(_point(position))
            self._trace.colors.append(ColorRGBA(**_rgba(_colour(source))))
        _show(self._trace, len(moment.trace) > 1)

    @staticmethod
    def _place(marker: Marker, pose: Pose | None) -> None:
        _show(marker, pose is not None)
        if pose is not None:
            p, q = marker.pose.position, marker.pose.orientation
            p.x, p.y, p.z, q.x, q.y, q.z, q.w = pose

    def _marker(
        self, namespace: str, number: int, kind: int, scale: tuple[float, float, float], colour: Colour
    ) -> Marker:
        marker = Marker(ns=namespace, id=number, type=kind, action=Marker.DELETE, color=ColorRGBA(**_rgba(colour)))
        marker.header.frame_id = self._frame_id
        marker.scale.x, marker.scale.y, marker.scale.z = scale
        self._markers.append(marker)
        return marker

    def _solid(self, namespace: str, number: int, shape: Shape) -> Marker:
        return self._marker(namespace, number, _MARKER_TYPES[shape.geometry], shape.size, shape.colour)

    def _lines(self, namespace: str, points: Array, colour: Colour, width: float) -> Marker:
        """Lines between each two of ``points`` ``(2 N, 3)``."""
        marker = self._marker(namespace, 0, Marker.LINE_LIST, (width, 0.0, 0.0), colour)
        marker.points = [_point(point) for point in points]
        _show(marker, True)
        return marker

    def _axes(self, namespace: str, length: float, width: float) -> Marker:
        points = np.zeros((6, 3))
        points[1::2] = np.eye(3) * length
        marker = self._lines(namespace, points, (1.0, 1.0, 1.0, 1.0), width)
        marker.colors = [ColorRGBA(**_rgba(colour)) for colour in _AXIS_COLOURS for _ in range(2)]
        return marker


def _box_edges(workspace: Workspace) -> Array:
    """The twelve edges as pairs of points ``(24, 3)``."""
    corners = np.array(list(itertools.product(*zip(workspace.low, workspace.high, strict=True))))
    # In binary a corner's number says for each axis whether it is the low or the high end; an edge changes one of them.
    pairs = [(corner, corner | axis) for corner in range(8) for axis in (1, 2, 4) if not corner & axis]
    return corners[np.array(pairs).ravel()]


def _floats(pose: Float64 | None) -> Pose | None:
    return None if pose is None else tuple(pose.tolist())


def _show(marker: Marker, visible: bool) -> None:
    marker.action = Marker.ADD if visible else Marker.DELETE


def _colour(source: ActionSource, alpha: float = 1.0) -> Colour:
    text = SOURCE_COLOURS[source].lstrip("#")
    red, green, blue = (int(text[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue, alpha


def _rgba(colour: Colour) -> dict[str, float]:
    return dict(zip("rgba", colour, strict=True))


def _point(position: Float64) -> Point:
    x, y, z = np.asarray(position, dtype=np.float64).tolist()
    return Point(x=x, y=y, z=z)
