"""The robot's shapes from its URDF, placed by joint positions: for viewers that have no robot_state_publisher."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from conrft_data.rotations import Array, from_euler_xyz

Colour = tuple[float, float, float, float]
Pose = tuple[float, float, float, float, float, float, float]  # x, y, z, qx, qy, qz, qw

_IDENTITY: Pose = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
_WHITE: Colour = (0.9, 0.9, 0.9, 1.0)


class RobotModelError(ValueError):
    """A URDF that cannot be shown; the text names the file, the element and what is wrong with it."""


class Geometry(Enum):
    """The shapes that are understood."""

    BOX = "box"
    CYLINDER = "cylinder"
    SPHERE = "sphere"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A visual element.

    Attributes:
        link: that it belongs to.
        geometry: box, cylinder along z, or sphere.
        size: ``(3,)`` extent along x, y and z of its own frame, m.
        pose: in the frame of the link.
        colour: red, green, blue, alpha, 0..1.
    """

    link: str
    geometry: Geometry
    size: tuple[float, float, float]
    pose: Pose
    colour: Colour


@dataclass(frozen=True)
class _Joint:
    name: str
    kind: str
    parent: str
    child: str
    origin: Pose
    axis: tuple[float, float, float]


class RobotModel:
    """Links, joints and visual shapes of a URDF (http://wiki.ros.org/urdf/XML); meshes and inertia are ignored."""

    def __init__(self, urdf: str, source: str = "URDF") -> None:
        """Raises RobotModelError when ``urdf`` is no tree of links, or has a shape or joint that is not understood."""
        try:
            root = ElementTree.fromstring(urdf)
        except ElementTree.ParseError as error:
            raise RobotModelError(f"{source}: is not XML: {error}") from error
        if root.tag != "robot":
            raise RobotModelError(f"{source}: expected element 'robot', got '{root.tag}'")
        self.urdf = urdf
        colours = _materials(root)
        self.shapes = [
            _shape(link.attrib["name"], visual, colours, source)
            for link in root.findall("link")
            for visual in link.findall("visual")
        ]
        self._joints = _ordered([_joint(joint, source) for joint in root.findall("joint")], root, source)
        self.root = next((joint.parent for joint in self._joints), "")

    @classmethod
    def load(cls, path: Path) -> RobotModel:
        """The model in file ``path``; raises RobotModelError."""
        try:
            return cls(path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise RobotModelError(f"{path}: cannot be read: {error.strerror or error}") from error

    @property
    def moving_joints(self) -> list[str]:
        """Names of the joints that are not fixed, from the root outwards."""
        return [joint.name for joint in self._joints if joint.kind != "fixed"]

    def link_poses(self, positions: Mapping[str, float]) -> dict[str, Array]:
        """Poses ``(7,)`` of all links in the frame of the root.

        Args:
            positions: of the joints by name, rad or m; a joint that is missing stands at zero.
        """
        return {name: np.array(pose) for name, pose in self._link_poses(positions, _IDENTITY).items()}

    def shape_poses(self, positions: Mapping[str, float], root_pose: ArrayLike = _IDENTITY) -> list[Pose]:
        """Poses of the :attr:`shapes`, in their order, with the model's root at ``root_pose`` ``(7,)``."""
        links = self._link_poses(positions, tuple(np.asarray(root_pose, dtype=np.float64).tolist()))
        return [_composed(links[shape.link], shape.pose) for shape in self.shapes]

    def _link_poses(self, positions: Mapping[str, float], root_pose: Pose) -> dict[str, Pose]:
        poses = {self.root: root_pose}
        for joint in self._joints:
            pose = _composed(poses[joint.parent], joint.origin)
            value = positions.get(joint.name, 0.0)
            if joint.kind in ("revolute", "continuous"):
                sine, (x, y, z) = math.sin(value / 2), joint.axis
                pose = _composed(pose, (0.0, 0.0, 0.0, sine * x, sine * y, sine * z, math.cos(value / 2)))
            elif joint.kind == "prismatic":
                x, y, z = joint.axis
                pose = _composed(pose, (value * x, value * y, value * z, 0.0, 0.0, 0.0, 1.0))
            poses[joint.child] = pose
        return poses

    def subtree(self, link: str) -> RobotModel:
        """The part of the model that hangs on ``link``, which becomes its root; raises RobotModelError."""
        inside = {link}
        for joint in self._joints:
            if joint.parent in inside:
                inside.add(joint.child)
        if link not in {self.root, *(joint.child for joint in self._joints)}:
            raise RobotModelError(f"the robot model has no link '{link}'")
        part = object.__new__(RobotModel)
        part.urdf, part.root = self.urdf, link
        part.shapes = [shape for shape in self.shapes if shape.link in inside]
        part._joints = [joint for joint in self._joints if joint.parent in inside]
        return part


def _materials(root: ElementTree.Element) -> dict[str, Colour]:
    return {
        material.attrib["name"]: _colour(colour)
        for material in root.findall("material")
        if (colour := material.find("color")) is not None
    }


def _shape(link: str, visual: ElementTree.Element, colours: Mapping[str, Colour], source: str) -> Shape:
    where = f"{source}: link '{link}'"
    geometry = visual.find("geometry")
    element = next(iter(geometry), None) if geometry is not None else None
    try:
        assert element is not None
        kind = Geometry(element.tag)
    except (AssertionError, ValueError) as error:
        got = "nothing" if element is None else f"'{element.tag}'"
        raise RobotModelError(f"{where}: expected box, cylinder or sphere, got {got}") from error
    try:
        size = _size(kind, element)
        pose = _origin(visual)
    except (KeyError, ValueError) as error:
        raise RobotModelError(f"{where}: the {kind.value} cannot be understood: {error}") from error
    material = visual.find("material")
    own = None if material is None else material.find("color")
    named = _WHITE if material is None else colours.get(material.attrib.get("name", ""), _WHITE)
    return Shape(link=link, geometry=kind, size=size, pose=pose, colour=named if own is None else _colour(own))


def _size(kind: Geometry, element: ElementTree.Element) -> tuple[float, float, float]:
    if kind is Geometry.BOX:
        return _numbers(element.attrib["size"])
    across = 2 * float(element.attrib["radius"])
    return across, across, across if kind is Geometry.SPHERE else float(element.attrib["length"])


def _joint(element: ElementTree.Element, source: str) -> _Joint:
    try:
        name, kind = element.attrib["name"], element.attrib["type"]
        parent, child = element.find("parent"), element.find("child")
        if kind not in ("fixed", "revolute", "continuous", "prismatic") or parent is None or child is None:
            raise ValueError(f"expected a fixed, revolute, continuous or prismatic joint of two links, got '{kind}'")
        axis = element.find("axis")
        return _Joint(
            name,
            kind,
            parent.attrib["link"],
            child.attrib["link"],
            _origin(element),
            _numbers("1 0 0" if axis is None else axis.attrib["xyz"]),
        )
    except (KeyError, ValueError) as error:
        raise RobotModelError(f"{source}: joint '{element.attrib.get('name', '')}': {error}") from error


def _ordered(joints: list[_Joint], root: ElementTree.Element, source: str) -> list[_Joint]:
    """The joints, each behind the one that carries its parent; raises RobotModelError when they are no tree."""
    children = {joint.child for joint in joints}
    known = [link.attrib["name"] for link in root.findall("link") if link.attrib["name"] not in children]
    if len(known) != 1:
        raise RobotModelError(f"{source}: expected one link without a parent, got {known}")
    ordered: list[_Joint] = []
    while len(ordered) < len(joints):
        ready = [joint for joint in joints if joint.parent in known and joint.child not in known]
        if not ready:
            raise RobotModelError(f"{source}: the links are not one tree")
        ordered += ready
        known += [joint.child for joint in ready]
    return ordered


def _origin(element: ElementTree.Element) -> Pose:
    origin = element.find("origin")
    if origin is None:
        return _IDENTITY
    x, y, z = _numbers(origin.attrib.get("xyz", "0 0 0"))
    qx, qy, qz, qw = from_euler_xyz(_numbers(origin.attrib.get("rpy", "0 0 0"))).tolist()
    return x, y, z, qx, qy, qz, qw


def _numbers(text: str) -> tuple[float, float, float]:
    values = [float(word) for word in text.split()]
    if len(values) != 3:
        raise ValueError(f"expected three numbers, got '{text}'")
    return values[0], values[1], values[2]


def _colour(element: ElementTree.Element) -> Colour:
    red, green, blue, alpha = (float(word) for word in element.attrib["rgba"].split())
    return red, green, blue, alpha


def _composed(a: Pose, b: Pose) -> Pose:
    """Pose ``b`` of the frame ``a``, expressed where ``a`` is. Plain floats: for one pose they beat numpy by far."""
    ax, ay, az, x, y, z, w = a
    bx, by, bz, i, j, k, s = b
    # Rotation of a vector by a unit quaternion (v, w): p + 2 w (v x p) + 2 v x (v x p).
    tx, ty, tz = 2 * (y * bz - z * by), 2 * (z * bx - x * bz), 2 * (x * by - y * bx)
    return (
        ax + bx + w * tx + y * tz - z * ty,
        ay + by + w * ty + z * tx - x * tz,
        az + bz + w * tz + x * ty - y * tx,
        w * i + s * x + y * k - z * j,
        w * j + s * y + z * i - x * k,
        w * k + s * z + x * j - y * i,
        w * s - x * i - y * j - z * k,
    )
