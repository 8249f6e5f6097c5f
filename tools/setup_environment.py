"""Makes the virtual environment that the workspace is built and run in. Run by `make setup`; standard library only.

Safe to run at any time: a stamp keyed by the interpreter, the lock file and this script skips what is already there.
Two kinds of ROS 2 Jazzy are served:

- none installed: the `ros-jazzy-*` wheels of the lock file are installed like everything else, and the folders of their
  build machine, which their CMake files name, are replaced by this machine's;
- a distribution's own, sourced in this shell: the virtual environment sees its packages and the wheels are left out.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "lock.txt"
BUILD_MACHINE_INCLUDE = re.compile(r"/opt/python/cp\d+-cp\d+/include/python3\.\d+")
BUILD_MACHINE_NUMPY = re.compile(r"/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages/numpy/(?:_core|core)/include")

# One frame through the same path as the simulator's cameras; exits 0 only if the picture shows the lit white plane.
RENDER_ONE_FRAME = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom type='plane' size='1 1 .1' rgba='1 1 1 1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
raise SystemExit(int(renderer.render().max() < 32))
"""
GL_PACKAGES = {"egl": ("libegl1", "libgl1", "libgl1-mesa-dri"), "osmesa": ("libosmesa6", "libgl1")}

# What a distribution's ROS brings along, and its CMake files expect in its own version.
FROM_DISTRIBUTION = re.compile(r"(ros-[a-z0-9-]+|catkin-pkg|cmake|empy)==")
LARGE_DOWNLOAD = re.compile(r"Downloading .*\((\d{2,}(\.\d+)? MB|[\d.]+ GB)\)")

LOCAL_SETUP = """\
# Made by `make setup`. Puts the workspace's virtual environment into a shell; colcon's install/setup.* chain it.
_conrft_venv={venv}
case ":$PATH:" in *":$_conrft_venv/bin:"*) ;; *) PATH="$_conrft_venv/bin:$PATH" ;; esac
case ":${{AMENT_PREFIX_PATH:-}}:" in
  *":$_conrft_venv:"*) ;;
  *) AMENT_PREFIX_PATH="${{AMENT_PREFIX_PATH:+$AMENT_PREFIX_PATH:}}$_conrft_venv" ;;
esac
VIRTUAL_ENV="$_conrft_venv"
: "${{MUJOCO_GL={gl}}}"
export PATH AMENT_PREFIX_PATH VIRTUAL_ENV MUJOCO_GL
unset _conrft_venv
"""
# Without this each start of Python would set the path itself and start a second time.
LOCAL_SETUP_WHEELS = """\
for _conrft_folder in {folders}; do
  case ":${{LD_LIBRARY_PATH:-}}:" in
    *":$_conrft_folder:"*) ;;
    *) LD_LIBRARY_PATH="${{LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}}$_conrft_folder" ;;
  esac
done
_ROS_WHEELS_BOOTSTRAP_COMPLETE=1
export LD_LIBRARY_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
unset _conrft_folder
"""


class SetupError(RuntimeError):
    """What went wrong and what to do about it, in a sentence for the person at the terminal."""


