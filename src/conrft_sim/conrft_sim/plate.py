"""A round plate that stands fast on the table."""

from __future__ import annotations

import math

from conrft_sim import scene

RADIUS = 0.095  # to the rim, m
THICKNESS = 0.008  # m
_BOX = 0.078  # half a side of the box that is touched, m


def plate_body(position: tuple[float, float], *, rim: str, bottom: str, middle: str) -> str:
    """MJCF of the body ``plate``, a fixture; colours are ``red green blue alpha``.

    What is drawn is round with a rim; what is touched is a flat box about as large, because contacts of
    capsules with boxes are exact.
    """
    half = THICKNESS / 2
    rims, count = [], 18
    for index in range(count):
        a, b = (2 * math.pi * (index + k) / count for k in (0, 1))
        r = RADIUS - 0.004
        line = " ".join(f"{r * math.cos(c):.5f} {r * math.sin(c):.5f} {THICKNESS}" for c in (a, b))
        rims.append(f'<geom type="capsule" fromto="{line}" size="0.005" rgba="{rim}" {scene.VISUAL}/>')
    shapes = "\n      ".join(rims)
    return f"""
    <body name="plate" mocap="true" pos="{position[0]} {position[1]} 0">
      <geom name="plate" type="box" pos="0 0 {half}" size="{_BOX} {_BOX} {half}" rgba="0 0 0 0"
            friction="0.8 0.02 0.001" condim="4" {scene.SURROUNDINGS}/>
      <geom type="cylinder" pos="0 0 {half}" size="{RADIUS} {half}" rgba="{bottom}" {scene.VISUAL}/>
      <geom type="cylinder" pos="0 0 {THICKNESS}" size="0.060 0.0006" rgba="{middle}" {scene.VISUAL}/>
      {shapes}
    </body>"""
