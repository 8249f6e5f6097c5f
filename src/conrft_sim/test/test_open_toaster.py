"""Only a lever that stays down by itself, with the hand clear of it, is a success."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from conrft_sim.simulation import Simulation
from conrft_sim.tasks import open_toaster
from conrft_sim.tasks.open_toaster import OpenToaster

CONFIG = OpenToaster.default_config()
LENIENT = CONFIG.model_copy(update={"reward": CONFIG.reward.model_copy(update={"min_tcp_height": 0.0})})
DOWN = (1.0, 0.0, 0.0, 0.0)
FINGERS = 0.008  # from the tool centre point down to the finger tips, m


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(CONFIG) as made:
        yield made


def depth(simulation: Simulation) -> float:
    return float(simulation.data.joint("lever").qpos[0])


def put_lever(simulation: Simulation, depth: float, *, ticks: int = 10) -> None:
    """Puts the lever ``depth`` m down, at rest, and lets go."""
    simulation.data.joint("lever").qpos[:] = depth
    simulation.data.joint("lever").qvel[:] = 0.0
    for _ in range(ticks):
        simulation.advance()


def press(simulation: Simulation, depth: float) -> None:
    """Brings the hand over the knob and presses to ``depth`` m, as far as the spring lets it."""
    top = simulation.scene().objects["lever"][:3]
    for height in (0.06, 0.02, -depth):
        simulation.set_target([*top[:2], top[2] + FINGERS + height, *DOWN])
        for _ in range(12):
            simulation.advance()


def test_latched_lever_with_the_hand_away_is_a_success(simulation: Simulation) -> None:
    put_lever(simulation, open_toaster.LEVER_TRAVEL)
    assert simulation.success()


def test_start_state_is_no_success_and_the_lever_stays_up(simulation: Simulation) -> None:
    for _ in range(20):
        simulation.advance()
    assert depth(simulation) == pytest.approx(0.0, abs=0.001)
    assert not simulation.success()


@pytest.mark.parametrize("start", [0.010, 0.022, open_toaster.LATCH_DEPTH - 0.003])
def test_half_pressed_lever_springs_back_up(simulation: Simulation, start: float) -> None:
    put_lever(simulation, start, ticks=0)
    simulation.control_step()
    assert not simulation.success()
    put_lever(simulation, start)
    assert depth(simulation) == pytest.approx(0.0, abs=0.001)
    assert not simulation.success()


def test_lever_past_the_latch_goes_down_by_itself(simulation: Simulation) -> None:
    put_lever(simulation, open_toaster.LATCH_DEPTH + 0.002)
    assert depth(simulation) == pytest.approx(open_toaster.LEVER_TRAVEL, abs=0.002)
    assert simulation.success()


def test_lever_held_above_the_latch_is_no_success_and_springs_back() -> None:
    with Simulation(LENIENT) as simulation:
        press(simulation, open_toaster.LATCH_DEPTH - 0.008)
        assert 0.02 < depth(simulation) < open_toaster.LATCH_DEPTH
        assert not simulation.success()
        simulation.set_target(simulation.reset_pose)
        for _ in range(15):
            simulation.advance()
        assert depth(simulation) == pytest.approx(0.0, abs=0.001)
        assert not simulation.success()


def test_lever_held_at_the_bottom_is_no_success_before_the_hand_lets_go() -> None:
    with Simulation(LENIENT) as simulation:
        press(simulation, open_toaster.LEVER_TRAVEL + 0.01)
        assert depth(simulation) > open_toaster.PRESSED
        assert simulation.task.touching(simulation.data, "lever")
        assert not simulation.success()
        simulation.set_target(simulation.reset_pose)
        for _ in range(15):
            simulation.advance()
        assert simulation.success()


def test_hand_that_has_not_risen_is_no_success(simulation: Simulation) -> None:
    press(simulation, open_toaster.LEVER_TRAVEL + 0.01)
    x, y, z = simulation.tcp_pose[:3]
    simulation.set_target([x, y, z + 0.03, *DOWN])
    for _ in range(10):
        simulation.advance()
    assert not simulation.task.touching(simulation.data, "lever")
    assert not simulation.success()


def test_lever_in_motion_is_no_success(simulation: Simulation) -> None:
    put_lever(simulation, open_toaster.LEVER_TRAVEL)
    simulation.data.joint("lever").qvel[:] = -0.2
    simulation.control_step()
    assert not simulation.success()


def test_toaster_starts_within_two_centimetres_in_y_and_z(simulation: Simulation) -> None:
    starts = []
    for episode in range(200):
        simulation.reset(0, episode)
        starts.append(simulation.scene().objects["toaster"][:3] - open_toaster.TOASTER_START)
    assert np.abs(starts).max() <= 0.02
    assert np.ptp(starts, axis=0) == pytest.approx([0.0, 0.04, 0.04], abs=0.002)
