"""Disturbances on purpose, for judging how robust a policy is: lighting, camera shift, distractors, friction."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_sim import scene
from conrft_sim.looks import Looks

Float64 = NDArray[np.float64]

KINDS = ("lighting", "camera", "distractors", "friction")

_BRIGHTNESS = 0.45  # +-, share of the light
_TINT = 0.15  # +-, share of each of red, green and blue
_CAMERAS = (("side", 0.03, 0.04), ("wrist", 0.005, 0.04))  # name, shift +- m on each axis, turn up to rad
_FRICTION_FACTOR = 2.0  # all friction by up to this, or one over it

_DISTRACTORS = (  # shape, MJCF size, half its height: lower than anything is carried, m
    ("box", "0.022 0.030 0.018", 0.018),
    ("cylinder", "0.026 0.022", 0.022),
    ("ellipsoid", "0.024 0.024 0.020", 0.020),
    ("box", "0.040 0.012 0.010", 0.010),
)
_DISTRACTOR_AREA = ((0.30, 0.70), (-0.34, 0.34))  # on the table: x and y range, m
_CLEARANCE = 0.05  # between a distractor and whatever else stands there, m
_PATH_CLEARANCE = 0.10  # between a distractor and the straight way from one object of the task to another, m
_OUT_OF_SIGHT = (0.0, 0.0, -2.0)
_TRIES = 200


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """What is disturbed, and how much.

    Attributes:
        kinds: of ``KINDS``; empty: nothing.
        strength: share, in (0, 1], of the largest disturbance.
    """

    kinds: frozenset[str] = frozenset()
    strength: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Perturbation:
        """``none``, ``all`` or kinds with commas, and a strength after a colon: ``lighting,camera:0.5``.

        Raises ValueError that says what is allowed.
        """
        names, colon, number = text.strip().partition(":")
        kinds = {"none": frozenset[str](), "all": frozenset(KINDS)}.get(names)
        if kinds is None:
            kinds = frozenset(name.strip() for name in names.split(","))
        unknown = sorted(kinds - set(KINDS))
        if unknown:
            raise ValueError(f"perturbation {text!r}: {unknown[0]!r} is none of none, all, {', '.join(KINDS)}")
        try:
            strength = float(number) if colon else 1.0
        except ValueError:
            strength = math.nan
        if not 0 < strength <= 1:
            raise ValueError(f"perturbation {text!r}: the strength must be a number above 0 and at most 1")
        return cls(kinds=kinds, strength=strength)

    def __str__(self) -> str:
        """The text that ``parse`` reads."""
        kinds = ",".join(kind for kind in KINDS if kind in self.kinds) or "none"
        return kinds if self.strength == 1 else f"{kinds}:{self.strength:g}"

    def scene(self, task: scene.TaskScene) -> scene.TaskScene:
        """The task's scene with what the perturbation puts into it; unchanged without distractors."""
        return replace(task, bodies=task.bodies + _distractors()) if "distractors" in self.kinds else task


