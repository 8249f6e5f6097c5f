"""The writer's thread: in order, never blocking, and an episode that fails is broken off aloud."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conrft_control.episode_sorting import Abandon, Finish, Open, Write
from conrft_control.recording_thread import RecordingThread
from conrft_data.bags.errors import BagError
from conrft_data.bags.label import read_label, write_label
from conrft_data.ticks import EpisodeStatus
from conrft_data.types import Outcome, Phase

Status = Callable[..., EpisodeStatus]
NAME = "s-training-000001"


class Disk:
    """Stands for the disk: can be slow, full, or refuse to begin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[str] = []
        self.full_after = 10**9
        self.free_again = threading.Event()
        self.free_again.set()
        self.refuses = False

    def open(self, status: EpisodeStatus) -> "Disk":
        if self.refuses:
            raise BagError(f"{status.episode_id}: exists already")
        self.log.append("open")
        return self

    def write(self, topic: str, raw: bytes, stamp_ns: int) -> None:
        self.free_again.wait(5)
        if self.log.count("write") >= self.full_after:
            raise BagError("recording failed: No space left on device")
        self.log.append("write")

    def relabel(self, outcome: Outcome, reason: str) -> None:
        (self.folder / NAME).mkdir(exist_ok=True)
        write_label(self.folder / NAME, outcome, reason)

    def finish(self, outcome: Outcome, final_step: int) -> Path:
        self.log.append(f"finish {outcome.name} {final_step}")
        bag = self.folder / NAME
        bag.mkdir(exist_ok=True)
        (bag / "metadata.yaml").touch()
        return bag

    def close(self) -> None:
        self.log.append("close")


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def thread(disk: Disk, said: list[str]) -> Iterator[RecordingThread]:
    thread = RecordingThread(disk.folder, disk.open, capacity_bytes=1000, say=said.append)
    yield thread
    disk.free_again.set()
    thread.close()


def write(size: int = 10) -> Write:
    return Write(NAME, "action", bytes(size), 0)


def test_jobs_are_carried_out_in_order(thread: RecordingThread, disk: Disk, status: Status) -> None:
    thread.add([Open(status(Phase.RUNNING)), write(), write(), Finish(NAME, Outcome.SUCCESS, 1, "")])
    assert thread.close()
    assert disk.log == ["open", "write", "write", "finish SUCCESS 1"]
    assert [bag.name for bag in thread.finished] == [NAME]
    assert thread.queued_bytes == 0


def test_a_slow_disk_does_not_block_the_caller(thread: RecordingThread, disk: Disk, status: Status) -> None:
    disk.free_again.clear()
    began = time.monotonic()
    thread.add([Open(status(Phase.RUNNING)), *[write() for _ in range(50)]])
    assert time.monotonic() - began < 0.5
    assert thread.queued_bytes > 0


def test_when_too_much_waits_the_episode_is_broken_off_and_says_so(
    thread: RecordingThread, disk: Disk, said: list[str], status: Status
) -> None:
    disk.free_again.clear()
    thread.add([Open(status(Phase.RUNNING)), *[write(100) for _ in range(20)], Finish(NAME, Outcome.SUCCESS, 1, "")])
    disk.free_again.set()
    assert thread.close()
    assert "too slow" in thread.problems[NAME]
    assert thread.finished == []
    assert disk.log[-1] == "close"
    assert NAME in said[0]


def test_a_full_disk_breaks_the_episode_off_and_gives_it_no_name(
    thread: RecordingThread, disk: Disk, said: list[str], status: Status
) -> None:
    disk.full_after = 1
    thread.add([Open(status(Phase.RUNNING)), write(), write(), write(), Finish(NAME, Outcome.SUCCESS, 1, "")])
    thread.close()
    assert "No space left" in thread.problems[NAME]
    assert len(said) == 1
    assert thread.finished == []


def test_an_episode_that_cannot_begin_is_a_problem_and_the_thread_goes_on(
    thread: RecordingThread, disk: Disk, status: Status
) -> None:
    disk.refuses = True
    thread.add([Open(status(Phase.RUNNING)), write()])
    thread.close()
    assert "exists already" in thread.problems[NAME]


