"""Connects a person at the keyboard with the running graph."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from conrft_bringup.evaluation.person_judge import Ask, End, Label, PersonJudge, Request, Say, Start
from conrft_data import topics
from conrft_data.bags import relabel
from conrft_data.bags.listing import METADATA_FILE
from conrft_data.conversion import episode_status_from_msg
from conrft_data.types import Outcome

_ANSWER_S = 10.0  # in which a service answers
_TRY_AGAIN_S = 0.2
_RECORDING_S = 30.0  # in which a finished episode is on the disk


class PersonJudgeLink:
    """Runs in a thread of its own beside the launch, because waiting for a person must not keep it from watching."""

    def __init__(self, judge: PersonJudge, episodes: Path, environment: Mapping[str, str], answers: TextIO) -> None:
        """Makes the link; ``start`` begins to listen.

        Args:
            judge: what to say, and what an answer means.
            episodes: folder of the recorded trials.
            environment: of the graph; its domain is joined.
            answers: lines of the person.
        """
        self.problem = ""
        self._judge, self._episodes, self._answers = judge, episodes, answers
        self._domain = int(environment.get("ROS_DOMAIN_ID", "0"))
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._statuses: queue.Queue[Any] = queue.Queue()
        self._ending: tuple[End, float] | None = None
        self._closed, self._left = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._work, self._read)]

    @property
    def over(self) -> bool:
        """Whether the graph may end: every trial is judged, or there is nobody to judge the next.

        The link has left the graph by then. Its node does not see the others go, see ``ends_within``.
        """
        return self._left.is_set()

    def start(self) -> None:
        """Begins to listen."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Leaves the graph."""
        self._closed.set()
        self._threads[0].join(_ANSWER_S)

    def _read(self) -> None:
        for line in self._answers:
            self._lines.put(line)
        self._lines.put(None)

    def _work(self) -> None:
        try:
            self._serve()
        except Exception as error:  # whatever it is, the launch must not wait for answers that nobody takes
            self.problem = f"{type(error).__name__}: {error}"
        finally:
            self._left.set()

    def _serve(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
        from std_srvs.srv import Trigger

        from conrft_data.node_process import END_TIMEOUT_S, ends_within
        from conrft_msgs.msg import EpisodeState
        from conrft_msgs.srv import EndEpisode

        context = rclpy.Context()
        # Ctrl-C belongs to the launch.
        rclpy.init(context=context, domain_id=self._domain, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("person_judge", context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        self._end_client = node.create_client(EndEpisode, topics.END_EPISODE)
        self._start_client = node.create_client(Trigger, topics.START_EPISODE)
        node.create_subscription(EpisodeState, topics.EPISODE_STATE, self._statuses.put, topics.EVERY_STATE)
        try:
            while not (self._closed.is_set() or self._has_nothing_to_do):
                executor.spin_once(timeout_sec=0.05)
                self._step(executor)
        finally:
            with ends_within(END_TIMEOUT_S):
                node.destroy_node()
                rclpy.try_shutdown(context=context)

    @property
    def _has_nothing_to_do(self) -> bool:
        return bool(self.problem) or (self._judge.done and self._ending is None)

    def _step(self, executor: Any) -> None:
        while not self._statuses.empty():
            self._carry_out(self._judge.status(episode_status_from_msg(self._statuses.get())), executor)
        if self._ending is not None:
            self._try_to_end(executor)
        elif self._judge.wants_line and not self._lines.empty() and not self.problem:
            line = self._lines.get()
            if line is None:
                self.problem = f"the answers ended after {self._judge.judged} trials"
            else:
                self._carry_out(self._judge.line(line), executor)

    def _carry_out(self, requests: list[Request], executor: Any) -> None:
        for request in requests:
            if isinstance(request, Say):
                if isinstance(request, Ask):
                    self._forget_lines()
                print(request.text, file=sys.stderr, flush=True)
            elif isinstance(request, Start):
                if problem := self._ask(self._start_client, executor):
                    self._carry_out(self._judge.not_started(problem), executor)
            elif isinstance(request, End):
                self._ending = (request, time.monotonic())
            else:
                self._label(request)

    def _forget_lines(self) -> None:
        """What was typed before a question is no answer to it; that the answers have ended stays known."""
        while not self._lines.empty():
            if self._lines.get() is None:
                self._lines.put(None)
                return

    def _try_to_end(self, executor: Any) -> None:
        """An episode that has only just begun refuses to end: it is asked again."""
        assert self._ending is not None
        request, since = self._ending
        problem = self._ask(self._end_client, executor, outcome=int(request.outcome), reason=request.reason)
        if not problem:
            self._ending = None
        elif time.monotonic() - since > _ANSWER_S:
            self._ending = None
            self._carry_out(self._judge.not_ended(problem), executor)
        else:
            time.sleep(_TRY_AGAIN_S)

    def _ask(self, client: Any, executor: Any, **fields: Any) -> str:
        """Calls a service of the supervisor; why it was refused, empty: it was not."""
        if not client.wait_for_service(_ANSWER_S):
            return f"nobody offers {client.srv_name}"
        future = client.call_async(client.srv_type.Request(**fields))
        executor.spin_until_future_complete(future, timeout_sec=_ANSWER_S)
        if not future.done():
            return f"{client.srv_name} does not answer"
        answer = future.result()
        return "" if answer.success else str(answer.message)

    def _label(self, request: Label) -> None:
        bag = self._episodes / request.episode_id
        deadline = time.monotonic() + _RECORDING_S
        while not (bag / METADATA_FILE).is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        relabel(bag, Outcome(request.outcome), request.reason)
