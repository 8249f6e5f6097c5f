"""What a crash leaves of a recording comes back: every complete tick, and never as more than it is."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader

from conrft_data import topics
from conrft_data.bags import (
    BagError,
    EpisodeWriter,
    RecordedTopic,
    list_episodes,
    read_episode,
    read_info,
    relabel,
    salvage,
    salvage_all,
    write_episode,
)
from conrft_data.bags.definitions import unpack
from conrft_data.conversion import tick_from_cdr
from conrft_data.types import Episode, Mode, Outcome

EpisodeMaker = Callable[..., Episode]


def interrupted(bag: Path, size: int | None = None) -> Path:
    """Makes a finished bag look as if its recorder had been killed after ``size`` bytes."""
    leftover = bag.with_name(f".tmp-{bag.name}")
    (leftover / bag.name).mkdir(parents=True)
    data = (bag / f"{bag.name}.mcap").read_bytes()
    (leftover / bag.name / f"{bag.name}.mcap").write_bytes(data if size is None else data[:size])
    shutil.rmtree(bag)
    return leftover


@dataclass(repr=False)
class Whole:
    """A finished bag and, for each of its messages, the offset behind its last byte."""

    bag: Path
    episode: Episode
    observations: dict[int, int]
    actions: dict[int, int]
    states: list[int]

    def __repr__(self) -> str:
        return f"Whole({self.bag})"  # hypothesis prints it when an example fails

    def expected(self, size: int) -> tuple[Outcome, int] | None:
        """Outcome and final step of what is complete in the first ``size`` bytes."""
        if self.states[0] > size or self.observations[0] > size:
            return None
        if self.states[-1] <= size:
            return self.episode.outcome, self.episode.final_step
        step = 0
        while step + 1 in self.observations and self.observations[step + 1] <= size and self.actions[step] <= size:
            step += 1
        return Outcome.ABORTED, step


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_episode: EpisodeMaker) -> Whole:
    episode = make_episode(final_step=5)
    bag = write_episode(tmp_path_factory.mktemp("whole"), episode)
    data = (bag / f"{bag.name}.mcap").read_bytes()
    result = Whole(bag, episode, {}, {}, [])
    with Reader(bag) as reader:
        for connection, _, raw in reader.messages(reader.connections):
            end = data.index(raw) + len(raw)
            if connection.topic == "/episode_state":
                result.states.append(end)
            elif connection.topic in ("/observation", "/action"):
                steps = result.observations if connection.topic == "/observation" else result.actions
                steps[tick_from_cdr(raw).step] = end
    return result


def test_a_recording_that_only_lacks_its_name_comes_back_whole(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_episode(tmp_path, make_episode(final_step=6, tail=2))
    before = read_episode(bag)
    result = salvage(interrupted(bag))
    after = read_episode(bag)
    assert (result.path, result.outcome, result.lost) == (bag, Outcome.SUCCESS, "")
    assert (after.final_step, after.outcome, len(after.tail)) == (before.final_step, before.outcome, len(before.tail))
    assert [path.name for path in tmp_path.iterdir()] == [bag.name]


@settings(max_examples=30, deadline=None)
@given(fraction=st.floats(0, 1))
def test_a_recording_cut_anywhere_comes_back_up_to_its_last_complete_tick(
    fraction: float, whole: Whole, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recording = (whole.bag / f"{whole.bag.name}.mcap").read_bytes()
    size = round(fraction * len(recording))
    folder = tmp_path_factory.mktemp("cut")
    bag = Path(shutil.copytree(whole.bag, folder / whole.bag.name))
    leftover = interrupted(bag, size)
    expected = whole.expected(size)
    if expected is None:
        with pytest.raises(BagError):
            salvage(leftover)
        kept = leftover / bag.name / f"{bag.name}.mcap"
        assert (kept.read_bytes() if size else b"") == recording[:size]
        assert leftover.exists() == bool(size)
        assert list_episodes(folder) == []
    else:
        result = salvage(leftover)
        episode = read_episode(bag)
        assert not leftover.exists()
        assert (result.outcome, result.final_step) == expected == (episode.outcome, episode.final_step)
        for a, b in zip(episode.observations, whole.episode.observations, strict=False):
            np.testing.assert_array_equal(a.images["side"], b.images["side"])
        for command, original in zip(episode.commands[: result.final_step], whole.episode.commands, strict=False):
            np.testing.assert_array_equal(command.action, original.action)
    shutil.rmtree(folder)


def test_an_aborted_episode_says_why_inside(tmp_path: Path, whole: Whole) -> None:
    bag = Path(shutil.copytree(whole.bag, tmp_path / whole.bag.name))
    result = salvage(interrupted(bag, whole.observations[3]))
    with Reader(bag) as reader:
        states = [c for c in reader.connections if c.topic == "/episode_state"]
        *_, (_, _, raw) = reader.messages(states)
    last = unpack(raw, "conrft_msgs/msg/EpisodeState")
    assert (last.state, last.outcome, last.final_step) == (3, Outcome.ABORTED, 3)
    assert last.reason == result.lost == "the recording breaks off after step 3"


def test_what_was_recorded_besides_the_tick_is_salvaged_too(tmp_path: Path, whole: Whole) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    extra = RecordedTopic("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", topics.TICK)
    with (
        Reader(whole.bag) as reader,
        EpisodeWriter(tmp_path, "e1", task="pick_banana", mode=Mode.TRAINING, extra_topics=[extra]) as writer,
    ):
        for connection, stamp, raw in reader.messages(reader.connections):
            writer.write(connection.topic, raw, stamp)
            writer.write("/diagnostics", serialize_message(DiagnosticArray()), stamp)
    salvage(tmp_path / ".tmp-e1")
    counts = {name: messages.number for name, messages in read_info(tmp_path / "e1").topics.items()}
    assert counts["/diagnostics"] == sum(counts.values()) / 2


def test_zeros_that_a_loss_of_power_left_at_the_end_are_no_messages(tmp_path: Path, whole: Whole) -> None:
    bag = Path(shutil.copytree(whole.bag, tmp_path / whole.bag.name))
    leftover = interrupted(bag, whole.actions[3])
    with (leftover / bag.name / f"{bag.name}.mcap").open("ab") as file:
        file.write(bytes(10_000))
    assert salvage(leftover).final_step in (2, 3)


WRITER = """
import sys, time
from pathlib import Path
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader
from conrft_data.bags import EpisodeWriter
from conrft_data.types import Mode