def test_the_end_of_a_broken_off_episode_does_not_stop_the_recording_of_the_next(
    thread: RecordingThread, disk: Disk, status: Status
) -> None:
    disk.refuses = True
    thread.add([Open(status(Phase.RUNNING)), Finish(NAME, Outcome.SUCCESS, 1, "")])
    while not thread.problems:
        time.sleep(0.001)
    disk.refuses = False
    later = "s-training-000002"
    thread.add([Open(status(Phase.RUNNING, 2)), Finish(later, Outcome.SUCCESS, 1, "")])
    assert thread.close()
    assert disk.log == ["open", "finish SUCCESS 1"]


def test_an_abandoned_episode_stays_for_salvage(thread: RecordingThread, disk: Disk, status: Status) -> None:
    thread.add([Open(status(Phase.RUNNING)), write(), Abandon(NAME, "its end was never told")])
    thread.close()
    assert disk.log == ["open", "write", "close"]
    assert thread.problems == {NAME: "its end was never told"}


def test_gaps_are_said_aloud(thread: RecordingThread, said: list[str], status: Status) -> None:
    thread.add([Open(status(Phase.RUNNING)), Finish(NAME, Outcome.SUCCESS, 1, "action lacks 1 of 2 steps")])
    thread.close()
    assert "action lacks" in said[0]


def test_an_episode_is_relabelled_after_it_was_finished(thread: RecordingThread, disk: Disk, status: Status) -> None:
    thread.add([Open(status(Phase.RUNNING)), Finish(NAME, Outcome.SUCCESS, 1, "")])
    while not thread.finished:
        time.sleep(0.001)
    thread.relabel("", Outcome.ABORTED, "vetoed")
    label = read_label(disk.folder / NAME)
    assert label is not None
    assert (label.outcome, label.reason) == (Outcome.ABORTED, "vetoed")


def test_a_label_for_an_episode_that_is_still_being_written_is_kept_for_it(
    thread: RecordingThread, disk: Disk, status: Status
) -> None:
    disk.free_again.clear()
    thread.add([Open(status(Phase.RUNNING)), write()])
    assert "when its recording is complete" in thread.relabel(NAME, Outcome.ABORTED, "vetoed")
    thread.add([Finish(NAME, Outcome.SUCCESS, 1, "")])
    disk.free_again.set()
    thread.close()
    label = read_label(disk.folder / NAME)
    assert label is not None
    assert label.outcome is Outcome.ABORTED


def test_the_last_episode_is_the_one_that_has_just_ended_even_while_it_is_being_written(
    thread: RecordingThread, disk: Disk, status: Status
) -> None:
    disk.free_again.clear()
    thread.add([Open(status(Phase.RUNNING)), write(), Finish(NAME, Outcome.SUCCESS, 1, "")])
    assert NAME in thread.relabel("", Outcome.ABORTED, "vetoed")
    disk.free_again.set()
    thread.close()
    assert read_label(disk.folder / NAME) is not None


def test_no_episode_is_labelled_as_one_that_has_not_ended(thread: RecordingThread, disk: Disk, status: Status) -> None:
    disk.free_again.clear()
    thread.add([Open(status(Phase.RUNNING)), write()])
    with pytest.raises(BagError, match="NONE"):
        thread.relabel(NAME, Outcome.NONE, "")


def test_an_episode_of_an_earlier_recorder_is_relabelled(thread: RecordingThread, disk: Disk) -> None:
    disk.finish(Outcome.SUCCESS, 3)  # by a recorder that was killed afterwards
    thread.relabel(NAME, Outcome.TIMEOUT, "vetoed")
    label = read_label(disk.folder / NAME)
    assert label is not None
    assert (label.outcome, label.reason) == (Outcome.TIMEOUT, "vetoed")


@pytest.mark.parametrize("name", ["", "nobody", f"sub/{NAME}", "..", "nul\0"])
def test_what_is_no_episode_of_the_folder_cannot_be_relabelled(
    thread: RecordingThread, disk: Disk, tmp_path: Path, name: str
) -> None:
    disk.folder = tmp_path / "sub"
    disk.folder.mkdir()
    bag = disk.finish(Outcome.SUCCESS, 3)
    with pytest.raises(BagError, match=r"no episode|not a finished episode"):
        thread.relabel(name, Outcome.ABORTED, "")
    assert read_label(bag) is None
