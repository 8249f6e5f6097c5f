"""Only a wheel whose pin is all in the socket, let go and at rest, is a success."""

from __future__ import annotations

import math
from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

from conrft_data import rotations
from conrft_sim.simulation import Simulation
from conrft_sim.tasks import insert_wheel
from conrft_sim.tasks.insert_wheel import InsertWheel

CONFIG = InsertWheel.default_config()
LENIENT = CONFIG.model_copy(
    update={"reward": CONFIG.reward.model_copy(update={"min_tcp_height": 0.0, "min_gripper_opening": 0.0})}
)
INSERTED = insert_wheel.RIM_HEIGHT
ON_THE_RIM = insert_wheel.RIM_HEIGHT + insert_wheel.PIN_LENGTH


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(CONFIG) as made:
        yield made


def put_wheel(
    simulation: Simulation,
    height: float,
    *,
    beside: tuple[float, float] = (0.0, 0.0),
    tilt: float = 0.0,
    ticks: int = 8,
) -> None:
    """Puts the wheel's tyre at ``height`` m, ``beside`` the socket and tilted by ``tilt`` rad, and lets go."""
    x, y = insert_wheel.SOCKET_PLACE
    w = [math.cos(tilt / 2), math.sin(tilt / 2), 0.0, 0.0]
    simulation.data.joint("wheel").qpos[:] = [x + beside[0], y + beside[1], height, *w]
    simulation.data.joint("wheel").qvel[:] = 0.0
    for _ in range(ticks):
        simulation.advance()


def wheel(simulation: Simulation) -> np.ndarray:
    return simulation.scene().objects["wheel"]


def test_inserted_wheel_with_the_hand_away_is_a_success(simulation: Simulation) -> None:
    put_wheel(simulation, INSERTED)
    assert simulation.success()


@pytest.mark.parametrize("beside", [(0.011, 0.0), (0.0, -0.011), (0.010, 0.010), (0.015, 0.0)])
def test_wheel_that_stands_on_the_rim_is_no_success(simulation: Simulation, beside: tuple[float, float]) -> None:
    put_wheel(simulation, ON_THE_RIM, beside=beside)
    assert wheel(simulation)[2] > INSERTED + 0.005
    assert not simulation.success()


@pytest.mark.parametrize("gap", [0.010, 0.006, 0.003])
def test_pin_that_is_not_all_in_is_no_success(simulation: Simulation, gap: float) -> None:
    put_wheel(simulation, INSERTED + gap, ticks=0)
    simulation.control_step()
    assert not simulation.success()


@pytest.mark.parametrize(
    ("gap", "beside", "tilt", "achieved"),
    [
        (0.0, 0.0, 0.0, True),
        (0.0020, 0.0, 0.0, False),
        (0.0, 0.0020, 0.0, False),
        (0.0, 0.0, 0.07, False),
    ],
    ids=["in", "not all the way down", "beside the socket", "tilted"],
)
def test_the_wheel_must_be_down_in_the_middle_and_upright(
    simulation: Simulation, gap: float, beside: float, tilt: float, achieved: bool
) -> None:
    put_wheel(simulation, INSERTED + gap, beside=(beside, 0.0), tilt=tilt, ticks=0)
    mujoco.mj_forward(simulation.model, simulation.data)
    assert simulation.scene().achieved == achieved


def test_wheel_that_leans_in_the_chamfer_is_no_success(simulation: Simulation) -> None:
    put_wheel(simulation, INSERTED + 0.004, beside=(0.0, 0.002), tilt=0.25, ticks=0)
    simulation.control_step()
    assert not simulation.success()


def test_falling_wheel_is_no_success_before_it_rests(simulation: Simulation) -> None:
    put_wheel(simulation, INSERTED, ticks=0)
    simulation.data.joint("wheel").qvel[2] = -0.3
    simulation.control_step()
    assert not simulation.success()


def test_wheel_on_the_table_is_no_success(simulation: Simulation) -> None:
    put_wheel(simulation, insert_wheel.PIN_LENGTH, beside=(0.0, 0.10))
    assert not simulation.success()


def test_inserted_wheel_that_is_still_held_is_no_success_whatever_the_gates() -> None:
    with Simulation(LENIENT) as simulation:
        put_wheel(simulation, INSERTED)
        x, y, z = wheel(simulation)[:3]
        for height in (0.08, insert_wheel.GRASP_HEIGHT):
            simulation.set_target([x, y, z + height, *simulation.reset_pose[3:]], 1.0)
            for _ in range(25):
                simulation.advance()
        assert simulation.success()  # in the socket, between open fingers
        simulation.set_gripper(0.0)
        for _ in range(8):
            simulation.advance()
        assert {"finger_left", "finger_right"} <= simulation.task.touching(simulation.data, "wheel")
        assert not simulation.success()


def test_hand_that_has_not_risen_is_no_success(simulation: Simulation) -> None:
    put_wheel(simulation, INSERTED)
    x, y, z = wheel(simulation)[:3]
    for height in (0.08, insert_wheel.GRASP_HEIGHT):
        simulation.set_target([x, y, z + height, *simulation.reset_pose[3:]], 1.0)
        for _ in range(25):
            simulation.advance()
    assert not simulation.success()


def test_the_socket_leaves_half_a_millimetre_on_each_side(simulation: Simulation) -> None:
    put_wheel(simulation, INSERTED)
    places = []
    for push in ([1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]):  # N: contacts give way a little
        body = simulation.model.body("wheel").id
        simulation.data.xfrc_applied[body, :2] = push
        for _ in range(5):
            simulation.advance()
        simulation.data.xfrc_applied[body] = 0.0
        places.append(wheel(simulation)[:2])
    play = np.ptp(np.array(places), axis=0)
    assert play.min() > 2 * insert_wheel.CLEARANCE - 1e-4
    assert play.max() < 2 * insert_wheel.CLEARANCE + 5e-4
    assert insert_wheel.CLEARANCE == 0.0005


def test_dropped_wheel_rights_itself(simulation: Simulation) -> None:
    for tilt in (0.6, 1.5):
        put_wheel(simulation, 0.06, beside=(-0.02, 0.12), tilt=tilt, ticks=25)
        assert rotations.rotate(wheel(simulation)[3:], [0.0, 0.0, 1.0])[2] > 0.95


def test_wheel_starts_within_two_centimetres(simulation: Simulation) -> None:
    starts = []
    for episode in range(200):
        simulation.reset(0, episode)
        starts.append(wheel(simulation)[:2] - insert_wheel.WHEEL_START)
    assert np.abs(starts).max() <= 0.02
    assert np.ptp(starts, axis=0) == pytest.approx([0.04, 0.04], abs=0.002)
