"""The plans of the contact-rich tasks go on from whatever a policy leaves behind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from conrft_data.reference_pose import ReferencePose
from conrft_sim.plan import ideal_action
from conrft_sim.simulation import Simulation
from conrft_sim.task import task_class

Disturbance = Callable[[Simulation], None]


def hand_at(x: float, y: float, z: float, opening: float | None = None) -> Disturbance:
    """The hand goes there from the reset pose, as straight as the scene lets it."""

    def disturb(simulation: Simulation) -> None:
        way = np.linspace(simulation.tcp_pose[:3], [x, y, z], 20)
        for point in way:
            simulation.set_target([*point, *simulation.reset_pose[3:]], opening)
            simulation.advance()
        for _ in range(5):
            simulation.advance()

    return disturb


def joint_at(joint: str, position: float | tuple[float, ...], *, ticks: int = 1) -> Disturbance:
    def disturb(simulation: Simulation) -> None:
        simulation.data.joint(joint).qpos[:] = position
        simulation.data.joint(joint).qvel[:] = 0.0
        for _ in range(ticks):
            simulation.advance()

    return disturb


def wheel_at(x: float, y: float, z: float) -> Disturbance:
    return joint_at("wheel", (x, y, z, 1.0, 0.0, 0.0, 0.0), ticks=6)


def knot_at(x: float, y: float, yaw: float, *, height: float = 0.01) -> Disturbance:
    return joint_at("knot", (x, y, height, float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))), ticks=8)


CASES: dict[str, dict[str, tuple[Disturbance, ...]]] = {
    "open_drawer": {
        "drawer half open": (joint_at("drawer", 0.06),),
        "drawer nearly open": (joint_at("drawer", 0.119),),
        "hand in front of the handle, low": (hand_at(0.42, 0.0, 0.08),),
        "hand on the handle": (hand_at(0.56, 0.0, 0.10),),
        "hand on the cabinet": (hand_at(0.65, 0.10, 0.14),),
        "hand beside the handle, behind the bar": (hand_at(0.585, 0.16, 0.25), hand_at(0.585, 0.16, 0.10)),
        "hand behind the bar of a half open drawer": (joint_at("drawer", 0.06), hand_at(0.53, 0.0, 0.10)),
    },
    "open_toaster": {
        "lever half way": (joint_at("lever", 0.02),),
        "hand in front of the lever, low": (hand_at(0.42, 0.0, 0.09),),
        "hand under the lever": (hand_at(0.45, 0.0, 0.08), hand_at(0.55, 0.0, 0.08)),
        "hand beside the lever": (hand_at(0.54, 0.12, 0.25), hand_at(0.54, 0.09, 0.10)),
        "hand on the toaster": (hand_at(0.62, 0.0, 0.15),),
        "hand on the latched lever": (joint_at("lever", 0.045), hand_at(0.56, 0.0, 0.12)),
    },
    "insert_wheel": {
        "wheel knocked away": (wheel_at(0.42, 0.15, 0.012),),
        "wheel beside the chair base": (wheel_at(0.57, -0.02, 0.012),),
        "wheel dropped close to the block": (wheel_at(0.509, 0.03, 0.012),),
        "wheel on the rim, let go": (wheel_at(0.511, -0.04, 0.052),),
        "wheel half in, let go": (wheel_at(0.503, -0.04, 0.047),),
        "wheel in, under an open hand": (wheel_at(0.50, -0.04, 0.040), hand_at(0.50, -0.04, 0.07, 1.0)),
        "wheel in, in a closed hand": (
            wheel_at(0.50, -0.04, 0.040),
            hand_at(0.50, -0.04, 0.07, 1.0),
            hand_at(0.50, -0.04, 0.07, 0.0),
        ),
        "closed hand over the chair base": (hand_at(0.50, -0.10, 0.12, 0.0),),
    },
    "hang_chinese_knot": {
        "knot knocked away and turned": (knot_at(0.55, 0.19, 0.4),),
        "knot dropped on its way": (knot_at(0.45, 0.12, -0.3, height=0.20),),
        "knot dropped under the hook, hand above it": (hand_at(0.48, -0.06, 0.30), knot_at(0.49, 0.03, 0.0)),
        "closed hand on the table": (hand_at(0.50, 0.02, 0.03, 0.0),),
        "hand beside the hook": (hand_at(0.58, -0.10, 0.15), hand_at(0.58, -0.15, 0.20)),
    },
}


@pytest.mark.parametrize(("task", "case"), [(task, case) for task, cases in CASES.items() for case in cases])
def test_plan_works_from_any_state(task: str, case: str) -> None:
    config = task_class(task).default_config()
    plan = task_class(task).plan(config)
    with Simulation(config, seed=3) as simulation:
        for disturb in CASES[task][case]:
            disturb(simulation)
        reference = ReferencePose(config.motion_limits())
        reference.start(simulation.reset_pose)  # its orientation is the upright one
        opening: float | None = None
        for _ in range(config.max_steps):
            scene = simulation.scene()
            if scene.success:
                return
            action = ideal_action(plan, scene)
            opening = opening if abs(action[6]) < 0.5 else float(action[6] > 0)
            simulation.set_target(reference.apply(action, scene.tcp_pose), opening)
            simulation.advance()
        assert simulation.success(), f"still in phase {plan.step(simulation.scene()).phase}"
