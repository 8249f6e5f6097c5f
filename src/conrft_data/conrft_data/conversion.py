"""Messages of a tick to dataclasses and back: the one place that knows both.

Readers take any object with the message's fields, from rclpy or from a bag. Every reader refuses what no node may act
or learn on: a number that is not finite, an array or an image of the wrong size, an unknown constant.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conrft_data import topics
from conrft_data.durable_files import is_plain_name
from conrft_data.images import ImageError, array_to_image, image_to_rgb
from conrft_data.rotations import normalized
from conrft_data.ticks import EpisodeStatus, Proposal, Tick
from conrft_data.types import (
    ACTION_DIM,
    ActionSource,
    Command,
    Float32,
    Float64,
    Mode,
    Observation,
    Outcome,
    Phase,
    Verdict,
)

# How far a measured quaternion may be from unit length before it is a defect and not rounding.
_QUATERNION_TOLERANCE = 1e-2
# How far float32 rounding may carry an action over its bound.
_ACTION_TOLERANCE = 1e-5

_NANOSECONDS = 1_000_000_000

CameraSizes = Mapping[str, tuple[int, int]]
EnumT = TypeVar("EnumT", bound=IntEnum)


class MessageError(ValueError):
    """A message cannot be used; the text names the topic, the field or camera, what was expected and what came."""


def stamp_to_ns(stamp: Any) -> int:
    """Nanoseconds of a ``builtin_interfaces/Time``."""
    return int(stamp.sec) * _NANOSECONDS + int(stamp.nanosec)


def ns_to_stamp(stamp_ns: int) -> Any:
    """A ``builtin_interfaces/msg/Time`` of nanoseconds."""
    from builtin_interfaces.msg import Time

    sec, nanosec = divmod(int(stamp_ns), _NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)


def tick_of(message: Any) -> Tick:
    """Key of a tick message."""
    return Tick(stamp_to_ns(message.header.stamp), int(message.episode), int(message.step))


def stamp_from_cdr(raw: bytes) -> int:
    """Header stamp, ns, of a serialized message (OMG XCDR1, as ROS 2 sends it) that begins with a header.

    Raises MessageError when ``raw`` is too short.
    """
    return _header_from_cdr(raw)[0]


def tick_from_cdr(raw: bytes) -> Tick:
    """Key of a serialized tick message (OMG XCDR1), read without unpacking the rest.

    Works for Observation, PolicyOutput, Action and Reward, which all begin with header, episode and step. Raises
    MessageError when ``raw`` is too short.
    """
    stamp_ns, order, end = _header_from_cdr(raw)
    try:
        episode, step = struct.unpack_from(f"{order}II", raw, end)
    except struct.error as error:
        raise MessageError(f"tick message: expected header, episode and step, got {len(raw)} bytes") from error
    return Tick(stamp_ns, episode, step)


def pose_from_msg(pose: Any, source: str = "pose") -> Float64:
    """``(7,)`` of a ``geometry_msgs/Pose``, its quaternion scaled to unit length.

    Raises MessageError when it is none.
    """
    p, q = pose.position, pose.orientation
    values = _finite([p.x, p.y, p.z, q.x, q.y, q.z, q.w], source)
    length = float(np.linalg.norm(values[3:]))
    if abs(length - 1.0) > _QUATERNION_TOLERANCE:
        raise MessageError(f"{source}: expected a unit quaternion, got one of length {length:.4g}")
    values[3:] = normalized(values[3:])
    return values


def pose_to_msg(pose: ArrayLike) -> Any:
    """A ``geometry_msgs/msg/Pose`` of ``(7,)``."""
    from geometry_msgs.msg import Point, Pose, Quaternion

    x, y, z, qx, qy, qz, qw = np.asarray(pose, dtype=np.float64).tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def twist_from_msg(twist: Any, source: str = "twist") -> Float64:
    """``(6,)`` linear m/s and angular rad/s of a ``geometry_msgs/Twist``."""
    return _finite([*_xyz(twist.linear), *_xyz(twist.angular)], source)


def twist_to_msg(twist: ArrayLike) -> Any:
    """A ``geometry_msgs/msg/Twist`` of ``(6,)``."""
    from geometry_msgs.msg import Twist

    return Twist(linear=_vector3(np.asarray(twist)[:3]), angular=_vector3(np.asarray(twist)[3:]))


def wrench_from_msg(wrench: Any, source: str = "wrench") -> Float64:
    """``(6,)`` force N and torque N m of a ``geometry_msgs/Wrench``."""
    return _finite([*_xyz(wrench.force), *_xyz(wrench.torque)], source)


def wrench_to_msg(wrench: ArrayLike) -> Any:
    """A ``geometry_msgs/msg/Wrench`` of ``(6,)``."""
    from geometry_msgs.msg import Wrench

    return Wrench(force=_vector3(np.asarray(wrench)[:3]), torque=_vector3(np.asarray(wrench)[3:]))


def observation_from_msg(
    message: Any, cameras: CameraSizes | None = None, topic: str = topics.OBSERVATION
) -> Observation:
    """An Observation of its message.

    Args:
        message: ``conrft_msgs/Observation``.
        cameras: width and height by name; exactly these are returned, in this order. None: what is there.
        topic: for the error.

    Raises:
        MessageError: a camera is missing or has another size, or a number is not finite.
    """
    images = {image.header.frame_id: image for image in message.images}
    if len(images) != len(message.images):
        raise MessageError(
            f"{topic}: expected cameras of different names, got {[image.header.frame_id for image in message.images]}"
        )
    names = list(images) if cameras is None else list(cameras)
    pixels = {}
    for name in names:
        if name not in images:
            raise MessageError(f"{topic}: expected camera '{name}', got only {sorted(images) or 'none'}")
        expected = None if cameras is None else cameras[name]
        pixels[name] = _camera_pixels(images[name], f"{topic}: camera '{name}'", expected)
    opening = _finite([message.gripper_opening], f"{topic}: gripper_opening")
    return Observation(
        stamp_ns=stamp_to_ns(message.header.stamp),
        episode=int(message.episode),
        step=int(message.step),
        images=pixels,
        tcp_pose=pose_from_msg(message.tcp_pose, f"{topic}: tcp_pose"),
        reset_pose=pose_from_msg(message.reset_pose, f"{topic}: reset_pose"),
        tcp_twist=twist_from_msg(message.tcp_twist, f"{topic}: tcp_twist"),
        tcp_wrench=wrench_from_msg(message.tcp_wrench, f"{topic}: tcp_wrench"),
        gripper_opening=float(opening[0]),
    )


def observation_to_msg(observation: Observation, frame_id: str = "base") -> Any:
    """A ``conrft_msgs/msg/Observation``; ``frame_id`` is the robot's base frame."""
    from conrft_msgs.msg import Observation as ObservationMessage

    message = ObservationMessage(
        episode=observation.episode,
        step=observation.step,
        images=[array_to_image(pixels, "rgb8", name) for name, pixels in observation.images.items()],
        tcp_pose=pose_to_msg(observation.tcp_pose),
        reset_pose=pose_to_msg(observation.reset_pose),
        tcp_twist=twist_to_msg(observation.tcp_twist),
        tcp_wrench=wrench_to_msg(observation.tcp_wrench),
        gripper_opening=float(observation.gripper_opening),
    )
    message.header.stamp = ns_to_stamp(observation.stamp_ns)
    message.header.frame_id = frame_id
    for image in message.images:
        image.header.stamp = message.header.stamp
    return message


