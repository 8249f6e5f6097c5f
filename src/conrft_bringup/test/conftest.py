"""Lets the test files share ``launch_files``: pytest's importlib mode leaves the test folder off the path."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))


@pytest.fixture(scope="session")
def workstation_interfaces() -> None:
    """franka_msgs and the like: the workstation's own, else those that the tests of the Franka adapter use."""
    runpy.run_path(str(TESTS.parents[1] / "conrft_control/test/franka_ros2.py"))["provide_interfaces"]()
