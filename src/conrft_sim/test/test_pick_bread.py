"""Only a slice that both fingers hold, all of it well above the toaster, is a success."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from conrft_data.reference_pose import ReferencePose
from conrft_sim import bread_slice
from conrft_sim.operator_benchmark import execute
from conrft_sim.plan import ideal_action
from conrft_sim.simulation import Simulation
from conrft_sim.tasks import pick_bread
from conrft_sim.tasks.pick_bread import PickBread

CONFIG = PickBread.default_config()
PLAN = PickBread.plan(CONFIG)
TOP = pick_bread.TOASTER_SIZE[2]
NO_GATES = CONFIG.reward.model_copy(update={"min_gripper_opening": 0.0, "min_tcp_height": -10.0})


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(CONFIG.model_copy(update={"reward": NO_GATES})) as made:
        made.reset(0, 1)
        yield made


def lowest(simulation: Simulation) -> float:
    return bread_slice.lowest_point(simulation.scene().objects["slice"])


def pull(simulation: Simulation, until: Callable[[], bool]) -> None:
    """Lets the plan work until something holds, then keeps the arm still and the hand closed."""
    reference = ReferencePose(CONFIG.motion_limits())
    reference.start(simulation.tcp_pose)
    for _ in range(100):
        if until():
            break
        execute(simulation, reference, ideal_action(PLAN, simulation.scene()).astype(float))
    assert until()
    simulation.set_target(simulation.tcp_pose, 0.0)


def settle(simulation: Simulation, ticks: int = 5) -> None:
    for _ in range(ticks):
        simulation.advance()


def put_slice(simulation: Simulation, *, height: float, x: float = 0.0, flat: bool = False) -> None:
    """Puts the slice above the toaster's middle, ``x`` metres farther from the robot."""
    place = np.add(simulation.scene().objects["toaster"][:2], [x, 0.0])
    simulation.task.set_free_body(simulation.data, "slice", [*place, height])
    if flat:
        simulation.data.joint("slice").qpos[3:] = bread_slice.FLAT


def test_slice_held_still_above_the_toaster_is_a_success() -> None:
    with Simulation(CONFIG) as simulation:
        simulation.reset(0, 1)
        pull(simulation, simulation.success)
        settle(simulation)
        assert simulation.success()
        assert lowest(simulation) > TOP + pick_bread.PULLED_OUT


def at_the_start(simulation: Simulation) -> None:
    settle(simulation)


def held_but_still_in_the_slot(simulation: Simulation) -> None:
    pull(simulation, lambda: simulation.task.touching(simulation.data, "slice") >= {"finger_left", "finger_right"})


def half_pulled_out(simulation: Simulation) -> None:
    pull(simulation, lambda: lowest(simulation) > TOP - 0.015)
    assert lowest(simulation) < TOP


def just_out_of_the_slot(simulation: Simulation) -> None:
    pull(simulation, lambda: lowest(simulation) > TOP)
    assert lowest(simulation) < TOP + pick_bread.PULLED_OUT


def lying_on_the_toaster(simulation: Simulation) -> None:
    put_slice(simulation, height=TOP + bread_slice.THICKNESS / 2, flat=True)
    settle(simulation)


def thrown_up(simulation: Simulation) -> None:
    put_slice(simulation, height=0.25)
    simulation.control_step()


def lying_beside_the_toaster(simulation: Simulation) -> None:
    put_slice(simulation, height=bread_slice.THICKNESS / 2, x=-0.15, flat=True)
    settle(simulation)


def let_go_above_the_toaster(simulation: Simulation) -> None:
    pull(simulation, simulation.success)
    simulation.set_gripper(1.0)
    settle(simulation, ticks=2)


def torn_up_in_haste(simulation: Simulation) -> None:
    pull(simulation, simulation.success)
    simulation.data.joint("slice").qvel[2] = 0.4
    simulation.control_step()


@pytest.mark.parametrize(
    "nearly",
    [
        at_the_start,
        held_but_still_in_the_slot,
        half_pulled_out,
        just_out_of_the_slot,
        lying_on_the_toaster,
        thrown_up,
        lying_beside_the_toaster,
        let_go_above_the_toaster,
        torn_up_in_haste,
    ],
)
def test_nearly_is_no_success_even_without_gates(simulation: Simulation, nearly: Callable[[Simulation], None]) -> None:
    nearly(simulation)
    assert not simulation.success()


def test_slice_held_up_by_a_hand_below_the_gate_is_no_success() -> None:
    gate = CONFIG.reward.model_copy(update={"min_tcp_height": 0.30})
    with Simulation(CONFIG.model_copy(update={"reward": gate})) as simulation:
        simulation.reset(0, 1)
        pull(simulation, lambda: simulation.scene().achieved)
        settle(simulation)
        assert simulation.scene().achieved
        assert not simulation.success()


def test_the_gates_alone_refuse_an_empty_closed_hand() -> None:
    with Simulation(CONFIG) as simulation:
        simulation.set_gripper(0.0)
        settle(simulation, ticks=8)
        assert not simulation.task.gates_passed(simulation.tcp_pose, simulation.gripper_opening)


def test_a_slice_that_fell_flat_on_the_table_is_taken_and_held_up(simulation: Simulation) -> None:
    lying_beside_the_toaster(simulation)
    pull(simulation, simulation.success)


def test_toaster_starts_within_two_centimetres_with_the_slice_in_its_slot(simulation: Simulation) -> None:
    places, slots = [], []
    for episode in range(200):
        simulation.reset(0, episode)
        objects = simulation.scene().objects
        places.append(objects["toaster"][:2] - pick_bread.TOASTER_START)
        slots.append(objects["slice"][:2] - objects["toaster"][:2])
    spread = np.array(places)
    assert np.abs(spread).max() <= 0.02
    assert spread.std(axis=0) == pytest.approx(0.02 / math.sqrt(3), abs=0.002)
    np.testing.assert_allclose(slots, np.tile([0.0, pick_bread.SLOT_SIDE], (200, 1)), atol=1e-9)
