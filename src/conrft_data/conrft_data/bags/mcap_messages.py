"""Reads the messages of an MCAP file (https://mcap.dev/spec) in their order, also of one without an end.

There the index and the summary are missing, and the last chunk may break off.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from mcap.opcode import Opcode
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader

from conrft_data.bags.errors import BagError

_MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")  # opcode, length of what follows
_CHUNK = struct.Struct(
    "<QQQII"
)  # start, end, size, checksum, length of the compression's name; then the name, and 8 bytes of length


class McapMessage(NamedTuple):
    """A message as it was recorded.

    Attributes:
        topic, type_name: where it was published, and as what.
        definition: of the type; ``idl`` when it is IDL.
        stamp_ns: when it was recorded.
        raw: CDR.
    """

    topic: str
    type_name: str
    definition: str
    idl: bool
    stamp_ns: int
    raw: bytes


def complete_messages(file: Path) -> Iterator[McapMessage]:
    """Every complete message up to where the file breaks off, in its order.

    Raises BagError when not even the beginning of the file is there.
    """
    try:
        with file.open("rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise BagError(f"{file}: is not an MCAP file, or nothing of it reached the disk")
            channels = _Channels()
            end = _end_of_complete_records(stream, len(_MAGIC))
            yield from channels.messages(stream, len(_MAGIC), end)
            chunk = _contents_of_broken_chunk(stream, end)
            yield from channels.messages(chunk, 0, _end_of_complete_records(chunk, 0))
    except OSError as error:
        raise BagError(f"{file}: cannot be read: {error.strerror or error}") from error


def is_whole(file: Path) -> bool:
    """Whether an MCAP file has its end; raises OSError when it cannot be read."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - len(_MAGIC)))
        return size > len(_MAGIC) and stream.read() == _MAGIC


class _Channels:
    """Schemas and channels met so far, which give later messages their topic and type."""

    def __init__(self) -> None:
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}

    def messages(self, stream: IO[bytes], start: int, end: int) -> Iterator[McapMessage]:
        """Messages of the records between two offsets."""
        records = iter(StreamReader(_Section(stream, start, end), skip_magic=True).records)
        while True:
            try:
                record = next(records)
            except Exception:
                # The end, or a damaged record, for which every decompressor has its own error; what follows cannot
                # be trusted.
                return
            if isinstance(record, Schema):
                self._schemas[record.id] = record
            elif isinstance(record, Channel):
                self._channels[record.id] = record
            elif isinstance(record, Message):
                yield from self._named(record)

    def _named(self, record: Message) -> Iterator[McapMessage]:
        channel = self._channels.get(record.channel_id)
        schema = self._schemas.get(channel.schema_id) if channel else None
        if channel and schema:
            definition = schema.data.decode("utf-8", errors="replace")
            yield McapMessage(
                channel.topic, schema.name, definition, schema.encoding == "ros2idl", record.log_time, record.data
            )


class _Section(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, stream: IO[bytes], start: int, end: int) -> None:
        super().__init__()
        self._stream, self._left = stream, max(0, end - start)
        stream.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._stream.read(min(len(buffer), self._left))
        buffer[: len(part)] = part
        self._left -= len(part)
        return len(part)


def _end_of_complete_records(stream: IO[bytes], start: int) -> int:
    """Offset behind the last record that is wholly there.

    The MCAP reader would take a short last record for a whole one.
    """
    size = stream.seek(0, os.SEEK_END)
    offset = start
    while offset + _RECORD.size <= size:
        stream.seek(offset)
        opcode, length = _RECORD.unpack(stream.read(_RECORD.size))
        if (
            opcode == 0 or offset + _RECORD.size + length > size
        ):  # 0 is no opcode but the padding that a loss of power leaves
            break
        offset += _RECORD.size + length
    return offset


def _contents_of_broken_chunk(stream: IO[bytes], offset: int) -> io.BytesIO:
    """What is there of the records inside the chunk at ``offset``.

    Nothing when there is no chunk, or a compressed one.
    """
    stream.seek(offset)
    head = stream.read(_RECORD.size + _CHUNK.size)
    if len(head) < _RECORD.size + _CHUNK.size or head[0] != Opcode.CHUNK or _CHUNK.unpack_from(head, _RECORD.size)[-1]:
        return io.BytesIO()
    return io.BytesIO(stream.read()[8:])
