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


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_robots_launch_arguments_exist(services: dict[str, Any]) -> None:
    command = services["robot"]["command"]
    launch = (ROOT / "src/conrft_bringup/launch/robot.launch.yaml").read_text()
    for name in re.findall(r"(\w+):=", command):
        assert f"arg: {{name: {name}," in launch or f"name: {name}\n" in launch
