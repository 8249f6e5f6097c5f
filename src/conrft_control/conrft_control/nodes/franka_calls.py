"""Calls of franka_ros2's services and actions that never block: a timer looks after them, and time ends them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future

from conrft_control import franka_interfaces as franka
from conrft_control.franka_settings import FrankaSettings, GripperSettings
from conrft_control.gripper_goals import GripperGoals, Step

# A question whose answer is "not yet" is asked again after so long.
_AGAIN_S = 0.5

_STATUS_WORDS = {GoalStatus.STATUS_ABORTED: "aborted", GoalStatus.STATUS_CANCELED: "cancelled"}


class GripperActions:
    """Sends the goals that GripperGoals decides on."""

    def __init__(self, node: Node, settings: GripperSettings, max_width: float) -> None:
        """``max_width``: of the open gripper, m."""
        self._node, self._settings, self._max_width = node, settings, max_width
        self._goals = GripperGoals(settings.timeout, settings.patience)
        self._clients: dict[str, ActionClient] = {}
        self._handle: Any = None
        self._refusal = ""
        self._missing = "gripper: waits for its action servers"
        for opening in (0.0, 1.0):
            self._client(opening)  # discovery takes longer than a person wants to wait for the first grasp

    @property
    def problem(self) -> str:
        """Why the gripper is not where it should be; empty when all is well."""
        return self._refusal or self._goals.problem

    @property
    def awaited(self) -> str:
        """Which action server has not been there yet; empty once each was."""
        return self._missing

    def forget(self) -> None:
        """A person has looked after the gripper."""
        self._refusal = ""
        self._goals.forget()

    @property
    def doing(self) -> str:
        """For a person."""
        return "rests" if self._goals.goal is None else f"goes to {self._goals.goal:.2f}"

    def want(self, opening: Sequence[float]) -> None:
        """``opening``: one number, 0 closed .. 1 open; anything else is refused."""
        self._refusal = ""
        try:
            (value,) = opening
            self._goals.want(float(value), time.monotonic())
        except ValueError:
            self._refusal = f"gripper: a command is one opening in 0 .. 1, got {list(opening)}"
            return
        self.step(time.monotonic())

    def step(self, wall_s: float) -> None:
        """Sends or cancels what is due."""
        if self._missing:
            absent = [name for name, client in self._clients.items() if not client.server_is_ready()]
            self._missing = f"gripper: waits for the action server {absent[0]}" if absent else ""
        client = self._client(self._goals.wish if self._goals.wish is not None else 1.0)
        step, opening = self._goals.step(wall_s, server_is_there=client.server_is_ready())
        if step is Step.SEND:
            goal = franka.gripper_goal(self._settings, opening, self._max_width).goal
            self._handle = None
            sent = client.send_goal_async(goal)
            sent.add_done_callback(partial(self._on_answer, self._goals.number))
        elif step is Step.CANCEL and self._handle is not None:
            self._handle.cancel_goal_async()

    def destroy(self) -> None:
        """Ends the action clients, which the node does not know of."""
        for client in self._clients.values():
            client.destroy()

    def _client(self, opening: float) -> ActionClient:
        wanted = franka.gripper_goal(self._settings, opening, self._max_width)
        if wanted.action not in self._clients:
            self._clients[wanted.action] = ActionClient(self._node, wanted.kind, wanted.action)
        return self._clients[wanted.action]

    def _on_answer(self, number: int, answer: Future) -> None:
        handle = answer.result()
        if not handle.accepted:
            self._goals.ended(number, "the action server rejected the goal")
            return
        if number != self._goals.number or self._goals.cancelled:
            handle.cancel_goal_async()
        if number == self._goals.number:
            self._handle = handle
        handle.get_result_async().add_done_callback(partial(self._on_result, number))

    def _on_result(self, number: int, answer: Future) -> None:
        response = answer.result()
        error = franka.gripper_error(response.result)
        if response.status != GoalStatus.STATUS_SUCCEEDED:
            error = f"{_STATUS_WORDS.get(response.status, response.status)}: {error or 'no reason given'}"
        self._goals.ended(number, error)
        if number == self._goals.number:
            self._handle = None


class SetupSequence:
    """Calls services one after the other; a refusal stops it until a person starts it again."""

    def __init__(
        self, node: Node, calls: Sequence[franka.SetupCall], again: Sequence[franka.SetupCall], timeout_s: float
    ) -> None:
        """Begins with ``calls``.

        Args:
            node: that calls.
            calls: of the start. A service that is not there yet is waited for without end.
            again: those when a person starts it again.
            timeout_s: for one answer; when a person waits, for one call to get through.
        """
        self._calls, self._again, self._timeout_s = list(calls), list(again), timeout_s
        kinds = {call.service: call.kind for call in [*calls, *again]}
        self._clients: dict[str, Client] = {name: node.create_client(kind, name) for name, kind in kinds.items()}
        self._next, self._since_wall_s, self._asked_wall_s = 0, time.monotonic(), float("-inf")
        self._answer: Future | None = None
        self._waiting: list[Future] = []
        self._not_yet = ""
        self.problem = ""

    @property
    def done(self) -> bool:
        """Whether the robot has taken everything."""
        return self._next == len(self._calls) and not self.problem

    @property
    def word(self) -> str:
        """What has been done and what is waited for."""
        if self._next < len(self._calls):
            return f"waits for {self._calls[self._next].service}" + (f": {self._not_yet}" if self._not_yet else "")
        names = dict.fromkeys(call.service.rpartition("/")[2] for call in self._calls)
        return ", ".join(names) or "nothing to set"

    def start(self) -> Future:
        """Begins again from the first call; the future's result is the problem, empty when there was none."""
        self._calls, self._answer, self.problem = self._again, None, ""
        self._go_on(0)
        ended = Future()
        self._waiting.append(ended)
        return ended

    def step(self, wall_s: float, arm: str | None) -> None:
        """Sends the next request, or finds that an answer does not come.

        ``arm``: why its controllers must not be activated; empty: they may; None: nobody knows yet.
        """
        if self.done or self.problem:
            self._tell()
            return
        call = self._calls[self._next]
        if self._answer is None:
            self._ask(call, wall_s, arm)
        elif self._answer.done():
            answer, self._answer = self._answer.result(), None
            self._judge(call, call.judge(answer))
        elif wall_s - self._asked_wall_s > self._timeout_s:
            self._clients[call.service].remove_pending_request(self._answer)
            self._fail(call, f"no answer within {self._timeout_s:.1f} s")

    def _ask(self, call: franka.SetupCall, wall_s: float, arm: str | None) -> None:
        client, late = self._clients[call.service], wall_s - self._since_wall_s > self._timeout_s
        if call.activates and arm != "":
            # franka_ros2 ends a reflex by itself when a controller of torques is activated; here a person does.
            self._not_yet = arm or "nothing is known of the arm"
            if late and (arm or self._waiting):
                self._fail(call, f"not called: {self._not_yet}")
        elif not client.service_is_ready():
            if self._waiting and late:
                self._fail(call, "the service is not there")
        elif wall_s - self._asked_wall_s >= _AGAIN_S or not self._not_yet:
            self._asked_wall_s = wall_s
            self._answer = client.call_async(call.request)
        elif self._waiting and late:
            self._fail(call, self._not_yet)

    def _judge(self, call: franka.SetupCall, verdict: franka.Verdict) -> None:
        if not verdict.problem:
            self._go_on(self._next + 1)
        elif verdict.again:
            self._not_yet = verdict.problem
        else:
            self._fail(call, verdict.problem)

    def _go_on(self, number: int) -> None:
        self._next, self._since_wall_s, self._not_yet = number, time.monotonic(), ""

    def _fail(self, call: franka.SetupCall, reason: str) -> None:
        self._answer = None
        self.problem = f"{call.service}: {reason}"
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for ended in waiting:
            ended.set_result(self.problem)


