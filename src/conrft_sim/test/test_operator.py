"""The scripted operator does the task from any state, like a person; takes over when it must; judges truthfully."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from conrft_data import rotations
from conrft_data.reference_pose import ReferencePose
from conrft_sim.operator import OperatorHabits, OperatorInput, ScriptedOperator
from conrft_sim.plan import ideal_action
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.simulation import Simulation
from conrft_sim.tasks.pick_banana import PickBanana

Policy = Callable[[SceneSnapshot], np.ndarray]
TASK = PickBanana.default_config()
PLAN = PickBanana.plan(TASK)


@pytest.fixture(scope="module")
def simulation() -> Iterator[Simulation]:
    with Simulation(TASK) as made:
        yield made


def action_of(hand: OperatorInput, scene: SceneSnapshot) -> np.ndarray:
    """The action (7,) that the graph makes of the device's state."""
    body = rotations.rotate_blocks(rotations.inverse(scene.tcp_pose[3:]), hand.twist)
    return np.array([*np.clip(body, -1, 1), float(hand.open) - float(hand.close)])


def run(simulation: Simulation, policy: Policy, *, steps: int = 100) -> tuple[bool, int]:
    """Acts until success or for ``steps`` ticks from the present state. Returns success and the ticks used."""
    reference = ReferencePose(TASK.motion_limits())
    reference.start(simulation.tcp_pose)
    opening: float | None = None
    for step in range(steps):
        scene = simulation.scene()
        if scene.success:
            return True, step
        action = policy(scene)
        opening = opening if abs(action[6]) < 0.5 else float(action[6] > 0)
        simulation.set_target(reference.apply(action, scene.tcp_pose), opening)
        simulation.advance()
    return simulation.success(), steps


def demonstrator(episode: int) -> Policy:
    operator = ScriptedOperator("demonstrate", PLAN, seed=1)
    operator.reset(episode)
    return lambda scene: action_of(operator.act(scene), scene)


def ideal(scene: SceneSnapshot) -> np.ndarray:
    return ideal_action(PLAN, scene)


def test_demonstrations_succeed_at_the_pace_of_a_person(simulation: Simulation) -> None:
    lengths = []
    for episode in range(10):
        simulation.reset(1, episode)
        success, length = run(simulation, demonstrator(episode))
        assert success, f"episode {episode}"
        lengths.append(length)
    assert 48 < np.mean(lengths) < 72


def test_the_success_is_shown_from_everywhere_with_the_button_pressed(simulation: Simulation) -> None:
    operator = ScriptedOperator("demonstrate", PLAN, seed=1)
    operator.reset(1)
    simulation.reset(1, 1)
    assert run(simulation, lambda scene: action_of(operator.act(scene), scene))[0]
    positions = []

    def tail(scene: SceneSnapshot) -> np.ndarray:
        hand = operator.act(scene)
        assert hand.success
        positions.append(scene.tcp_pose[:3])
        return action_of(hand, scene)

    reference = ReferencePose(TASK.motion_limits())
    reference.start(simulation.tcp_pose)
    for _ in range(20):
        simulation.set_target(reference.apply(tail(simulation.scene()), simulation.tcp_pose), 1.0)
        simulation.advance()
    assert simulation.success()
    assert np.ptp(np.array(positions), axis=0).max() > 0.1
    assert np.min(positions, axis=0)[2] > 0.155


def test_the_first_episodes_look_about_without_touching_and_abort(simulation: Simulation) -> None:
    habits = OperatorHabits(negative_episodes=1, look_about_ticks=30)
    operator = ScriptedOperator("demonstrate", PLAN, seed=1, habits=habits)
    operator.reset(1)
    simulation.reset(1, 1)
    banana = simulation.scene().objects["banana"]
    hands = []

    def policy(scene: SceneSnapshot) -> np.ndarray:
        hands.append(operator.act(scene))
        return action_of(hands[-1], scene)

    assert not run(simulation, policy, steps=31)[0]
    assert [hand.abort for hand in hands] == [False] * 30 + [True]
    np.testing.assert_allclose(simulation.scene().objects["banana"][:3], banana[:3], atol=0.002)
    operator.reset(2)
    simulation.reset(1, 2)
    assert run(simulation, lambda scene: action_of(operator.act(scene), scene))[0]


def test_ideal_actions_are_faster_than_the_demonstrator_and_within_bounds(simulation: Simulation) -> None:
    actions = []

    def policy(scene: SceneSnapshot) -> np.ndarray:
        actions.append(ideal_action(PLAN, scene))
        return actions[-1]

    simulation.reset(2, 0)
    success, length = run(simulation, policy)
    assert success
    assert length < 40
    assert np.abs(actions).max() <= 1.0
    assert set(np.array(actions)[:, 6]) == {-1.0, 1.0}


