"""A recording made by hand with ``ros2 bag record`` becomes episode bags, whatever else is in it."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

from conrft_data.bags import BagError, Imported, import_recording, list_episodes, read_episode, write_episode
from conrft_data.bags.definitions import typestore
from conrft_data.types import Episode, Outcome

EpisodeMaker = Callable[..., Episode]
SECOND = 1_000_000_000


class Recorded(NamedTuple):
    topic: str
    type_name: str
    recorded_ns: int
    raw: bytes


@pytest.fixture
def messages(tmp_path: Path) -> Callable[..., list[Recorded]]:
    """The messages that an episode puts on the graph, recorded on the wall clock from ``start_s`` on."""

    def of(episode: Episode, start_s: int, namespace: str = "", drop: Iterable[tuple[str, int]] = ()) -> list[Recorded]:
        from conrft_data.conversion import tick_from_cdr

        bag = write_episode(tmp_path / "sources" / f"{start_s}{namespace.replace('/', '_')}", episode)
        found = []
        with Reader(bag) as reader:
            for index, (connection, _, raw) in enumerate(reader.messages(reader.connections)):
                is_state = connection.topic == "/episode_state"
                if not is_state and (connection.topic, tick_from_cdr(raw).step) in drop:
                    continue
                stamp = start_s * SECOND + index * 1000
                found.append(Recorded(namespace + connection.topic, connection.msgtype, stamp, raw))
        return found

    return of


def record(
    folder: Path,
    messages: Iterable[Recorded],
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
) -> Path:
    """Writes what ``ros2 bag record`` would have written."""
    writer = Writer(folder, version=9, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for message in sorted(messages, key=lambda message: message.recorded_ns):
            if message.topic not in connections:
                connections[message.topic] = writer.add_connection(
                    message.topic, message.type_name, typestore=typestore()
                )
            writer.write(connections[message.topic], message.recorded_ns, message.raw)
    return folder


def summary(result: Imported) -> list[tuple[str, Outcome, int]]:
    return [(made.path.name, made.outcome, made.final_step) for made in result.episodes]


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("namespace", ["", "/left_arm", "/lab/cell_2"])
def test_several_episodes_are_split(
    tmp_path: Path,
    make_episode: EpisodeMaker,
    messages: Callable[..., list[Recorded]],
    storage: StoragePlugin,
    namespace: str,
) -> None:
    episodes = [make_episode(number=n, outcome=Outcome(n), tail=n % 2) for n in (1, 2, 3)]
    everything = [m for n, episode in enumerate(episodes) for m in messages(episode, n, namespace)]
    result = import_recording(record(tmp_path / "rec", everything, storage), tmp_path / "out")
    assert result.problems == []
    assert summary(result) == [(e.episode_id, e.outcome, e.final_step) for e in episodes]
    for info, episode in zip(list_episodes(tmp_path / "out"), episodes, strict=True):
        read = read_episode(info.path)
        assert len(read.tail) == len(episode.tail)
        assert [o.stamp_ns for o in read.observations] == [o.stamp_ns for o in episode.observations]
        np.testing.assert_array_equal(read.actions(), episode.actions())


def test_messages_of_other_topics_are_ignored(
    tmp_path: Path, make_episode: EpisodeMaker, messages: Callable[..., list[Recorded]]
) -> None:
    from geometry_msgs.msg import Twist

    noise = [
        Recorded("/spacenav/twist", "geometry_msgs/msg/Twist", SECOND + n, serialize_message(Twist()))
        for n in range(50)
    ]
    result = import_recording(record(tmp_path / "rec", noise + messages(make_episode(), 1)), tmp_path / "out")
    assert [made.outcome for made in result.episodes] == [Outcome.SUCCESS]


def test_two_namespaces_are_two_robots(
    tmp_path: Path, make_episode: EpisodeMaker, messages: Callable[..., list[Recorded]]
) -> None:
    left, right = make_episode(session="left"), make_episode(session="right", final_step=4)
    both = messages(left, 1, "/left") + messages(right, 1, "/right")
    result = import_recording(record(tmp_path / "rec", both), tmp_path / "out")
    assert {(name, step) for name, _, step in summary(result)} == {
        ("left-training-000001", 6),
        ("right-training-000001", 4),
    }
    assert len(read_episode(tmp_path / "out" / "right-training-000001")) == 4


def test_two_sessions_may_count_their_episodes_alike(
    tmp_path: Path, make_episode: EpisodeMaker, messages: Callable[..., list[Recorded]]
) -> None:
    first, second = make_episode(session="a", final_step=3), make_episode(session="b", final_step=5)
    result = import_recording(record(tmp_path / "rec", messages(first, 1) + messages(second, 9)), tmp_path / "out")
    assert [(name, step) for name, _, step in summary(result)] == [
        ("a-training-000001", 3),
        ("b-training-000001", 5),
    ]


@pytest.mark.parametrize("topic", ["/observation", "/action"])
def test_a_gap_ends_the_episode(
    tmp_path: Path, make_episode: EpisodeMaker, messages: Callable[..., list[Recorded]], topic: str
) -> None:
    recorded = messages(make_episode(), 1, drop=[(topic, 3)])
    result = import_recording(record(tmp_path / "rec", recorded), tmp_path / "out")
    (made,) = result.episodes
    assert made.outcome is Outcome.ABORTED
    assert made.final_step == (2 if topic == "/observation" else 3)
    assert "had ended at step 6 with SUCCESS" in made.lost
    assert len(read_episode(made.path)) == made.final_step


def test_an_episode_without_its_beginning_is_left_out_and_told(
    tmp_path: Path, make_episode: EpisodeMaker, messages: Callable[..., list[Recorded]]
) -> None:
    cut = messages(make_episode(number=1), 1, drop=[("/observation", 0), ("/observation", 1)])
    whole = messages(make_episode(number=2), 9)
    result = import_recording(record(tmp_path / "rec", cut + whole), tmp_path / "out")
    assert [name for name, _, _ in summary(result)] == ["s1-training-000002"]
    assert [str(problem) for problem in result.problems] == [
        "s1-training-000001: begins at step 2, its beginning is missing"
    ]
    assert len(list_episodes(tmp_path / "out")) == 1


def test_a_state_that_is_recorded_after_the_first_tick_still_names_the_episode(
    tmp_path: Path, make_episode: EpisodeMaker, messages: Callable[..., list[Recorded]]
) -> None:
    state, *rest = messages(make_episode(), 1)
    late = state._replace(recorded_ns=rest[4].recorded_ns)
    result = import_recording(record(tmp_path / "rec", [late, *rest]), tmp_path / "out")
    assert summary(result) == [("s1-training-000001", Outcome.SUCCESS, 6)]


def test_a_recording_cut_off_without_metadata_gives_what_is_complete(
    tmp_path: Path, make_episode: EpisodeMaker, messages: Callable[..., list[Recorded]]
) -> None:
    recorded = messages(make_episode(number=1), 1) + messages(make_episode(number=2), 9)
    folder = record(tmp_path / "rec", recorded)
    (folder / "metadata.yaml").unlink()
    file = folder / "rec.mcap"
    data = file.read_bytes()
    file.write_bytes(data[: data.index(recorded[-4].raw)])
    result = import_recording(folder, tmp_path / "out")
    assert summary(result)[0] == ("s1-training-000001", Outcome.SUCCESS, 6)
    name, outcome, _ = summary(result)[1]
    assert (name, outcome) == ("s1-training-000002", Outcome.ABORTED)


def test_a_recording_in_several_files_without_metadata_is_read_in_their_order(
    tmp_path: Path, make_episode: EpisodeMaker, messages: Callable[..., list[Recorded]]
) -> None:
    recorded = messages(make_episode(final_step=11), 1)
    folder = tmp_path / "rec"
    folder.mkdir()
    for number in range(11):
        part = record(tmp_path / f"part_{number}", recorded[number * 4 : number * 4 + 4 if number < 10 else None])
        shutil.copy(part / f"part_{number}.mcap", folder / f"rec_{number}.mcap")
    result = import_recording(folder, tmp_path / "out")
    assert summary(result) == [("s1-training-000001", Outcome.SUCCESS, 11)]


@pytest.mark.parametrize(
    ("storage", "compression"),
    [
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
        (StoragePlugin.MCAP, CompressionMode.MESSAGE),
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
    ],
)
def test_a_compressed_recording_is_read_as_well(
    tmp_path: Path,
    make_episode: EpisodeMaker,
    messages: Callable[..., list[Recorded]],
    storage: StoragePlugin,
    compression: CompressionMode,
) -> None:
    folder = record(tmp_path / "rec", messages(make_episode(), 1), storage, compression)
    result = import_recording(folder, tmp_path / "out")
    assert summary(result) == [("s1-training-000001", Outcome.SUCCESS, 6)]


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_messages_that_arrived_in_another_order_are_joined_by_their_ticks(
    tmp_path: Path, make_episode: EpisodeMaker, messages: Callable[..., list[Recorded]], storage: StoragePlugin
) -> None:
    episode = make_episode(tail=2)
    first, *ticks, last = messages(episode, 1)
    shuffled = np.random.default_rng(0).permutation(len(ticks))
    late = [
        tick._replace(recorded_ns=first.recorded_ns + 1 + int(place))
        for tick, place in zip(ticks, shuffled, strict=True)
    ]
    result = import_recording(record(tmp_path / "rec", [first, *late, last], storage), tmp_path / "out")
    assert summary(result) == [("s1-training-000001", Outcome.SUCCESS, 6)]
    read = read_episode(result.episodes[0].path)
    assert [o.stamp_ns for o in read.observations] == [o.stamp_ns for o in episode.observations]
    np.testing.assert_array_equal(read.actions(), episode.actions())


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_recording_split_into_files_is_one_recording(
    tmp_path: Path, make_episode: EpisodeMaker, messages: Callable[..., list[Recorded]], storage: StoragePlugin
) -> None:
    recorded = messages(make_episode(), 1)
    folder, suffix = record(tmp_path / "rec", recorded[:12], storage), ".mcap" if "MCAP" in storage.name else ".db3"
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
    information = metadata["rosbag2_bagfile_information"]
    (folder / f"rec{suffix}").rename(folder / f"rec_0{suffix}")
    rest = record(tmp_path / "rest", recorded[12:], storage)
    shutil.copy(rest / f"rest{suffix}", folder / f"rec_1{suffix}")
    # As ros2 bag record -d or -b writes it: one metadata.yaml that counts the messages of both files.
    other = yaml.safe_load((rest / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    more = {topic["topic_metadata"]["name"]: topic["message_count"] for topic in other["topics_with_message_count"]}
    for topic in information["topics_with_message_count"]:
        topic["message_count"] += more.get(topic["topic_metadata"]["name"], 0)
    information["message_count"] += other["message_count"]
    information["duration"]["nanoseconds"] = recorded[-1].recorded_ns - recorded[0].recorded_ns
    information["relative_file_paths"] = [f"rec_0{suffix}", f"rec_1{suffix}"]
    files = [*information["files"], *other["files"]]
    information["files"] = [file | {"path": f"rec_{n}{suffix}"} for n, file in enumerate(files)]
    (folder / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    assert summary(import_recording(folder, tmp_path / "out")) == [("s1-training-000001", Outcome.SUCCESS, 6)]


def test_importing_twice_overwrites_nothing(
    tmp_path: Path, make_episode: EpisodeMaker, messages: Callable[..., list[Recorded]]
) -> None:
    folder = record(tmp_path / "rec", messages(make_episode(), 1))
    import_recording(folder, tmp_path / "out")
    again = import_recording(folder, tmp_path / "out")
    assert again.episodes == []
    assert "exists already" in str(again.problems[0])


def test_a_recording_without_episodes_is_refused(tmp_path: Path) -> None:
    from geometry_msgs.msg import Twist

    folder = record(tmp_path / "rec", [Recorded("/t", "geometry_msgs/msg/Twist", 1, serialize_message(Twist()))])
    with pytest.raises(BagError, match="no messages on a topic ending in /episode_state"):
        import_recording(folder, tmp_path / "out")


def test_a_folder_without_a_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="is no rosbag2 recording"):
        import_recording(tmp_path, tmp_path / "out")
