"""The recorder: an episode becomes a bag that appears whole, whatever happens."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.serialization import serialize_message

from conrft_control.nodes.recorder_node import RecorderNode
from conrft_data import topics
from conrft_data.bags import BagError, EpisodeWriter, list_episodes, read_episode, salvage
from conrft_data.conversion import command_to_msg, episode_status_to_msg, observation_to_msg, verdict_to_msg
from conrft_data.ticks import Tick
from conrft_data.types import ActionSource, Command, Mode, Observation, Outcome, Phase, Verdict
from conrft_msgs.msg import SceneState
from conrft_msgs.srv import RelabelEpisode

TICK_NS = 100_000_000
NAME = "s-training-000001"
HOLD = Command(action=np.zeros(7, np.float32), source=ActionSource.HOLD, reason="rests")


class Speaker:
    """Says what observer, mux, reward node and supervisor say."""

    def __init__(self, graph: Any, make_status: Any) -> None:
        self.graph, self.make_status = graph, make_status

    def connect(self) -> None:
        """Finds the recorder, with messages that belong to no episode that will run."""
        self.state(Phase.RESETTING, episode=9)
        self.tick(0, episode=9)

    def state(self, phase: Phase, episode: int = 1, **fields: Any) -> None:
        self.graph.say(
            topics.EPISODE_STATE, episode_status_to_msg(self.make_status(phase, episode, **fields)), topics.LATCHED
        )

    def observation(self, step: int, episode: int = 1, size: int = 32) -> tuple[Tick, Observation]:
        tick = Tick((10 * episode + step) * TICK_NS, episode, step)
        pose = np.array([0.5, 0, 0.3, 1, 0, 0, 0])
        return tick, Observation(
            stamp_ns=tick.stamp_ns,
            episode=episode,
            step=step,
            images={"side": np.full((size, size, 3), step, np.uint8)},
            tcp_pose=pose,
            reset_pose=pose,
            tcp_twist=np.zeros(6),
            tcp_wrench=np.zeros(6),
            gripper_opening=1.0,
        )

    def tick(self, step: int, episode: int = 1, size: int = 32, *, action: bool = True) -> None:
        tick, observation = self.observation(step, episode, size)
        self.graph.say(topics.OBSERVATION, observation_to_msg(observation), topics.TICK)
        if action:
            self.graph.say(topics.ACTION, command_to_msg(HOLD, tick), topics.TICK)
            verdict = Verdict(probability=0.1, gates_passed=True, success=False)
            self.graph.say(topics.REWARD, verdict_to_msg(verdict, tick), topics.TICK)

    def episode(self, steps: int, outcome: Outcome = Outcome.SUCCESS) -> None:
        self.state(Phase.RUNNING, stamp_ns=10 * TICK_NS)
        for step in range(steps + 1):
            self.tick(step)
        self.state(Phase.ENDED, outcome=outcome, final_step=steps, stamp_ns=(10 + steps) * TICK_NS)


@pytest.fixture
def speaker(graph: Any, status: Any) -> Speaker:
    return Speaker(graph, status)


def salvageable_observations(folder: Path, scratch: Path) -> int:
    """How many observations the recording under way would give, were its recorder killed now."""
    copy = scratch / f".tmp-{NAME}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        shutil.copytree(folder / copy.name, copy)
        salvage(copy)
    except (OSError, BagError):
        return 0
    return list_episodes(scratch)[0].observations


def finished(graph: Any, folder: Path, count: int = 1) -> None:
    graph.until(lambda: len(list_episodes(folder)) == count)


def test_an_episode_becomes_a_bag_that_reads_back_step_by_step(graph: Any, speaker: Speaker, tmp_path: Path) -> None:
    graph.start(RecorderNode, episodes_dir=str(tmp_path))
    speaker.connect()
    speaker.episode(3)
    finished(graph, tmp_path)
    episode = read_episode(tmp_path / NAME)
    assert (episode.outcome, episode.final_step, len(episode.observations)) == (Outcome.SUCCESS, 3, 4)
    assert [o.images["side"][0, 0, 0] for o in episode.observations] == [0, 1, 2, 3]
    assert sorted(episode.verdicts) == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_an_extra_topic_is_recorded_beside(graph: Any, speaker: Speaker, tmp_path: Path) -> None:
    graph.start(RecorderNode, episodes_dir=str(tmp_path), extra_topics=["scene_state conrft_msgs/msg/SceneState"])
    speaker.connect()
    speaker.state(Phase.RUNNING)
    graph.spin(0.1)
    graph.say(topics.SCENE_STATE, SceneState(success=True))
    graph.spin(0.1)
    speaker.episode(1)
    finished(graph, tmp_path)
    from rosbags.rosbag2 import Reader

    with Reader(tmp_path / NAME) as reader:
        assert reader.topics["/scene_state"].msgcount == 1


def test_a_leftover_of_a_killed_recorder_is_salvaged_at_the_next_start(
    graph: Any, speaker: Speaker, tmp_path: Path
) -> None:
    with Recorder(graph, tmp_path / "bags") as recorder:
        speaker.connect()
        speaker.state(Phase.RUNNING, stamp_ns=10 * TICK_NS)
        for step in range(3):
            speaker.tick(step)
        graph.until(lambda: salvageable_observations(tmp_path / "bags", tmp_path / "copy") == 3, timeout_s=120)
        recorder.process.kill()
        recorder.process.wait()
    assert list_episodes(tmp_path / "bags") == []
    graph.start(RecorderNode, episodes_dir=str(tmp_path / "bags"))
    (info,) = list_episodes(tmp_path / "bags")
    assert info.observations == 3
    assert info.outcome in (Outcome.ABORTED, Outcome.FAULT)


def leave_unfinished(speaker: Speaker, folder: Path) -> None:
    """What a recorder leaves that is killed in mid-episode, after step 2."""
    with EpisodeWriter(folder, NAME, task="pick_banana", mode=Mode.TRAINING) as killed:
        running = episode_status_to_msg(speaker.make_status(Phase.RUNNING, stamp_ns=10 * TICK_NS))
        killed.write(topics.EPISODE_STATE, serialize_message(running), 10 * TICK_NS)
        for step in range(3):
            tick, observation = speaker.observation(step)
            killed.write(topics.OBSERVATION, serialize_message(observation_to_msg(observation)), tick.stamp_ns)
            killed.write(topics.ACTION, serialize_message(command_to_msg(HOLD, tick)), tick.stamp_ns)


@pytest.mark.parametrize("vetoed", [False, True])
def test_how_an_episode_ended_is_told_after_a_kill_but_a_veto_goes_before_it(
    graph: Any, speaker: Speaker, tmp_path: Path, vetoed: bool
) -> None:
    leave_unfinished(speaker, tmp_path)
    diagnostics = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
    graph.start(RecorderNode, episodes_dir=str(tmp_path))
    speaker.connect()
    if vetoed:
        client = graph.node.create_client(RelabelEpisode, topics.RELABEL_EPISODE)
        graph.until(client.service_is_ready)
        future = client.call_async(RelabelEpisode.Request(episode_id=NAME, outcome=int(Outcome.TIMEOUT)))
        graph.until(future.done)
        assert future.result().success
    speaker.state(Phase.ENDED, outcome=Outcome.SUCCESS, final_step=2)
    graph.until(lambda: diagnostics and NAME in [each.value for each in diagnostics[-1].status[0].values])
    (info,) = list_episodes(tmp_path)
    assert info.outcome is (Outcome.TIMEOUT if vetoed else Outcome.SUCCESS)


def test_a_recorder_that_is_started_again_in_mid_episode_keeps_what_came_before_and_says_so(
    graph: Any, speaker: Speaker, tmp_path: Path
) -> None:
    leave_unfinished(speaker, tmp_path)
    diagnostics = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
    graph.start(RecorderNode, episodes_dir=str(tmp_path))
    (info,) = list_episodes(tmp_path)
    assert (info.outcome, info.observations) == (Outcome.ABORTED, 3)
    speaker.connect()
    speaker.state(Phase.RUNNING, stamp_ns=10 * TICK_NS)
    graph.until(lambda: diagnostics and diagnostics[-1].status[0].level == b"\x02")
    assert (
        "started again in the middle of it, what came before is kept up to step 2" in diagnostics[-1].status[0].message
    )
    speaker.state(Phase.ENDED, outcome=Outcome.FAULT, final_step=5)
    assert read_episode(tmp_path / NAME).final_step == 2


def test_a_veto_while_the_episode_is_recorded_outlives_a_kill(graph: Any, speaker: Speaker, tmp_path: Path) -> None:
    with Recorder(graph, tmp_path / "bags") as recorder:
        speaker.connect()
        speaker.state(Phase.RUNNING, stamp_ns=10 * TICK_NS)
        for step in range(3):
            speaker.tick(step)
        graph.until(lambda: salvageable_observations(tmp_path / "bags", tmp_path / "copy") == 3, timeout_s=120)
        client = graph.node.create_client(RelabelEpisode, topics.RELABEL_EPISODE)
        graph.until(client.service_is_ready)
        future = client.call_async(RelabelEpisode.Request(episode_id=NAME, outcome=int(Outcome.ABORTED), reason="no"))
        graph.until(future.done)
        assert "will be relabelled" in future.result().message
        graph.until((tmp_path / "bags" / f".tmp-{NAME}" / NAME / "label.json").exists)
        recorder.process.kill()
        recorder.process.wait()
    salvage(tmp_path / "bags" / f".tmp-{NAME}")
    assert json.loads((tmp_path / "bags" / NAME / "label.json").read_text())["reason"] == "no"


def test_a_veto_reaches_an_episode_whose_recorder_was_killed_meanwhile(
    graph: Any, speaker: Speaker, tmp_path: Path
) -> None:
    with Recorder(graph, tmp_path) as recorder:
        speaker.connect()
        speaker.episode(2)
        finished(graph, tmp_path)
        recorder.process.kill()
        recorder.process.wait()
    client = graph.node.create_client(RelabelEpisode, topics.RELABEL_EPISODE)
    request = RelabelEpisode.Request(episode_id=NAME, outcome=int(Outcome.TIMEOUT), reason="it had slipped")

    def relabelled() -> bool:  # for a while the killed recorder is found in the graph, and does not answer
        future = client.call_async(request)
        graph.spin(0.5)
        return future.done() and future.result().success

    with Recorder(graph, tmp_path):
        graph.until(relabelled)
    (info,) = list_episodes(tmp_path)
    assert (info.outcome, info.recorded_outcome) == (Outcome.TIMEOUT, Outcome.SUCCESS)


def test_a_relabelled_episode_keeps_its_recording(graph: Any, speaker: Speaker, tmp_path: Path) -> None:
    graph.start(RecorderNode, episodes_dir=str(tmp_path))
    speaker.connect()
    speaker.episode(2)
    finished(graph, tmp_path)
    client = graph.node.create_client(RelabelEpisode, topics.RELABEL_EPISODE)
    graph.until(client.service_is_ready)
    future = client.call_async(RelabelEpisode.Request(outcome=int(Outcome.ABORTED), reason="it had slipped"))
    graph.until(future.done)
    assert future.result().success
    graph.until((tmp_path / NAME / "label.json").exists)  # the bag appears a moment before its recorder knows it
    (info,) = list_episodes(tmp_path)
    assert (info.outcome, info.recorded_outcome) == (Outcome.ABORTED, Outcome.SUCCESS)
    assert json.loads((tmp_path / NAME / "label.json").read_text())["reason"] == "it had slipped"
    future = client.call_async(RelabelEpisode.Request(episode_id="nobody", outcome=int(Outcome.ABORTED)))
    graph.until(future.done)
    assert not future.result().success
    assert "nobody" in future.result().message


def test_an_episode_that_exists_already_is_an_error_and_the_old_one_stays(
    graph: Any, speaker: Speaker, tmp_path: Path
) -> None:
    (tmp_path / NAME).mkdir()
    diagnostics = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
    graph.start(RecorderNode, episodes_dir=str(tmp_path))
    speaker.connect()
    speaker.state(Phase.RUNNING)
    graph.until(lambda: diagnostics and diagnostics[-1].status[0].level == b"\x02")
    assert "exists already" in diagnostics[-1].status[0].message
    assert list((tmp_path / NAME).iterdir()) == []
    speaker.state(Phase.ENDED, outcome=Outcome.FAULT)
    graph.until(lambda: diagnostics[-1].status[0].level == b"\x01")  # the error is over, the loss is not forgotten


def test_too_little_space_is_an_error_before_an_episode_begins(graph: Any, tmp_path: Path) -> None:
    diagnostics = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
    graph.start(RecorderNode, episodes_dir=str(tmp_path), min_free=10_000_000)
    graph.until(lambda: diagnostics and "the disk is full" in diagnostics[-1].status[0].message)
    assert diagnostics[-1].status[0].level == b"\x02"


@pytest.mark.parametrize("wrong", [{"episodes_dir": ""}, {"episodes_dir": "x", "extra_topics": ["scene_state"]}])
def test_wrong_parameters_are_refused(graph: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"episodes_dir|extra_topics"):
        graph.start(RecorderNode, **wrong)


class Recorder:
    """The recorder in a process of its own."""

    def __init__(self, graph: Any, folder: Path, limit: Callable[[], None] | None = None) -> None:
        arguments = ["--ros-args", "-p", f"episodes_dir:={folder}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "conrft_control.nodes.recorder_node", *arguments],
            preexec_fn=limit,
            stderr=subprocess.PIPE,
            text=True,
        )
        graph.until(lambda: "recorder" in graph.node.get_node_names(), timeout_s=120)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def alone(graph: Any, tmp_path: Path) -> Iterator[Recorder]:
    with Recorder(graph, tmp_path) as recorder:
        yield recorder


def test_two_sigints_in_mid_episode_leave_a_whole_aborted_bag_and_exit_code_0(
    graph: Any, speaker: Speaker, tmp_path: Path, alone: Recorder
) -> None:
    speaker.connect()
    speaker.state(Phase.RUNNING, stamp_ns=10 * TICK_NS)
    for step in range(4):
        speaker.tick(step)
    speaker.tick(4, action=False)
    graph.until(lambda: (tmp_path / f".tmp-{NAME}").exists())
    graph.spin(0.3)
    os.kill(alone.process.pid, signal.SIGINT)
    time.sleep(0.02)
    os.kill(alone.process.pid, signal.SIGINT)
    assert alone.process.wait(20) == 0
    episode = read_episode(tmp_path / NAME)
    assert (episode.outcome, episode.final_step) == (Outcome.ABORTED, 3)


def test_a_full_disk_is_reported_and_nothing_half_gets_a_name(graph: Any, speaker: Speaker, tmp_path: Path) -> None:
    diagnostics = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
    # No file may grow beyond 40 kB: every write after that fails like one on a full disk.
    with Recorder(graph, tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))):
        speaker.connect()
        speaker.state(Phase.RUNNING, stamp_ns=10 * TICK_NS)
        for step in range(6):
            speaker.tick(step, size=64)
        graph.until(lambda: any(status.level == b"\x02" for array in diagnostics for status in array.status))
        assert "not recorded whole" in diagnostics[-1].status[0].message
        speaker.state(Phase.ENDED, outcome=Outcome.FAULT, final_step=5)
        graph.spin(0.5)
    assert list_episodes(tmp_path) == []
    assert (tmp_path / f".tmp-{NAME}").exists()
