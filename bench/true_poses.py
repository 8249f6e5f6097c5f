"""What a backbone that sees perfectly would say: where everything truly is. For finding out what sight costs."""

from __future__ import annotations

import numpy as np

from conrft_data import rotations
from conrft_data.types import Float32
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.simulation import Simulation

FAR, NEAR, CLOSE = 0.10, 0.05, 0.015  # m; lengths in which distances from the hand are told
X_AXIS, Z_AXIS = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


class TruePoses:
    """Stands in for a backbone of one simulation; it looks at the scene, whatever the images show."""

    fingerprint = "true poses"

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.embedding_dim = len(features(simulation.scene()))

    def stream(self) -> TruePoses:
        """Itself: nothing is remembered from frame to frame."""
        return self

    def reset(self) -> None:
        """Nothing to forget."""

    def step(self, images: object) -> Float32:
        """Features of the scene as it is now, (D,)."""
        return features(self.simulation.scene())


def features(scene: SceneSnapshot) -> Float32:
    """Hand and objects, (D,), each number within a few units; the objects also in the hand's frame."""
    to_hand = rotations.inverse(scene.tcp_pose[3:])
    parts = [scene.tcp_pose[:3] / FAR, *_axes(scene.tcp_pose[3:]), [scene.gripper_opening]]
    for _, pose in sorted(scene.objects.items()):
        beside = rotations.rotate(to_hand, pose[:3] - scene.tcp_pose[:3])
        parts += [beside / NEAR, np.tanh(beside / NEAR), np.tanh(beside / CLOSE), pose[:3] / FAR]
        parts += [rotations.rotate(to_hand, axis) for axis in _axes(pose[3:])]
    return np.concatenate(parts, dtype=np.float32)


def _axes(quaternion: np.ndarray) -> list[np.ndarray]:
    return [rotations.rotate(quaternion, np.array(axis)) for axis in (X_AXIS, Z_AXIS)]
