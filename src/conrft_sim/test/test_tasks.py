"""What holds for every task of the simulation, whichever modules there are."""

from __future__ import annotations

import math
import time

import gymnasium
import numpy as np
import pytest

from conrft_data.reference_pose import ReferencePose
from conrft_sim.environment import TaskEnv, environment_id, register
from conrft_sim.operator import FLAWLESS, OperatorHabits, ScriptedOperator
from conrft_sim.operator_benchmark import execute, hand_action, measure, run_episode
from conrft_sim.perturbation import Perturbation
from conrft_sim.plan import Plan, ideal_action
from conrft_sim.simulation import Simulation
from conrft_sim.task import UnknownTask, task_class, task_names

TASKS = task_names()
every_task = pytest.mark.parametrize("name", TASKS)


def simulated(name: str, **options: str) -> Simulation:
    return Simulation(task_class(name).default_config(), **options)  # type: ignore[arg-type]


def plan_of(name: str) -> Plan:
    kind = task_class(name)
    return kind.plan(kind.default_config())


def test_an_unknown_task_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UnknownTask, match=r"no task 'fold_laundry'; it has .*pick_banana"):
        task_class("fold_laundry")


@every_task
def test_its_configuration_bears_its_name(name: str) -> None:
    assert task_class(name).default_config().name == name


# ConRFT, table of tasks: action dimension, demonstrations, step limit, who resets, and what is drawn anew for each
# episode: the object, its axes, and half the range, m.
PAPER: dict[str, tuple[int, int, int, str, str, str, float]] = {
    "pick_banana": (7, 20, 100, "human", "banana", "xy", 0.03),
    "put_spoon": (7, 20, 100, "human", "spoon", "xy", 0.03),
    "open_drawer": (6, 20, 100, "script", "cabinet", "xy", 0.03),
    "pick_bread": (7, 30, 100, "human", "toaster", "xy", 0.02),
    "open_toaster": (6, 20, 100, "script", "toaster", "yz", 0.02),
    "put_bread": (7, 30, 120, "human", "slice", "xy", 0.02),
    "insert_wheel": (7, 30, 100, "human", "wheel", "xy", 0.02),
    "hang_chinese_knot": (7, 30, 100, "human", "hook", "yz", 0.03),
}


@pytest.mark.parametrize("name", PAPER)
def test_it_is_set_up_as_in_the_paper(name: str) -> None:
    config = task_class(name).default_config()
    *expected, item, axes, spread = PAPER[name]
    assert [config.action_dim, config.demonstrations, config.max_steps, config.reset.kind] == expected
    with simulated(name) as simulation:
        places = []
        for episode in range(100):
            simulation.reset(0, episode)
            places.append(simulation.scene().objects[item][:3])
    ranges = np.ptp(places, axis=0)
    assert ranges == pytest.approx([2 * spread * (axis in axes) for axis in "xyz"], abs=0.003)
    assert ranges.max() <= 2 * spread


@every_task
def test_start_states_depend_on_seed_and_episode_alone_and_are_no_success(name: str) -> None:
    def states(simulation: Simulation, *episodes: int) -> list[np.ndarray]:
        found = []
        for episode in episodes:
            simulation.reset(3, episode)
            scene = simulation.scene()
            assert not scene.success
            found.append(np.concatenate([scene.objects[key] for key in sorted(scene.objects)]))
        return found

    with simulated(name) as first, simulated(name) as second:
        one, two = states(first, 1, 2)
        (again,) = states(second, 2)
    assert np.array_equal(two, again)
    assert not np.array_equal(one, two)


@every_task
def test_the_objects_stay_where_they_start(name: str) -> None:
    with simulated(name) as simulation:
        simulation.reset(0, 1)
        before = simulation.scene().objects
        for _ in range(10):
            simulation.advance()
        for key, pose in simulation.scene().objects.items():
            assert np.linalg.norm(pose[:3] - before[key][:3]) < 0.012, key
        assert not simulation.success()


@every_task
def test_wide_start_states_spread_and_look_different_and_are_no_success(name: str) -> None:
    with simulated(name, randomisation="wide") as wide, simulated(name) as narrow:
        spread, pixels = {}, []
        for simulation in (wide, narrow):
            places = []
            for episode in range(12):
                simulation.reset(0, episode)
                simulation.advance()
                scene = simulation.scene()
                assert not scene.success
                assert all(np.isfinite(pose).all() for pose in scene.objects.values())
                places.append(np.concatenate([pose[:3] for pose in scene.objects.values()]))
                if simulation is wide:
                    pixels.append(simulation.render("side").mean(axis=(0, 1)))
            spread[simulation] = np.ptp(np.array(places), axis=0).max()
        assert spread[wide] > 1.5 * spread[narrow]
        assert np.ptp(np.array(pixels), axis=0).min() > 4.0