def command_from_msg(message: Any, topic: str = topics.ACTION) -> Command:
    """A Command of a ``conrft_msgs/Action``; raises MessageError when an action is not finite or beyond [-1, 1]."""
    return Command(
        action=_action(message.action, f"{topic}: action"),
        source=_constant(ActionSource, message.source, f"{topic}: source"),
        proposal=_action(message.proposal, f"{topic}: proposal") if message.has_proposal else None,
        reason=str(message.reason),
    )


def command_to_msg(command: Command, tick: Tick, frame_id: str = "base") -> Any:
    """A ``conrft_msgs/msg/Action`` for the observation of ``tick``.

    Raises MessageError when an action is not finite or beyond [-1, 1].
    """
    from conrft_msgs.msg import Action

    message = _with_tick(Action(), tick, frame_id)
    message.action = _action(command.action, f"{topics.ACTION}: action")
    message.source = int(command.source)
    message.has_proposal = command.proposal is not None
    if command.proposal is not None:
        message.proposal = _action(command.proposal, f"{topics.ACTION}: proposal")
    message.reason = command.reason
    return message


def proposal_from_msg(message: Any, topic: str = topics.POLICY_OUTPUT) -> Proposal:
    """A Proposal of a ``conrft_msgs/PolicyOutput``.

    Raises MessageError when a number is not finite or an action beyond [-1, 1].
    """
    embedding = np.asarray(message.embedding, dtype=np.float32)
    if not np.isfinite(embedding).all():
        raise MessageError(
            f"{topic}: embedding: expected finite numbers, got {np.count_nonzero(~np.isfinite(embedding))} "
            f"of {embedding.size} that are not"
        )
    return Proposal(
        action=_action(message.action, f"{topic}: action"),
        embedding=embedding,
        embedding_fingerprint=str(message.embedding_fingerprint),
        weights_version=int(message.weights_version),
        inference_time=float(_finite([message.inference_time], f"{topic}: inference_time")[0]),
    )


