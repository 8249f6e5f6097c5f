"""The simulated arm is a Franka arm: its kinematics and limits are the published ones."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from conrft_sim import kinematics, scene
from conrft_sim.tasks.pick_banana import PickBanana


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(scene.scene_xml(PickBanana.scene()))


def test_forward_kinematics_of_the_published_ready_posture() -> None:
    # Franka's ready posture holds the flange 0.3069 m in front of and 0.5903 m above the base, tool pointing down.
    pose = kinematics.forward(kinematics.READY)
    flange = pose[:3, 3] - kinematics.TCP_DISTANCE * pose[:3, 2]
    assert flange == pytest.approx([0.3069, 0.0, 0.5903], abs=1e-4)
    assert pose[:3, :3] == pytest.approx(np.diag([1.0, -1.0, -1.0]), abs=1e-9)


def test_stretched_out_arm_reaches_the_sum_of_its_links() -> None:
    # All joints at zero: flange at x = 0.088 and z = 0.333 + 0.316 + 0.384 - 0.107, pointing down.
    pose = kinematics.forward(np.zeros(7))
    assert pose[0, 3] == pytest.approx(0.088)
    assert pose[2, 3] == pytest.approx(0.333 + 0.316 + 0.384 - 0.107 - kinematics.TCP_DISTANCE)


def test_model_agrees_with_the_denavit_hartenberg_parameters(model: mujoco.MjModel) -> None:
    rng, data = np.random.default_rng(0), mujoco.MjData(model)
    site = model.site("tcp").id
    for _ in range(50):
        data.qpos[:7] = rng.uniform(kinematics.POSITION_LOW, kinematics.POSITION_HIGH)
        mujoco.mj_kinematics(model, data)
        expected = kinematics.forward(data.qpos[:7])
        assert data.site_xpos[site] == pytest.approx(expected[:3, 3], abs=1e-7)
        assert data.site_xmat[site].reshape(3, 3) == pytest.approx(expected[:3, :3], abs=1e-7)


def test_model_has_the_published_limits(model: mujoco.MjModel) -> None:
    assert model.jnt_range[:7] == pytest.approx(np.stack([kinematics.POSITION_LOW, kinematics.POSITION_HIGH], axis=1))
    assert model.actuator_ctrlrange[:7, 1] == pytest.approx(kinematics.TORQUE_LIMIT)
    assert model.jnt_range[7:9, 1] == pytest.approx([0.04, 0.04])


def test_scene_is_light_enough_for_a_software_renderer(model: mujoco.MjModel) -> None:
    assert model.ntex == 0
    assert model.nmesh == 0
    assert model.nlight == 0
    assert model.vis.quality.offsamples == 0
    assert not model.mat_reflectance.any()