with Reader(Path(sys.argv[1])) as reader:
    messages = [(c.topic, raw, stamp) for c, stamp, raw in reader.messages(reader.connections)]
writer = EpisodeWriter(sys.argv[2], "killed", task="pick_banana", mode=Mode.TRAINING)
for topic, raw, stamp in messages[:-1]:
    writer.write(topic, raw, stamp)
print("written", flush=True)
time.sleep(60)
"""


def test_a_killed_recorder_loses_nothing_before_its_last_observation(tmp_path: Path, whole: Whole) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(whole.bag), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "written\n"
        leftover = tmp_path / ".tmp-killed"
        with pytest.raises(BagError, match="is still being recorded"):
            salvage(leftover)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    recovered, problems = salvage_all(tmp_path)
    assert problems == []
    assert [(made.path.name, made.outcome, made.final_step) for made in recovered] == [("killed", Outcome.ABORTED, 5)]
    assert len(read_episode(tmp_path / "killed")) == 5


def test_a_salvage_that_was_killed_itself_can_be_repeated(tmp_path: Path, whole: Whole) -> None:
    bag = Path(shutil.copytree(whole.bag, tmp_path / whole.bag.name))
    leftover = interrupted(bag)
    (tmp_path / f".salvage-{bag.name}" / bag.name).mkdir(parents=True)
    assert salvage(leftover).outcome is Outcome.SUCCESS
    assert [path.name for path in tmp_path.iterdir()] == [bag.name]


def test_a_crash_between_renaming_and_tidying_up_leaves_a_good_bag(tmp_path: Path, whole: Whole) -> None:
    bag = Path(shutil.copytree(whole.bag, tmp_path / whole.bag.name))
    leftover = tmp_path / f".tmp-{bag.name}"
    leftover.mkdir()
    assert salvage(leftover).final_step == 5
    assert [path.name for path in tmp_path.iterdir()] == [bag.name]


def test_a_damaged_bag_is_recovered_and_kept_aside_with_its_label(tmp_path: Path, whole: Whole) -> None:
    bag = Path(shutil.copytree(whole.bag, tmp_path / whole.bag.name))
    relabel(bag, Outcome.FAULT, "power cut")
    file = bag / f"{bag.name}.mcap"
    file.write_bytes(file.read_bytes()[: whole.observations[4]])
    result = salvage(bag)
    assert (result.outcome, result.final_step) == (Outcome.ABORTED, 4)
    assert read_episode(bag).outcome is Outcome.FAULT
    assert (tmp_path / f".damaged-{bag.name}" / file.name).is_file()


def test_a_damaged_bag_with_nothing_usable_stays_where_it_is(tmp_path: Path, whole: Whole) -> None:
    bag = Path(shutil.copytree(whole.bag, tmp_path / whole.bag.name))
    (bag / f"{bag.name}.mcap").write_bytes(b"")
    with pytest.raises(BagError, match="nothing of it reached the disk"):
        salvage(bag)
    assert [path.name for path in tmp_path.iterdir()] == [bag.name]


def test_a_leftover_of_which_no_byte_reached_the_disk_is_told_once(tmp_path: Path) -> None:
    folder = tmp_path / ".tmp-e1" / "e1"
    folder.mkdir(parents=True)
    (folder / "e1.mcap").touch()
    _, problems = salvage_all(tmp_path)
    assert "nothing of it had reached the disk" in str(problems[0])
    assert salvage_all(tmp_path) == ([], [])


def test_a_leftover_without_a_recording_stays_and_is_told(tmp_path: Path) -> None:
    EpisodeWriter(tmp_path, "e1", task="pick_banana", mode=Mode.TRAINING).close()
    recovered, problems = salvage_all(tmp_path)
    assert recovered == []
    assert "has no complete message on /episode_state" in str(problems[0])
    assert (tmp_path / ".tmp-e1").is_dir()
