"""Turns the actions of launch files into requests: what to start, say, wait for. Nothing is started here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from conrft_bringup.launch_runner import actions as act
from conrft_bringup.launch_runner.ament_index import PackageNotFound, package_executable
from conrft_bringup.launch_runner.errors import LaunchError, LaunchFileError, Location
from conrft_bringup.launch_runner.launch_file import read_launch_file
from conrft_bringup.launch_runner.parameters import ParameterValue, coerce, parameter_file_text
from conrft_bringup.launch_runner.substitutions import Scope, SubstitutionError, Template

OUTPUTS = ("screen", "log", "both")
_MAX_INCLUDE_DEPTH = 32


@dataclass(frozen=True, kw_only=True)
class StartProcess:
    """A process to start.

    Attributes:
        label: name in the output, to which the runner adds a number.
        required: its exit ends the launch.
        output: ``screen``, ``log`` (then only stderr is shown) or ``both``.
        respawn_delay: seconds.
    """

    label: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    output: str
    location: Location
    working_directory: str | None = None
    required: bool = False
    respawn: bool = False
    respawn_delay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StartTimer:
    """Actions to expand after ``period`` seconds, in the scope of the moment when the timer was met."""

    period: float
    children: tuple[act.AnyAction, ...]
    scope: Scope


@dataclass(frozen=True, kw_only=True)
class LogMessage:
    """A line for the person who started the launch."""

    message: str


@dataclass(frozen=True, kw_only=True)
class EndLaunch:
    """The launch asks for its own end."""

    reason: str


Request = StartProcess | StartTimer | LogMessage | EndLaunch


@dataclass
class Expansion:
    """One launch: reads files, evaluates conditions and substitutions.

    Attributes:
        write_parameter_file: stores the text of a parameter file and gives its path.
        declared: the arguments of all files read so far, by name.
    """

    write_parameter_file: Callable[[str], Path]
    declared: dict[str, act.DeclareArgument] = field(default_factory=dict)

    def file(self, path: Path, scope: Scope, depth: int = 0) -> Iterator[Request]:
        """The requests of a launch file; raises LaunchFileError."""
        launch_file = read_launch_file(path)
        self.declared.update((argument.name, argument) for argument in declared_arguments(launch_file.actions))
        outside, scope.directory = scope.directory, path.absolute().parent
        yield from self.actions(launch_file.actions, scope, depth)
        scope.directory = outside

    def actions(self, actions: Iterable[act.AnyAction], scope: Scope, depth: int = 0) -> Iterator[Request]:
        """The requests of ``actions``, which may change ``scope``."""
        for action in actions:
            if action.condition is None or _holds(action.condition, action, scope):
                yield from self._action(action, scope, depth)

    def _action(self, action: act.AnyAction, scope: Scope, depth: int) -> Iterator[Request]:
        match action:
            case act.DeclareArgument():
                _set_argument(action, scope)
            case act.SetVariable():
                scope.variables[_text(action.name, scope, action, "name")] = _text(action.value, scope, action, "value")
            case act.SetEnvironment():
                scope.environment[_text(action.name, scope, action, "name")] = _text(
                    action.value, scope, action, "value"
                )
            case act.PushNamespace():
                scope.namespace = _namespace(
                    scope.namespace, _text(action.namespace, scope, action, "namespace"), action
                )
            case act.SetRemap():
                remap = (_text(action.source, scope, action, "from"), _text(action.target, scope, action, "to"))
                scope.remaps = (*scope.remaps, remap)
            case act.Group():
                yield from self.actions(action.children, scope.copy() if action.scoped else scope, depth)
            case act.Include():
                yield from self._include(action, scope, depth)
            case act.Log():
                yield LogMessage(message=_text(action.message, scope, action, "message"))
            case act.Timer():
                yield StartTimer(period=_period(action, scope), children=action.children, scope=scope.copy())
            case act.Shutdown():
                reason = (
                    _text(action.reason, scope, action, "reason") if action.reason else "the launch file asks for it"
                )
                yield EndLaunch(reason=reason)
            case act.Executable():
                yield _executable(action, scope)
            case act.Node():
                yield self._node(action, scope)

    def _include(self, action: act.Include, scope: Scope, depth: int) -> Iterator[Request]:
        path = Path(_text(action.file, scope, action, "file"))
        if depth >= _MAX_INCLUDE_DEPTH:
            raise LaunchFileError(
                action.location, "include", f"more than {_MAX_INCLUDE_DEPTH} files include each other"
            )
        if not path.is_file():
            raise LaunchFileError(action.location, "file", f"launch file {path} does not exist")
        if not is_yaml(path):
            raise LaunchFileError(
                action.location, "file", f"{path.name} is no YAML launch file; only 'ros2 launch' runs it"
            )
        given = {
            _text(name, scope, action, "name"): _text(value, scope, action, "value") for name, value in action.arguments
        }
        # ros2 launch insists that they are passed on, even where a variable of that name is set.
        for argument in read_launch_file(path).actions:
            if _is_demanded(argument) and argument.name not in given:
                problem = f"argument '{argument.name}' of {path.name} has no default and is not given here"
                raise LaunchFileError(action.location, "include", problem)
        scope.variables.update(given)
        yield from self.file(path, scope, depth + 1)

    def _node(self, node: act.Node, scope: Scope) -> StartProcess:
        package = _text(node.package, scope, node, "pkg")
        executable = _text(node.executable, scope, node, "exec")
        try:
            program = package_executable(package, executable, scope.environment)
        except PackageNotFound as error:
            raise LaunchFileError(node.location, "exec", str(error)) from error
        command = [str(program), *_words(node.words, scope, node, "args")]
        if node.ros_words:
            command += ["--ros-args", *_words(node.ros_words, scope, node, "ros_args")]
        command += ["--ros-args", *self._ros_arguments(node, scope)]
        return _process(node, scope, label=Path(executable).name, command=command)

    def _ros_arguments(self, node: act.Node, scope: Scope) -> list[str]:
        """Name, namespace, parameters and remaps, in the order of ``ros2 launch``."""
        words: list[str] = []
        name = _text(node.name, scope, node, "name") if node.name else None
        if name is not None:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise LaunchFileError(node.location, "name", f"'{name}' is no valid node name")
            words += ["-r", f"__node:={name}"]
        namespace = scope.namespace
        if node.namespace is not None:
            namespace = _namespace(namespace, _text(node.namespace, scope, node, "namespace"), node)
        if namespace is not None:
            words += ["-r", f"__ns:={namespace}"]
        full_name = f"{namespace.rstrip('/')}/{name}" if name is not None and namespace is not None else "/**"
        for file in self._parameter_files(node, full_name, scope):
            words += ["--params-file", str(file)]
        own = [(_text(a, scope, node, "from"), _text(b, scope, node, "to")) for a, b in node.remaps]
        for source, target in (*scope.remaps, *own):
            words += ["-r", f"{source}:={target}"]
        return words

    def _parameter_files(self, node: act.Node, full_name: str, scope: Scope) -> Iterator[Path]:
        """One file for each ``from``, and one for each run of inline parameters between them: later ones win."""
        values: dict[str, ParameterValue] = {}
        for parameter in node.parameters:
            if not isinstance(parameter, act.ParameterFile):
                name, value = parameter.evaluate(scope)
                values[name] = value
                continue
            if values:
                yield self.write_parameter_file(parameter_file_text(full_name, values))
                values = {}
            path = Path(_text(parameter.file, scope, node, "from"))
            if not path.is_file():
                raise LaunchFileError(parameter.location, "from", f"parameter file {path} does not exist")
            yield path
        if values:
            yield self.write_parameter_file(parameter_file_text(full_name, values))


def is_yaml(path: Path) -> bool:
    """Whether a launch file is one that this runner reads."""
    return path.suffix in (".yaml", ".yml")


def declared_arguments(actions: Iterable[act.AnyAction]) -> Iterator[act.DeclareArgument]:
    """The arguments declared anywhere among ``actions``, groups and timers included."""
    for action in actions:
        if isinstance(action, act.DeclareArgument):
            yield action
        elif isinstance(action, act.Group | act.Timer):
            yield from declared_arguments(action.children)


def included_files(actions: Iterable[act.AnyAction]) -> Iterator[act.Include]:
    """The includes anywhere among ``actions``, groups and timers included."""
    for action in actions:
        if isinstance(action, act.Include):
            yield action
        elif isinstance(action, act.Group | act.Timer):
            yield from included_files(action.children)


def _is_demanded(action: act.AnyAction) -> TypeGuard[act.DeclareArgument]:
    return isinstance(action, act.DeclareArgument) and action.default is None and action.condition is None


def check_arguments(given: Iterable[str], declared: Mapping[str, act.DeclareArgument], path: Path) -> None:
    """Refuses arguments that no file declares: a misspelt one would be ignored silently. Raises LaunchError."""
    unknown = sorted(set(given) - set(declared))
    if unknown:
        known = ", ".join(sorted(declared)) or "none"
        raise LaunchError(f"{path}: no argument is called {', '.join(repr(name) for name in unknown)}; known: {known}")


def _holds(condition: act.Condition, action: act.Action, scope: Scope) -> bool:
    text = _text(condition.expression, scope, action, condition.key)
    meaning = {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())
    if meaning is None:
        raise LaunchFileError(action.location, condition.key, f"must come to true, false, 1 or 0, got {text!r}")
    return meaning is condition.wanted


def _set_argument(action: act.DeclareArgument, scope: Scope) -> None:
    if action.name not in scope.variables:
        if action.default is None:
            described = f" ({action.description})" if action.description else ""
            raise LaunchFileError(
                action.location, "arg", f"argument '{action.name}'{described} has no default and was not given"
            )
        scope.variables[action.name] = _text(action.default, scope, action, "default")
    value = scope.variables[action.name]
    if action.choices and value not in action.choices:
        choices = ", ".join(action.choices)
        raise LaunchFileError(
            action.location, "arg", f"argument '{action.name}' is {value!r}, must be one of: {choices}"
        )


def _text(template: Template, scope: Scope, action: act.Action, key: str) -> str:
    try:
        return template.evaluate(scope)
    except SubstitutionError as error:
        raise LaunchFileError(action.location, key, str(error)) from error


def _words(templates: Iterable[Template], scope: Scope, action: act.Action, key: str) -> list[str]:
    return [_text(template, scope, action, key) for template in templates]


def _period(timer: act.Timer, scope: Scope) -> float:
    if isinstance(timer.period, float):
        return timer.period
    text = _text(timer.period, scope, timer, "period")
    try:
        return float(text)
    except ValueError as error:
        raise LaunchFileError(timer.location, "period", f"must be a number of seconds, got {text!r}") from error


def _namespace(base: str | None, name: str, action: act.Action) -> str:
    """``name`` below ``base``, absolute; an absolute name replaces the base."""
    joined = name if name.startswith("/") or not base else f"{base.rstrip('/')}/{name}"
    joined = joined if joined.startswith("/") else f"/{joined}"
    joined = joined.rstrip("/") or "/"
    if not re.fullmatch(r"/|(/[A-Za-z_][A-Za-z0-9_]*)+", joined):
        raise LaunchFileError(action.location, "namespace", f"'{joined}' is no valid namespace")
    return joined


def _executable(executable: act.Executable, scope: Scope) -> StartProcess:
    command = _words(executable.words, scope, executable, "cmd")
    label = _text(executable.name, scope, executable, "name") if executable.name else Path(command[0]).name
    directory = executable.working_directory
    where = _text(directory, scope, executable, "cwd") if directory is not None else None
    return _process(executable, scope, label=label, command=command, working_directory=where)


def _process(
    process: act.Process, scope: Scope, *, label: str, command: list[str], working_directory: str | None = None
) -> StartProcess:
    output = _text(process.output, scope, process, "output") if process.output else "log"
    if output not in OUTPUTS:
        raise LaunchFileError(process.location, "output", f"must be one of {', '.join(OUTPUTS)}, got {output!r}")
    environment = dict(scope.environment)
    for name, value in process.environment:
        environment[_text(name, scope, process, "env")] = _text(value, scope, process, "env")
    return StartProcess(
        label=label,
        command=tuple(command),
        environment=environment,
        output=output,
        location=process.location,
        working_directory=working_directory,
        required=process.required,
        respawn=_respawn(process, scope),
        respawn_delay=process.respawn_delay,
    )


def _respawn(process: act.Process, scope: Scope) -> bool:
    if process.respawn is None:
        return False
    text = _text(process.respawn, scope, process, "respawn")
    try:
        return coerce(text, "bool") is True
    except ValueError as error:
        raise LaunchFileError(process.location, "respawn", str(error)) from error