@every_task
def test_both_cameras_see_what_the_task_is_about_from_the_start_and_the_side_camera_all_of_it(name: str) -> None:
    with simulated(name) as simulation:
        for episode in range(8):
            simulation.reset(0, episode)
            for item in simulation.scene().objects:
                assert share_of_image(simulation, "side", item) > 0.0010, f"episode {episode}: {item}"
            for item in plan_of(name).aimed:
                assert share_of_image(simulation, "wrist", item) > 0.0015, f"episode {episode}: {item}"


def share_of_image(simulation: Simulation, camera: str, item: str) -> float:
    """How much of the image changes with an object's colour."""
    body = simulation.model.body({"socket": "chair_base"}.get(item, item))
    shapes = slice(int(body.geomadr[0]), int(body.geomadr[0] + body.geomnum[0]))
    colours, before = simulation.model.geom_rgba[shapes].copy(), simulation.render(camera).copy()
    simulation.model.geom_rgba[shapes, :3] = [1.0, 0.0, 1.0]  # what is not drawn stays so
    seen = (simulation.render(camera) != before).any(axis=2).mean()
    simulation.model.geom_rgba[shapes] = colours
    return float(seen)


@every_task
def test_the_operator_succeeds_at_the_pace_of_a_person(name: str) -> None:
    operator = ScriptedOperator("demonstrate", plan_of(name), seed=5)
    with simulated(name) as simulation:
        lengths = []
        for episode in range(1, 5):
            shown = run_episode(simulation, operator, 5, episode)
            assert shown.success, f"episode {episode}"
            lengths.append(shown.length)
        assert 25 < np.mean(lengths) < 0.8 * simulation.task_config.max_steps


@every_task
def test_without_the_faults_of_a_hand_the_plan_is_quicker(name: str) -> None:
    person, plan = (measure(name, 3, 5, Perturbation(), habits) for habits in (OperatorHabits(), FLAWLESS))
    assert person["success"] == plan["success"] == 1.0
    assert plan["mean_length"] is not None and person["mean_length"] is not None
    assert plan["mean_length"] < 0.8 * person["mean_length"]


@every_task
def test_who_takes_over_would_have_left_the_demonstrations_alone(name: str) -> None:
    shown = measure(name, 12, 5, Perturbation())
    assert shown["interrupted"] is not None and shown["interrupted"] < 0.2


@every_task
def test_the_plan_goes_on_from_what_random_actions_left(name: str) -> None:
    plan = plan_of(name)
    with simulated(name) as simulation:
        reference = ReferencePose(simulation.task_config.motion_limits())
        for episode in range(1, 5):
            rng = np.random.default_rng(episode)
            simulation.reset(1, episode)
            reference.start(simulation.tcp_pose)
            way = rng.uniform(-1, 1, 7)  # a policy that strays drifts, it does not tremble
            for tick in range(40):
                towards = ideal_action(plan, simulation.scene()) if tick % 20 < 10 else way
                execute(simulation, reference, np.clip(towards + rng.normal(0, 0.4, 7), -1, 1))
            for _ in range(simulation.task_config.max_steps):
                if simulation.success():
                    break
                execute(simulation, reference, ideal_action(plan, simulation.scene()).astype(float))
            assert simulation.success() or out_of_reach(simulation), f"episode {episode}"


def out_of_reach(simulation: Simulation) -> bool:
    """Whether something was pushed out of the workspace box, where no hand may go."""
    box, aimed = simulation.task_config.workspace, plan_of(simulation.task_config.name).aimed
    places = [simulation.scene().objects[key][:2] for key in aimed]
    return any(np.any(place < box.low[:2]) or np.any(place > box.high[:2]) for place in places)


@every_task
def test_phases_and_ticks_to_go_tell_how_far_the_task_is(name: str) -> None:
    plan = plan_of(name)
    with simulated(name) as simulation:
        simulation.reset(2, 1)
        reference = ReferencePose(simulation.task_config.motion_limits())
        reference.start(simulation.tcp_pose)
        steps = []
        while not simulation.success() and len(steps) < simulation.task_config.max_steps:
            scene = simulation.scene()
            steps.append(plan.step(scene))
            execute(simulation, reference, ideal_action(plan, scene).astype(float))
        assert simulation.success()
        end = plan.step(simulation.scene())
    assert {step.phase for step in [*steps, end]} <= set(plan.phases)
    assert end.ticks_to_go < 0.3 * steps[0].ticks_to_go
    assert all(
        np.linalg.norm(step.twist[:3]) <= 1 + 1e-9 and np.linalg.norm(step.twist[3:]) <= 1 + 1e-9 for step in steps
    )


