"""What the arm says of itself in FrankaRobotState: whether it follows its targets, and whether it took its settings."""

from __future__ import annotations

from typing import Any

from rclpy.serialization import deserialize_message

from conrft_control import franka_interfaces as franka
from conrft_control.franka_settings import FrankaSettings
from conrft_data.types import Phase

# The state may come a thousand times a second, and a core has better things to do than to read all of it.
_PERIOD_S = 0.05
# After a silence everybody else must have seen where the arm is: a controller leads it to the newest target at once.
_SETTLED_S = 1.0


class RobotStateWatch:
    """Reads the newest state now and then, and notices when none comes. All times are monotonic wall time."""

    def __init__(self, settings: FrankaSettings, kind: Any) -> None:
        """``kind``: franka_msgs/FrankaRobotState."""
        self._settings, self._kind = settings, kind
        self._raw: bytes | None = None
        self._state: Any = None
        self._unreadable = ""
        self._heard_wall_s = self._read_wall_s = float("-inf")
        self._well_since_wall_s: float | None = None

    @property
    def seen(self) -> bool:
        """Whether a state has ever come that could be read."""
        return self._state is not None

    @property
    def idle(self) -> bool:
        """Whether no controller commands the arm."""
        return self._state is not None and franka.is_idle(self._state)

    def hear(self, raw: bytes, wall_s: float) -> None:
        """A state came, serialized."""
        self._raw, self._heard_wall_s = raw, wall_s

    def read(self, wall_s: float) -> None:
        """Reads the newest state, if there is one that has not been read."""
        if self._raw is None or wall_s - self._read_wall_s < _PERIOD_S:
            return
        raw, self._raw, self._read_wall_s = self._raw, None, wall_s
        try:
            self._state, self._unreadable = deserialize_message(raw, self._kind), ""
        except RuntimeError as error:  # what the middleware raises at bytes that are no such message
            self._unreadable = f"{self._settings.robot_state}: cannot be read, another franka_msgs? ({error})"

    def problem(self, phase: Phase | None, wall_s: float) -> str:
        """Why the arm does not follow its targets; empty when it does, or need not in ``phase``."""
        if self._unreadable or self._state is None:
            return self._unreadable
        return self._silence(wall_s) or franka.robot_problem(self._state, phase)

    def has_stopped(self, phase: Phase | None, wall_s: float) -> bool:
        """Whether the arm will not follow before a person has acted, so that patience is of no use."""
        if self._unreadable or self._state is None:
            return False
        return bool(self._silence(wall_s)) or franka.has_stopped(self._state, phase)

    def hindrance(self, wall_s: float) -> str | None:
        """Why the arm's controllers must not be activated; empty: they may; None: nobody knows yet."""
        problem = self.problem(None, wall_s)
        if problem or self._state is None:
            self._well_since_wall_s = None
            return problem or None
        if self._well_since_wall_s is None:
            self._well_since_wall_s = wall_s
        return "" if wall_s - self._well_since_wall_s >= _SETTLED_S else None

    def unlike_settings(self) -> list[str]:
        """What the robot counts with otherwise than it was told, one sentence each."""
        return [] if self._state is None else franka.unlike_settings(self._state, self._settings)

    def _silence(self, wall_s: float) -> str:
        # franka_ros2 deactivates its broadcasters with the hardware: after a reflex there may be no word about it.
        silence = wall_s - self._heard_wall_s
        return f"{self._settings.robot_state}: silent" if silence > self._settings.state_timeout else ""
