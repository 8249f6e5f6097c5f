"""What this suite says to franka_ros2 and to a gripper's action server, as messages.

The only module that imports franka_msgs, control_msgs and controller_manager_msgs, and only when it is asked to: a
robot workstation has them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from conrft_control.franka_settings import (
    CollisionBehavior,
    ControllerSettings,
    FrankaSettings,
    GripperSettings,
    Load,
)
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

# lifecycle_msgs/State
_ACTIVE = (3, "active")
_SWITCH_TIMEOUT_S = 5

# A grasp may end at any width: whatever is between the fingers counts, nothing too.
_ANY_WIDTH = 0.1


class Verdict(NamedTuple):
    """What a service's answer means.

    Attributes:
        problem: why it has not been done; empty when it has.
        again: it may be done soon: ask again.
    """

    problem: str = ""
    again: bool = False


def _taken(answer: Any) -> Verdict:
    """Of franka_msgs' services."""
    return Verdict("" if answer.success else f"refused: {answer.error or 'no reason given'}")


class SetupCall(NamedTuple):
    """One service that has to be called so that the arm can be moved.

    Attributes:
        judge: what the answer means.
        activates: from then on the arm follows a controller.
    """

    service: str
    kind: Any
    request: Any
    judge: Callable[[Any], Verdict] = _taken
    activates: bool = False


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
    """The services to call at the start, in their order: what the arm carries, how it reacts, at last its controllers.

    Franka: "Non-realtime parameter setting can only be done when the robot hardware is in `idle` mode. If a controller
    is active and claims command interface this will put the robot in the `move` mode." (franka_bringup/doc)
    """
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
    if settings.controllers is not None:
        controllers = settings.controllers
        yield _listed(controllers, controllers.controllers, ("inactive", "active"), again=True)
        yield _switch(controllers, activate=controllers.controllers)._replace(activates=True)
        yield _listed(controllers, controllers.controllers, ("active",))


def setup_again_calls(settings: FrankaSettings) -> Iterator[SetupCall]:
    """The services to call when a person sets up the arm again, after a reflex or a refusal: from the hardware on.

    franka_ros2 deactivates its hardware component with all controllers at an error of the arm, and leaves it to the
    operator to activate first the component and then the controllers (franka_hardware/doc).
    """
    if (controllers := settings.controllers) is not None:
        kind = interfaces("controller_manager_msgs", "srv").SetHardwareComponentState
        request = kind.Request(name=controllers.hardware)
        request.target_state.id, request.target_state.label = _ACTIVE
        yield SetupCall(f"{controllers.manager}/set_hardware_component_state", kind, request, _component_is_active)
        yield _switch(controllers, deactivate=controllers.controllers)
        if controllers.broadcasters:
            yield _switch(controllers, activate=controllers.broadcasters)
            yield _listed(controllers, controllers.broadcasters, ("active",))
    yield from setup_calls(settings)


def _switch(settings: ControllerSettings, *, activate: Sequence[str] = (), deactivate: Sequence[str] = ()) -> SetupCall:
    """Activates or deactivates what is not yet so."""
    kind = interfaces("controller_manager_msgs", "srv").SwitchController
    request = kind.Request(activate_controllers=list(activate), deactivate_controllers=list(deactivate))
    request.strictness, request.timeout.sec = kind.Request.BEST_EFFORT, _SWITCH_TIMEOUT_S

    def judge(answer: Any) -> Verdict:
        return Verdict("" if answer.ok else f"refused: {answer.message or 'see the log of ros2_control'}")

    return SetupCall(f"{settings.manager}/switch_controller", kind, request, judge)


def _listed(
    settings: ControllerSettings, names: Sequence[str], states: Sequence[str], *, again: bool = False
) -> SetupCall:
    """Asks whether all of ``names`` are in one of ``states``; ``again``: until they are."""
    kind = interfaces("controller_manager_msgs", "srv").ListControllers

    def judge(answer: Any) -> Verdict:
        found = {controller.name: controller.state for controller in answer.controller}
        wrong = [f"{name} is {found.get(name, 'not loaded')}" for name in names if found.get(name) not in states]
        return Verdict(", ".join(wrong), again)

    return SetupCall(f"{settings.manager}/list_controllers", kind, kind.Request(), judge)


def _component_is_active(answer: Any) -> Verdict:
    return Verdict("" if answer.ok else f"the hardware component is {answer.state.label or 'not active'}")


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


def is_idle(state: Any) -> bool:
    """Whether a FrankaRobotState's arm is well, but no controller commands it."""
    return int(state.robot_mode) == _IDLE


def has_stopped(state: Any, phase: Phase | None) -> bool:
    """Whether patience is of no use: an episode is lost, and the arm must not come home by itself either.

    An arm without a controller is only about to get one, unless an episode runs.
    """
    return bool(robot_problem(state, phase)) and (not is_idle(state) or phase is Phase.RUNNING)


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
