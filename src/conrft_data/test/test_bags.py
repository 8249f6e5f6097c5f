"""An episode bag holds what was recorded, whole or not at all, and readers refuse what nobody may learn from."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability

from conrft_data import durable_files
from conrft_data.bags import (
    BagError,
    EpisodeWriter,
    list_episodes,
    read_episode,
    relabel,
    write_episode,
)
from conrft_data.bags.definitions import type_hash
from conrft_data.bags.label import LABEL_FILE, label_time
from conrft_data.bags.listing import last_episode_number
from conrft_data.config import TaskConfig
from conrft_data.conversion import observation_to_msg
from conrft_data.types import Command, Episode, Mode, Observation, Outcome

EpisodeMaker = Callable[..., Episode]


def task(name: str = "pick_banana", side: tuple[int, int] = (24, 16)) -> TaskConfig:
    return TaskConfig.model_validate(
        {
            "name": name,
            "instruction": "pick up the banana",
            "action_dim": 7,
            "max_steps": 100,
            "cameras": {"side": {"width": side[0], "height": side[1]}, "wrist": {"width": 16, "height": 16}},
            "reset": {"position": (0.5, 0, 0.3), "euler_xyz": (3.14, 0, 0), "kind": "script"},
            "workspace": {"low": (0.3, -0.2, 0), "high": (0.7, 0.2, 0.5)},
        }
    )


def assert_same_observation(a: Observation, b: Observation) -> None:
    assert (a.stamp_ns, a.episode, a.step, a.gripper_opening) == (b.stamp_ns, b.episode, b.step, b.gripper_opening)
    assert list(a.images) == list(b.images)
    for camera in a.images:
        np.testing.assert_array_equal(a.images[camera], b.images[camera])
    for name in ("tcp_pose", "reset_pose", "tcp_twist", "tcp_wrench"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=1e-15)


def assert_same_command(a: Command, b: Command) -> None:
    assert (a.source, a.reason, a.proposal is None) == (b.source, b.reason, b.proposal is None)
    np.testing.assert_array_equal(a.action, b.action)
    if a.proposal is not None and b.proposal is not None:
        np.testing.assert_array_equal(a.proposal, b.proposal)


def change_metadata(bag: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = bag / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    change(content["rosbag2_bagfile_information"])
    file.write_text(yaml.safe_dump(content))


def test_an_episode_comes_back_as_it_was_recorded(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    episode = make_episode(final_step=6, tail=2)
    read = read_episode(write_episode(tmp_path, episode), expect=task())
    for a, b in zip([*read.observations, *read.tail], [*episode.observations, *episode.tail], strict=True):
        assert_same_observation(a, b)
    for command, expected in zip(read.commands, episode.commands, strict=True):
        assert_same_command(command, expected)
    assert read.embeddings is not None and episode.embeddings is not None
    np.testing.assert_array_equal(read.embeddings, episode.embeddings)
    rest = ("observations", "commands", "tail", "embeddings")
    nothing: dict[str, Any] = dict.fromkeys(rest)
    assert replace(read, **nothing) == replace(episode, **nothing)


def test_a_bag_has_jazzys_metadata_with_the_quality_of_service(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_episode(tmp_path, make_episode())
    information = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert (information["version"], information["storage_identifier"]) == (9, "mcap")
    assert information["relative_file_paths"] == [f"{bag.name}.mcap"]
    topics = {t["topic_metadata"]["name"]: t["topic_metadata"] for t in information["topics_with_message_count"]}
    assert topics["/observation"]["type_description_hash"] == type_hash("conrft_msgs/msg/Observation")
    (qos,) = topics["/observation"]["offered_qos_profiles"]
    assert (qos["reliability"], qos["durability"], qos["depth"]) == ("reliable", "volatile", 100)
    (qos,) = topics["/episode_state"]["offered_qos_profiles"]
    assert qos["durability"] == "transient_local"
    assert information["custom_data"]["conrft_outcome"] == "SUCCESS"


def test_the_type_hashes_are_those_of_the_generated_interfaces() -> None:
    from ament_index_python.packages import get_package_share_directory

    for file in (Path(get_package_share_directory("conrft_msgs")) / "msg").glob("*.json"):
        hashes = {entry["type_name"]: entry["hash_string"] for entry in json.loads(file.read_text())["type_hashes"]}
        name = f"conrft_msgs/msg/{file.stem}"
        assert type_hash(name) == hashes[name]


def test_a_bag_opens_in_rosbags_without_any_definition_of_ours(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    episode = make_episode()
    with AnyReader([write_episode(tmp_path, episode)]) as reader:
        connections = {c.topic: c for c in reader.connections}
        qos = connections["/observation"].ext.offered_qos_profiles[0]
        assert (qos.reliability, qos.durability) == (QosReliability.RELIABLE, QosDurability.VOLATILE)
        read = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages([connections["/observation"]])]
    assert [message.step for message in read] == [o.step for o in episode.observations]
    np.testing.assert_array_equal(read[3].images[0].data, episode.observations[3].images["side"].ravel())


def test_a_bag_opens_in_the_mcap_reader(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    episode = make_episode()
    bag = write_episode(tmp_path, episode)
    with (bag / f"{bag.name}.mcap").open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        found = [(schema.name, channel.topic, message.log_time) for schema, channel, message in reader.iter_messages()]
    stamps = [stamp for name, topic, stamp in found if topic == "/action" and name == "conrft_msgs/msg/Action"]
    assert stamps == [o.stamp_ns for o in episode.observations]


def test_nothing_appears_under_the_name_before_the_episode_is_finished(
    tmp_path: Path, make_episode: EpisodeMaker
) -> None:
    observation = make_episode().observations[0]
    with EpisodeWriter(tmp_path, "e1", task="pick_banana", mode=Mode.TRAINING) as writer:
        writer.write("observation", serialize_message(observation_to_msg(observation)), observation.stamp_ns)
        assert [path.name for path in tmp_path.iterdir()] == [".tmp-e1"]
        assert list_episodes(tmp_path) == []
        assert writer.finish(Outcome.ABORTED, 0) == tmp_path / "e1"
    assert [path.name for path in tmp_path.iterdir()] == ["e1"]


def test_a_discarded_episode_leaves_nothing(tmp_path: Path) -> None:
    EpisodeWriter(tmp_path, "e1", task="pick_banana", mode=Mode.TRAINING).discard()
    assert list(tmp_path.iterdir()) == []


def test_an_episode_is_never_overwritten(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    write_episode(tmp_path, make_episode())
    with pytest.raises(BagError, match="s1-training-000001: exists already"):
        write_episode(tmp_path, make_episode())


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up"])
def test_an_episode_id_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BagError, match="is not a plain file name"):
        EpisodeWriter(tmp_path, name, task="pick_banana", mode=Mode.TRAINING)


def test_an_episode_without_observations_is_not_kept(tmp_path: Path) -> None:
    with (
        EpisodeWriter(tmp_path, "e1", task="pick_banana", mode=Mode.TRAINING) as writer,
        pytest.raises(BagError, match="has no observation"),
    ):
        writer.finish(Outcome.ABORTED, 0)
    assert not any(tmp_path.iterdir())


def test_a_full_disk_is_told_and_leaves_no_half_bag(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    episode = make_episode(final_step=1)
    raw = serialize_message(observation_to_msg(episode.observations[0]))
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full on this system")
    with pytest.MonkeyPatch.context() as patch:
        from rosbags.rosbag2 import storage_mcap

        original = storage_mcap.McapWriter.__init__

        def on_a_full_disk(self: Any, *args: Any) -> None:
            original(self, *args)
            self.bio.close()
            self.bio = full.open("wb")

        patch.setattr(storage_mcap.McapWriter, "__init__", on_a_full_disk)
        writer = EpisodeWriter(tmp_path, "full-disk", task="pick_banana", mode=Mode.TRAINING)
        try:
            with pytest.raises(BagError, match="No space left on device"):
                writer.write("observation", raw, 0)
            with pytest.raises(BagError, match="nothing can be written"):
                writer.finish(Outcome.ABORTED, 0)
            assert not writer.path.exists()
        finally:
            writer.discard()


def test_a_disk_that_refuses_to_synchronise_is_told(
    tmp_path: Path, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(durable_files, "sync_tree", refuse)
    with pytest.raises(BagError, match="Input/output error"):
        write_episode(tmp_path, make_episode())
    assert not (tmp_path / "s1-training-000001").exists()
    assert (tmp_path / ".tmp-s1-training-000001").is_dir()


def test_listing_reads_no_recording(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_episode(tmp_path, make_episode(final_step=6, tail=2))
    (bag / f"{bag.name}.mcap").write_bytes(b"")
    (info,) = list_episodes(tmp_path)
    assert (info.episode_id, info.task, info.mode, info.outcome) == (
        bag.name, "pick_banana", Mode.TRAINING, Outcome.SUCCESS,
    )  # fmt: skip
    assert (info.final_step, info.observations, info.cameras) == (6, 9, {"side": (24, 16), "wrist": (16, 16)})
    assert info.duration_ns == 8 * 100_000_000


def test_the_last_number_counts_what_was_cut_off_and_no_other_session(tmp_path: Path) -> None:
    assert last_episode_number(tmp_path / "none", "s-training-") == 0
    for name in ("s-training-000002", ".tmp-s-training-000007", "t-training-000009", "s-evaluation-000008", "notes"):
        (tmp_path / name).mkdir()
    assert last_episode_number(tmp_path, "s-training-") == 7


def test_one_bad_bag_does_not_hide_the_others(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    for number in (1, 2, 3):
        write_episode(tmp_path, make_episode(number=number, final_step=1))
    (tmp_path / "s1-training-000002" / "metadata.yaml").write_text("{")
    problems: list[BagError] = []
    names = [info.episode_id for info in list_episodes(tmp_path, problems)]
    assert names == ["s1-training-000001", "s1-training-000003"]
    assert len(problems) == 1
    with pytest.raises(BagError, match="is not the metadata of a rosbag2 recording"):
        list_episodes(tmp_path)


def test_a_label_changes_the_outcome_but_not_the_recording(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_episode(tmp_path, make_episode(outcome=Outcome.SUCCESS))
    recording = (bag / f"{bag.name}.mcap").read_bytes()
    relabel(bag, Outcome.TIMEOUT, "the banana slipped out")
    read = read_episode(bag)
    assert (read.outcome, read.recorded_outcome) == (Outcome.TIMEOUT, Outcome.SUCCESS)
    assert list_episodes(tmp_path)[0].outcome is Outcome.TIMEOUT
    assert not read.terminated().any()
    assert (bag / f"{bag.name}.mcap").read_bytes() == recording
    assert sorted(path.name for path in bag.iterdir()) == [LABEL_FILE, "metadata.yaml", f"{bag.name}.mcap"]


@pytest.mark.parametrize("text", ["", "[]", '{"outcome": "GOOD"}', '{"outcome": "SUCCESS", "x": 1}', '{"outcome": 1}'])
def test_a_label_that_makes_no_sense_is_refused(tmp_path: Path, make_episode: EpisodeMaker, text: str) -> None:
    bag = write_episode(tmp_path, make_episode(final_step=1))
    (bag / LABEL_FILE).write_text(text)
    with pytest.raises(BagError, match=r"label\.json"):
        read_episode(bag)


def test_a_label_that_is_given_again_is_no_new_one(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_episode(tmp_path, make_episode(final_step=1))
    relabel(bag, Outcome.TIMEOUT, "vetoed")
    os.utime(bag / "label.json", ns=(1, 1))
    relabel(bag, Outcome.TIMEOUT, "vetoed")
    assert label_time(bag) == 1
    relabel(bag, Outcome.TIMEOUT, "vetoed by another")
    assert label_time(bag) != 1


def test_only_a_finished_episode_can_be_relabelled(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="not a finished episode bag"):
        relabel(tmp_path, Outcome.SUCCESS)


def test_a_bag_of_another_task_is_refused(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_episode(tmp_path, make_episode(final_step=1))
    with pytest.raises(BagError, match="recorded for task 'pick_banana', expected 'put_spoon'"):
        read_episode(bag, expect=task("put_spoon"))


def test_a_bag_of_another_camera_size_is_refused(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_episode(tmp_path, make_episode(final_step=1))
    with pytest.raises(BagError, match="camera 'side' was recorded at 24x16 pixels, expected 32x16"):
        read_episode(bag, expect=task(side=(32, 16)))


def test_a_bag_without_a_camera_of_the_task_is_refused(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_episode(tmp_path, make_episode(final_step=1, sizes={"wrist": (16, 16)}))
    with pytest.raises(BagError, match="has no camera 'side', only \\['wrist'\\]"):
        read_episode(bag, expect=task())


def test_a_bag_of_another_message_version_is_refused(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_episode(tmp_path, make_episode(final_step=1))
    change_metadata(bag, lambda info: info["custom_data"].update(conrft_message_version="2"))
    with pytest.raises(BagError, match="holds message version 2, expected 1"):
        read_episode(bag)


def test_a_bag_of_another_message_definition_is_refused(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_episode(tmp_path, make_episode(final_step=1))

    def other(info: dict[str, Any]) -> None:
        for topic in info["topics_with_message_count"]:
            topic["topic_metadata"]["type_description_hash"] = f"RIHS01_{'0' * 64}"

    change_metadata(bag, other)
    with pytest.raises(BagError, match="recorded with another definition of conrft_msgs/msg/"):
        read_episode(bag)


def write_messages(folder: Path, episode: Episode, topics: set[str], **changes: Any) -> Path:
    """Copies a bag of ``episode`` with only some topics, or with changed messages."""
    from conrft_data.bags.definitions import EPISODE_TOPICS, pack, unpack

    source = write_episode(folder / "source", episode)
    types = {topic.name: topic.type_name for topic in EPISODE_TOPICS}
    with (
        AnyReader([source]) as reader,
        EpisodeWriter(folder, "copy", task=episode.task, mode=episode.mode) as writer,
    ):
        for connection, stamp, raw in reader.messages():
            if connection.topic not in topics:
                continue
            if change := changes.get(connection.topic[1:]):
                message = change(unpack(raw, types[connection.topic]))
                if message is None:
                    continue
                raw = pack(message)
            writer.write(connection.topic, raw, stamp)
        return writer.finish(episode.outcome, episode.final_step)


ALL = {"/observation", "/policy_output", "/action", "/reward", "/episode_state"}


@pytest.mark.parametrize("topic", ["/action", "/episode_state"])
def test_a_bag_without_a_needed_topic_is_refused(tmp_path: Path, make_episode: EpisodeMaker, topic: str) -> None:
    bag = write_messages(tmp_path, make_episode(final_step=1), ALL - {topic})
    with pytest.raises(BagError, match=f"has no messages on {topic}"):
        read_episode(bag)


def test_policy_outputs_and_rewards_may_be_missing(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    episode = read_episode(write_messages(tmp_path, make_episode(), ALL - {"/policy_output", "/reward"}))
    assert episode.embeddings is None
    assert episode.verdicts == {}


def test_embeddings_with_a_gap_are_left_to_the_learner(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_messages(tmp_path, make_episode(), ALL, policy_output=lambda m: m if m.step != 3 else None)
    assert read_episode(bag).embeddings is None


def test_a_missing_observation_is_refused(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_messages(tmp_path, make_episode(), ALL, observation=lambda m: m if m.step != 3 else None)
    with pytest.raises(BagError, match="has an action but no observation at step 3"):
        read_episode(bag)


def test_a_tail_may_be_cut_off_after_an_action(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    episode = make_episode(final_step=6, tail=2)
    bag = write_messages(tmp_path, episode, ALL, observation=lambda m: m if m.step != 8 else None)
    assert [observation.step for observation in read_episode(bag).tail] == [7]


def test_a_missing_action_is_refused(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_messages(tmp_path, make_episode(), ALL, action=lambda m: m if m.step != 3 else None)
    with pytest.raises(BagError, match="has no action at step 3 of 6"):
        read_episode(bag)


def test_the_last_observation_needs_no_action(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_messages(tmp_path, make_episode(), ALL, action=lambda m: m if m.step != 6 else None)
    assert len(read_episode(bag).actions()) == 6


def test_an_episode_that_ended_at_its_first_observation_needs_no_action_at_all(
    tmp_path: Path, make_episode: EpisodeMaker
) -> None:
    episode = read_episode(write_messages(tmp_path, make_episode(final_step=0), ALL - {"/action"}))
    assert (len(episode), len(episode.observations), len(episode.commands)) == (0, 1, 1)


def test_an_action_stamped_unlike_its_observation_is_refused(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    def late(message: Any) -> Any:
        header = replace(message.header, stamp=replace(message.header.stamp, nanosec=5))
        return replace(message, header=header)

    bag = write_messages(tmp_path, make_episode(), ALL, action=late)
    with pytest.raises(BagError, match="/action step 0: expected stamp and episode of the other messages"):
        read_episode(bag)


def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    def nan(message: Any) -> Any:
        force = replace(message.tcp_wrench.force, y=float("nan"))
        return replace(message, tcp_wrench=replace(message.tcp_wrench, force=force))

    bag = write_messages(tmp_path, make_episode(), ALL, observation=nan)
    with pytest.raises(BagError, match="/observation step 0: tcp_wrench: expected finite numbers"):
        read_episode(bag)


def test_an_image_that_changes_its_size_is_refused(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    def smaller(message: Any) -> Any:
        if message.step != 2:
            return message
        side = message.images[0]
        side = replace(side, height=side.height // 2, data=side.data[: side.data.size // 2])
        return replace(message, images=[side, *message.images[1:]])

    bag = write_messages(tmp_path, make_episode(), ALL, observation=smaller)
    with pytest.raises(BagError, match="/observation step 2: camera 'side': expected 24x16 pixels, got 24x8"):
        read_episode(bag)


def test_a_recording_that_is_cut_off_is_refused(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    bag = write_episode(tmp_path, make_episode())
    file = bag / f"{bag.name}.mcap"
    whole = file.read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(
            BagError, match=r"is cut off.*`conrft|nothing of it.*`conrft|is cut off.* `conrft demos salvage`"
        ):
            read_episode(bag)


def test_a_folder_that_is_no_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"has no metadata\.yaml"):
        read_episode(tmp_path)
