"""What a learner on another machine may read: finished episodes, piece by piece, and nothing else."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray

from conrft_control import episode_files
from conrft_control.episode_files import EpisodeFiles, FileRefused, FileSummary, RateLimit
from conrft_control.nodes.episode_server_node import EpisodeServerNode
from conrft_data import topics
from conrft_msgs.srv import DescribeEpisode, ListEpisodes, ReadEpisodeChunk

EPISODES, DEMONSTRATIONS = ListEpisodes.Request.EPISODES, ListEpisodes.Request.DEMONSTRATIONS


def bag(folder: Path, name: str, data: bytes = b"recording", label: str = "") -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "metadata.yaml").write_text(f"of {name}")
    (path / f"{name}.mcap").write_bytes(data)
    if label:
        (path / "label.json").write_text(label)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "episodes"


@pytest.fixture
def files(folder: Path) -> Iterator[EpisodeFiles]:
    files = EpisodeFiles({EPISODES: folder})
    yield files
    files.close()


def described(files: EpisodeFiles, name: str) -> dict[str, FileSummary]:
    end = time.monotonic() + 60.0
    while (answer := files.describe(EPISODES, name))[1] > 0:
        assert time.monotonic() < end
        time.sleep(0.005)
    return {file.name: file for file in answer[0]}


def test_only_finished_episodes_are_listed_with_their_labels(files: EpisodeFiles, folder: Path) -> None:
    assert files.page(EPISODES, "") == ([], False), "the folder need not be there yet"
    bag(folder, "b", label='{"outcome": "ABORTED"}')
    bag(folder, "a")
    bag(folder, ".tmp-c")
    (folder / "d").mkdir()
    listed, more = files.page(EPISODES, "")
    assert ([episode.episode_id for episode in listed], more) == (["a", "b"], False)
    assert [episode.label for episode in listed] == ["", '{"outcome": "ABORTED"}']
    assert listed[0].metadata_sha256 == hashlib.sha256(b"of a").hexdigest()


def test_a_long_list_comes_in_pages(files: EpisodeFiles, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode_files, "PAGE", 2)
    for name in "abc":
        bag(folder, name)
    first, more = files.page(EPISODES, "")
    rest, end = files.page(EPISODES, first[-1].episode_id)
    assert ([e.episode_id for e in first], more) == (["a", "b"], True)
    assert ([e.episode_id for e in rest], end) == (["c"], False)


def test_a_bag_that_cannot_be_read_is_named_and_holds_up_no_other(files: EpisodeFiles, folder: Path) -> None:
    for name in "abc":
        bag(folder, name)
    (folder / "b/label.json").write_bytes(b"\xff\xfe")
    (folder / "c/label.json").mkdir()
    assert [episode.episode_id for episode in files.page(EPISODES, "")[0]] == ["a"]
    assert list(files.problems) == ["b", "c"]
    assert "label.json" in files.problems["b"] and "label.json" in files.problems["c"]
    (folder / "b/label.json").write_text("{}")
    (folder / "c").rename(folder / ".c")
    assert [episode.episode_id for episode in files.page(EPISODES, "")[0]] == ["a", "b"]
    assert files.problems == {}


def test_a_page_of_bad_bags_does_not_end_the_list(
    files: EpisodeFiles, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episode_files, "PAGE", 1)
    for name in "abcd":
        bag(folder, name)
    for name in "ab":
        (folder / name / "label.json").write_bytes(b"\xff")
    listed, more = files.page(EPISODES, "")
    assert ([episode.episode_id for episode in listed], more) == (["c"], True)


def test_a_bag_that_is_moved_away_while_it_is_listed_is_left_out(
    files: EpisodeFiles, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag(folder, "a")
    bag(folder, "b")
    read_bytes = Path.read_bytes

    def move_and_read(path: Path) -> bytes:
        if path.parent.name == "a":
            path.parent.rename(folder.parent / "a")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", move_and_read)
    assert [episode.episode_id for episode in files.page(EPISODES, "")[0]] == ["b"]
    assert files.problems == {}


def test_a_page_looks_into_no_more_bags_than_it_gives(
    files: EpisodeFiles, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episode_files, "PAGE", 5)
    for number in range(50):
        bag(folder, f"{number:03d}")
    looked_at: set[Path] = set()
    stat = Path.stat

    def counted(path: Path, **options: Any) -> os.stat_result:
        looked_at.add(path.parent)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", counted)
    assert len(files.page(EPISODES, "")[0]) == 5
    assert len(looked_at - {folder, folder.parent}) == 6, "one more tells that there are more"


def test_the_description_has_size_and_checksum_of_every_file_but_the_label(files: EpisodeFiles, folder: Path) -> None:
    bag(folder, "a", b"x" * 5000, label="{}")
    assert described(files, "a") == {
        "a.mcap": FileSummary("a.mcap", 5000, hashlib.sha256(b"x" * 5000).hexdigest()),
        "metadata.yaml": FileSummary("metadata.yaml", 4, hashlib.sha256(b"of a").hexdigest()),
    }


def test_a_file_that_has_changed_gets_a_new_checksum(files: EpisodeFiles, folder: Path) -> None:
    path = bag(folder, "a") / "a.mcap"
    described(files, "a")
    path.write_bytes(b"salvaged")
    assert described(files, "a")["a.mcap"].sha256 == hashlib.sha256(b"salvaged").hexdigest()


def test_pieces_make_up_the_file_and_are_bounded(files: EpisodeFiles, folder: Path) -> None:
    data = bytes(range(256)) * 5000
    bag(folder, "a", data)
    pieces = []
    while piece := files.read(EPISODES, "a", "a.mcap", sum(map(len, pieces)), 2**31):
        assert len(piece) <= episode_files.LONGEST_PIECE
        pieces.append(piece)
    assert b"".join(pieces) == data and len(pieces) == 2


@pytest.mark.parametrize("offset", [10**6, 2**63, 2**64 - 1])
def test_beyond_the_end_of_a_file_there_is_nothing(files: EpisodeFiles, folder: Path, offset: int) -> None:
    bag(folder, "a", b"data")
    assert files.read(EPISODES, "a", "a.mcap", offset, 10) == b""


@pytest.mark.parametrize("name", ["../secret", "/etc", "..", ".", "", ".tmp-x", "a/b", "nobody", "nul\0"])
def test_what_is_no_finished_episode_of_the_folder_is_refused(files: EpisodeFiles, folder: Path, name: str) -> None:
    bag(folder.parent, "secret")
    bag(folder, ".tmp-x")
    bag(folder / "a", "b")
    with pytest.raises(FileRefused):
        files.describe(EPISODES, name)
    with pytest.raises(FileRefused):
        files.read(EPISODES, name, "metadata.yaml", 0, 10)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "..", "", ".hidden", "label.json", "none", "nul\0"])
def test_what_is_no_file_of_the_episode_is_refused(files: EpisodeFiles, folder: Path, name: str) -> None:
    (bag(folder, "a", label="{}") / ".hidden").touch()
    (folder.parent / "secret").touch()
    with pytest.raises(FileRefused, match="has no file"):
        files.read(EPISODES, "a", name, 0, 10)


def test_a_collection_that_is_not_served_is_refused(files: EpisodeFiles) -> None:
    with pytest.raises(FileRefused, match="collection 1"):
        files.page(DEMONSTRATIONS, "")


def test_the_rate_is_kept_over_any_pieces() -> None:
    now = [100.0]
    limit = RateLimit(1000.0, lambda: now[0])
    assert limit.wait() <= 0
    assert limit.spend(500) == pytest.approx(0.5)
    now[0] += 0.2
    assert limit.wait() == pytest.approx(0.3)
    now[0] += 10.0
    assert limit.spend(100) == pytest.approx(0.1), "a pause is not saved up"


def ask(graph: Any, kind: Any, name: str, **request: Any) -> Any:
    client = graph.node.create_client(kind, name)
    graph.until(client.service_is_ready)
    future = client.call_async(kind.Request(**request))
    graph.until(future.done)
    return future.result()


def test_the_services_give_an_episode_and_say_why_not(graph: Any, tmp_path: Path) -> None:
    bag(tmp_path / "episodes", "a", b"0123456789", label='{"outcome": "ABORTED", "reason": ""}')
    bag(tmp_path / "demos", "d")
    graph.start(EpisodeServerNode, episodes_dir=str(tmp_path / "episodes"), demos_dir=str(tmp_path / "demos"))
    listed = ask(graph, ListEpisodes, topics.LIST_EPISODES, collection=DEMONSTRATIONS)
    assert (listed.success, listed.episode_ids, listed.labels) == (True, ["d"], [""])
    graph.until(lambda: ask(graph, DescribeEpisode, topics.DESCRIBE_EPISODE, episode_id="a").wait == 0)
    described = ask(graph, DescribeEpisode, topics.DESCRIBE_EPISODE, episode_id="a")
    assert (described.files, list(described.sizes)) == (["a.mcap", "metadata.yaml"], [10, 4])
    request = {"episode_id": "a", "file": "a.mcap", "offset": 2, "length": 3}
    piece = ask(graph, ReadEpisodeChunk, topics.READ_EPISODE_CHUNK, **request)
    assert (bytes(piece.data), piece.sha256) == (b"234", hashlib.sha256(b"234").hexdigest())
    refused = ask(graph, DescribeEpisode, topics.DESCRIBE_EPISODE, episode_id="../demos/d")
    assert not refused.success and "'../demos/d' is not a finished episode" in refused.message


def test_the_server_lists_the_others_and_names_a_bag_that_it_cannot_read_on_diagnostics(
    graph: Any, tmp_path: Path
) -> None:
    bag(tmp_path, "a")
    (bag(tmp_path, "b") / "label.json").write_bytes(b"\xff")
    diagnostics = graph.listen(DiagnosticArray, topics.DIAGNOSTICS)
    graph.start(EpisodeServerNode, episodes_dir=str(tmp_path))
    listed = ask(graph, ListEpisodes, topics.LIST_EPISODES, collection=EPISODES)
    assert (listed.success, listed.episode_ids) == (True, ["a"])
    graph.until(lambda: any(s.level == b"\x01" and "b: label.json" in s.message for a in diagnostics for s in a.status))


def test_who_asks_faster_than_the_rate_is_told_to_wait(graph: Any, tmp_path: Path) -> None:
    bag(tmp_path, "a", bytes(2**20))
    graph.start(EpisodeServerNode, episodes_dir=str(tmp_path), max_rate=0.05)
    request = {"episode_id": "a", "file": "a.mcap", "offset": 0, "length": 2**20}
    first = ask(graph, ReadEpisodeChunk, topics.READ_EPISODE_CHUNK, **request)
    assert len(first.data) == 2**20 and first.wait > 10.0
    second = ask(graph, ReadEpisodeChunk, topics.READ_EPISODE_CHUNK, **request)
    assert second.success and not second.data and second.wait > 0


def test_without_a_folder_there_is_nothing_to_serve(graph: Any) -> None:
    with pytest.raises(ValueError, match="episodes_dir and demos_dir are empty"):
        graph.start(EpisodeServerNode)
