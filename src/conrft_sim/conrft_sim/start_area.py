"""Start states for pre-training: an object and its place anywhere on the table, apart from each other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

WIDE_AREA = ((0.38, 0.62), (-0.20, 0.20))  # place and object anywhere in here: x and y range, m
WIDE_SPREAD = 0.15  # object within +- this of the middle of its area, m


def wide_pair(rng: np.random.Generator, apart: float) -> tuple[Float64, Float64, float]:
    """Place (2,), object (2,) more than ``apart`` metres from it, and the object's yaw, anywhere in the wide area."""
    (x_low, x_high), (y_low, y_high) = WIDE_AREA
    while True:
        place = rng.uniform((x_low + 0.04, y_low), (x_high - 0.04, y_high))
        item = np.array([0.50, 0.0]) + rng.uniform(-WIDE_SPREAD, WIDE_SPREAD, 2)
        if math.hypot(*(place - item)) > apart:
            return place, item, float(rng.uniform(-math.pi, math.pi))