class ErrorRecovery:
    """franka_ros2's error_recovery, when a person asks for it and never else."""

    def __init__(self, node: Node, settings: FrankaSettings) -> None:
        kind = franka.interfaces("franka_msgs", "action").ErrorRecovery
        self._name, self._timeout_s = f"{settings.action_server}/error_recovery", settings.service_timeout
        self._goal, self._client = kind.Goal(), ActionClient(node, kind, self._name)
        self._ended: Future | None = None
        self._sent, self._since_wall_s = False, 0.0
        self.word = ""

    def ready(self) -> bool:
        """Whether the action server is there."""
        return bool(self._client.server_is_ready())

    def destroy(self) -> None:
        """Ends the action client, which the node does not know of."""
        self._client.destroy()

    def start(self) -> Future:
        """Asks for recovery once; the future's result is why it failed, empty when it did not."""
        if self._ended is not None:
            return self._ended
        ended = Future()
        self._ended, self._sent, self._since_wall_s = ended, False, time.monotonic()
        self.step(self._since_wall_s)
        return ended

    def step(self, wall_s: float) -> None:
        """Sends the goal when the server is there, and gives up when no answer comes."""
        if self._ended is None:
            return
        if not self._sent and self.ready():
            self._sent = True
            self._client.send_goal_async(self._goal).add_done_callback(partial(self._on_answer, self._ended))
        if wall_s - self._since_wall_s > self._timeout_s:
            reason = f"no answer within {self._timeout_s:.1f} s" if self._sent else "the action server is not there"
            self._end(self._ended, reason)

    def _on_answer(self, ended: Future, answer: Future) -> None:
        handle = answer.result()
        if handle.accepted:
            handle.get_result_async().add_done_callback(partial(self._on_result, ended))
        else:
            self._end(ended, "rejected")

    def _on_result(self, ended: Future, answer: Future) -> None:
        status = answer.result().status
        well = status == GoalStatus.STATUS_SUCCEEDED
        self._end(ended, "" if well else f"{_STATUS_WORDS.get(status, status)}; see the log of franka_ros2")

    def _end(self, ended: Future, error: str) -> None:
        if self._ended is None or self._ended is not ended:
            return  # an answer that was given up
        self._ended = None
        self.word = f"{self._name}: {error}" if error else "recovered by the operator"
        ended.set_result(self.word if error else "")