def has_distribution_ros(environment: Mapping[str, str]) -> bool:
    """Returns whether a ROS 2 Jazzy other than this workspace's wheels is sourced in `environment`.

    Raises:
        SetupError: another ROS distribution is sourced; its messages and CMake files would mix with Jazzy's.
    """
    name = environment.get("ROS_DISTRO", "")
    prefixes = [p for p in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    foreign = [p for p in prefixes if not Path(p).is_relative_to(ROOT)]
    if not name or not foreign:
        return False
    if name != "jazzy":
        raise SetupError(
            f"ROS 2 {name} is sourced in this shell, but the workspace is for Jazzy: use a shell without it."
        )
    return True


def check_same_ros(venv: Path, *, distribution_ros: bool) -> None:
    """Refuses to turn an environment beside a distribution's ROS into one with the wheels, or the other way round.

    Raises:
        SetupError: this shell has another kind of ROS than the one that `venv` was made in.
    """
    settings = venv / "pyvenv.cfg"
    if not settings.is_file():
        return
    made_with = re.search(r"include-system-site-packages\s*=\s*true", settings.read_text(encoding="utf-8")) is not None
    if made_with and not distribution_ros:
        raise SetupError(f"{venv} was made with a distribution's ROS 2: source that, or start anew with `make clean`.")
    if distribution_ros and not made_with:
        raise SetupError(
            f"{venv} has its own ROS 2: use a shell without the distribution's, or start with `make clean`."
        )


def locked_requirements(lock: str, *, distribution_ros: bool) -> str:
    """Returns the lock file's requirements, without what the distribution brings along where its ROS is used."""
    lines = [line for line in lock.splitlines(keepends=True) if not line.startswith("#")]
    return "".join(line for line in lines if not (distribution_ros and FROM_DISTRIBUTION.match(line)))


def repair_cmake_paths(share: Path, *, python_include: str, numpy_include: str) -> int:
    """Replaces the build machine's folders in the `.cmake` files under `share`; returns how many files it changed."""
    changed = 0
    for file in sorted(share.rglob("*.cmake")):
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        repaired = BUILD_MACHINE_INCLUDE.sub(lambda _: python_include, text)
        repaired = BUILD_MACHINE_NUMPY.sub(lambda _: numpy_include, repaired)
        if repaired != text:
            file.write_text(repaired, encoding="utf-8", errors="surrogateescape")
            changed += 1
    return changed


def local_setup(venv: Path, *, gl: str, distribution_ros: bool) -> str:
    """Returns the POSIX shell text that colcon's install/setup.* chain to."""
    text = LOCAL_SETUP.format(venv=shlex.quote(str(venv)), gl=gl)
    if not distribution_ros:
        folders = [venv / "lib", *sorted(venv.glob("lib/python3.*/site-packages/ros_*.libs"))]
        text += LOCAL_SETUP_WHEELS.format(folders=" ".join(shlex.quote(str(folder)) for folder in folders))
    return text


def say(text: str) -> None:
    """Prints one progress line at once, so that it stands before the output of the tools that it announces."""
    print(f"[setup] {text}", flush=True)


def make_virtual_environment(venv: Path, *, distribution_ros: bool) -> None:
    """Makes `venv` anew from the running interpreter."""
    if venv.exists():
        shutil.rmtree(venv)
    access = ["--system-site-packages"] if distribution_ros else []
    subprocess.run([sys.executable, "-m", "venv", *access, str(venv)], check=True)


def install(venv: Path, requirements: str) -> None:
    """Installs the locked packages with pip, whose configuration of this machine applies; names the large downloads.

    Raises:
        SetupError: pip failed; its last lines have been printed.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(requirements)
        file.flush()
        command = [str(venv / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        command += ["--progress-bar", "off", "-r", file.name]
        output: list[str] = []
        with subprocess.Popen(
            command, env=clean_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as pip:
            for line in pip.stdout or ():
                output.append(line)
                if LARGE_DOWNLOAD.search(line):
                    say(line.strip())
    if pip.returncode:
        print("".join(output[-30:]), file=sys.stderr)
        raise SetupError("pip could not install requirements/lock.txt; its last lines stand above.")


def clean_environment() -> dict[str, str]:
    """Returns this process's environment without what would lead the new interpreter to other packages than its own."""
    drop = {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    return {name: value for name, value in os.environ.items() if name not in drop}


def interpreter_folders(venv: Path) -> tuple[str, str]:
    """Returns (Python's include folder, numpy's include folder) of the virtual environment."""
    code = "import sysconfig, numpy; print(sysconfig.get_path('include')); print(numpy.get_include())"
    command = [str(venv / "bin" / "python"), "-c", code]
    output = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=clean_environment()).stdout
    python_include, numpy_include = output.splitlines()
    return python_include, numpy_include


def renders(venv: Path, gl: str) -> bool:
    """Returns whether MuJoCo renders one frame off screen with MUJOCO_GL=`gl`."""
    command = [str(venv / "bin" / "python"), "-c", RENDER_ONE_FRAME]
    environment = {**clean_environment(), "MUJOCO_GL": gl}
    with tempfile.TemporaryDirectory() as folder:  # MuJoCo drops its log file into the working folder
        try:
            done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, timeout=120)
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def apt_command() -> list[str] | None:
    """Returns the beginning of an `apt-get` command that may install here without asking, or None."""
    if shutil.which("apt-get") is None:
        return None
    quietly = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    if os.geteuid() == 0:
        return quietly
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        return ["sudo", "-n", *quietly]
    return None


