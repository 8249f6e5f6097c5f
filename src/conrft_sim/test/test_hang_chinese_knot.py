"""Only a knot whose loop hangs around the hook, not on its tip, let go and at rest, is a success."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

from conrft_data.reference_pose import ReferencePose
from conrft_sim.operator import ScriptedOperator
from conrft_sim.operator_benchmark import execute
from conrft_sim.plan import ideal_action
from conrft_sim.simulation import Simulation
from conrft_sim.tasks import hang_chinese_knot
from conrft_sim.tasks.hang_chinese_knot import SHAFT_HALF_LENGTH, HangChineseKnot

CONFIG = HangChineseKnot.default_config()
LENIENT = CONFIG.model_copy(
    update={"reward": CONFIG.reward.model_copy(update={"min_tcp_height": 0.0, "min_gripper_opening": 0.0})}
)
UPRIGHT = (2**-0.5, -(2**-0.5), 0.0, 0.0)  # turns the flat knot into the plane of x and z, the loop above the diamond
BEAD_ABOVE_KNOT = -hang_chinese_knot._BEAD_AT[1]
ON_THE_SHAFT = hang_chinese_knot.SHAFT_RADIUS + hang_chinese_knot.BEAD_RADIUS

# Where the upright knot is let go: x, y and z of its bead from the shaft's middle, m, and its yaw, rad.
AROUND_THE_HOOK = {
    "on the middle of the shaft": (0.0, 0.0, ON_THE_SHAFT, 0.0),
    "on the shaft, half of it on the post": (0.0013, -0.0344, 0.0251, 1.3228),
    "on the post": (-0.0082, -0.0497, 0.0158, 0.1965),
    "on the post, the loop around it": (-0.0074, -0.0718, 0.0162, 1.2138),
}
NOT_HUNG = {
    "on the shaft, the loop beside it": (0.0089, 0.0153, 0.0142, -1.3435),
    "on the post, the loop beside it": (0.0072, -0.045, 0.0252, 1.341),
    "on the post, the loop behind it": (-0.0058, -0.0678, 0.0305, 0.4441),
    "on the tip, the loop before it": (-0.0022, 0.0692, 0.0224, -1.4356),
    "on the tip, the loop around the shaft": (-0.0006, 0.044, 0.0306, 0.3019),
}


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(LENIENT) as made:
        yield made


def put_bead(simulation: Simulation, x: float, y: float, z: float, yaw: float = 0.0, *, ticks: int) -> None:
    """Puts the upright knot with its bead at ``x``, ``y``, ``z`` m from the shaft's middle, and lets go."""
    data, task = simulation.data, simulation.task
    task.place(data, np.random.default_rng(0), "task")
    hook = data.mocap_pos[int(simulation.model.body("hook").mocapid[0])]
    turned, place = np.zeros(4), np.add(hook, [x, y, z - BEAD_ABOVE_KNOT])
    mujoco.mju_mulQuat(turned, np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]), np.array(UPRIGHT))
    data.joint("knot").qpos[:] = [*place, *turned]
    for _ in range(ticks):
        simulation.advance()


def hang(simulation: Simulation, *, y: float = 0.0) -> None:
    put_bead(simulation, 0.0, y, ON_THE_SHAFT, ticks=40)


def above(simulation: Simulation) -> None:
    simulation.set_target([0.47, 0.05, 0.38, *simulation.reset_pose[3:]])


def settled(simulation: Simulation, x: float, y: float, z: float, yaw: float) -> None:
    """The knot let go there and come to rest, with the hand away."""
    above(simulation)
    for _ in range(8):
        simulation.advance()
    put_bead(simulation, x, y, z, yaw, ticks=40)


def is_taken_back(simulation: Simulation) -> bool:
    """Whether the operator vetoes a success that is called now."""
    return ScriptedOperator("intervene", HangChineseKnot.plan(CONFIG)).disagrees(simulation.scene())


def test_hung_knot_with_the_hand_away_is_a_success() -> None:
    with Simulation(CONFIG) as simulation:
        above(simulation)
        hang(simulation)
        assert simulation.success()


@pytest.mark.parametrize("place", AROUND_THE_HOOK)
def test_loop_that_hangs_around_the_hook_is_a_success_however_far_inside(place: str) -> None:
    with Simulation(CONFIG) as simulation:
        settled(simulation, *AROUND_THE_HOOK[place])
        assert simulation.success()
        assert not is_taken_back(simulation)


