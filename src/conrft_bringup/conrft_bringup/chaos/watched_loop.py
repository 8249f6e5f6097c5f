"""The nodes of the loop in one process around a played world, and ROS time that waits until all have answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from conrft_bringup.chaos.played_world import DEADMAN_BUTTON, PlayedWorld
from conrft_bringup.chaos.quiet_ros import QuietRos
from conrft_bringup.chaos.valid_messages import ValidMessages
from conrft_control.nodes.commander_node import CommanderNode
from conrft_control.nodes.intervention_mux_node import InterventionMuxNode
from conrft_control.nodes.observer_node import ObserverNode
from conrft_control.nodes.supervisor_node import SupervisorNode
from conrft_data import topics
from conrft_data.config import RobotConfig, TaskConfig, load_config
from conrft_data.types import Phase

_IDLE_S = 0.004  # nothing came for so long: everybody has answered
_PATIENCE_S = 1.0  # of wall time, for an Action that must come
LONGEST_NS = 60_000_000_000


class WatchedLoop:
    """Observer, intervention mux, commander and supervisor; needs ROS to be down, and takes it down in ``close``.

    Attributes:
        world: everybody else.
        nodes: those under test, by class name.
    """

    def __init__(
        self,
        task_file: Path,
        robot_file: Path,
        parameters: Mapping[str, object] | None = None,
        more_nodes: tuple[Callable[[], Node], ...] = (),
    ) -> None:
        """``parameters``: beside the usual ones; ``more_nodes``: take part; one of them is the policy."""
        self.task, self.robot = load_config(TaskConfig, task_file), load_config(RobotConfig, robot_file)
        self._ros = QuietRos(_arguments({"task_file": task_file, "robot_file": robot_file, **(parameters or {})}))
        self.world = PlayedWorld(ValidMessages(self.task, self.robot, 0), plays_policy=not more_nodes)
        kinds = (ObserverNode, InterventionMuxNode, CommanderNode, SupervisorNode, *more_nodes)
        self.nodes: dict[str, Node] = {}
        for kind in kinds:
            node = kind()
            self.nodes[type(node).__name__] = node
        self._clients: dict[str, Any] = {}
        self._observer: Any = self.nodes[ObserverNode.__name__]
        self._executor = SingleThreadedExecutor()
        for node in [self.world, *self.nodes.values()]:
            self._executor.add_node(node)

    def freeze(self, name: str) -> None:
        """The node does nothing any more."""
        self.world.mux_frozen = name == InterventionMuxNode.__name__
        self._executor.remove_node(self.nodes[name])

    def thaw(self, name: str) -> None:
        """The node goes on."""
        self.world.mux_frozen = False
        self._executor.add_node(self.nodes[name])

    def close(self) -> None:
        """Ends all nodes."""
        self._executor.shutdown(timeout_sec=0)
        for node in [self.world, *self.nodes.values()]:
            node.destroy_node()
        self._ros.close()

    def until(self, condition: Callable[[], bool], problem: str, longest_ns: int = LONGEST_NS) -> None:
        """Lets time go on; raises TimeoutError with ``problem`` when the condition never holds. Empty: returns."""
        end_ns = self.world.now_ns + longest_ns
        while not condition():
            if self.world.now_ns > end_ns:
                if problem:
                    raise TimeoutError(f"{problem}: {[word for _, word in self.world.words[-3:]]}")
                return
            self.world.advance()
            self._drain()

    def go_on(self, seconds: float) -> None:
        """Lets so much ROS time pass."""
        self.until(lambda: False, "", round(seconds * 1e9))

    def until_driven(self, ticks: int) -> None:
        """Until the policy has driven so many ticks more."""
        self.world.followed = 0
        self.until(lambda: self.world.followed >= ticks, "the policy does not drive")

    def abort_episode(self) -> None:
        """The operator ends the episode: the arm goes home."""
        world = self.world
        self.until(lambda: world.phase is Phase.RUNNING, "no episode runs")
        world.abort = True
        self.until(lambda: world.phase is not Phase.RUNNING, "the episode is not aborted")
        world.abort = False

    def new_episode(self) -> None:
        """An episode begins, at home."""
        self.abort_episode()
        self.until(lambda: self.world.phase is Phase.RUNNING, "no episode begins")
        self.world.forget()

    def press_stop(self, pressed: bool) -> None:
        """The emergency stop is pressed, or let go."""
        self.world.emergency.publish(Bool(data=pressed))

    def reset_stop(self) -> str:
        """The operator's leave to go on, where there was a stop."""
        return self.ask(topics.RESET_STOP)

    def ask(self, service: str) -> str:
        """The operator calls a service without arguments; what it answers."""
        client = self._clients.setdefault(service, self.world.create_client(Trigger, service))
        self.until(client.service_is_ready, f"nobody offers {service}")
        done = client.call_async(Trigger.Request())
        self.until(done.done, f"{service} is not answered")
        return str(done.result().message)

    def _drain(self) -> None:
        patience = time.monotonic() + _PATIENCE_S
        while True:
            began = time.monotonic()
            self._executor.spin_once(timeout_sec=_IDLE_S)
            answered = not self.world.waits and self.world.observed >= self._observer._published
            if time.monotonic() - began >= _IDLE_S and (answered or began > patience):
                return


def _arguments(more: Mapping[str, object]) -> list[str]:
    parameters: dict[str, object] = {
        "use_sim_time": "true",
        "policy_expected": "true",
        "reward_expected": "true",
        "deadman_button": DEADMAN_BUTTON,
        "supervisor:mode": "training",
        "supervisor:session": "safety",
        "supervisor:after_fault": "continue",
        "supervisor:wait_for_learner": "false",
        "supervisor:required_nodes": "[observer, intervention_mux, commander]",
        # Wall time means nothing here.
        "supervisor:node_timeout": 120.0,
        "supervisor:action_timeout": 600.0,
        "supervisor:error_patience": 600.0,
        "supervisor:reset_timeout": 600.0,
        "intervention_mux:guard": 600.0,
        **more,
    }
    return [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
