"""Only a spoon that lies on the towel from end to end, let go by an open hand that has left, is a success."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from conrft_sim.simulation import Simulation
from conrft_sim.tasks import put_spoon
from conrft_sim.tasks.put_spoon import PutSpoon

ON_TOWEL = put_spoon.TOWEL_THICKNESS + put_spoon.HANDLE_HEIGHT
MIDDLE = (put_spoon.TOWEL_POSITION[0], put_spoon.TOWEL_POSITION[1])


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(PutSpoon.default_config()) as made:
        yield made


def lay(
    simulation: Simulation,
    x: float = 0.0,
    y: float = 0.0,
    *,
    yaw: float = 0.0,
    height: float = ON_TOWEL,
    ticks: int = 6,
) -> None:
    """Lays the spoon (``x``, ``y``) beside the towel's middle and lets the scene settle for some ticks."""
    simulation.task.set_free_body(simulation.data, "spoon", [MIDDLE[0] + x, MIDDLE[1] + y, height], yaw)
    for _ in range(ticks):
        simulation.advance()


@pytest.mark.parametrize("yaw", [0.0, 0.8, math.pi / 2, math.pi])
def test_spoon_on_the_towel_and_open_hand_above_is_a_success(simulation: Simulation, yaw: float) -> None:
    lay(simulation, yaw=yaw)
    assert simulation.success()


def test_a_spoon_pressed_into_the_towel_comes_up_again(simulation: Simulation) -> None:
    lay(simulation, height=put_spoon.HANDLE_HEIGHT - 0.006, ticks=20)
    assert simulation.success()


def in_the_air(simulation: Simulation) -> None:
    lay(simulation, height=0.15, ticks=0)
    simulation.control_step()


def falling(simulation: Simulation) -> None:
    lay(simulation, ticks=0)
    simulation.data.joint("spoon").qvel[2] = -0.4
    simulation.control_step()


def sliding(simulation: Simulation) -> None:
    lay(simulation)
    simulation.data.joint("spoon").qvel[0] = 0.3
    simulation.control_step()


def beside_the_towel(simulation: Simulation) -> None:
    lay(simulation, y=put_spoon.TOWEL_HALF + 0.04, height=put_spoon.HANDLE_HEIGHT)


def bowl_over_the_edge(simulation: Simulation) -> None:
    lay(simulation, x=0.05)


def handle_over_the_edge(simulation: Simulation) -> None:
    lay(simulation, x=-0.05)


def half_on(simulation: Simulation) -> None:
    lay(simulation, x=put_spoon.TOWEL_HALF)


def askew_over_the_corner(simulation: Simulation) -> None:
    lay(simulation, x=0.06, y=0.06, yaw=math.pi / 4)


def closed_hand_above(simulation: Simulation) -> None:
    simulation.set_gripper(0.0)
    lay(simulation)


def low_hand(simulation: Simulation) -> None:
    simulation.set_target([0.5, 0.1, 0.12, 1.0, 0.0, 0.0, 0.0])
    lay(simulation, ticks=15)


@pytest.mark.parametrize(
    "nearly",
    [
        in_the_air,
        falling,
        sliding,
        beside_the_towel,
        bowl_over_the_edge,
        handle_over_the_edge,
        half_on,
        askew_over_the_corner,
        closed_hand_above,
        low_hand,
    ],
)
def test_nearly_is_no_success(simulation: Simulation, nearly: Callable[[Simulation], None]) -> None:
    nearly(simulation)
    assert not simulation.success()


def test_spoon_starts_within_three_centimetres_and_uniformly(simulation: Simulation) -> None:
    starts = []
    for episode in range(200):
        simulation.reset(0, episode)
        starts.append(simulation.scene().objects["spoon"][:2] - put_spoon.SPOON_START)
    spread = np.array(starts)
    assert np.abs(spread).max() <= 0.03
    assert spread.std(axis=0) == pytest.approx(0.03 / math.sqrt(3), abs=0.003)