@pytest.mark.parametrize("place", NOT_HUNG)
def test_knot_that_rests_on_the_hook_but_is_not_hung_is_no_success_taken_back_and_put_right(place: str) -> None:
    plan = HangChineseKnot.plan(CONFIG)
    with Simulation(CONFIG) as simulation:
        settled(simulation, *NOT_HUNG[place])
        bead, hook = (simulation.scene().objects[name] for name in ("bead", "hook"))
        assert bead[2] > hook[2]  # it rests there
        assert not simulation.success()
        assert is_taken_back(simulation)
        reference = ReferencePose(CONFIG.motion_limits())
        reference.start(simulation.tcp_pose)
        for _ in range(CONFIG.max_steps):
            if simulation.success():
                break
            execute(simulation, reference, ideal_action(plan, simulation.scene()).astype(float))
        assert simulation.success()


def test_loop_before_the_tip_is_not_around_the_hook(simulation: Simulation) -> None:
    put_bead(simulation, 0.0, SHAFT_HALF_LENGTH + 0.02, 0.03, ticks=0)
    simulation.control_step()
    assert not simulation.scene().achieved


def test_loop_that_lies_above_the_post_is_not_around_the_hook(simulation: Simulation) -> None:
    put_bead(simulation, 0.0, 0.0, 0.0, ticks=0)
    hook = simulation.scene().objects["hook"][:3]
    above_post = np.add(hook, [0.0, hang_chinese_knot.POST_PLACE + 0.07, 0.05])
    simulation.task.set_free_body(simulation.data, "knot", above_post)
    simulation.control_step()
    assert not simulation.scene().achieved


def test_loop_around_the_hook_in_the_air_is_achieved_but_no_success(simulation: Simulation) -> None:
    put_bead(simulation, 0.0, 0.0, ON_THE_SHAFT + 0.02, ticks=0)
    simulation.control_step()
    assert simulation.scene().achieved
    assert not simulation.success()


def test_hand_that_has_not_risen_is_no_success() -> None:
    with Simulation(CONFIG) as simulation:
        hang(simulation)
        assert not simulation.success()


def test_swinging_knot_is_no_success(simulation: Simulation) -> None:
    hang(simulation)
    assert simulation.success()
    simulation.data.joint("knot").qvel[:3] = [0.5, 0.0, 0.0]
    simulation.control_step()
    assert not simulation.success()


@pytest.mark.parametrize("beyond", [0.004, 0.008])
def test_knot_on_the_tip_is_no_success(simulation: Simulation, beyond: float) -> None:
    put_bead(simulation, 0.0, SHAFT_HALF_LENGTH + beyond, hang_chinese_knot.TIP_HEIGHT + ON_THE_SHAFT + 0.001, ticks=0)
    for _ in range(40):
        simulation.control_step()
        assert not simulation.success()


def test_loop_beside_the_hook_is_no_success(simulation: Simulation) -> None:
    put_bead(simulation, hang_chinese_knot.LOOP_HALF_WIDTH + 0.02, 0.0, 0.0, ticks=0)
    for _ in range(20):
        simulation.control_step()
        assert not simulation.task.is_threaded(simulation.data)  # type: ignore[attr-defined]
        assert not simulation.success()


def test_knot_that_was_dropped_under_the_hook_is_no_success(simulation: Simulation) -> None:
    put_bead(simulation, 0.0, 0.0, -0.08, ticks=30)
    assert not simulation.success()


def test_start_state_is_no_success_whatever_the_gates(simulation: Simulation) -> None:
    for _ in range(10):
        simulation.advance()
    assert not simulation.success()


def test_knot_held_over_the_hook_by_the_gripper_is_no_success_whatever_the_gates(simulation: Simulation) -> None:
    """The plan threads the loop and lets it down, but the hand never opens."""

    plan = HangChineseKnot.plan(CONFIG)
    simulation.reset(0, 1)
    reference = ReferencePose(CONFIG.motion_limits())
    reference.start(simulation.tcp_pose)
    phases, closed = [], False
    for _ in range(80):
        scene = simulation.scene()
        action = ideal_action(plan, scene).astype(float)
        closed = closed or action[6] < 0
        action[6] = -1.0 if closed else action[6]
        phases.append(plan.step(scene).phase)
        execute(simulation, reference, action)
        assert not simulation.success()
    assert "release" in phases  # it was there, and held


def test_the_hook_starts_within_three_centimetres_in_y_and_z(simulation: Simulation) -> None:
    starts = []
    for episode in range(100):
        simulation.reset(0, episode)
        starts.append(simulation.scene().objects["hook"][:3] - hang_chinese_knot.HOOK_START)
    assert np.abs(starts).max() <= 0.03
    assert np.ptp(starts, axis=0) == pytest.approx([0.0, 0.06, 0.06], abs=0.004)
