"""Keeps a test run's ROS graph apart from every other one: tests publish target poses, which no robot may see."""

from __future__ import annotations

import contextlib
import os
import random

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
