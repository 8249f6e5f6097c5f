"""How far the gripper is open, from the positions of its fingers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from conrft_data.conversion import MessageError

_ANY_FINGER = 10.0  # m; a position beyond it is none, and neither is NaN


def gripper_opening(finger_positions: Sequence[float], max_width: float, source: str = "gripper") -> float:
    """Distance between the fingers over ``max_width`` (m), 0 closed .. 1 open.

    ``finger_positions``: m from closed, of each finger. Raises MessageError without a finger or at a number that is no
    finger's position.
    """
    # Each by itself: fsum refuses two infinities, and two large numbers, with errors of its own.
    if not len(finger_positions) or not all(abs(position) < _ANY_FINGER for position in finger_positions):
        raise MessageError(f"{source}: expected the fingers' positions, got {list(finger_positions)}")
    return min(1.0, max(0.0, math.fsum(finger_positions) / max_width))
