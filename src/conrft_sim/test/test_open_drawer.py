"""Only a drawer that stays open by itself, with the hand clear of it, is a success."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from conrft_sim.simulation import Simulation
from conrft_sim.tasks import open_drawer
from conrft_sim.tasks.open_drawer import OpenDrawer

CONFIG = OpenDrawer.default_config()
DOWN = (1.0, 0.0, 0.0, 0.0)


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(CONFIG) as made:
        yield made


def pull_out(simulation: Simulation, distance: float, *, ticks: int = 2) -> None:
    """Puts the drawer ``distance`` m out, at rest, and lets the scene settle."""
    simulation.data.joint("drawer").qpos[:] = distance
    simulation.data.joint("drawer").qvel[:] = 0.0
    for _ in range(ticks):
        simulation.advance()


def move(simulation: Simulation, position: np.ndarray, ticks: int = 12) -> None:
    simulation.set_target([*position, *DOWN])
    for _ in range(ticks):
        simulation.advance()


def behind_the_bar(simulation: Simulation, *, x: float = 0.0, z: float = 0.0) -> np.ndarray:
    """Tool centre point (3,) of a hand that is hooked in, ``x`` and ``z`` m beside that."""
    return np.add(simulation.scene().objects["handle"][:3], [0.030 + x, 0.0, -0.015 + z])


def test_open_drawer_with_the_hand_away_is_a_success(simulation: Simulation) -> None:
    pull_out(simulation, open_drawer.OPEN_DISTANCE + 0.005)
    assert simulation.success()


@pytest.mark.parametrize("distance", [0.0, open_drawer.OPEN_DISTANCE / 2, open_drawer.OPEN_DISTANCE - 0.002])
def test_closed_half_open_or_nearly_open_drawer_is_no_success(simulation: Simulation, distance: float) -> None:
    pull_out(simulation, distance)
    assert not simulation.success()


def test_drawer_that_slides_is_no_success(simulation: Simulation) -> None:
    pull_out(simulation, open_drawer.OPEN_DISTANCE + 0.02)
    simulation.data.joint("drawer").qvel[:] = -0.3
    simulation.control_step()
    assert not simulation.success()


def test_drawer_that_was_pushed_shut_again_is_no_success(simulation: Simulation) -> None:
    pull_out(simulation, open_drawer.OPEN_DISTANCE + 0.02)
    assert simulation.success()
    pull_out(simulation, 0.03)
    assert not simulation.success()


def test_hand_that_is_still_hooked_in_is_no_success(simulation: Simulation) -> None:
    pull_out(simulation, open_drawer.OPEN_DISTANCE + 0.02)
    above = behind_the_bar(simulation, z=0.10)
    move(simulation, above)
    move(simulation, behind_the_bar(simulation))
    assert simulation.scene().objects["cabinet"][0] > 0.5
    assert not simulation.success()


def test_hand_that_holds_the_bar_is_no_success_whatever_the_gate() -> None:
    lenient = CONFIG.reward.model_copy(update={"min_tcp_height": 0.0})
    with Simulation(CONFIG.model_copy(update={"reward": lenient})) as simulation:
        pull_out(simulation, open_drawer.DRAWER_TRAVEL)
        move(simulation, behind_the_bar(simulation, z=0.10))
        move(simulation, behind_the_bar(simulation))
        assert simulation.success()  # behind the bar, but touching nothing
        move(simulation, behind_the_bar(simulation, x=-0.04), ticks=15)  # pulls at the drawer's stop
        assert simulation.data.joint("drawer").qvel[0] == pytest.approx(0.0, abs=open_drawer.REST_SPEED)
        assert simulation.task.touching(simulation.data, "handle")
        assert not simulation.success()


def test_drawer_stays_where_it_is_until_it_is_pulled(simulation: Simulation) -> None:
    pull_out(simulation, 0.05, ticks=20)
    assert simulation.data.joint("drawer").qpos[0] == pytest.approx(0.05, abs=1e-4)


def test_cabinet_starts_within_three_centimetres_and_shut(simulation: Simulation) -> None:
    starts = []
    for episode in range(200):
        simulation.reset(0, episode)
        objects = simulation.scene().objects
        starts.append(objects["cabinet"][:2] - open_drawer.CABINET_START)
        assert objects["cabinet"][0] - objects["handle"][0] == pytest.approx(open_drawer.HANDLE_REACH)
    assert np.abs(starts).max() <= 0.03
    assert np.ptp(starts, axis=0) == pytest.approx([0.06, 0.06], abs=0.003)
    assert not simulation.success()
