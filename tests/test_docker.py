"""The container files fit the workspace and each other; no engine is needed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
SCRIPTS = sorted(DOCKER.glob("*.sh"))


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


def instructions() -> list[tuple[str, str]]:
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    words = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, rest in words]


def test_each_profile_has_a_service_on_the_hosts_network(services: dict[str, Any]) -> None:
    assert [service["profiles"] for service in services.values()] == [["sim"], ["robot"], ["learner-gpu"]]
    for service in services.values():
        assert (service["network_mode"], service["ipc"]) == ("host", "host")


def test_compose_builds_targets_that_the_dockerfile_has(services: dict[str, Any]) -> None:
    targets = {rest.rpartition(" ")[2] for word, rest in instructions() if word == "FROM"}
    for service in services.values():
        assert service["build"]["target"] in targets
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).samefile(DOCKER / "Dockerfile")


def test_no_folder_of_the_host_is_made_by_the_engine_as_roots(services: dict[str, Any]) -> None:
    for service in services.values():
        for volume in service["volumes"]:
            if volume == "/dev:/dev":  # is always there
                continue
            assert (volume["type"], volume["bind"]) == ("bind", {"create_host_path": False}), volume


def test_the_user_of_the_host_is_named_by_a_variable_that_a_shell_can_set(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["build"]["args"]["UID"] == "${USER_ID:-1000}", "bash's own UID is read-only"
    documented = re.findall(r"\b(\w+)=\$\(id -u\) docker compose", (ROOT / "docs/robot.md").read_text())
    assert set(documented) == {"USER_ID"}


def test_the_robot_sees_cameras_that_come_and_go(services: dict[str, Any]) -> None:
    robot = services["robot"]
    assert "/dev:/dev" in robot["volumes"]
    majors = {rule.split(":")[0].split()[1] for rule in robot["device_cgroup_rules"]}
    assert majors == {"81", "189"}, "video4linux and USB, and no other device"


def test_the_robot_has_every_interface_that_its_adapter_imports(services: dict[str, Any]) -> None:
    wanted = {folder.name for folder in (ROOT / "src/conrft_control/test/interfaces").iterdir()}
    installed = {name.replace("-", "_") for name in re.findall(r"ros-jazzy-([a-z0-9-]+)", str(instructions()))}
    assert {"realsense2_camera", "spacenav", "control_msgs"} <= installed
    assert wanted - installed == {"franka_msgs"}, "no Debian package: it comes from the host's workspace"
    workspace = services["robot"]["environment"]["FRANKA_WS"]
    (mounted,) = [v for v in services["robot"]["volumes"] if isinstance(v, dict) and v["source"] == workspace]
    assert mounted["target"] == workspace, "a workspace's links and paths are absolute"


def test_a_shell_of_the_robots_container_has_the_hosts_workspace_below_this_one(tmp_path: Path) -> None:
    for folder, name in (("franka_ws", "local_setup.bash"), ("conrft", "setup.bash")):
        (tmp_path / folder / "install").mkdir(parents=True)
        (tmp_path / folder / "install" / name).write_text(f'export ORDER="$ORDER {folder}"\n')

    def order(**environment: str) -> str:
        command = [str(DOCKER / "entrypoint.sh"), "sh", "-c", "echo $ORDER"]
        environment |= {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert order() == "conrft"
    assert order(FRANKA_WS=str(tmp_path / "franka_ws")) == "franka_ws conrft"


def test_nothing_runs_as_root_in_the_end() -> None:
    stages = re.split(r"^FROM .*$", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    for stage in stages:
        assert re.findall(r"^USER (\S+)", stage, re.MULTILINE)[-1] == "${UID}"


def test_what_is_copied_and_run_exists() -> None:
    for word, rest in instructions():
        sources = [w for w in rest.split()[:-1] if not w.startswith("--")] if word == "COPY" else []
        sources += re.findall(r"docker/\w+\.sh", rest.replace("/tmp/", "")) if word == "RUN" else []
        for source in sources:
            assert (ROOT / source).exists(), f"{word} {rest}"


def test_the_check_in_a_root_folder_takes_the_images_steps_in_their_order() -> None:
    commands = "|".join([*(script.name for script in SCRIPTS), "make setup"])
    base = (DOCKER / "Dockerfile").read_text().partition(" AS robot")[0]
    image = re.findall(commands, "\n".join(re.findall(r"^(?:RUN|ENTRYPOINT) .*$", base, re.MULTILINE)))
    check = (DOCKER / "check_in_root.sh").read_text().partition("# The Dockerfile's steps")[2]
    assert list(dict.fromkeys(re.findall(commands, check))) == image


@pytest.mark.skipif("CHECK_IN_ROOT" not in os.environ, reason="CHECK_IN_ROOT names no folder; root, and up to an hour")
def test_the_images_steps_work_in_a_bare_root_folder() -> None:
    subprocess.run([str(DOCKER / "check_in_root.sh"), *os.environ["CHECK_IN_ROOT"].split()], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_robots_launch_arguments_exist(services: dict[str, Any]) -> None:
    command = services["robot"]["command"]
    launch = (ROOT / "src/conrft_bringup/launch/robot.launch.yaml").read_text()
    for name in re.findall(r"(\w+):=", command):
        assert f"arg: {{name: {name}," in launch or f"name: {name}\n" in launch
