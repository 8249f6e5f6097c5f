"""The recorder: every episode becomes one rosbag2 recording that appears whole or not at all."""

from __future__ import annotations

import importlib
import shutil
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message

from conrft_control.episode_sorting import EpisodeSorter
from conrft_control.health_board import Level
from conrft_control.nodes import quality_of_service as qos
from conrft_control.nodes.node_health import NodeHealth
from conrft_control.nodes.parameters import declare
from conrft_control.recording_thread import RecordingThread
from conrft_control.recording_watch import RecorderReport
from conrft_data import topics
from conrft_data.bags.definitions import RecordedTopic
from conrft_data.bags.errors import BagError
from conrft_data.bags.label import read_label, relabel
from conrft_data.bags.listing import read_info
from conrft_data.bags.salvage import salvage_all
from conrft_data.bags.writer import EpisodeWriter
from conrft_data.conversion import MessageError, episode_status_from_msg, episode_status_to_msg, tick_from_cdr
from conrft_data.node_process import run
from conrft_data.ticks import EpisodeStatus
from conrft_data.types import Outcome, Phase
from conrft_msgs.msg import Action, EpisodeState, Observation, PolicyOutput, Reward
from conrft_msgs.srv import RelabelEpisode

_STEP_S = 0.05
_TICK_TYPES = {
    topics.OBSERVATION: Observation,
    topics.POLICY_OUTPUT: PolicyOutput,
    topics.ACTION: Action,
    topics.REWARD: Reward,
}