def proposal_to_msg(proposal: Proposal, tick: Tick, frame_id: str = "base") -> Any:
    """A ``conrft_msgs/msg/PolicyOutput`` for the observation of ``tick``."""
    from conrft_msgs.msg import PolicyOutput

    message = _with_tick(PolicyOutput(), tick, frame_id)
    message.action = _action(proposal.action, f"{topics.POLICY_OUTPUT}: action")
    message.embedding = array("f", np.asarray(proposal.embedding, dtype=np.float32).tobytes())
    message.embedding_fingerprint = proposal.embedding_fingerprint
    message.weights_version = proposal.weights_version
    message.inference_time = float(proposal.inference_time)
    return message


def verdict_from_msg(message: Any, topic: str = topics.REWARD) -> Verdict:
    """A Verdict of a ``conrft_msgs/Reward``; raises MessageError when the probability is none."""
    probability = float(_finite([message.probability], f"{topic}: probability")[0])
    if not 0.0 <= probability <= 1.0:
        raise MessageError(f"{topic}: probability: expected 0..1, got {probability:.4g}")
    return Verdict(probability=probability, gates_passed=bool(message.gates_passed), success=bool(message.success))


def verdict_to_msg(verdict: Verdict, tick: Tick, frame_id: str = "base") -> Any:
    """A ``conrft_msgs/msg/Reward`` for the observation of ``tick``."""
    from conrft_msgs.msg import Reward

    message = _with_tick(Reward(), tick, frame_id)
    message.probability = float(verdict.probability)
    message.gates_passed = verdict.gates_passed
    message.success = verdict.success
    return message


def episode_status_from_msg(message: Any, topic: str = topics.EPISODE_STATE) -> EpisodeStatus:
    """An EpisodeStatus of a ``conrft_msgs/EpisodeState``.

    Raises MessageError at an unknown constant, at a stamp from before 1970, which no bag can hold, and at an
    episode that runs under a name that no bag can have.
    """
    if message.header.stamp.sec < 0:
        raise MessageError(f"{topic}: expected a stamp from 1970 on, got {message.header.stamp.sec} s")
    if message.state == Phase.RUNNING and not is_plain_name(str(message.episode_id)):
        raise MessageError(f"{topic}: expected the name of the running episode, got {str(message.episode_id)!r}")
    return EpisodeStatus(
        stamp_ns=stamp_to_ns(message.header.stamp),
        phase=_constant(Phase, message.state, f"{topic}: state"),
        outcome=_constant(Outcome, message.outcome, f"{topic}: outcome"),
        mode=_constant(Mode, message.mode, f"{topic}: mode"),
        episode=int(message.episode),
        final_step=int(message.final_step),
        episode_id=str(message.episode_id),
        task=str(message.task),
        instruction=str(message.instruction),
        message_version=int(message.message_version),
        reason=str(message.reason),
    )