def test_ideal_action_is_in_the_end_effector_frame(simulation: Simulation) -> None:
    simulation.reset(0, 0)
    action = ideal_action(PLAN, simulation.scene())
    assert action[2] > 0.3  # down is forward for a tool that points down
    assert action[1] < -0.2  # the banana lies to the left in the base frame, to the right of the turned-over hand


def closed_hand(simulation: Simulation) -> None:
    simulation.set_gripper(0.0)


def behind_the_banana(simulation: Simulation) -> None:
    simulation.set_target([0.40, 0.20, 0.05, *simulation.reset_pose[3:]])


def above_the_plate(simulation: Simulation) -> None:
    simulation.set_target([0.50, -0.13, 0.05, *simulation.reset_pose[3:]], 0.0)


def turned_hand(simulation: Simulation) -> None:
    turned = rotations.multiply(rotations.from_rotation_vector([0.1, 0.1, 0.4]), simulation.reset_pose[3:])
    simulation.set_target([0.45, -0.1, 0.15, *turned])


def turned_banana(simulation: Simulation) -> None:
    simulation.data.qpos[12:16] = [np.cos(0.4), 0.0, 0.0, np.sin(0.4)]


def banana_knocked_away(simulation: Simulation) -> None:
    simulation.data.qpos[9:11] = [0.58, -0.01]


def banana_on_the_rim(simulation: Simulation) -> None:
    simulation.data.qpos[9:12] = [0.50, -0.13 + 0.07, 0.03]


@pytest.mark.parametrize(
    "disturb",
    [
        closed_hand,
        behind_the_banana,
        above_the_plate,
        turned_hand,
        turned_banana,
        banana_knocked_away,
        banana_on_the_rim,
    ],
)
def test_plan_works_from_any_state(simulation: Simulation, disturb: Callable[[Simulation], None]) -> None:
    simulation.reset(3, 1)
    disturb(simulation)
    for _ in range(8):
        simulation.advance()
    success, _ = run(simulation, lambda scene: ideal_action(PLAN, scene))
    assert success


def test_dropped_banana_is_picked_up_again(simulation: Simulation) -> None:
    simulation.reset(3, 2)
    run(simulation, ideal, steps=19)  # on the way to the plate, banana in the hand
    assert simulation.scene().objects["banana"][2] > 0.05
    run(simulation, lambda scene: np.array([0, 0, 0, 0, 0, 0, 1.0]), steps=5)
    assert simulation.scene().objects["banana"][2] < 0.03
    success, _ = run(simulation, ideal)
    assert success


def test_noise_depends_on_seed_and_episode_alone(simulation: Simulation) -> None:
    simulation.reset(0, 0)
    scene = simulation.scene()

    def twists(seed: int, episode: int) -> np.ndarray:
        operator = ScriptedOperator("demonstrate", PLAN, seed)
        operator.reset(episode)
        return np.array([operator.act(scene).twist for _ in range(5)])

    assert np.array_equal(twists(1, 2), twists(1, 2))
    assert not np.array_equal(twists(1, 2), twists(1, 3))
    assert not np.array_equal(twists(1, 2), twists(2, 2))


def test_operator_lets_a_good_policy_work(simulation: Simulation) -> None:
    simulation.reset(4, 0)
    operator = ScriptedOperator("intervene", PLAN)

    def policy(scene: SceneSnapshot) -> np.ndarray:
        assert not operator.act(scene).active
        return ideal_action(PLAN, scene)

    assert run(simulation, policy)[0]


def test_operator_takes_over_after_twenty_stalled_ticks(simulation: Simulation) -> None:
    simulation.reset(4, 0)
    operator = ScriptedOperator("intervene", PLAN, habits=OperatorHabits(pause_probability=0.0))
    scene = simulation.scene()
    active = [operator.act(scene).active for _ in range(22)]
    assert active.index(True) == 20


def test_operator_takes_over_when_the_banana_is_thrown_away(simulation: Simulation) -> None:
    simulation.reset(4, 0)
    run(simulation, ideal, steps=22)
    operator = ScriptedOperator("intervene", PLAN, habits=OperatorHabits(pause_probability=0.0))
    held = simulation.scene()
    assert not operator.act(held).active
    simulation.data.qpos[9:12] = [0.60, 0.2, 0.017]
    simulation.advance()
    thrown = simulation.scene()
    seen = [thrown, thrown, held, thrown, thrown, thrown]  # twice is a glimpse, three times is so
    assert [operator.act(scene).active for scene in seen] == [False] * 5 + [True]


