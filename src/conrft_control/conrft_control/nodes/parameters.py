"""How the nodes of this package declare their parameters, and those that several of them share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, get_args

from rclpy.node import Node

from conrft_control.reset_motion import ResetTolerance
from conrft_data.config import Config, ConfigError, RobotConfig, TaskConfig, load_config
from conrft_data.node_process import described

ConfigT = TypeVar("ConfigT", bound=Config)


class Bounded(NamedTuple):
    """A number's allowed range and description."""

    low: float
    high: float
    description: str


def declare(
    node: Node,
    name: str,
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    constraints: str = "",
) -> Any:
    """Declares a read-only parameter and returns its value.

    All parameters of the loop are read-only: none may change in the middle of an episode. ``low`` and ``high`` bound a
    number; both or neither.
    """
    integers, numbers = None, None
    if low is not None and high is not None:
        if isinstance(default, float):
            numbers = (low, high)
        else:
            integers = (int(low), int(high))
    descriptor = described(description, integers=integers, numbers=numbers, constraints=constraints)
    return node.declare_parameter(name, default, descriptor).value


def declare_task(node: Node) -> TaskConfig:
    """The task's configuration, from the file that parameter ``task_file`` names; raises ConfigError."""
    return load_config(TaskConfig, declare_file(node, "task_file", "YAML file of the task"))


def declare_robot(node: Node) -> RobotConfig:
    """The robot's configuration, from the file that parameter ``robot_file`` names; raises ConfigError."""
    return load_config(RobotConfig, declare_file(node, "robot_file", "YAML file of the robot"))


def declare_file(node: Node, name: str, about: str) -> str:
    """The path that parameter ``name`` holds; raises ConfigError when it is empty. ``about``: what the file is."""
    file = str(declare(node, name, "", about))
    if not file:
        raise ConfigError(f"parameter {name} is empty: it must name the {about}")
    return file


def declare_lockstep(node: Node) -> bool:
    """Whether simulated time waits for each tick's target pose; the same for the whole graph."""
    return bool(
        declare(
            node, "lockstep", False, "simulated time waits for each tick's target pose; the same for the whole graph"
        )
    )


def declare_fields(node: Node, defaults: object, fields: Mapping[str, Bounded | str]) -> dict[str, Any]:
    """Declares one parameter for each of a settings object's ``fields``; returns the values by field.

    The parameter has the field's name without the suffix ``_s`` and its default from ``defaults``. A number needs its
    bounds, anything else its description only.
    """
    values = {}
    for field, about in fields.items():
        name, default = field.removesuffix("_s"), getattr(defaults, field)
        if isinstance(about, Bounded):
            values[field] = declare(node, name, default, about.description, low=about.low, high=about.high)
        else:
            values[field] = declare(node, name, default, about)
    return values


def declare_config(node: Node, config: ConfigT, names: Collection[str] | None = None, *, prefix: str = "") -> ConfigT:
    """Declares one parameter for each number of ``config``, with its description and range; returns what was given.

    The defaults are those of ``config``, that is of its file. A bound that the configuration excludes, such as the zero
    of a positive number, is refused by the configuration itself. A position becomes three parameters: its x, y and z.

    Args:
        node: that gets the parameters.
        config: whose fields they are.
        names: of the fields; None: all of them.
        prefix: of the parameters' names.
    """
    values: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        if names is not None and name not in names:
            continue
        default, about = getattr(config, name), field.description or ""
        if isinstance(default, tuple):
            low, high = _bounds(get_args(get_args(field.annotation)[0])[1].metadata)
            axes = zip("xyz", default, strict=True)
            values[name] = [declare(node, f"{prefix}{name}_{x}", v, about, low=low, high=high) for x, v in axes]
        else:
            low, high = _bounds(field.metadata)
            values[name] = declare(node, f"{prefix}{name}", default, about, low=low, high=high)
    return type(config).model_validate(config.model_dump() | values)


def _bounds(metadata: Sequence[Any]) -> tuple[float | None, float | None]:
    """Lower and upper bound of a field."""
    low = next((getattr(bound, key) for bound in metadata for key in ("ge", "gt") if hasattr(bound, key)), None)
    return low, next((bound.le for bound in metadata if hasattr(bound, "le")), None)


def declare_deadman(node: Node, buttons: Mapping[str, int]) -> int:
    """The button that must be held for the arm to move; all nodes must know the same.

    ``buttons``: the node's own, by parameter; raises ValueError where one of them is this one too.
    """
    about = "the arm moves only while this button is held; -1: none; one for all nodes"
    deadman = int(declare(node, "deadman_button", -1, about, low=-1, high=64))
    for name, button in buttons.items():
        if deadman >= 0 and button == deadman:
            raise ValueError(f"deadman_button and {name} are both {button}: it is held as long as the arm moves")
    return deadman


def declare_tolerance(node: Node) -> ResetTolerance:
    """How near to the reset pose an episode may begin; commander and supervisor must judge it alike."""
    default = ResetTolerance()
    position = declare(node, "reset_position_tolerance", default.position, "m; one for all nodes", low=0.0005, high=0.1)
    angle = declare(node, "reset_angle_tolerance", default.angle, "rad; one for all nodes", low=0.001, high=0.5)
    about = "the gripper is at least so far open, 0..1; one for all nodes"
    opening = declare(node, "reset_gripper_opening", default.gripper_opening, about, low=0.0, high=1.0)
    return ResetTolerance(position=position, angle=angle, gripper_opening=opening)