def episode_status_to_msg(status: EpisodeStatus, frame_id: str = "base") -> Any:
    """A ``conrft_msgs/msg/EpisodeState``."""
    from conrft_msgs.msg import EpisodeState

    message = EpisodeState(
        state=int(status.phase),
        outcome=int(status.outcome),
        mode=int(status.mode),
        episode=status.episode,
        final_step=status.final_step,
        episode_id=status.episode_id,
        task=status.task,
        instruction=status.instruction,
        message_version=status.message_version,
        reason=status.reason,
    )
    message.header.stamp = ns_to_stamp(status.stamp_ns)
    message.header.frame_id = frame_id
    return message


def _header_from_cdr(raw: bytes) -> tuple[int, str, int]:
    """Stamp in ns, byte order for struct, and the offset of the first 4-byte field behind the header."""
    order = "<" if len(raw) > 1 and raw[1] & 1 else ">"
    try:
        sec, nanosec, length = struct.unpack_from(f"{order}iII", raw, 4)
    except struct.error as error:
        raise MessageError(f"message: expected a header, got {len(raw)} bytes") from error
    if sec < 0:
        raise MessageError(f"message: expected a stamp from 1970 on, got {sec} s")
    # Alignment counts from the end of the 4 bytes of encapsulation.
    return sec * _NANOSECONDS + nanosec, order, 4 + (12 + length + 3) // 4 * 4


def _with_tick(message: Any, tick: Tick, frame_id: str) -> Any:
    message.header.stamp = ns_to_stamp(tick.stamp_ns)
    message.header.frame_id = frame_id
    message.episode, message.step = tick.episode, tick.step
    return message


def _camera_pixels(image: Any, source: str, expected: tuple[int, int] | None) -> NDArray[np.uint8]:
    if expected is not None and (image.width, image.height) != tuple(expected):
        raise MessageError(f"{source}: expected {expected[0]}x{expected[1]} pixels, got {image.width}x{image.height}")
    if image.encoding != "rgb8":
        raise MessageError(f"{source}: expected rgb8, got {image.encoding!r}")
    try:
        return image_to_rgb(image, source)
    except ImageError as error:
        raise MessageError(str(error)) from error


def _action(values: ArrayLike, source: str) -> Float32:
    action = np.asarray(values, dtype=np.float32)
    if action.shape != (ACTION_DIM,):
        raise MessageError(f"{source}: expected {ACTION_DIM} numbers, got shape {action.shape}")
    if not (np.abs(action) <= 1.0 + _ACTION_TOLERANCE).all():  # not <= is also true for NaN
        raise MessageError(f"{source}: expected numbers in [-1, 1], got {action.tolist()}")
    return np.clip(action, -1.0, 1.0)


def _finite(values: ArrayLike, source: str) -> Float64:
    numbers = np.array(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise MessageError(f"{source}: expected finite numbers, got {numbers.tolist()}")
    return numbers


def _constant(kind: type[EnumT], value: int, source: str) -> EnumT:
    try:
        return kind(int(value))
    except ValueError as error:
        raise MessageError(f"{source}: expected one of {[f'{c.value} {c.name}' for c in kind]}, got {value}") from error


def _xyz(vector: Any) -> tuple[float, float, float]:
    return vector.x, vector.y, vector.z


def _vector3(values: ArrayLike) -> Any:
    from geometry_msgs.msg import Vector3

    x, y, z = np.asarray(values, dtype=np.float64).tolist()
    return Vector3(x=x, y=y, z=z)
