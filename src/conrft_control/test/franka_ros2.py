"""A franka_ros2, ros2_control and gripper to test against: servers of the same names and types, and what they heard."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node
from rclpy.task import Future

WORKSPACE = Path(__file__).resolve().parents[3]


def provide_interfaces() -> None:
    """Makes what only a workstation has importable: the workstation's own, else what is in test/interfaces."""
    names = ("franka_msgs", "control_msgs", "controller_manager_msgs")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        subprocess.run([WORKSPACE / "tools/build_test_interfaces.sh"], check=True, capture_output=True, timeout=600)
    for name in missing:
        prefix = WORKSPACE / "build/test_interfaces/install" / name
        (site_packages,) = prefix.glob("lib/python3*/site-packages")
        sys.path.append(str(site_packages))
        os.environ["AMENT_PREFIX_PATH"] = f"{prefix}{os.pathsep}{os.environ['AMENT_PREFIX_PATH']}"
        os.environ["LD_LIBRARY_PATH"] = f"{prefix / 'lib'}{os.pathsep}{os.environ.get('LD_LIBRARY_PATH', '')}"
        # This process's loader does not look at LD_LIBRARY_PATH again; what is loaded already, it finds.
        for part in ("generator_c", "typesupport_fastrtps_cpp", "typesupport_fastrtps_c", "typesupport_introspection_c",
                     "typesupport_c", "generator_py"):  # fmt: skip
            ctypes.CDLL(str(prefix / f"lib/lib{name}__rosidl_{part}.so"), mode=ctypes.RTLD_GLOBAL)


class FakeAction:
    """An action server whose goals end when the test says so."""

    def __init__(self, node: Node, kind: Any, name: str) -> None:
        self.goals: list[Any] = []
        self.cancelled = 0
        self.rejects = False
        self._ends = list[Future]()
        self._kind = kind
        self._server = ActionServer(
            node, kind, name, self._execute, goal_callback=self._on_goal, cancel_callback=self._on_cancel
        )

    def end(self, *, well: bool = True, **result: Any) -> None:
        """The goal under way ends; ``result``: fields of the action's result."""
        self._ends[-1].set_result((well, result))

    def destroy(self) -> None:
        self._server.destroy()

    def _on_goal(self, goal: Any) -> GoalResponse:
        return GoalResponse.REJECT if self.rejects else GoalResponse.ACCEPT

    def _on_cancel(self, handle: Any) -> CancelResponse:
        self.cancelled += 1
        self._ends[-1].set_result((None, {}))
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> Any:
        end = Future()
        self._ends.append(end)
        self.goals.append(handle.request)
        well, result = await end
        if well is None:
            handle.canceled()
        elif well:
            handle.succeed()
        else:
            handle.abort()
        return self._kind.Result(**result)


class FakeService:
    """A service that writes down its requests and answers as the test says."""

    def __init__(self, node: Node, kind: Any, name: str) -> None:
        self.requests: list[Any] = []
        self.refusal = ""
        self._service = node.create_service(kind, name, self._on_request)

    def _on_request(self, request: Any, response: Any) -> Any:
        self.requests.append(request)
        response.success, response.error = not self.refusal, self.refusal
        return response
