"""Tick messages keep their numbers on the way to dataclasses and back, and what nobody may act on is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message

from conrft_data import conversion
from conrft_data.bags.definitions import unpack
from conrft_data.conversion import MessageError
from conrft_data.durable_files import is_plain_name
from conrft_data.ticks import EpisodeStatus, Proposal, Tick
from conrft_data.types import ActionSource, Command, Episode, Mode, Observation, Outcome, Phase, Verdict
from conrft_msgs.msg import EpisodeState

FLOAT32 = st.floats(-1e6, 1e6, width=32)
UNIT = st.floats(-1, 1, width=32)
UINT32 = st.integers(0, 2**32 - 1)
TICKS = st.builds(Tick, st.integers(0, 2**31 * 1_000_000_000 - 1), UINT32, UINT32)
ACTIONS = st.lists(UNIT, min_size=7, max_size=7).map(lambda values: np.array(values, np.float32))
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
EPISODE_IDS = WORDS.filter(is_plain_name)


def through_the_wire(message: Any) -> list[Any]:
    """The message as a subscriber gets it and as a bag's reader gets it."""
    kind = type(message)
    raw = serialize_message(message)
    return [deserialize_message(raw, kind), unpack(raw, f"conrft_msgs/msg/{kind.__name__}")]


@pytest.fixture
def observation(make_episode: Callable[..., Episode]) -> Observation:
    return make_episode(final_step=1).observations[0]


def test_an_observation_comes_back_the_same(observation: Observation) -> None:
    for message in through_the_wire(conversion.observation_to_msg(observation, "fr3_link0")):
        assert message.header.frame_id == "fr3_link0"
        read = conversion.observation_from_msg(message)
        assert conversion.tick_of(message) == (observation.stamp_ns, observation.episode, observation.step)
        assert (read.stamp_ns, read.gripper_opening) == (observation.stamp_ns, observation.gripper_opening)
        for name in ("tcp_pose", "reset_pose", "tcp_twist", "tcp_wrench"):
            np.testing.assert_allclose(getattr(read, name), getattr(observation, name), rtol=0, atol=1e-15)
        for camera, pixels in observation.images.items():
            np.testing.assert_array_equal(read.images[camera], pixels)


@given(ACTIONS, st.sampled_from(ActionSource), st.none() | ACTIONS, WORDS, TICKS)
def test_a_command_comes_back_the_same(
    action: np.ndarray, source: ActionSource, proposal: np.ndarray | None, reason: str, tick: Tick
) -> None:
    command = Command(action=action, source=source, proposal=proposal, reason=reason)
    for message in through_the_wire(conversion.command_to_msg(command, tick)):
        read = conversion.command_from_msg(message)
        assert conversion.tick_of(message) == tick
        assert (read.source, read.reason) == (source, reason)
        np.testing.assert_array_equal(read.action, action)
        np.testing.assert_array_equal(read.proposal, proposal)


@given(ACTIONS, st.lists(FLOAT32, max_size=9), WORDS, st.integers(0, 2**64 - 1), st.floats(0, 10, width=32), TICKS)
def test_a_proposal_comes_back_the_same(
    action: np.ndarray, embedding: list[float], fingerprint: str, version: int, seconds: float, tick: Tick
) -> None:
    proposal = Proposal(
        action=action,
        embedding=np.array(embedding, np.float32),
        embedding_fingerprint=fingerprint,
        weights_version=version,
        inference_time=seconds,
    )
    for message in through_the_wire(conversion.proposal_to_msg(proposal, tick)):
        read = conversion.proposal_from_msg(message)
        np.testing.assert_array_equal(read.action, action)
        np.testing.assert_array_equal(read.embedding, np.array(embedding, np.float32))
        assert (read.embedding_fingerprint, read.weights_version, read.inference_time) == (
            fingerprint, version, seconds,
        )  # fmt: skip


@given(st.floats(0, 1, width=32), st.booleans(), st.booleans(), TICKS)
def test_a_verdict_comes_back_the_same(probability: float, gates: bool, success: bool, tick: Tick) -> None:
    verdict = Verdict(probability=probability, gates_passed=gates, success=success)
    for message in through_the_wire(conversion.verdict_to_msg(verdict, tick)):
        assert conversion.verdict_from_msg(message) == verdict
        assert conversion.tick_of(message) == tick


@given(
    st.sampled_from(Phase), st.sampled_from(Outcome), st.sampled_from(Mode), UINT32, UINT32, EPISODE_IDS, WORDS, TICKS
)
def test_an_episode_status_comes_back_the_same(
    phase: Phase, outcome: Outcome, mode: Mode, episode: int, final_step: int, name: str, reason: str, tick: Tick
) -> None:
    status = EpisodeStatus(
        stamp_ns=tick.stamp_ns,
        phase=phase,
        outcome=outcome,
        mode=mode,
        episode=episode,
        final_step=final_step,
        episode_id=name,
        task="pick_banana",
        instruction="pick up the banana",
        message_version=1,
        reason=reason,
    )
    for message in through_the_wire(conversion.episode_status_to_msg(status)):
        assert conversion.episode_status_from_msg(message) == status


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a"])
def test_an_episode_that_runs_under_a_name_that_no_bag_can_have_is_refused(name: str) -> None:
    message = EpisodeState(state=Phase.RUNNING, episode_id=name)
    with pytest.raises(MessageError, match="episode_state: expected the name of the running episode"):
        conversion.episode_status_from_msg(message)
    message.state = Phase.ENDED
    assert conversion.episode_status_from_msg(message).episode_id == name


