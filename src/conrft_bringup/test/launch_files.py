"""What test files share: launch files written on the fly, packages made of shell scripts, and a way to run them."""

from __future__ import annotations

import io
import os
import textwrap
from pathlib import Path

from conrft_bringup.launch_runner.expansion import Expansion, Request, StartProcess
from conrft_bringup.launch_runner.output import LaunchOutput
from conrft_bringup.launch_runner.process_supervisor import GracePeriods, LaunchResult
from conrft_bringup.launch_runner.runner import run_launch_file
from conrft_bringup.launch_runner.substitutions import Scope

QUICK = GracePeriods(terminate=1.0, kill=1.0)


def write(folder: Path, text: str, name: str = "test.launch.yaml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def add_package(prefix: Path, package: str, **executables: str) -> None:
    """Installs a package in ``prefix`` whose executables are shell scripts."""
    marker = prefix / "share/ament_index/resource_index/packages" / package
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()
    (prefix / "share" / package).mkdir(exist_ok=True)
    for name, script in executables.items():
        path = prefix / "lib" / package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


def expand(path: Path, environment: dict[str, str] | None = None, **arguments: str) -> list[Request]:
    """The requests of a launch file; parameter files go beside it."""
    count = iter(range(100))

    def write_parameters(text: str) -> Path:
        file = path.parent / f"params_{next(count)}.yaml"
        file.write_text(text)
        return file

    scope = Scope(variables=dict(arguments), environment=dict(environment or {}))
    return list(Expansion(write_parameters).file(path, scope))


def processes(path: Path, environment: dict[str, str] | None = None, **arguments: str) -> list[StartProcess]:
    return [request for request in expand(path, environment, **arguments) if isinstance(request, StartProcess)]


def run(
    path: Path, *, grace: GracePeriods = QUICK, prefix: Path | None = None, **options: object
) -> tuple[LaunchResult, list[str]]:
    """Runs a launch file; gives its result and the lines on the screen."""
    screen = io.StringIO()
    environment = dict(os.environ)
    if prefix is not None:
        environment["AMENT_PREFIX_PATH"] = str(prefix)
    arguments = options.pop("arguments", {})
    output = LaunchOutput(None, screen=screen)
    result = run_launch_file(path, arguments, output, environment=environment, grace=grace, **options)  # type: ignore[arg-type]
    return result, screen.getvalue().splitlines()


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
