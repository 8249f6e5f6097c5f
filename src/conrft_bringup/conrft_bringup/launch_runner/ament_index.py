"""Finds packages and their executables through AMENT_PREFIX_PATH (REP-122), without an installed ROS."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


class PackageNotFound(LookupError):
    """No prefix holds the package, or the package does not hold the executable."""


def package_prefix(package: str, environment: Mapping[str, str]) -> Path:
    """The prefix that ``package`` is installed in; the first of AMENT_PREFIX_PATH wins."""
    prefixes = [Path(entry) for entry in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if entry]
    for prefix in prefixes:
        if (prefix / "share/ament_index/resource_index/packages" / package).is_file():
            return prefix
    if not prefixes:
        raise PackageNotFound(f"package '{package}' not found: AMENT_PREFIX_PATH is empty (source install/setup.bash)")
    raise PackageNotFound(f"package '{package}' not found in {', '.join(map(str, prefixes))}")


def package_share(package: str, environment: Mapping[str, str]) -> Path:
    """The share directory of ``package``."""
    return package_prefix(package, environment) / "share" / package


def package_executable(package: str, executable: str, environment: Mapping[str, str]) -> Path:
    """``<prefix>/lib/<package>/<executable>``, which must be an executable file."""
    path = package_prefix(package, environment) / "lib" / package / executable
    if not path.is_file() or not os.access(path, os.X_OK):
        raise PackageNotFound(f"executable '{executable}' of package '{package}' not found at {path}")
    return path
