"""The simulated arm follows its target like an impedance-controlled one, within its limits, and repeats itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from conrft_data import rotations
from conrft_sim import kinematics
from conrft_sim.simulation import START_NS, Simulation, TargetRefused
from conrft_sim.tasks.pick_banana import PickBanana


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(PickBanana.default_config()) as made:
        yield made


def moved(
    pose: np.ndarray, *, by: tuple[float, float, float], turn: tuple[float, float, float] = (0, 0, 0)
) -> np.ndarray:
    return np.concatenate([pose[:3] + by, rotations.multiply(rotations.from_rotation_vector(turn), pose[3:])])


def advance(simulation: Simulation, ticks: int) -> None:
    for _ in range(ticks):
        simulation.advance()


def test_reset_puts_the_tool_on_the_reset_pose(simulation: Simulation) -> None:
    assert simulation.tcp_pose[:3] == pytest.approx(simulation.task_config.reset.position, abs=1e-6)
    assert rotations.angle_between(simulation.tcp_pose[3:], simulation.reset_pose[3:]) < 1e-6
    assert simulation.gripper_opening == pytest.approx(1.0)


def test_arm_holds_still_without_a_new_target(simulation: Simulation) -> None:
    advance(simulation, 20)
    assert simulation.tcp_pose[:3] == pytest.approx(simulation.reset_pose[:3], abs=1e-4)
    assert np.abs(simulation.robot_state().tcp_twist).max() < 1e-3


def test_arm_reaches_a_target_pose(simulation: Simulation) -> None:
    target = moved(simulation.tcp_pose, by=(0.06, -0.08, -0.05), turn=(0.1, 0.0, 0.3))
    simulation.set_target(target)
    advance(simulation, 20)
    assert simulation.tcp_pose[:3] == pytest.approx(target[:3], abs=2e-3)
    assert rotations.angle_between(simulation.tcp_pose[3:], target[3:]) < 0.02


def test_twist_is_the_derivative_of_the_pose(simulation: Simulation) -> None:
    simulation.set_target(moved(simulation.tcp_pose, by=(0.05, 0.05, 0.0), turn=(0.0, 0.0, 0.3)))
    advance(simulation, 1)
    before, twist = simulation.tcp_pose, simulation.robot_state().tcp_twist
    simulation.control_step()
    after = simulation.tcp_pose
    period = 0.005
    assert (after[:3] - before[:3]) / period == pytest.approx(twist[:3], abs=0.03)
    turned = rotations.to_rotation_vector(rotations.multiply(after[3:], rotations.inverse(before[3:])))
    assert turned / period == pytest.approx(twist[3:], abs=0.1)


def test_joints_stay_within_their_limits_whatever_the_target(simulation: Simulation) -> None:
    rng = np.random.default_rng(1)
    for _ in range(15):
        position = rng.uniform((-0.8, -0.8, 0.0), (0.9, 0.9, 1.1))
        simulation.set_target([*position, *rotations.normalized(rng.normal(size=4))])
        for _ in range(60):
            simulation.control_step()
            state = simulation.robot_state()
            assert (state.joint_positions > kinematics.POSITION_LOW - 0.05).all()
            assert (state.joint_positions < kinematics.POSITION_HIGH + 0.05).all()
            assert (np.abs(state.joint_torques) <= kinematics.TORQUE_LIMIT).all()
            assert (np.abs(state.joint_velocities) < 1.6 * kinematics.VELOCITY_LIMIT).all()


def test_pressing_on_the_table_is_felt_as_a_force_upwards(simulation: Simulation) -> None:
    simulation.set_target(moved(simulation.tcp_pose, by=(0.0, -0.02, -0.30)), gripper_opening=0.0)
    advance(simulation, 25)
    state = simulation.robot_state()
    base_force = rotations.rotate(state.tcp_pose[3:], state.tcp_wrench[:3])
    assert 5.0 < base_force[2] < 80.0
    assert state.tcp_wrench[2] == pytest.approx(-base_force[2], rel=0.1)  # the stiffness frame's z points down


def test_gripper_closes_in_four_ticks_and_opens_again(simulation: Simulation) -> None:
    simulation.set_gripper(0.0)
    advance(simulation, 2)
    assert 0.2 < simulation.gripper_opening < 0.8
    advance(simulation, 3)
    assert simulation.gripper_opening < 0.03
    simulation.set_gripper(1.0)
    advance(simulation, 6)
    assert simulation.gripper_opening > 0.97


@pytest.mark.parametrize(
    "target",
    [
        [np.nan, 0.0, 0.2, 1.0, 0.0, 0.0, 0.0],
        [0.4, np.inf, 0.2, 1.0, 0.0, 0.0, 0.0],
        [0.4, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0],
        [0.4, 0.0, 0.2],
    ],
)
def test_a_target_that_is_no_pose_is_refused_and_the_old_one_held(simulation: Simulation, target: list[float]) -> None:
    with pytest.raises(TargetRefused):
        simulation.set_target(target)
    advance(simulation, 5)
    assert simulation.tcp_pose[:3] == pytest.approx(simulation.reset_pose[:3], abs=1e-3)


def test_a_gripper_opening_that_is_no_number_is_refused(simulation: Simulation) -> None:
    with pytest.raises(TargetRefused):
        simulation.set_gripper(float("nan"))


def test_start_state_is_a_function_of_seed_and_episode(simulation: Simulation) -> None:
    def start(seed: int, episode: int) -> np.ndarray:
        simulation.reset(seed, episode)
        return simulation.data.qpos.copy()

    first = start(3, 7)
    start(4, 1)
    advance(simulation, 3)
    assert np.array_equal(start(3, 7), first)
    assert not np.array_equal(start(3, 8), first)
    assert not np.array_equal(start(4, 7), first)


def test_the_same_targets_give_the_same_motion_and_images_to_the_last_bit() -> None:
    def run() -> tuple[np.ndarray, np.ndarray]:
        with Simulation(PickBanana.default_config()) as simulation:
            simulation.reset(5, 2)
            simulation.set_target(moved(simulation.tcp_pose, by=(0.05, 0.1, -0.2)), 0.0)
            advance(simulation, 12)
            return simulation.data.qpos.copy(), simulation.render("side").copy()

    (first_state, first_image), (second_state, second_image) = run(), run()
    assert np.array_equal(first_state, second_state)
    assert np.array_equal(first_image, second_image)


def test_simulated_time_goes_on_by_a_tick_and_never_back(simulation: Simulation) -> None:
    assert simulation.time_ns == START_NS
    advance(simulation, 3)
    simulation.reset(0, 1)
    assert simulation.time_ns == START_NS + 300_000_000


def test_cameras_show_the_banana_the_plate_and_the_hand(simulation: Simulation) -> None:
    for camera, (height, width) in {"side": (256, 256), "wrist": (128, 128)}.items():
        image = simulation.render(camera).astype(int)
        assert image.shape == (height, width, 3)
        red, green, blue = image[..., 0], image[..., 1], image[..., 2]
        yellow = (red > 120) & (green > 100) & (blue < 60)
        plate = (green > red + 40) & (green > blue + 40)
        dark = image.max(axis=2) < 60
        assert yellow.mean() > 0.003
        assert plate.mean() > 0.01
        assert dark.mean() > 0.003  # fingers


def test_rendering_reuses_its_buffer(simulation: Simulation) -> None:
    first = simulation.render("wrist")
    assert simulation.render("wrist") is first


def test_a_tick_with_both_images_is_faster_than_real_time(simulation: Simulation) -> None:
    simulation.render("side")
    start = time.perf_counter()
    for _ in range(20):
        simulation.advance()
        simulation.render("side")
        simulation.render("wrist")
    # Measured: 6 ms on one core. Generous, for a busy machine.
    assert (time.perf_counter() - start) / 20 < 0.1


def test_an_unknown_task_is_refused_by_name() -> None:
    config = PickBanana.default_config().model_copy(update={"name": "fold_laundry"})
    with pytest.raises(KeyError, match="fold_laundry"):
        Simulation(config)