def test_a_take_over_ends_after_thirty_ticks_even_without_progress(simulation: Simulation) -> None:
    simulation.reset(4, 0)
    operator = ScriptedOperator("intervene", PLAN, habits=OperatorHabits(pause_probability=0.0))
    scene = simulation.scene()
    active = [operator.act(scene).active for _ in range(20 + 30 + 5)]
    assert sum(active) == 30
    assert not any(active[50:])


def test_each_further_take_over_of_an_episode_lasts_longer(simulation: Simulation) -> None:
    simulation.reset(4, 0)
    operator = ScriptedOperator("intervene", PLAN, habits=OperatorHabits(pause_probability=0.0))
    scene = simulation.scene()  # nothing that the hand does helps
    driving = np.array([operator.act(scene).active for _ in range(300)])
    changes = np.flatnonzero(np.diff(driving.astype(int)))
    assert np.diff(changes)[::2].tolist() == [30, 60, 90]
    operator.reset(1)
    assert sum(operator.act(scene).active for _ in range(56)) == 30


def ticks_driven(simulation: Simulation, operator: ScriptedOperator) -> int:
    """How long the operator drives in 53 ticks beside a policy that stands still."""
    driven = 0

    def act(scene: SceneSnapshot) -> np.ndarray:
        nonlocal driven
        hand = operator.act(scene)
        driven += operator.intervening
        return action_of(hand, scene) if operator.intervening else np.zeros(7)

    run(simulation, act, steps=53)
    return driven


def test_a_take_over_lasts_until_the_distrusted_task_has_advanced_further(simulation: Simulation) -> None:
    def driven(distrust: float) -> int:
        habits = OperatorHabits(speed_low=0.8, speed_high=0.8, pause_probability=0.0, distrust=distrust)
        operator = ScriptedOperator("intervene", PLAN, seed=1, habits=habits)
        operator.reset(1)
        simulation.reset(4, 0)
        still = simulation.scene()
        for _ in range(20 + 30):
            operator.act(still)  # a take-over in vain
        return ticks_driven(simulation, operator)

    assert driven(1.0) > driven(0.0) + 5


def test_a_take_over_ends_when_the_task_has_advanced(simulation: Simulation) -> None:
    simulation.reset(4, 0)
    steady = OperatorHabits(speed_low=0.8, speed_high=0.8, noise=0.1, pause_probability=0.0)
    operator = ScriptedOperator("intervene", PLAN, habits=steady)
    assert operator.habits.min_ticks <= ticks_driven(simulation, operator) < operator.habits.max_ticks


def test_operator_rescues_a_policy_that_never_lets_go(simulation: Simulation) -> None:
    simulation.reset(4, 3)
    operator = ScriptedOperator("intervene", PLAN)
    driven = 0

    def policy(scene: SceneSnapshot) -> np.ndarray:
        nonlocal driven
        hand = operator.act(scene)
        if operator.intervening:
            driven += 1
            return action_of(hand, scene)
        action = ideal_action(PLAN, scene)
        action[6] = min(action[6], 0.0)  # closes, but never opens
        return action

    assert run(simulation, policy)[0]
    assert 0 < driven <= 30


def test_operator_calls_a_success_that_nobody_else_has_called_for_fifteen_ticks(simulation: Simulation) -> None:
    simulation.reset(5, 0)
    operator = ScriptedOperator("intervene", PLAN)
    begin = simulation.scene()
    assert run(simulation, ideal)[0]
    done = simulation.scene()
    hands = [operator.act(scene) for scene in [done] * 15 + [begin] + [done] * 16]
    assert [hand.success for hand in hands] == [False] * 31 + [True]
    assert not any(hand.active for hand in hands)


def test_the_judge_never_moves_and_presses_only_at_success(simulation: Simulation) -> None:
    simulation.reset(5, 0)
    judge = ScriptedOperator("judge", PLAN)
    pressed = []

    def policy(scene: SceneSnapshot) -> np.ndarray:
        hand = judge.act(scene)
        assert not hand.active
        pressed.append(hand.success)
        return ideal_action(PLAN, scene)

    assert run(simulation, policy)[0]
    assert not any(pressed)
    assert judge.act(simulation.scene()).success


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="dance"):
        ScriptedOperator("dance", PLAN)  # type: ignore[arg-type]
