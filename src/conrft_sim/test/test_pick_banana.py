"""Only a banana that lies on the plate, let go by an open hand that has left, is a success."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from conrft_sim import plate
from conrft_sim.simulation import Simulation
from conrft_sim.tasks import pick_banana
from conrft_sim.tasks.pick_banana import PickBanana

REST_HEIGHT = plate.THICKNESS + pick_banana.BANANA_RADIUS


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(PickBanana.default_config()) as made:
        yield made


def put_banana(
    simulation: Simulation, *, offset: tuple[float, float] = (0.0, 0.0), height: float = REST_HEIGHT, ticks: int = 12
) -> None:
    """Puts the banana ``offset`` beside the plate's middle, at ``height``, and lets the scene settle."""
    x, y = pick_banana.PLATE_POSITION
    simulation.data.qpos[9:12] = [x + offset[0], y + offset[1], height]
    for _ in range(ticks):
        simulation.advance()


def test_banana_on_the_plate_and_open_hand_above_is_a_success(simulation: Simulation) -> None:
    put_banana(simulation)
    assert simulation.success()


def test_banana_that_lies_across_the_plate_far_from_its_middle_is_a_success(simulation: Simulation) -> None:
    put_banana(simulation, offset=(0.0, 0.065))
    assert simulation.success()


def test_start_state_is_no_success(simulation: Simulation) -> None:
    simulation.advance()
    assert not simulation.success()


def test_banana_in_the_air_above_the_plate_is_no_success(simulation: Simulation) -> None:
    put_banana(simulation, height=0.12, ticks=0)
    simulation.control_step()
    assert not simulation.success()


def test_falling_banana_is_no_success_at_the_moment_it_touches(simulation: Simulation) -> None:
    put_banana(simulation, height=REST_HEIGHT, ticks=0)
    simulation.data.qvel[9:12] = [0.0, 0.0, -0.5]
    simulation.control_step()
    assert not simulation.success()


def test_sliding_banana_is_no_success(simulation: Simulation) -> None:
    put_banana(simulation)
    simulation.data.qvel[9] = 0.3
    simulation.control_step()
    assert not simulation.success()


def test_banana_beside_the_plate_is_no_success(simulation: Simulation) -> None:
    put_banana(simulation, offset=(0.0, plate.RADIUS + 0.05), height=pick_banana.BANANA_RADIUS)
    assert not simulation.success()


def test_banana_that_leans_from_the_table_against_the_plate_is_no_success(simulation: Simulation) -> None:
    put_banana(simulation, offset=(0.085, 0.0), ticks=0)
    simulation.data.qpos[12:16] = [math.cos(0.15), 0.0, math.sin(0.15), 0.0]
    for _ in range(8):
        simulation.advance()
    assert not simulation.success()


@pytest.mark.parametrize(
    ("beside", "drop", "yaw", "velocity"),
    [
        ((0.0275, 0.0539), 0.0066, -0.8619, (0.0151, 0.0479, -0.0057)),
        ((-0.0621, 0.0478), 0.0151, -0.2534, (-0.0345, 0.0666, -0.0625)),
        ((-0.0258, -0.0670), 0.0001, 1.2393, (-0.0182, -0.0053, 0.1371)),
        ((0.0649, 0.0145), 0.0062, -1.0668, (-0.0800, -0.0840, -0.0061)),
        ((0.0279, -0.0509), 0.0108, -2.5806, (-0.0141, 0.0307, -0.0454)),
        ((-0.0534, -0.0103), 0.0081, 0.5144, (0.0195, 0.0328, -0.0626)),
    ],
)
def test_banana_that_is_about_to_lean_over_the_rim_is_no_success_for_a_moment(
    simulation: Simulation, beside: tuple[float, float], drop: float, yaw: float, velocity: tuple[float, float, float]
) -> None:
    x, y = np.add(pick_banana.PLATE_POSITION, beside)
    simulation.task.set_free_body(simulation.data, "banana", [x, y, REST_HEIGHT + drop], yaw)
    simulation.data.joint("banana").qvel[:3] = velocity
    for _ in range(30):
        simulation.advance()
        assert not simulation.success()
    assert "world" in simulation.task.touching(simulation.data, "banana")  # an end has come down on the table


def test_closed_hand_is_no_success(simulation: Simulation) -> None:
    simulation.set_gripper(0.0)
    put_banana(simulation, ticks=6)
    assert not simulation.success()


def test_low_hand_is_no_success(simulation: Simulation) -> None:
    simulation.set_target([0.5, 0.1, 0.10, 1.0, 0.0, 0.0, 0.0])
    put_banana(simulation, ticks=15)
    assert simulation.gripper_opening > 0.9
    assert not simulation.success()


def test_banana_between_the_fingers_on_the_plate_is_no_success(simulation: Simulation) -> None:
    low_gate = PickBanana.default_config().reward.model_copy(update={"min_tcp_height": 0.0, "min_gripper_opening": 0.0})
    config = PickBanana.default_config().model_copy(update={"reward": low_gate})
    x, y = pick_banana.PLATE_POSITION
    with Simulation(config) as lenient:
        target = [x, y, REST_HEIGHT, 1.0, 0.0, 0.0, 0.0]
        for _ in range(3):  # in steps, so that the fingers come down beside the banana
            put_banana(lenient, ticks=0)
            lenient.data.qvel[9:] = 0.0
            lenient.set_target(target, 1.0)
            for _ in range(10):
                lenient.advance()
        assert lenient.success()  # lying there untouched between open fingers
        lenient.set_gripper(0.0)
        for _ in range(6):
            lenient.advance()
        assert lenient.gripper_opening > 0.3  # the banana is between them
        assert not lenient.success()


def test_banana_starts_within_three_centimetres_and_uniformly(simulation: Simulation) -> None:
    starts = []
    for episode in range(200):
        simulation.reset(0, episode)
        starts.append(simulation.scene().objects["banana"][:2] - pick_banana.BANANA_START)
    spread = np.array(starts)
    assert np.abs(spread).max() <= 0.03
    assert np.abs(spread.mean(axis=0)).max() < 0.004
    assert spread.std(axis=0) == pytest.approx(0.03 / math.sqrt(3), abs=0.003)


def test_plate_stays_in_the_task_and_moves_when_wide() -> None:
    with Simulation(PickBanana.default_config(), randomisation="wide") as wide:
        plates, bananas, images = [], [], []
        for episode in range(30):
            wide.reset(0, episode)
            objects = wide.scene().objects
            plates.append(objects["plate"][:2])
            bananas.append(objects["banana"][:2])
            images.append(wide.render("wrist").mean(axis=(0, 1)))
        assert np.ptp(np.array(plates), axis=0).min() > 0.10
        assert np.ptp(np.array(bananas), axis=0).min() > 0.20
        assert np.ptp(np.array(images), axis=0).min() > 10.0
        distance = np.linalg.norm(np.array(plates) - np.array(bananas), axis=1)
        assert distance.min() > plate.RADIUS  # never solved from the start


def test_wide_randomisation_leaves_no_trace_in_the_task(simulation: Simulation) -> None:
    colours, cameras = simulation.model.geom_rgba.copy(), simulation.model.cam_pos.copy()
    simulation.randomisation = "wide"
    simulation.reset(0, 1)
    assert not np.array_equal(simulation.model.geom_rgba, colours)
    simulation.randomisation = "task"
    simulation.reset(0, 1)
    assert np.array_equal(simulation.model.geom_rgba, colours)
    assert np.array_equal(simulation.model.cam_pos, cameras)