class Perturber:
    """Disturbs one model, anew for every episode."""

    def __init__(self, perturbation: Perturbation, model: mujoco.MjModel, looks: Looks) -> None:
        """``model`` is that of ``perturbation.scene``, as yet undisturbed."""
        self._perturbation = perturbation
        self._model, self._looks = model, looks
        self._friction = model.geom_friction.copy()
        self._joints = (model.dof_damping[scene.ROBOT_DOFS :].copy(), model.dof_frictionloss[scene.ROBOT_DOFS :].copy())

    def apply(self, data: mujoco.MjData, rng: np.random.Generator, objects: Iterable[Float64]) -> None:
        """Draws this episode's disturbance for a scene at its start state, with the looks as at first.

        ``objects`` are the poses of the task's objects: the ways between them stay free.
        """
        kinds, strength = self._perturbation.kinds, self._perturbation.strength
        if not kinds:
            return
        # Each kind has its own numbers, so that it is the same alone and together with others.
        streams = dict(zip(KINDS, rng.spawn(len(KINDS)), strict=True))
        if "lighting" in kinds:
            self._light(streams["lighting"], strength)
        if "camera" in kinds:
            self._shift_cameras(streams["camera"], strength)
        if "friction" in kinds:
            self._change_friction(streams["friction"], strength)
        if "distractors" in kinds:
            self._scatter(data, streams["distractors"], strength, [pose[:2] for pose in objects])
        mujoco.mj_forward(self._model, data)

    def _light(self, rng: np.random.Generator, strength: float) -> None:
        brightness = 1 + strength * rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
        self._looks.light(brightness * (1 + strength * rng.uniform(-_TINT, _TINT, 3)))

    def _shift_cameras(self, rng: np.random.Generator, strength: float) -> None:
        for camera, shift, turn in _CAMERAS:
            offset = strength * rng.uniform(-shift, shift, 3)
            self._looks.move_camera(camera, offset, rng.normal(size=3), strength * rng.uniform(-turn, turn))

    def _change_friction(self, rng: np.random.Generator, strength: float) -> None:
        factor = _FRICTION_FACTOR ** (strength * rng.uniform(-1, 1))
        self._model.geom_friction[:] = self._friction * factor
        damping, loss = self._joints
        self._model.dof_damping[scene.ROBOT_DOFS :] = damping * factor
        self._model.dof_frictionloss[scene.ROBOT_DOFS :] = loss * factor

    def _scatter(self, data: mujoco.MjData, rng: np.random.Generator, strength: float, objects: list[Float64]) -> None:
        """Puts some distractors on the table, apart from the task's objects, and the others out of sight."""
        taken = self._footprints(data)
        for index, (_, _, half_height) in enumerate(_DISTRACTORS):
            body = self._model.body(f"distractor{index}")
            mocap, geom = int(body.mocapid[0]), int(body.geomadr[0])
            self._model.geom_rgba[geom, :3] = rng.uniform(0.1, 0.9, 3)
            data.mocap_pos[mocap] = _OUT_OF_SIGHT
            yaw = rng.uniform(-math.pi, math.pi)
            data.mocap_quat[mocap] = [math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)]
            radius = float(self._model.geom_rbound[geom])
            spot = self._free_spot(rng, radius, taken, objects)
            if index < math.ceil(strength * len(_DISTRACTORS)) and spot is not None:
                data.mocap_pos[mocap] = [*spot, half_height]
                taken.append((spot, radius))

    def _footprints(self, data: mujoco.MjData) -> list[tuple[Float64, float]]:
        """Middle (2,) and radius, on the table, of every shape of the task."""
        first, last = self._model.body("finger_right").id, self._model.body("distractor0").id
        of_task = [g for g in range(self._model.ngeom) if first < self._model.geom_bodyid[g] < last]
        return [(data.geom_xpos[g][:2].copy(), float(self._model.geom_rbound[g])) for g in of_task]

    def _free_spot(
        self, rng: np.random.Generator, radius: float, taken: list[tuple[Float64, float]], objects: list[Float64]
    ) -> Float64 | None:
        """A place (2,) on the table that is free, or None where there is hardly any."""
        (x_low, x_high), (y_low, y_high) = _DISTRACTOR_AREA
        for _ in range(_TRIES):
            spot = rng.uniform((x_low, y_low), (x_high, y_high))
            apart = all(np.linalg.norm(spot - middle) > radius + size + _CLEARANCE for middle, size in taken)
            ways = ((a, b) for i, a in enumerate(objects) for b in objects[i:])
            if apart and all(_distance_to_segment(spot, a, b) > radius + _PATH_CLEARANCE for a, b in ways):
                return spot
        return None


def _distance_to_segment(point: Float64, start: Float64, end: Float64) -> float:
    along = end - start
    share = float(np.clip((point - start) @ along / max(float(along @ along), 1e-12), 0.0, 1.0))
    return float(np.linalg.norm(point - start - share * along))


def _distractors() -> str:
    """Things that are seen and touch nothing; each can be put anywhere."""
    return "".join(
        f"""
    <body name="distractor{index}" mocap="true" pos="{_OUT_OF_SIGHT[0]} {_OUT_OF_SIGHT[1]} {_OUT_OF_SIGHT[2]}">
      <geom type="{shape}" size="{size}" rgba="0.5 0.5 0.5 1" {scene.VISUAL}/>
    </body>"""
        for index, (shape, size, _) in enumerate(_DISTRACTORS)
    )
