"""Runs one launch file from beginning to end; the function behind ``conrft up`` and the stages of ``conrft demo``."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from conrft_bringup.launch_runner.actions import DeclareArgument
from conrft_bringup.launch_runner.ament_index import PackageNotFound, package_share
from conrft_bringup.launch_runner.errors import LaunchError, Location
from conrft_bringup.launch_runner.expansion import (
    Expansion,
    StartProcess,
    StartTimer,
    check_arguments,
    declared_arguments,
    included_files,
    is_yaml,
)
from conrft_bringup.launch_runner.launch_file import read_launch_file
from conrft_bringup.launch_runner.output import LaunchOutput
from conrft_bringup.launch_runner.process_supervisor import GracePeriods, LaunchResult, ProcessSupervisor
from conrft_bringup.launch_runner.substitutions import Scope, SubstitutionError

OWN_PACKAGE = "conrft_bringup"
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_launch_file(
    path: Path,
    arguments: Mapping[str, str],
    output: LaunchOutput,
    *,
    environment: Mapping[str, str] | None = None,
    grace: GracePeriods | None = None,
    idle: Callable[[ProcessSupervisor], None] | None = None,
    idle_period: float = 0.5,
) -> LaunchResult:
    """Runs a launch file until everything in it has ended.

    The whole file is checked, with its substitutions done and its executables found, before the first process starts.

    Args:
        path: of the launch file.
        arguments: of the launch file, by name.
        output: gets the lines of the processes and of the launch itself.
        environment: of the processes; default: this process's.
        grace: times between the signals that end a process.
        idle: called while the launch runs; it may call ``shut_down`` of the supervisor that it is given.
        idle_period: between these calls, about, s.

    Raises:
        LaunchError: the file or the arguments are wrong; nothing was started.
    """
    scope = Scope(variables=dict(arguments), environment=dict(os.environ if environment is None else environment))
    # Python nodes would otherwise hold back what they print until a buffer is full.
    scope.environment.setdefault("PYTHONUNBUFFERED", "1")
    with tempfile.TemporaryDirectory(prefix="launch_params_") as folder:
        expansion = Expansion(_parameter_file_writer(Path(folder)))
        requests = list(expansion.file(path, scope))
        check_arguments(arguments, expansion.declared, path)

        def expand_later(timer: StartTimer) -> Iterator:
            return expansion.actions(timer.children, timer.scope)

        supervisor = ProcessSupervisor(
            output, expand_later=expand_later, grace=grace, idle=idle, idle_period=idle_period
        )
        with _stopped_by_signals(supervisor):
            return supervisor.run(requests)


def run_program(
    command: Sequence[str],
    output: LaunchOutput,
    *,
    environment: Mapping[str, str] | None = None,
    grace: GracePeriods | None = None,
    idle: Callable[[ProcessSupervisor], None] | None = None,
) -> LaunchResult:
    """Runs one program with the care that processes of a launch file get: its output is kept, no orphan is left."""
    request = StartProcess(
        label=Path(command[0]).name,
        command=tuple(command),
        environment=dict(os.environ if environment is None else environment),
        output="both",
        location=Location(Path(command[0]), 1),
        required=True,
    )
    supervisor = ProcessSupervisor(output, expand_later=lambda timer: (), grace=grace, idle=idle)
    with _stopped_by_signals(supervisor):
        return supervisor.run([request])


def find_launch_file(name: str, environment: Mapping[str, str]) -> Path:
    """The launch file meant by a path, or by a name in this package's share; ``.launch.yaml`` may be left out.

    Raises:
        LaunchError: there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.name != name:
        raise LaunchError(f"launch file {name} does not exist")
    return find_package_launch_file(OWN_PACKAGE, name, environment)


def find_package_launch_file(package: str, name: str, environment: Mapping[str, str]) -> Path:
    """A launch file by its name, anywhere in the share directory of ``package``; raises LaunchError."""
    try:
        share = package_share(package, environment)
    except PackageNotFound as error:
        raise LaunchError(str(error)) from error
    for candidate in (name, f"{name}.launch.yaml"):
        found = sorted(share.rglob(candidate))
        if len(found) > 1:
            raise LaunchError(f"{candidate} is found more than once: {', '.join(map(str, found))}")
        if found:
            return found[0]
    known = ", ".join(sorted(file.name for file in share.rglob("*.launch.yaml"))) or "none"
    raise LaunchError(f"launch file '{name}' is not in {share}; known: {known}")


def launch_arguments(path: Path, environment: Mapping[str, str]) -> list[DeclareArgument]:
    """The arguments of a launch file and of the files that it includes, but for those that it gives them itself.

    A file whose name depends on an argument, or that is not YAML, is left out. Raises LaunchFileError.
    """
    found: dict[str, DeclareArgument] = {}
    _collect_arguments(path, environment, found, given=frozenset())
    return list(found.values())


def _collect_arguments(
    path: Path, environment: Mapping[str, str], found: dict[str, DeclareArgument], given: frozenset[str]
) -> None:
    actions = read_launch_file(path).actions
    for argument in declared_arguments(actions):
        if argument.name not in given:
            found.setdefault(argument.name, argument)
    scope = Scope(environment=dict(environment), directory=path.absolute().parent)
    for include in included_files(actions):
        try:
            inner = Path(include.file.evaluate(scope))
        except SubstitutionError:
            continue
        if inner.is_file() and is_yaml(inner):
            names = {"".join(str(part) for part in name.parts) for name, _ in include.arguments}
            _collect_arguments(inner, environment, found, given | names)


def _parameter_file_writer(folder: Path) -> Callable[[str], Path]:
    numbers = itertools.count(1)

    def write(text: str) -> Path:
        path = folder / f"params_{next(numbers)}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@contextlib.contextmanager
def _stopped_by_signals(supervisor: ProcessSupervisor) -> Iterator[None]:
    """While it lasts, SIGINT, SIGTERM and SIGHUP end the launch instead of this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda received, _: supervisor.interrupt(signal.Signals(received).name))
        for number in _STOP_SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
