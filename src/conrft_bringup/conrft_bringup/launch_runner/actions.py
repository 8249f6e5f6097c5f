"""The actions that a launch file can hold, as read from the file and before any substitution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conrft_bringup.launch_runner.errors import Location
from conrft_bringup.launch_runner.parameters import InlineParameter
from conrft_bringup.launch_runner.substitutions import Template

Pairs = tuple[tuple[Template, Template], ...]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """``if`` or ``unless``."""

    expression: Template
    wanted: bool
    key: str


@dataclass(frozen=True, kw_only=True)
class Action:
    """Anything that stands in a launch file."""

    location: Location
    condition: Condition | None = None


@dataclass(frozen=True, kw_only=True)
class DeclareArgument(Action):
    """``arg``: an argument of the launch file."""

    name: str
    default: Template | None = None
    description: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SetVariable(Action):
    """``let``."""

    name: Template
    value: Template


@dataclass(frozen=True, kw_only=True)
class SetEnvironment(Action):
    """``set_env``: for the processes that start after it in its group."""

    name: Template
    value: Template


@dataclass(frozen=True, kw_only=True)
class PushNamespace(Action):
    """``push_ros_namespace``: for the nodes after it in its group."""

    namespace: Template


@dataclass(frozen=True, kw_only=True)
class SetRemap(Action):
    """``set_remap``: for the nodes after it in its group."""

    source: Template
    target: Template


@dataclass(frozen=True, kw_only=True)
class Group(Action):
    """``group``: unless ``scoped`` is false, what is set within does not leave it."""

    children: tuple[AnyAction, ...]
    scoped: bool = True


@dataclass(frozen=True, kw_only=True)
class Include(Action):
    """``include``: another launch file; its arguments stay set afterwards, as with ``ros2 launch``."""

    file: Template
    arguments: Pairs = ()


@dataclass(frozen=True, kw_only=True)
class Log(Action):
    """``log``."""

    message: Template


@dataclass(frozen=True, kw_only=True)
class Timer(Action):
    """``timer``: runs its children ``period`` seconds after it is met."""

    period: Template | float
    children: tuple[AnyAction, ...]


@dataclass(frozen=True, kw_only=True)
class Shutdown(Action):
    """``shutdown``: ends the whole launch."""

    reason: Template | None = None


@dataclass(frozen=True, kw_only=True)
class Process(Action):
    """What ``executable`` and ``node`` have in common; ``required``: its exit ends the whole launch."""

    output: Template | None = None
    environment: Pairs = ()
    respawn: Template | None = None
    respawn_delay: float = 0.0
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Executable(Process):
    """``executable``: any program; ``words`` are its command line, split already."""

    words: tuple[Template, ...]
    name: Template | None = None
    working_directory: Template | None = None


@dataclass(frozen=True, kw_only=True)
class ParameterFile:
    """``param: from``."""

    file: Template
    location: Location


@dataclass(frozen=True, kw_only=True)
class Node(Process):
    """``node``: an executable of a package, started with ROS arguments."""

    package: Template
    executable: Template
    name: Template | None = None
    namespace: Template | None = None
    words: tuple[Template, ...] = ()
    ros_words: tuple[Template, ...] = ()
    parameters: tuple[ParameterFile | InlineParameter, ...] = ()
    remaps: Pairs = ()


AnyAction = (
    DeclareArgument
    | SetVariable
    | SetEnvironment
    | PushNamespace
    | SetRemap
    | Group
    | Include
    | Log
    | Timer
    | Shutdown
    | Executable
    | Node
)


@dataclass(frozen=True, kw_only=True)
class LaunchFile:
    """One launch file."""

    path: Path
    actions: tuple[AnyAction, ...]
