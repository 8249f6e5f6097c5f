"""What the files of the real robots say of safety: every limit, in an order that leaves each its purpose."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from conrft_control.franka_settings import FrankaSettings
from conrft_control.impedance_settings import ImpedanceSettings
from conrft_data.config import RobotConfig, SafetyLimits, TaskConfig, load_config

CONFIG = Path(__file__).parents[1] / "config"
ROBOTS = ("fr3", "panda")
TASKS = sorted(file.stem for file in (CONFIG / "tasks").glob("*.yaml"))
TICK_S = 0.1
_ROUNDING = 1e-9


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_limit_is_named_in_the_file_of_the_robot(robot: str) -> None:
    file = CONFIG / f"robots/{robot}.yaml"
    written = yaml.safe_load(file.read_text())
    assert set(written["safety"]) == set(SafetyLimits.model_fields)
    assert {"state_timeout", "camera_timeout", "action_timeout"} <= set(written)
    assert load_config(RobotConfig, file).safety.model_dump() == written["safety"]


def test_the_rule_of_the_spacemouse_tags_it_before_udev_looks_for_the_tag() -> None:
    (rule,) = (CONFIG / "udev").glob("*.rules")
    assert 'TAG+="uaccess"' in rule.read_text()
    assert rule.name < "73-seat-late.rules"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("robot", ROBOTS)
def test_no_limit_of_speed_cuts_a_full_action_of_a_shipped_task_or_its_reversal(robot: str, task: str) -> None:
    safety = load_config(RobotConfig, CONFIG / f"robots/{robot}.yaml").safety
    scale = load_config(TaskConfig, CONFIG / f"tasks/{task}.yaml").action_scale
    linear, angular = (math.sqrt(3) * full / TICK_S for full in (scale.translation, scale.rotation))
    assert linear <= safety.linear_speed
    assert angular <= safety.angular_speed
    assert 2 * linear / TICK_S <= safety.linear_acceleration
    assert 2 * angular / TICK_S <= safety.angular_acceleration


@pytest.mark.parametrize("phase", ["reset", "contact"])
@pytest.mark.parametrize("robot", ROBOTS)
def test_a_protective_stop_comes_after_ordinary_contact_and_before_the_reflex_of_the_robot(
    robot: str, phase: str
) -> None:
    safety = load_config(RobotConfig, CONFIG / f"robots/{robot}.yaml").safety
    settings = load_config(ImpedanceSettings, CONFIG / f"impedance/{robot}.yaml")
    gains = {"reset": settings.reset, "contact": settings.contact}[phase]
    controllers = yaml.safe_load((CONFIG / f"controllers/{robot}.yaml").read_text())["/**"]
    clips = controllers[settings.controller]["ros__parameters"]["task"]["error_clip"]
    collision = load_config(FrankaSettings, CONFIG / f"franka/{robot}.yaml").collision
    # Of all three axes at once: the stop measures the length.
    pressing = math.hypot(*(gains[f"task.k_pos_{axis}"] * gains[f"task.error_clip.{axis}"] for axis in "xyz"))
    assert pressing < safety.force < min(collision.collision_force[:3])
    turning = math.hypot(*(gains[f"task.k_rot_{axis}"] * clips[f"r{axis}"] for axis in "xyz"))
    assert turning < safety.torque < min(collision.collision_force[3:])


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_adapter_activates_the_controllers_that_ros2_control_has_been_given(robot: str) -> None:
    adapter = load_config(FrankaSettings, CONFIG / f"franka/{robot}.yaml").controllers
    given = yaml.safe_load((CONFIG / f"controllers/{robot}.yaml").read_text())["/**"]
    loaded = given[adapter.manager]["ros__parameters"]
    kinds = {name: about["type"] for name, about in loaded.items() if isinstance(about, dict)}
    assert {*adapter.broadcasters, *adapter.controllers} == set(kinds)
    assert all(kinds[name].endswith("Broadcaster") for name in adapter.broadcasters)
    assert adapter.controllers == (load_config(ImpedanceSettings, CONFIG / f"impedance/{robot}.yaml").controller,)
