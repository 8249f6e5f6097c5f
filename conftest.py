"""Keeps a test run's ROS graph apart from every other on this machine and network."""

from __future__ import annotations

import contextlib
import os

import pytest
from domain_coordinator import domain_id

_reserved = contextlib.ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    # A domain that no other test run holds, unless the caller chose one; and nothing leaves this machine.
    if "ROS_DOMAIN_ID" not in os.environ:
        os.environ["ROS_DOMAIN_ID"] = str(_reserved.enter_context(domain_id()))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def pytest_unconfigure(config: pytest.Config) -> None:
    _reserved.close()


def pytest_report_header(config: pytest.Config) -> str:
    return f"ROS_DOMAIN_ID {os.environ['ROS_DOMAIN_ID']}, discovery {os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE']}"
