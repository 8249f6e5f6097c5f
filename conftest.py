"""Keeps a test run's ROS graph apart from every other one: tests publish target poses, which no robot may see.

Also the fixtures that several packages' tests use.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from domain_coordinator import domain_id

_reserved = contextlib.ExitStack()


def _unlikely_domain() -> int:
    """Returns a domain that people seldom choose; 101 is the highest that is free of other ports everywhere."""
    return random.randint(60, 101)


def pytest_configure(config: pytest.Config) -> None:
    # Whatever the shell says: its domain may be the robot's. Each run reserves one that no other test run on this
    # machine holds, and nothing leaves this machine.
    os.environ["ROS_DOMAIN_ID"] = str(_reserved.enter_context(domain_id(_unlikely_domain)))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def pytest_unconfigure(config: pytest.Config) -> None:
    _reserved.close()


def pytest_report_header(config: pytest.Config) -> str:
    return f"ROS_DOMAIN_ID {os.environ['ROS_DOMAIN_ID']}, discovery {os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE']}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a small disk needs root: mount -t tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def fill_disk(small_disk: Path) -> Callable[..., None]:
    """Takes all of the small disk but so many bytes, by a file named filler."""

    def fill(leaving: int) -> None:
        filler = small_disk / "filler"
        filler.unlink(missing_ok=True)
        with filler.open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(small_disk).free - leaving)

    return fill
