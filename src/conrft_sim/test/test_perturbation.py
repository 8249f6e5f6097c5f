"""A perturbation disturbs what it names and nothing else, the same way for the same episode."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import numpy as np
import pytest

from conrft_sim.environment import TaskEnv, register
from conrft_sim.nodes.simulator_node import SimulatorNode
from conrft_sim.perturbation import KINDS, Perturbation
from conrft_sim.simulation import Simulation
from conrft_sim.tasks.pick_banana import PickBanana

TASK = PickBanana.default_config()
EPISODES = range(1, 21)


def simulated(text: str) -> Simulation:
    return Simulation(TASK, perturbation=Perturbation.parse(text))


def images(text: str, episode: int = 1, camera: str = "side") -> np.ndarray:
    with simulated(text) as simulation:
        simulation.reset(0, episode)
        return simulation.render(camera).copy()


@pytest.mark.parametrize(
    ("text", "kinds", "strength"),
    [
        ("none", set(), 1.0),
        ("all", set(KINDS), 1.0),
        ("all:0.25", set(KINDS), 0.25),
        ("lighting", {"lighting"}, 1.0),
        ("friction, camera:0.5", {"camera", "friction"}, 0.5),
    ],
)
def test_text_names_kinds_and_strength(text: str, kinds: set[str], strength: float) -> None:
    parsed = Perturbation.parse(text)
    assert (parsed.kinds, parsed.strength) == (kinds, strength)
    assert Perturbation.parse(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["fog", "lighting,fog", "", "all:0", "all:1.5", "all:much", "all:nan"])
def test_other_texts_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"none, all, lighting|above 0 and at most 1"):
        Perturbation.parse(text)


@pytest.mark.parametrize("camera", ["side", "wrist"])
def test_without_a_perturbation_every_pixel_stays(camera: str) -> None:
    with Simulation(TASK) as plain:
        plain.reset(0, 1)
        assert np.array_equal(images("none", camera=camera), plain.render(camera))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_leaves_the_start_state_of_the_objects(kind: str) -> None:
    with simulated("none") as plain, simulated(kind) as disturbed:
        for simulation in (plain, disturbed):
            simulation.reset(3, 2)
        for name, pose in plain.scene().objects.items():
            assert np.array_equal(pose, disturbed.scene().objects[name])


@pytest.mark.parametrize("kind", ["lighting", "camera", "distractors"])
def test_each_visible_kind_is_seen_anew_in_every_episode_and_alike_in_the_same(kind: str) -> None:
    plain, first, again, other = images("none"), images(kind), images(kind), images(kind, episode=2)
    assert np.abs(first.astype(int) - plain).mean() > 0.3
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_light_changes_the_brightness_both_ways() -> None:
    with simulated("none") as plain, simulated("lighting") as disturbed:
        plain.reset(0, 1)
        usual = plain.render("side").mean()
        means = []
        for episode in EPISODES:
            disturbed.reset(0, episode)
            means.append(disturbed.render("side").mean())
    assert min(means) < 0.95 * usual
    assert max(means) > 1.05 * usual


def test_half_the_strength_shifts_the_camera_half_as_far() -> None:
    with simulated("none") as plain, simulated("camera") as full, simulated("camera:0.5") as half:
        for simulation in (full, half):
            simulation.reset(0, 1)
        start = plain.model.camera("side").pos
        np.testing.assert_allclose(
            half.model.camera("side").pos - start, (full.model.camera("side").pos - start) / 2, atol=1e-12
        )
        assert 0.002 < np.linalg.norm(full.model.camera("side").pos - start) < 0.07


def test_friction_is_scaled_within_its_factor_and_unseen() -> None:
    assert np.array_equal(images("friction"), images("none"))
    with simulated("none") as plain, simulated("friction") as disturbed:
        ratios = []
        for episode in EPISODES:
            disturbed.reset(0, episode)
            ratio = disturbed.model.geom_friction / plain.model.geom_friction
            assert np.ptp(ratio) < 1e-9
            ratios.append(ratio[0, 0])
    assert 0.5 <= min(ratios) < 1 < max(ratios) <= 2.0


def test_distractors_touch_nothing_and_stand_off_the_way() -> None:
    with simulated("none") as plain, simulated("distractors") as disturbed:
        for simulation in (plain, disturbed):
            simulation.reset(0, 1)
        positions = disturbed.data.mocap_pos[-4:]
        standing = positions[positions[:, 2] > -1.0]
        assert len(standing) >= 2
        for pose in disturbed.scene().objects.values():
            assert np.linalg.norm(standing[:, :2] - pose[:2], axis=1).min() > 0.10
        for simulation in (plain, disturbed):
            simulation.set_target([0.5, 0.11, 0.03, 1.0, 0.0, 0.0, 0.0], 0.0)
            for _ in range(10):
                simulation.advance()
        banana = plain.scene().objects["banana"]
        np.testing.assert_allclose(disturbed.scene().objects["banana"], banana, atol=1e-9)


def test_a_kind_is_the_same_alone_and_among_all() -> None:
    with simulated("camera") as alone, simulated("all") as together:
        for simulation in (alone, together):
            simulation.reset(0, 1)
        assert np.array_equal(alone.model.cam_pos, together.model.cam_pos)


def test_a_disturbed_episode_leaves_no_trace_in_the_next() -> None:
    with simulated("all") as worn, simulated("all") as fresh:
        for episode in (1, 2, 3):
            worn.reset(0, episode)
        fresh.reset(0, 3)
        assert np.array_equal(worn.render("side"), fresh.render("side"))
        assert np.array_equal(worn.model.geom_friction, fresh.model.geom_friction)


def test_the_environment_takes_it_as_one_argument() -> None:
    register()
    made = gymnasium.make("ConRFT/PickBanana-v0", perturbation="lighting").unwrapped
    assert isinstance(made, TaskEnv)
    observation, _ = made.reset(seed=0, options={"episode": 1})
    made.close()
    assert np.array_equal(observation["side"], images("lighting"))


def test_the_simulator_node_takes_it_as_one_parameter(graph_of: Callable) -> None:
    with graph_of(SimulatorNode, "perturbation:=lighting,camera:0.5") as graph:
        assert graph.node._simulation.perturbation == Perturbation.parse("lighting,camera:0.5")
