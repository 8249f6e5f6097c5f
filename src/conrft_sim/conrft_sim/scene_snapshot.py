"""Privileged state of the scene, as a person standing beside the robot sees it.

The pure twin of ``conrft_msgs/SceneState``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSnapshot:
    """One moment of the scene.

    Attributes:
        stamp_ns: simulated time.
        task: name of the task.
        tcp_pose: ``(7,)`` true tool centre point, base frame.
        gripper_opening: 0 closed .. 1 open.
        objects: pose ``(7,)`` by object name, base frame.
        success: ground truth of the task.
        achieved: the objects are where the task wants them, whatever the hand does; a success is more than that.
    """

    stamp_ns: int
    task: str
    tcp_pose: Float64
    gripper_opening: float
    objects: Mapping[str, Float64]
    success: bool
    achieved: bool