def offscreen_gl(venv: Path) -> str:
    """Returns the MUJOCO_GL that works here (egl, else osmesa), after installing its system libraries if it may."""
    for gl in GL_PACKAGES:
        if renders(venv, gl):
            return gl
    apt = apt_command()
    for gl, packages in GL_PACKAGES.items():
        if apt is not None:
            say(f"no off-screen OpenGL: installing {' '.join(packages)}")
            subprocess.run([*apt, "update", "-qq"], stdout=subprocess.DEVNULL)
            install = [*apt, "install", "-qq", "-y", "--no-install-recommends", *packages]
            subprocess.run(install, stdout=subprocess.DEVNULL)
        if apt is not None and renders(venv, gl):
            return gl
    say("MuJoCo cannot render off screen here, so the simulation will not run. Install the libraries and repeat:")
    say(f"    sudo apt-get install {' '.join(GL_PACKAGES['egl'])} && make setup")
    return "egl"


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Holds a lock file, so that two `make` at once do not write one environment."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fingerprint(*parts: str) -> str:
    """Returns a short key of what a step was made from."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def make_environment(venv: Path, lock: Path) -> None:
    """Brings `venv` into the state that `lock` asks for, in three steps; a step whose stamp still holds is skipped."""
    distribution_ros = has_distribution_ros(os.environ)
    check_same_ros(venv, distribution_ros=distribution_ros)
    requirements = locked_requirements(lock.read_text(encoding="utf-8"), distribution_ros=distribution_ros)
    interpreter = fingerprint(sys.version, sys.base_prefix, str(venv), str(distribution_ros))
    packages = fingerprint(interpreter, requirements)
    settings = fingerprint(packages, Path(__file__).read_text(encoding="utf-8"))
    stamp = venv / "conrft_setup.stamp"
    done = stamp.read_text(encoding="utf-8").split() if stamp.is_file() else []

    if interpreter not in done:
        say(f"virtual environment {venv} from Python {sys.version.split()[0]} ({sys.executable})")
        make_virtual_environment(venv, distribution_ros=distribution_ros)
        stamp.write_text(interpreter, encoding="utf-8")
    if packages not in done:
        say("installing the locked packages (a few minutes the first time)")
        install(venv, requirements)
        stamp.write_text(f"{interpreter} {packages}", encoding="utf-8")
    if settings not in done:
        write_settings(venv, distribution_ros=distribution_ros)
        stamp.write_text(f"{interpreter} {packages} {settings}", encoding="utf-8")


def write_settings(venv: Path, *, distribution_ros: bool) -> None:
    """Repairs the wheels' CMake files, finds off-screen OpenGL and writes `local_setup.*`."""
    if not distribution_ros:
        python_include, numpy_include = interpreter_folders(venv)
        repair_cmake_paths(venv / "share", python_include=python_include, numpy_include=numpy_include)
    gl = offscreen_gl(venv)
    text = local_setup(venv, gl=gl, distribution_ros=distribution_ros)
    for shell in ("sh", "bash", "zsh"):
        (venv / f"local_setup.{shell}").write_text(text, encoding="utf-8")
    say(f"{venv} is ready; cameras render through {gl}")


def main() -> int:
    """Parses the command line and makes the environment; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the virtual environment")
    arguments = parser.parse_args()
    venv: Path = arguments.venv.resolve()
    try:
        with exclusively(venv.with_name(venv.name + ".lock")):
            make_environment(venv, LOCK)
    except SetupError as error:
        print(f"make setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
