"""What this suite says to franka_ros2 and to a gripper's action server, as messages.

The only module that imports franka_msgs and control_msgs, and only when it is asked to: a robot workstation has them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from conrft_control.franka_settings import CollisionBehavior, FrankaSettings, GripperSettings, Load
from conrft_data.config import ConfigError
from conrft_data.types import Phase

# FrankaRobotState.robot_mode
_IDLE, _MOVE = 1, 2
_MODES = {
    _IDLE: "no controller is active, the arm does not follow",
    3: "the arm is guided by hand",
    4: "a reflex stopped the arm",
    5: "the arm is stopped by hand (external activation device)",
    6: "the arm recovers from an error",
}

# A grasp may end at any width: whatever is between the fingers counts, nothing too.
_ANY_WIDTH = 0.1


class SetupCall(NamedTuple):
    """One service that has to be called at the start."""

    service: str
    kind: Any
    request: Any


class GripperGoal(NamedTuple):
    """One goal for an action server of the gripper."""

    action: str
    kind: Any
    goal: Any


def interfaces(package: str, part: str) -> Any:
    """The module ``package.part``, such as ``franka_msgs.srv``; raises ConfigError where it is not installed."""
    try:
        return importlib.import_module(f"{package}.{part}")
    except ImportError as error:
        raise ConfigError(
            f"{package} cannot be imported ({error}): build franka_ros2 in a workspace beneath this one, or install "
            f"ros-jazzy-{package.replace('_', '-')}"
        ) from error


def setup_calls(settings: FrankaSettings) -> Iterator[SetupCall]:
    """The services to call at the start, in their order: first what the arm carries, then how it reacts."""
    srv = interfaces("franka_msgs", "srv")
    server = settings.service_server
    if settings.load is not None:
        yield SetupCall(f"{server}/set_load", srv.SetLoad, _load_request(srv.SetLoad, settings.load))
    for name, kind, frame in (
        ("set_tcp_frame", srv.SetTCPFrame, settings.tcp_frame),
        ("set_stiffness_frame", srv.SetStiffnessFrame, settings.stiffness_frame),
    ):
        if frame is not None:
            yield SetupCall(f"{server}/{name}", kind, kind.Request(transformation=frame.matrix()))
    if settings.joint_stiffness is not None:
        joint = srv.SetJointStiffness.Request(joint_stiffness=list(settings.joint_stiffness))
        yield SetupCall(f"{server}/set_joint_stiffness", srv.SetJointStiffness, joint)
    if settings.cartesian_stiffness is not None:
        cartesian = srv.SetCartesianStiffness.Request(cartesian_stiffness=list(settings.cartesian_stiffness))
        yield SetupCall(f"{server}/set_cartesian_stiffness", srv.SetCartesianStiffness, cartesian)
    if settings.collision is not None:
        kind = srv.SetFullCollisionBehavior
        request = _collision_request(kind, settings.collision)
        yield SetupCall(f"{server}/set_full_collision_behavior", kind, request)


def gripper_goal(settings: GripperSettings, opening: float, max_width: float) -> GripperGoal:
    """The goal that opens the gripper to ``opening``, 0 closed .. 1 open; ``max_width``: of the open gripper, m.

    franka_gripper's ``move`` presses with no set force and fails at an object, so closing is a ``grasp``.
    """
    width = opening * max_width
    if settings.interface == "gripper_command":
        kind = interfaces("control_msgs", "action").GripperCommand
        goal = kind.Goal()
        goal.command.position = width / 2 if settings.command_is_half_width else width
        goal.command.max_effort = settings.force
        return GripperGoal(settings.action, kind, goal)
    action = interfaces("franka_msgs", "action")
    if opening > 0.0:
        goal = action.Move.Goal(width=width, speed=settings.speed)
        return GripperGoal(f"{settings.action}/move", action.Move, goal)
    goal = action.Grasp.Goal(width=0.0, speed=settings.speed, force=settings.force)
    goal.epsilon.inner = goal.epsilon.outer = _ANY_WIDTH
    return GripperGoal(f"{settings.action}/grasp", action.Grasp, goal)


def gripper_error(result: Any) -> str:
    """Why a gripper's goal failed, empty when it did not; ``result``: of any of the three actions.

    A GripperCommand that stalled holds an object, which is what a grasp is for.
    """
    if hasattr(result, "success"):
        return "" if result.success else (result.error or "the gripper gave no reason")
    return "" if result.reached_goal or result.stalled else f"ended at {result.position:.4f} m"


def robot_problem(state: Any, phase: Phase | None = None) -> str:
    """Why a FrankaRobotState's arm does not follow its targets, empty when it does, or need not in ``phase``."""
    mode = int(state.robot_mode)
    if mode == _MOVE or (mode == _IDLE and phase in (None, Phase.ENDED)):
        return ""
    stopped = _MODES.get(mode, f"the arm is in mode {mode}")
    fields = state.current_errors.get_fields_and_field_types()
    errors = [name for name in fields if getattr(state.current_errors, name)]
    return f"robot: {stopped}" + (f" ({', '.join(errors)})" if errors else "")


def has_stopped(state: Any, phase: Phase | None) -> bool:
    """Whether patience is of no use: an episode is lost, and the arm must not come home by itself either.

    An arm without a controller is only about to get one, unless an episode runs.
    """
    return bool(robot_problem(state, phase)) and (int(state.robot_mode) != _IDLE or phase is Phase.RUNNING)


def unlike_settings(state: Any, settings: FrankaSettings) -> list[str]:
    """What a FrankaRobotState shows to be set otherwise than ``settings`` want it, one sentence each.

    The state tells the load and the stiffness frame; of thresholds and stiffness there is the service's word alone.
    """
    problems = []
    if settings.load is not None:
        load, wanted = state.inertia_load.inertia, settings.load
        center = (load.com.x, load.com.y, load.com.z)
        if not np.isclose(load.m, wanted.mass, atol=1e-3):
            problems.append(f"load: the robot counts with {load.m:.3f} kg, wanted {wanted.mass:.3f} kg")
        elif not np.allclose(center, wanted.center_of_mass, atol=1e-3):
            problems.append(f"load: the robot's centre of mass is {center}, wanted {wanted.center_of_mass}")
    if settings.stiffness_frame is not None:
        at = state.ee_t_k.pose.position
        if not np.allclose((at.x, at.y, at.z), settings.stiffness_frame.position, atol=1e-3):
            wanted_at = settings.stiffness_frame.position
            problems.append(f"stiffness frame: the robot's is at {(at.x, at.y, at.z)}, wanted {wanted_at}")
    return problems


def _load_request(kind: Any, load: Load) -> Any:
    inertia = np.diag(np.asarray(load.inertia, dtype=np.float64)).reshape(9)
    return kind.Request(mass=load.mass, center_of_mass=list(load.center_of_mass), load_inertia=inertia)


def _collision_request(kind: Any, behavior: CollisionBehavior) -> Any:
    """Franka tells accelerated motion from steady motion; both get the same thresholds."""
    request = kind.Request()
    for phase in ("acceleration", "nominal"):
        for side, what in (("lower", "contact"), ("upper", "collision")):
            setattr(request, f"{side}_torque_thresholds_{phase}", list(getattr(behavior, f"{what}_torque")))
            setattr(request, f"{side}_force_thresholds_{phase}", list(getattr(behavior, f"{what}_force")))
    return request
