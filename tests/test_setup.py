"""`make setup`: what it repairs, what it leaves out beside a ROS distribution, and that it may be repeated."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup_environment = load("setup_environment")
lock = load("lock")

WHEEL_CMAKE = (
    'INTERFACE_INCLUDE_DIRECTORIES "/opt/python/cp311-cp311/include/python3.11;'
    '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include"\n'
    'set(OLD "/opt/python/cp310-cp310/lib/python3.10/site-packages/numpy/core/include")\n'
)


def test_the_build_machines_folders_are_replaced_by_this_machines(tmp_path: Path) -> None:
    file = tmp_path / "std_msgs" / "cmake" / "export.cmake"
    file.parent.mkdir(parents=True)
    file.write_text(WHEEL_CMAKE)
    changed = setup_environment.repair_cmake_paths(tmp_path, python_include="/here/py", numpy_include="/here/np")
    assert changed == 1
    assert file.read_text() == 'INTERFACE_INCLUDE_DIRECTORIES "/here/py;/here/np"\nset(OLD "/here/np")\n'


def test_repairing_again_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.cmake").write_text(WHEEL_CMAKE)
    folders = {"python_include": r"/opt/back\1slash", "numpy_include": "/np"}
    assert setup_environment.repair_cmake_paths(tmp_path, **folders) == 1
    assert setup_environment.repair_cmake_paths(tmp_path, **folders) == 0


def test_a_sourced_distribution_takes_the_wheels_place() -> None:
    text = "# a comment\nnumpy==2.4.6\nros-jazzy-rclpy==7.1.6\ncmake==4.4.4\nempy==3.3.4\nrosbags==0.11.9\n"
    kept = setup_environment.locked_requirements(text, distribution_ros=True)
    assert kept.split() == ["numpy==2.4.6", "rosbags==0.11.9"]
    assert "ros-jazzy-rclpy" in setup_environment.locked_requirements(text, distribution_ros=False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": "/opt/ros/jazzy"}, True),
        ({"AMENT_PREFIX_PATH": "/opt/ros/jazzy"}, False),
        ({"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": f"{ROOT}/install/conrft_msgs:{ROOT}/.venv"}, False),
    ],
)
def test_a_distribution_is_told_from_this_workspace_itself(environment: dict[str, str], expected: bool) -> None:
    assert setup_environment.has_distribution_ros(environment) is expected


def test_another_distribution_than_jazzy_is_refused() -> None:
    with pytest.raises(setup_environment.SetupError, match=r"humble.*Jazzy"):
        setup_environment.has_distribution_ros({"ROS_DISTRO": "humble", "AMENT_PREFIX_PATH": "/opt/ros/humble"})


@pytest.mark.parametrize("made_with", [True, False])
def test_an_environment_does_not_change_its_kind_of_ros_unasked(tmp_path: Path, made_with: bool) -> None:
    (tmp_path / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = {str(made_with).lower()}\n")
    setup_environment.check_same_ros(tmp_path, distribution_ros=made_with)
    with pytest.raises(setup_environment.SetupError, match="make clean"):
        setup_environment.check_same_ros(tmp_path, distribution_ros=not made_with)


def test_local_setup_can_be_sourced_twice_and_keeps_the_callers_choice_of_gl(tmp_path: Path) -> None:
    venv = tmp_path / "a folder with spaces"
    (venv / "lib" / "python3.11" / "site-packages" / "ros_rcl.libs").mkdir(parents=True)
    script = tmp_path / "local_setup.sh"
    script.write_text(setup_environment.local_setup(venv, gl="egl", distribution_ros=False))
    show = 'printf "%s\\n" "$PATH" "$AMENT_PREFIX_PATH" "$LD_LIBRARY_PATH" "$MUJOCO_GL"'
    command = f"set -eu; . '{script}'; . '{script}'; {show}"
    environment = {"PATH": "/usr/bin:/bin", "MUJOCO_GL": "osmesa"}
    output = subprocess.run(["sh", "-c", command], env=environment, text=True, capture_output=True, check=True).stdout
    path, prefixes, libraries, gl = output.splitlines()
    assert path == f"{venv}/bin:/usr/bin:/bin"
    assert prefixes == str(venv)
    assert libraries == f"{venv}/lib:{venv}/lib/python3.11/site-packages/ros_rcl.libs"
    assert gl == "osmesa"


def test_the_lock_holds_every_requirement_and_no_cuda_library() -> None:
    locked = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8")
    names = {line.split("==")[0] for line in locked.splitlines() if "==" in line}
    wanted = (ROOT / "requirements" / "requirements.in").read_text(encoding="utf-8")
    for line in wanted.splitlines():
        requirement = line.split("#")[0].strip()
        if requirement:
            assert requirement.split("[")[0].split("=")[0].split("<")[0].split(">")[0].lower() in names
    assert not [name for name in names if lock.CUDA.match(name)]


def test_locking_leaves_out_comments_and_cuda() -> None:
    resolved = "# made by\nnvidia-cublas==13 ; sys_platform == 'linux'\ntorch==2.13.0\n    # via x\ntriton==3.7.1\n"
    assert lock.without_cuda(resolved) == "torch==2.13.0\n"


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHON", "ROS_DISTRO"}}
    return subprocess.run(
        [str(ROOT / script)], env={**inherited, **environment}, text=True, capture_output=True, timeout=600
    )


def test_an_unsuitable_python_is_refused_with_what_to_do(tmp_path: Path) -> None:
    fake = tmp_path / "python2"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    found = run("tools/find_python.sh", PYTHON=str(fake))
    assert found.returncode == 1
    assert "3.10, 3.11 or 3.12" in found.stderr and "apt-get install" in found.stderr


def test_the_python_that_is_found_suits() -> None:
    found = run("tools/find_python.sh")
    assert found.returncode == 0, found.stderr
    code = "import sys; print(*sys.version_info[:2])"
    version = subprocess.run([found.stdout.strip(), "-c", code], text=True, capture_output=True, check=True).stdout
    assert tuple(map(int, version.split())) in {(3, 10), (3, 11), (3, 12)}


def test_set_up_again_touches_nothing() -> None:
    venv = ROOT / ".venv"
    watched = [venv / name for name in ("conrft_setup.stamp", "local_setup.sh", "local_setup.bash", "pyvenv.cfg")]
    before = [file.stat().st_mtime_ns for file in watched]
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    again = subprocess.run([str(base), str(ROOT / "tools" / "setup_environment.py")], text=True, capture_output=True)
    assert (again.returncode, again.stdout) == (0, "")
    assert [file.stat().st_mtime_ns for file in watched] == before


def test_build_again_touches_nothing() -> None:
    installed = ROOT / "install" / ".fingerprint"
    before = installed.stat().st_mtime_ns
    again = run("tools/build.sh")
    assert (again.returncode, again.stdout) == (0, "")
    assert installed.stat().st_mtime_ns == before


def test_the_simulators_cameras_can_render_here() -> None:
    assert setup_environment.renders(ROOT / ".venv", os.environ.get("MUJOCO_GL", "egl"))
    assert not setup_environment.renders(ROOT / ".venv", "no-such-gl")