@every_task
def test_the_free_box_is_free_and_within_reach(name: str) -> None:
    plan, config = plan_of(name), task_class(name).default_config()
    assert np.all(np.array(plan.look_low) >= config.workspace.low)
    assert np.all(np.array(plan.look_high) <= config.workspace.high)
    with simulated(name) as simulation:
        simulation.reset(0, 1)
        before = simulation.scene().objects
        down = simulation.reset_pose[3:]
        reached = simulation.tcp_pose[:3]
        above = (*reached[:2], max(reached[2], plan.look_low[2]))
        for corner in (above, plan.look_low, (plan.look_high[0], plan.look_low[1], plan.look_low[2]), plan.look_high):
            for share in np.linspace(0, 1, 12):
                simulation.set_target([*(reached + share * (np.array(corner) - reached)), *down])
                simulation.advance()
            for _ in range(8):
                simulation.advance()
            reached = simulation.tcp_pose[:3]
            assert np.linalg.norm(reached - corner) < 0.02
        for key, pose in simulation.scene().objects.items():
            assert np.linalg.norm(pose[:3] - before[key][:3]) < 0.012, key


def failed_on_purpose(simulation: Simulation, plan: Plan, episode: int) -> tuple[str, int, float]:
    """How a demonstration that is to fail ends, frames with open gates, and the least share of the way that is left."""
    operator = ScriptedOperator("demonstrate", plan, seed=1, habits=OperatorHabits(negative_episodes=8))
    simulation.reset(1, episode)
    operator.reset(episode)
    reference, gates_open, left = ReferencePose(simulation.task_config.motion_limits()), 0, []
    reference.start(simulation.tcp_pose)
    for _ in range(simulation.task_config.max_steps):
        scene = simulation.scene()
        hand = operator.act(scene)
        assert hand.success == scene.success
        if hand.success or hand.abort:
            return "success" if hand.success else "abort", gates_open, min(left) / left[0]
        gates_open += simulation.task.gates_passed(scene.tcp_pose, scene.gripper_opening)
        left.append(plan.step(scene).ticks_to_go)
        execute(simulation, reference, hand_action(hand, scene.tcp_pose))
    return "timeout", gates_open, min(left) / left[0]


@every_task
def test_a_demonstration_in_which_nothing_is_touched_has_many_frames_with_open_gates(name: str) -> None:
    with simulated(name) as simulation:
        simulation.reset(1, 1)
        before = simulation.scene().objects
        end, gates_open, _ = failed_on_purpose(simulation, plan_of(name), 1)
        assert end == "abort"
        assert gates_open >= 30
        for key, pose in simulation.scene().objects.items():
            assert np.linalg.norm(pose[:3] - before[key][:3]) < 0.012, key


@every_task
def test_demonstrations_given_up_late_have_nearly_done_the_task_and_show_it_with_open_gates(name: str) -> None:
    with simulated(name) as simulation:
        tries = [failed_on_purpose(simulation, plan_of(name), episode) for episode in (2, 4, 6, 8)]
    failures = [(gates_open, left) for end, gates_open, left in tries if end != "success"]
    assert failures
    assert min(gates_open for gates_open, _ in failures) >= 20
    assert min(left for _, left in failures) < 0.6


@every_task
def test_a_control_step_with_both_renders_is_quick(name: str) -> None:
    with simulated(name) as simulation:
        took = []
        for _ in range(12):
            start = time.process_time()
            simulation.advance()
            simulation.render("side")
            simulation.render("wrist")
            took.append(time.process_time() - start)
    assert np.median(took) < 0.025  # seconds of one core


@every_task
def test_gymnasium_knows_it_with_its_own_action_space(name: str) -> None:
    register()
    made = gymnasium.make(environment_id(name)).unwrapped
    assert isinstance(made, TaskEnv)
    dimension = task_class(name).default_config().action_dim
    made.reset(seed=0)
    opening = made.simulation.gripper_opening
    observation, *_ = made.step(np.full(dimension, -1.0, np.float32))
    with pytest.raises(ValueError, match=f"must be {dimension} finite numbers"):
        made.step(np.zeros(13 - dimension, np.float32))
    made.close()
    assert made.action_space.shape == (dimension,)
    moved = not math.isclose(float(observation["proprioception"][0]), opening, abs_tol=0.02)
    assert moved == (dimension == 7)  # a gripper without an action stays as it is


@pytest.mark.parametrize("name", ["pick_banana", "put_spoon", "put_bread"])
def test_an_object_on_its_place_in_a_closed_hand_is_no_success_even_without_gates(name: str) -> None:
    kind = task_class(name)
    gates = kind.default_config().reward.model_copy(update={"min_gripper_opening": 0.0, "min_tcp_height": -10.0})
    config = kind.default_config().model_copy(update={"reward": gates})
    plan = kind.plan(kind.default_config())
    with Simulation(config) as simulation:
        simulation.reset(0, 1)
        reference = ReferencePose(config.motion_limits())
        reference.start(simulation.tcp_pose)
        closed, phases = False, []
        for _ in range(70):
            scene = simulation.scene()
            action = ideal_action(plan, scene).astype(float)
            closed = closed or action[6] < 0
            action[6] = -1.0 if closed else action[6]  # never lets go
            phases.append(plan.step(scene).phase)
            execute(simulation, reference, action)
            assert not simulation.success()
        assert phases[-1] == "release"  # it is there, and held