@given(TICKS, WORDS)
def test_the_key_of_a_tick_is_read_from_the_serialized_message(tick: Tick, frame_id: str) -> None:
    verdict = Verdict(probability=0.5, gates_passed=True, success=False)
    raw = serialize_message(conversion.verdict_to_msg(verdict, tick, frame_id))
    assert conversion.tick_from_cdr(raw) == tick
    assert conversion.stamp_from_cdr(raw) == tick.stamp_ns


@given(st.binary(max_size=40))
def test_bytes_that_are_too_short_for_a_key_are_refused(raw: bytes) -> None:
    try:
        conversion.tick_from_cdr(raw)
    except MessageError as error:
        assert "expected" in str(error)


def test_exactly_the_expected_cameras_come_back_in_their_order(observation: Observation) -> None:
    message = conversion.observation_to_msg(observation)
    read = conversion.observation_from_msg(message, {"wrist": (16, 16), "side": (24, 16)})
    assert list(read.images) == ["wrist", "side"]
    assert list(conversion.observation_from_msg(message, {"wrist": (16, 16)}).images) == ["wrist"]


def test_a_camera_that_is_missing_is_named(observation: Observation) -> None:
    message = conversion.observation_to_msg(observation)
    with pytest.raises(MessageError, match=r"observation: expected camera 'top', got only \['side', 'wrist'\]"):
        conversion.observation_from_msg(message, {"top": (24, 16)})


def test_a_camera_of_another_size_is_named_with_both_sizes(observation: Observation) -> None:
    message = conversion.observation_to_msg(observation)
    with pytest.raises(MessageError, match="/left/observation: camera 'side': expected 256x256 pixels, got 24x16"):
        conversion.observation_from_msg(message, {"side": (256, 256)}, topic="/left/observation")


def test_a_camera_that_is_there_twice_is_refused(observation: Observation) -> None:
    message = conversion.observation_to_msg(observation)
    message.images = [message.images[0], message.images[0]]
    with pytest.raises(MessageError, match="expected cameras of different names"):
        conversion.observation_from_msg(message)


def test_an_observation_holds_rgb_only(observation: Observation) -> None:
    message = conversion.observation_to_msg(observation)
    message.images[0].encoding = "bgr8"
    with pytest.raises(MessageError, match="camera 'side': expected rgb8, got 'bgr8'"):
        conversion.observation_from_msg(message)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["tcp_pose", "reset_pose", "tcp_twist", "tcp_wrench", "gripper_opening"])
def test_a_number_that_is_not_finite_is_refused_by_name(observation: Observation, name: str, bad: float) -> None:
    value: Any = np.array(getattr(observation, name), dtype=np.float64)
    value[() if name == "gripper_opening" else 1] = bad
    message = conversion.observation_to_msg(replace(observation, **{name: value}))
    with pytest.raises(MessageError, match=f"observation: {name}: expected finite numbers"):
        conversion.observation_from_msg(message)


def test_a_quaternion_that_is_no_rotation_is_refused(observation: Observation) -> None:
    message = conversion.observation_to_msg(observation)
    message.tcp_pose.orientation.w += 0.5
    with pytest.raises(MessageError, match="observation: tcp_pose: expected a unit quaternion"):
        conversion.observation_from_msg(message)


def test_a_quaternion_that_is_off_by_rounding_is_normalised(observation: Observation) -> None:
    message = conversion.observation_to_msg(observation)
    message.tcp_pose.orientation.w *= 1 + 1e-4
    pose = conversion.observation_from_msg(message).tcp_pose
    assert abs(np.linalg.norm(pose[3:]) - 1) < 1e-12


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1.01, -2.0])
def test_an_action_beyond_its_range_is_refused_both_ways(bad: float) -> None:
    action = np.zeros(7, np.float32)
    good = conversion.command_to_msg(Command(action=action, source=ActionSource.HOLD), Tick(0, 1, 0))
    action[3] = bad
    with pytest.raises(MessageError, match=r"action: action: expected numbers in \[-1, 1\]"):
        conversion.command_to_msg(Command(action=action, source=ActionSource.HOLD), Tick(0, 1, 0))
    good.action[3] = bad
    with pytest.raises(MessageError, match=r"action: action: expected numbers in \[-1, 1\]"):
        conversion.command_from_msg(good)


def test_an_action_of_another_length_is_refused() -> None:
    with pytest.raises(MessageError, match=r"expected 7 numbers, got shape \(6,\)"):
        conversion.command_to_msg(Command(action=np.zeros(6, np.float32), source=ActionSource.HOLD), Tick(0, 1, 0))


def test_an_unknown_source_is_refused() -> None:
    message = conversion.command_to_msg(
        Command(action=np.zeros(7, np.float32), source=ActionSource.HOLD), Tick(0, 1, 0)
    )
    message.source = 9
    with pytest.raises(MessageError, match=r"action: source: expected one of .*2 OPERATOR.* got 9"):
        conversion.command_from_msg(message)


@pytest.mark.parametrize("probability", [-0.1, 1.1, np.nan])
def test_a_probability_beyond_its_range_is_refused(probability: float) -> None:
    verdict = Verdict(probability=probability, gates_passed=True, success=True)
    with pytest.raises(MessageError, match="reward: probability: expected"):
        conversion.verdict_from_msg(conversion.verdict_to_msg(verdict, Tick(0, 1, 0)))


def test_an_embedding_with_nan_is_refused() -> None:
    proposal = Proposal(
        action=np.zeros(7, np.float32),
        embedding=np.array([0, np.nan], np.float32),
        embedding_fingerprint="",
        weights_version=0,
        inference_time=0,
    )
    with pytest.raises(MessageError, match="policy_output: embedding: expected finite numbers, got 1 of 2"):
        conversion.proposal_from_msg(conversion.proposal_to_msg(proposal, Tick(0, 1, 0)))
