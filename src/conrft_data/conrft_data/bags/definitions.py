"""Definitions of the messages in an episode bag, for reading and writing without ROS' own type support.

The suite's messages come from the ``.msg`` files that conrft_msgs installs, so there is one source; the standard
messages from rosbags' set for Jazzy.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import (
    Connection,
    MessageDefinitionFormat,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from conrft_data import topics
from conrft_data.bags.errors import BagError
from conrft_data.bags.mcap_messages import McapMessage

OBSERVATION_TYPE = "conrft_msgs/msg/Observation"
POLICY_OUTPUT_TYPE = "conrft_msgs/msg/PolicyOutput"
ACTION_TYPE = "conrft_msgs/msg/Action"
REWARD_TYPE = "conrft_msgs/msg/Reward"
EPISODE_STATE_TYPE = "conrft_msgs/msg/EpisodeState"


class RecordedTopic(NamedTuple):
    """A topic of an episode bag.

    Attributes:
        name: absolute, as in the bag.
        type_name: of its messages, ``package/msg/Type``.
        qos: with which it was published.
    """

    name: str
    type_name: str
    qos: QoSProfile


OBSERVATION = RecordedTopic(f"/{topics.OBSERVATION}", OBSERVATION_TYPE, topics.TICK)
POLICY_OUTPUT = RecordedTopic(f"/{topics.POLICY_OUTPUT}", POLICY_OUTPUT_TYPE, topics.TICK)
ACTION = RecordedTopic(f"/{topics.ACTION}", ACTION_TYPE, topics.TICK)
REWARD = RecordedTopic(f"/{topics.REWARD}", REWARD_TYPE, topics.TICK)
EPISODE_STATE = RecordedTopic(f"/{topics.EPISODE_STATE}", EPISODE_STATE_TYPE, topics.LATCHED)

TICK_TOPICS = (OBSERVATION, POLICY_OUTPUT, ACTION, REWARD)
EPISODE_TOPICS = (*TICK_TOPICS, EPISODE_STATE)
REQUIRED_TOPICS = (OBSERVATION, ACTION, EPISODE_STATE)


@functools.cache
def typestore() -> Typestore:
    """All message types of an episode bag; raises BagError where conrft_msgs is not installed."""
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        folder = Path(get_package_share_directory("conrft_msgs")) / "msg"
    except PackageNotFoundError as error:
        raise BagError("conrft_msgs is not installed: build the workspace and source install/setup.bash") from error
    store = get_typestore(Stores.ROS2_JAZZY)
    for file in sorted(folder.glob("*.msg")):
        store.register(get_types_from_msg(file.read_text(encoding="utf-8"), f"conrft_msgs/msg/{file.stem}"))
    return store


@functools.cache
def type_hash(type_name: str) -> str:
    """RIHS01 hash (REP-2016) of a message definition as installed here; empty when the type is unknown."""
    store = typestore()
    return str(store.hash_rihs01(type_name)) if type_name in store.fielddefs else ""


@functools.cache
def definition_text(type_name: str) -> str:
    """Definition of a message with everything it uses, as a recording carries it."""
    text, _ = typestore().generate_msgdef(type_name, ros_version=2)
    return str(text)


def unpack(raw: bytes, type_name: str) -> Any:
    """A message of its serialized form (CDR); raises ValueError when the bytes are not such a message.

    Arrays share the memory of ``raw``.
    """
    try:
        return typestore().deserialize_cdr(memoryview(raw), type_name)
    except Exception as error:  # whatever damaged bytes lead the generated reader to
        raise ValueError(f"not a {type_name}: {error}") from error


def unpack_as_recorded(message: McapMessage) -> Any:
    """A message by the definition that its recording carries, which may be older than the installed one.

    For readers that name what they need of it. Raises ValueError when the bytes are not such a message.
    """
    try:
        store = _store_of_text(message.type_name, message.definition, message.idl)
        return store.deserialize_cdr(memoryview(message.raw), message.type_name)
    except Exception as error:  # neither the parser's errors nor those of the generated reader have a common base
        raise ValueError(f"not a {message.type_name}: {error}") from error


def pack(message: Any) -> bytes:
    """Serialized form (CDR) of a message that :func:`unpack` made."""
    return bytes(typestore().serialize_cdr(message, message.__msgtype__))


def check_definition(type_name: str, where: str, *, digest: str = "", text: str = "", idl: bool = False) -> None:
    """Compares a recorded message definition with the installed one.

    Args:
        type_name: of the message.
        where: bag and topic, for the error.
        digest: recorded RIHS01 hash; where it is empty, ``text`` is hashed.
        text: recorded definition; without hash and text nothing can be compared.
        idl: whether the text is IDL.

    Raises:
        BagError: they differ, or the text cannot be understood.
    """
    if not digest and not text:
        return
    try:
        recorded = digest or _hash_of_text(type_name, text, idl)
    except Exception as error:  # the parser's errors have no common base
        raise BagError(f"{where}: the recorded definition of {type_name} cannot be understood: {error}") from error
    if recorded != type_hash(type_name):
        raise BagError(f"{where}: was recorded with another definition of {type_name} than the one installed here")


def check_connection(connection: Connection, where: str) -> None:
    """Raises BagError when the message definition of a recorded topic is not the installed one."""
    definition = connection.msgdef
    text = "" if definition.format is MessageDefinitionFormat.NONE else definition.data
    check_definition(
        connection.msgtype,
        f"{where}: {connection.topic}",
        digest=connection.digest,
        text=text,
        idl=definition.format is MessageDefinitionFormat.IDL,
    )


def bag_qos(profile: QoSProfile) -> Qos:
    """Rosbags' form of a QoS profile.

    Deadline, lifespan and liveliness stay at their defaults (infinite), as everywhere in the suite.
    """
    infinite = QosTime(9223372036, 854775807)
    reliable = profile.reliability == ReliabilityPolicy.RELIABLE
    latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    return Qos(
        QosHistory.KEEP_ALL if profile.history == HistoryPolicy.KEEP_ALL else QosHistory.KEEP_LAST,
        profile.depth,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        infinite,
        infinite,
        QosLiveliness.AUTOMATIC,
        infinite,
        avoid_ros_namespace_conventions=False,
    )


def _hash_of_text(type_name: str, text: str, idl: bool) -> str:
    return str(_store_of_text(type_name, text, idl).hash_rihs01(type_name))


@functools.lru_cache(maxsize=16)
def _store_of_text(type_name: str, text: str, idl: bool) -> Typestore:
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_idl(text) if idl else get_types_from_msg(text, type_name))
    return store
