"""Episodes fetched from another machine: each once, whole, without asking twice for what has arrived."""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conrft_data.bags import read_episode, read_label, relabel, write_episode
from conrft_data.types import Episode, Outcome
from conrft_learner import episode_pull
from conrft_learner.episode_pull import (
    DEMONSTRATIONS,
    EPISODES,
    Chunk,
    EpisodePull,
    EpisodeUnavailable,
    PullThread,
    RemoteEpisode,
    RemoteFile,
    SourceSilent,
)

MakeEpisode = Callable[..., Episode]
CHUNK = 1000


class FolderSource:
    """Answers from a folder of bags, until it is told to fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str, int]] = []
        self.silent_after = -1  # pieces
        self.damage_next = False
        self.extra: list[RemoteEpisode] = []
        self.refused: set[int] = set()

    def episodes(self, collection: int) -> list[RemoteEpisode]:
        if self.silent_after == 0:
            raise SourceSilent("the cable is out")
        if collection in self.refused:
            raise EpisodeUnavailable(f"collection {collection} is not served here")
        bags = sorted(path.parent for path in self.folder.glob("*/metadata.yaml"))
        return [RemoteEpisode(b.name, digest(b / "metadata.yaml"), label_text(b)) for b in bags] + self.extra

    def describe(self, collection: int, episode_id: str) -> list[RemoteFile]:
        files = sorted(path for path in (self.folder / episode_id).iterdir() if path.name != "label.json")
        return [RemoteFile(path.name, path.stat().st_size, digest(path)) for path in files]

    def read(self, collection: int, episode_id: str, name: str, offset: int, length: int) -> Chunk:
        if self.silent_after == 0:
            raise SourceSilent("the cable is out")
        self.silent_after -= 1
        self.asked.append((episode_id, name, offset))
        data = (self.folder / episode_id / name).read_bytes()[offset : offset + length]
        sha256 = hashlib.sha256(data).hexdigest()
        if self.damage_next:
            self.damage_next, data = False, bytes([data[0] ^ 1]) + data[1:]
        return Chunk(data, sha256, 0.0)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def label_text(bag: Path) -> str:
    return (bag / "label.json").read_text() if (bag / "label.json").exists() else ""


@pytest.fixture
def remote(tmp_path: Path, make_episode: MakeEpisode) -> Path:
    write_episode(tmp_path / "robot", make_episode(1, length=3))
    return tmp_path / "robot"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return tmp_path / "learner" / "episodes"


@pytest.fixture
def source(remote: Path) -> FolderSource:
    return FolderSource(remote)


@pytest.fixture
def make_pull(source: FolderSource, local: Path) -> Callable[[], EpisodePull]:
    def make() -> EpisodePull:
        return EpisodePull(source, {EPISODES: local}, report=lambda _: None, pause=lambda _: False, chunk_bytes=CHUNK)

    return make


def assert_arrived(remote: Path, local: Path, name: str = "test-000001") -> None:
    assert {p.name: p.read_bytes() for p in (local / name).iterdir()} == {
        p.name: p.read_bytes() for p in (remote / name).iterdir()
    }
    read_episode(local / name)
    assert not list(local.glob(".pull-*")), "no part stays behind"


def break_off(pull: EpisodePull, source: FolderSource) -> None:
    """The cable comes out when two pieces of the recording are here."""
    metadata = (source.folder / "test-000001" / "metadata.yaml").stat().st_size
    source.silent_after = -(-metadata // CHUNK) + 2
    with pytest.raises(SourceSilent):
        pull.update()
    source.silent_after = -1


def test_an_episode_arrives_whole_and_is_never_asked_for_again(
    make_pull: Callable[[], EpisodePull], source: FolderSource, remote: Path, local: Path
) -> None:
    pull = make_pull()
    assert pull.update() == 1
    assert_arrived(remote, local)
    assert pull.received_bytes == sum(path.stat().st_size for path in (remote / "test-000001").iterdir())
    asked = len(source.asked)
    assert pull.update() == 0 and make_pull().update() == 0
    assert len(source.asked) == asked


@pytest.mark.parametrize("restarted", [False, True])
def test_a_broken_off_transfer_goes_on_where_it_was_also_in_another_process(
    make_pull: Callable[[], EpisodePull], source: FolderSource, remote: Path, local: Path, restarted: bool
) -> None:
    pull = make_pull()
    break_off(pull, source)
    assert list(local.glob("test-*")) == [], "nothing half has a name"
    pull = make_pull() if restarted else pull
    assert pull.update() == 1
    assert_arrived(remote, local)
    assert len(set(source.asked)) == len(source.asked), "no piece was sent twice"


def test_a_piece_that_was_damaged_on_its_way_is_asked_for_again(
    make_pull: Callable[[], EpisodePull], source: FolderSource, remote: Path, local: Path
) -> None:
    pull = make_pull()
    source.damage_next = True
    with pytest.raises(SourceSilent, match="damaged on its way"):
        pull.update()
    assert pull.update() == 1
    assert_arrived(remote, local)
    assert [source.asked.count(piece) for piece in source.asked[:2]] == [2, 2]


def test_a_part_that_was_damaged_on_the_disk_is_fetched_anew(
    make_pull: Callable[[], EpisodePull], source: FolderSource, remote: Path, local: Path
) -> None:
    pull = make_pull()
    break_off(pull, source)
    (part,) = local.glob(".pull-*/test-000001/*.mcap")
    part.write_bytes(b"\0" * part.stat().st_size)
    assert pull.update() == 0
    assert "checksum" in pull.problems["test-000001"]
    assert pull.update() == 1
    assert_arrived(remote, local)
    assert pull.problems == {}


def test_a_file_that_is_shorter_than_announced_holds_up_no_other_episode(
    make_pull: Callable[[], EpisodePull],
    source: FolderSource,
    remote: Path,
    local: Path,
    make_episode: MakeEpisode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_episode(remote, make_episode(2, length=3))
    whole = source.describe

    def describe(collection: int, episode_id: str) -> list[RemoteFile]:
        more = 10 if episode_id == "test-000001" else 0
        return [RemoteFile(file.name, file.size + more, file.sha256) for file in whole(collection, episode_id)]

    monkeypatch.setattr(source, "describe", describe)
    pull = make_pull()
    assert pull.update() == 1
    assert "shorter than was announced" in pull.problems["test-000001"]
    assert [path.name for path in local.glob("test-*")] == ["test-000002"]
    assert EPISODES in pull.listed


def test_a_recording_that_was_made_anew_meanwhile_is_not_mixed_with_the_old_one(
    make_pull: Callable[[], EpisodePull],
    source: FolderSource,
    remote: Path,
    local: Path,
    make_episode: MakeEpisode,
) -> None:
    pull = make_pull()
    break_off(pull, source)
    (remote / "test-000001").rename(remote / ".old")
    write_episode(remote, make_episode(1, length=4))
    assert pull.update() == 1
    assert_arrived(remote, local)


def test_another_recording_of_a_name_that_is_here_is_named_and_the_old_one_stays(
    make_pull: Callable[[], EpisodePull], remote: Path, local: Path, make_episode: MakeEpisode
) -> None:
    make_pull().update()
    kept = {path.name: path.read_bytes() for path in (local / "test-000001").iterdir()}
    (remote / "test-000001").rename(remote / ".old")
    write_episode(remote, make_episode(1, length=5))
    pull = make_pull()
    assert pull.update() == 0
    assert "another recording" in pull.problems["test-000001"]
    assert {path.name: path.read_bytes() for path in (local / "test-000001").iterdir()} == kept


def test_a_label_comes_with_its_episode_and_a_later_veto_after_it(
    make_pull: Callable[[], EpisodePull], remote: Path, local: Path
) -> None:
    bag = remote / "test-000001"
    relabel(bag, Outcome.TIMEOUT, "too late")
    pull = make_pull()
    pull.update()
    assert_arrived(remote, local)
    relabel(bag, Outcome.ABORTED, "the operator vetoed the success")
    pull.update()
    label = read_label(local / "test-000001")
    assert label is not None and (label.outcome, label.reason) == (Outcome.ABORTED, "the operator vetoed the success")
    written = (local / "test-000001" / "label.json").stat().st_mtime_ns
    pull.update()
    assert (local / "test-000001" / "label.json").stat().st_mtime_ns == written, "it is not new each time"


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", ".hidden", "", "..", "nul\0"])
def test_a_name_that_leads_out_of_the_folder_is_refused(
    make_pull: Callable[[], EpisodePull], source: FolderSource, local: Path, name: str, tmp_path: Path
) -> None:
    source.extra = [RemoteEpisode(name, "", "")]
    pull = make_pull()
    assert pull.update() == 1, "the good one arrives"
    assert "no episode's name" in pull.problems[name]
    assert sorted(path.name for path in tmp_path.rglob("*evil*")) == []


@pytest.mark.parametrize("name", ["../evil", "label.json", ".x"])
def test_a_file_name_that_leads_out_of_the_folder_is_refused(
    make_pull: Callable[[], EpisodePull],
    source: FolderSource,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source, "describe", lambda *_: [RemoteFile(name, 1, "")])
    pull = make_pull()
    assert pull.update() == 0
    assert "no file's name" in pull.problems["test-000001"]
    assert list(tmp_path.rglob("*evil*")) == []


@pytest.fixture
def make_thread(source: FolderSource, local: Path) -> Callable[[], PullThread]:
    started: list[PullThread] = []

    def make() -> PullThread:
        started.append(
            PullThread(
                source,
                {EPISODES: local},
                report=lambda _: None,
                on_new=threading.Event().set,
                first_retry_s=0.01,
                list_period_s=0.01,
            )
        )
        return started[-1]

    yield make
    for thread in started:
        thread.close()
        assert thread.failure is None


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.005)


def test_silence_is_told_and_only_delays(
    make_thread: Callable[[], PullThread], source: FolderSource, remote: Path, local: Path
) -> None:
    source.silent_after = 0
    thread = make_thread()
    wait_for(lambda: "no episodes arrive" in thread.silence and "the cable is out" in thread.silence)
    assert not (local / "test-000001").exists()
    source.silent_after = -1
    wait_for((local / "test-000001").exists)
    wait_for(lambda: not thread.silence)
    assert_arrived(remote, local)


def test_a_full_disk_is_told_and_the_transfer_goes_on_when_there_is_room(
    make_thread: Callable[[], PullThread],
    source: FolderSource,
    remote: Path,
    local: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = threading.Event()
    append = episode_pull._append

    def append_if_there_is_room(path: Path, data: bytes) -> None:
        if path.name.endswith(".mcap") and not room.is_set():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        append(path, data)

    monkeypatch.setattr(episode_pull, "_append", append_if_there_is_room)
    monkeypatch.setattr(episode_pull, "LONGEST_RETRY_S", 0.01)
    thread = make_thread()
    wait_for(lambda: "No space left" in thread.refusal)
    room.set()
    wait_for((local / "test-000001").exists)
    wait_for(lambda: not thread.refusal)
    assert_arrived(remote, local)


def test_an_episode_that_the_other_machine_refuses_is_named(
    make_pull: Callable[[], EpisodePull], source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def describe(collection: int, episode_id: str) -> list[RemoteFile]:
        raise EpisodeUnavailable(f"{episode_id} is not a finished episode")

    monkeypatch.setattr(source, "describe", describe)
    pull = make_pull()
    assert pull.update() == 0
    assert pull.problems == {"test-000001": "test-000001 is not a finished episode"}


def test_a_collection_that_the_other_machine_refuses_is_named_and_holds_up_no_other(
    source: FolderSource, local: Path, tmp_path: Path
) -> None:
    source.refused = {DEMONSTRATIONS}
    told: list[str] = []
    folders = {DEMONSTRATIONS: tmp_path / "learner/demos", EPISODES: local}
    pull = EpisodePull(source, folders, report=told.append, pause=lambda _: False)
    assert pull.update() == 1
    assert pull.update() == 0
    assert told == ["no demonstrations are listed: collection 1 is not served here"]
    assert list(pull.problems.values()) == told
    assert pull.listed == {EPISODES}
    source.refused = set()
    pull.update()
    assert (pull.problems, pull.listed) == ({}, {EPISODES, DEMONSTRATIONS})


def test_a_refusal_does_not_end_the_thread(
    make_thread: Callable[[], PullThread], source: FolderSource, remote: Path, local: Path
) -> None:
    source.refused = {EPISODES}
    thread = make_thread()
    wait_for(lambda: thread.pull.problems)
    source.refused = set()
    wait_for(lambda: EPISODES in thread.pull.listed)
    assert_arrived(remote, local)
