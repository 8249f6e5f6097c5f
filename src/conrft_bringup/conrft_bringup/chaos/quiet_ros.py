"""ROS for nodes that are disturbed on purpose: what they say about it is not printed."""

from __future__ import annotations

from collections.abc import Sequence

import rclpy
from rclpy.logging import LoggingSeverity, get_logger_level, set_logger_level


class QuietRos:
    """Starts ROS in this process; needs it to be down, and takes it down again in ``close``."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """``arguments``: of the nodes, as they follow ``--ros-args``."""
        self._level = LoggingSeverity(get_logger_level(""))
        rclpy.init(args=["--ros-args", "--log-level", "fatal", *arguments])

    def close(self) -> None:
        """Nodes that come later in this process are heard again: the level is the process's and outlives ROS."""
        rclpy.try_shutdown()
        set_logger_level("", self._level)
