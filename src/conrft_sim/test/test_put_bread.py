"""Only a slice that rests on the plate with all its corners, let go by an open hand that has left, is a success."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import mujoco
import numpy as np
import pytest

from conrft_sim import bread_slice, plate
from conrft_sim.simulation import Simulation
from conrft_sim.tasks import put_bread
from conrft_sim.tasks.put_bread import PutBread

LYING = plate.THICKNESS + bread_slice.THICKNESS / 2
UPRIGHT = plate.THICKNESS + bread_slice.SIDE / 2


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(PutBread.default_config()) as made:
        yield made


def lay(
    simulation: Simulation, x: float = 0.0, y: float = 0.0, *, height: float = LYING, flat: bool = True, ticks: int = 6
) -> None:
    """Puts the slice (``x``, ``y``) beside the plate's middle and lets the scene settle for some ticks."""
    middle_x, middle_y = put_bread.PLATE_POSITION
    simulation.task.set_free_body(simulation.data, "slice", [middle_x + x, middle_y + y, height])
    if flat:
        simulation.data.joint("slice").qpos[3:] = bread_slice.FLAT
    for _ in range(ticks):
        simulation.advance()


def test_slice_on_the_plate_and_open_hand_above_is_a_success(simulation: Simulation) -> None:
    lay(simulation)
    assert simulation.success()


def test_a_slice_that_stands_on_the_plate_is_on_it_too(simulation: Simulation) -> None:
    lay(simulation, height=UPRIGHT, flat=False)
    assert simulation.success()


def in_the_air(simulation: Simulation) -> None:
    lay(simulation, height=0.15, ticks=0)
    simulation.control_step()


def falling(simulation: Simulation) -> None:
    lay(simulation, ticks=0)
    simulation.data.joint("slice").qvel[2] = -0.4
    simulation.control_step()


def sliding(simulation: Simulation) -> None:
    lay(simulation)
    simulation.data.joint("slice").qvel[0] = 0.3
    simulation.control_step()


def over_the_rim(simulation: Simulation) -> None:
    lay(simulation, y=0.07)


def half_on_half_off(simulation: Simulation) -> None:
    lay(simulation, x=plate.RADIUS)


def on_the_rim_with_one_corner(simulation: Simulation) -> None:
    lay(simulation, x=0.04, y=0.04)


def beside_the_plate(simulation: Simulation) -> None:
    lay(simulation, x=plate.RADIUS + 0.05, height=bread_slice.THICKNESS / 2)


def leaning_against_the_plate(simulation: Simulation) -> None:
    lay(simulation, x=0.095, height=0.02, ticks=0)
    turn = np.array([math.cos(0.15), 0.0, math.sin(0.15), 0.0])
    mujoco.mju_mulQuat(simulation.data.joint("slice").qpos[3:], turn, np.array(bread_slice.FLAT))
    for _ in range(8):
        simulation.advance()


def still_on_the_board(simulation: Simulation) -> None:
    simulation.advance()


def closed_hand_above(simulation: Simulation) -> None:
    simulation.set_gripper(0.0)
    lay(simulation)


def hand_as_wide_as_the_slice(simulation: Simulation) -> None:
    simulation.set_gripper(0.75)
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
        over_the_rim,
        half_on_half_off,
        on_the_rim_with_one_corner,
        beside_the_plate,
        leaning_against_the_plate,
        still_on_the_board,
        closed_hand_above,
        hand_as_wide_as_the_slice,
        low_hand,
    ],
)
def test_nearly_is_no_success(simulation: Simulation, nearly: Callable[[Simulation], None]) -> None:
    nearly(simulation)
    assert not simulation.success()


def test_slice_starts_within_two_centimetres_of_the_middle_of_the_board(simulation: Simulation) -> None:
    starts = []
    for episode in range(200):
        simulation.reset(0, episode)
        starts.append(simulation.scene().objects["slice"][:2] - put_bread.BOARD_POSITION)
    spread = np.array(starts)
    assert np.abs(spread).max() <= 0.02
    assert spread.std(axis=0) == pytest.approx(0.02 / math.sqrt(3), abs=0.002)
