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
        self.events: list[str] = []
        self._name = name.rpartition("/")[2]
        self._service = node.create_service(kind, name, self._on_request)

    def _on_request(self, request: Any, response: Any) -> Any:
        self.requests.append(request)
        self.events.append(self._name)
        response.success, response.error = not self.refusal, self.refusal
        return response


class FakeControllerManager:
    """ros2_control with one controller and one broadcaster, and a robot that takes settings only while it is idle."""

    def __init__(self, node: Node, srv: Any, settings: list[FakeService]) -> None:
        """``srv``: the module controller_manager_msgs.srv; ``settings``: services that an active controller refuses."""
        self.states = {"arm_controller": "inactive", "pose_broadcaster": "active"}
        self.events: list[str] = []
        self.activates = True
        self._settings = settings
        for kind, name, answer in (
            (srv.SwitchController, "switch_controller", self._on_switch),
            (srv.ListControllers, "list_controllers", self._on_list),
            (srv.SetHardwareComponentState, "set_hardware_component_state", self._on_hardware),
        ):
            node.create_service(kind, f"controller_manager/{name}", answer)
        for setting in settings:
            setting.events = self.events

    def go_off(self) -> None:
        """An error of the arm: franka_ros2 deactivates its hardware component and all controllers."""
        self.states = dict.fromkeys(self.states, "inactive")
        self._refuse_settings()

    def activate(self, name: str) -> None:
        self.states[name] = "active"
        self._refuse_settings()

    def _refuse_settings(self) -> None:
        moves = self.states.get("arm_controller") == "active"
        for setting in self._settings:
            setting.refusal = "command not possible in the current mode" if moves else ""

    def _on_switch(self, request: Any, response: Any) -> Any:
        response.ok = {*request.activate_controllers, *request.deactivate_controllers} <= set(self.states)
        if not response.ok:
            return response
        for names, state in ((request.activate_controllers, "active"), (request.deactivate_controllers, "inactive")):
            for name in names:
                self.events.append(f"{name} {state}")
                if self.activates or state == "inactive":
                    self.states[name] = state
        self._refuse_settings()
        return response

    def _on_list(self, request: Any, response: Any) -> Any:
        state = importlib.import_module("controller_manager_msgs.msg").ControllerState
        response.controller = [state(name=name, state=value) for name, value in self.states.items()]
        return response

    def _on_hardware(self, request: Any, response: Any) -> Any:
        self.events.append(f"{request.name} {request.target_state.label}")
        response.ok = True
        return response
