"""How far the gripper is open, from the positions of its fingers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from conrft_data.conversion import MessageError


def gripper_opening(finger_positions: Sequence[float], max_width: float, source: str = "gripper") -> float:
    """Distance between the fingers over ``max_width`` (m), 0 closed .. 1 open.

    ``finger_positions``: m from closed, of each finger. Raises MessageError without a finger or at a number that is not
    finite.
    """
    width = math.fsum(finger_positions)
    if not len(finger_positions) or not math.isfinite(width):
        raise MessageError(f"{source}: expected the fingers' positions, got {list(finger_positions)}")
    return min(1.0, max(0.0, width / max_width))