class RecorderNode(Node):
    """Subscribes raw, sorts by the tick's key, and hands everything to the writer's thread."""

    def __init__(self, **options: Any) -> None:
        """``options`` go to rclpy's Node."""
        super().__init__("recorder", **options)
        self._folder = Path(self._declare_folder())
        about = "messages that may wait for the disk, MiB"
        capacity_mib = declare(self, "capacity", 512, about, low=8, high=65536)
        about = "free space under which no episode may begin, MiB"
        self._min_free = declare(self, "min_free", 1024, about, low=1, high=10_000_000) * 2**20
        about = "an ended episode waits so long for the messages of its final step, s of wall time"
        late_s = declare(self, "late", 1.0, about, low=0.0, high=30.0)
        about = "recorded besides those of the tick, each 'NAME PACKAGE/msg/TYPE'"
        self._extra = [self._extra_topic(text) for text in declare(self, "extra_topics", [""], about) if text]
        self._episode_id = ""
        self._sorter = EpisodeSorter(late_s, lambda status: bytes(serialize_message(episode_status_to_msg(status))))
        self._health = NodeHealth(self, self._report, inputs=self._declare_inputs())
        self._since = str(time.time_ns())
        self._heard: set[str] = set()
        self._judged = RecorderReport(since=self._since)
        self._cut_off = self._salvage()
        self._thread = RecordingThread(self._folder, self._open_writer, capacity_mib * 2**20, self.get_logger().error)
        self._connect()

    def _declare_folder(self) -> str:
        folder = str(declare(self, "episodes_dir", "", "folder of all episode bags"))
        if not folder:
            raise ValueError("parameter episodes_dir is empty: name the folder of the episode bags")
        return folder

    def _declare_inputs(self) -> list[str]:
        """Topics that must be there before an episode begins, so that its first message is not lost."""
        inputs = [topics.EPISODE_STATE, topics.OBSERVATION, topics.ACTION]
        if declare(self, "policy_expected", False, "a policy proposes actions"):
            inputs.append(topics.POLICY_OUTPUT)
        if declare(self, "reward_expected", False, "a reward node judges every tick"):
            inputs.append(topics.REWARD)
        return inputs

    def _extra_topic(self, text: str) -> tuple[RecordedTopic, type]:
        try:
            name, type_name = text.split()
            package, _, kind = type_name.split("/")
            message_type = getattr(importlib.import_module(f"{package}.msg"), kind)
        except (ValueError, ImportError, AttributeError) as error:
            raise ValueError(
                f"extra_topics: {text!r} is not 'NAME PACKAGE/msg/TYPE' of an installed message: {error}"
            ) from error
        return RecordedTopic(self.resolve_topic_name(name), type_name, topics.SENSOR), message_type

    def _connect(self) -> None:
        # Raw: nothing is unpacked that only goes to the disk.
        for name, kind in _TICK_TYPES.items():
            self.create_subscription(kind, name, partial(self._on_tick, name), qos.RECORD, raw=True)
        self.create_subscription(EpisodeState, topics.EPISODE_STATE, self._on_state, topics.EVERY_STATE, raw=True)
        for topic, kind in self._extra:
            self.create_subscription(kind, topic.name, partial(self._on_extra, topic.name), qos.EXTRA, raw=True)
        self.create_service(RelabelEpisode, topics.RELABEL_EPISODE, self._on_relabel)
        self.create_timer(_STEP_S, self._on_time, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _salvage(self) -> dict[str, int]:
        """Makes episodes of what an earlier recorder left behind; returns their final steps by name."""
        recovered, problems = salvage_all(self._folder)
        for bag in recovered:
            self.get_logger().warning(f"salvaged {bag.path.name}: {bag.outcome.name} at step {bag.final_step}")
        for problem in problems:
            self.get_logger().error(str(problem))
        return {bag.path.name: bag.final_step for bag in recovered}

    def _open_writer(self, status: EpisodeStatus) -> EpisodeWriter:
        if status.episode_id in self._cut_off:
            kept = f"what came before is kept up to step {self._cut_off[status.episode_id]}"
            raise BagError(f"the recorder was started again in the middle of it, {kept}")
        extra = [topic for topic, _ in self._extra]
        return EpisodeWriter(self._folder, status.episode_id, task=status.task, mode=status.mode, extra_topics=extra)

    def _on_tick(self, topic: str, raw: bytes) -> None:
        try:
            tick = tick_from_cdr(raw)
        except MessageError as error:
            self.get_logger().error(f"{topic}: passed over: {error}", throttle_duration_sec=1.0)
            return
        self._thread.add(self._sorter.on_tick(topic, tick, raw, time.monotonic()))

    def _on_state(self, raw: bytes) -> None:
        try:
            status = episode_status_from_msg(deserialize_message(raw, EpisodeState))
        except (MessageError, RuntimeError) as error:  # the latter is what the middleware raises at bytes that are none
            self.get_logger().error(f"{topics.EPISODE_STATE}: passed over: {error}", throttle_duration_sec=1.0)
            return
        self._episode_id = status.episode_id if status.phase is Phase.RUNNING else ""
        if status.phase is Phase.RUNNING:
            self._heard.add(status.episode_id)
        elif status.phase is Phase.ENDED and status.outcome is not Outcome.FAULT:
            self._judge_earlier(status)
        self._thread.add(self._sorter.on_status(status, raw, time.monotonic()))
        if status.phase is Phase.ENDED:
            self._report()

    def _on_extra(self, topic: str, raw: bytes) -> None:
        self._thread.add(self._sorter.on_extra(topic, raw, int(self.get_clock().now().nanoseconds)))

    def _on_time(self) -> None:
        self._thread.add(self._sorter.on_time(time.monotonic()))
        finished, problems = self._thread.finished[-1:], list(self._thread.problems.items())[-1:]
        report = self._judged
        if finished:
            report = replace(report, finished=finished[0].name)
        if problems:
            report = replace(report, failed=problems[0][0], reason=problems[0][1])
        self._judge(report)

    def _judge(self, report: RecorderReport) -> None:
        """Tells the supervisor, which waits for it, what has become of an episode."""
        if report != self._judged:
            self._judged = report
            self._report()
            self._health.publish()

    def _judge_earlier(self, status: EpisodeStatus) -> None:
        """An episode ended of which this process has not heard before: another recorder was killed during it."""
        name, bag = status.episode_id, self._folder / status.episode_id
        if name in self._heard:
            return
        step = self._cut_off.get(name)
        try:
            told = read_label(bag) is not None  # a person's word, which goes before
            if not told and read_info(bag).outcome is not status.outcome and step == status.final_step:
                relabel(bag, status.outcome, "how it ended was told after the recorder had been killed")
            whole = step in (None, status.final_step)
        except BagError:
            whole = False
        if whole:
            self._judge(replace(self._judged, finished=name))
        else:
            kept = "nothing of it is kept" if step is None else f"it is kept up to step {step}"
            self._judge(replace(self._judged, failed=name, reason=f"the recorder was killed during it, {kept}"))

    def _on_relabel(
        self, request: RelabelEpisode.Request, response: RelabelEpisode.Response
    ) -> RelabelEpisode.Response:
        try:
            response.message = self._thread.relabel(request.episode_id, Outcome(request.outcome), request.reason)
            response.success = True
        except (BagError, ValueError) as error:
            response.message = str(error)
        return response

    def _report(self) -> None:
        problems, free = self._thread.problems, self._free_bytes()
        values: dict[str, Any] = {
            "finished": len(self._thread.finished),
            "failed": len(problems),
            "queued_mib": f"{self._thread.queued_bytes / 2**20:.1f}",
            "free_mib": free // 2**20,
            "strays": self._sorter.strays,
            **self._judged.values(),
        }
        if problem := problems.get(self._episode_id):
            self._health.say(Level.ERROR, f"{self._episode_id} is not recorded whole: {problem}", values)
        elif free < self._min_free:
            self._health.say(Level.ERROR, f"the disk is full: {free // 2**20} MiB are left in {self._folder}", values)
        elif problems:
            episode_id, problem = list(problems.items())[-1]
            self._health.say(Level.WARN, f"{episode_id} was not recorded whole: {problem}", values)
        else:
            self._health.say(
                Level.OK, f"records {self._episode_id}" if self._episode_id else "waits for an episode", values
            )

    def _free_bytes(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._folder).free

    def stop(self) -> None:
        """Finishes what is being recorded."""
        self._thread.add(self._sorter.stop(int(self.get_clock().now().nanoseconds)))
        if not self._thread.close():
            self.get_logger().error("the disk is too slow: the last episode stays for salvage")


def main() -> None:
    """Runs the recorder."""
    sys.exit(run(RecorderNode, "recorder"))


if __name__ == "__main__":
    main()
