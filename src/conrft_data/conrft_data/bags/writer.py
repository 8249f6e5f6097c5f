"""Writes one episode as one rosbag2 recording that appears whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer

from conrft_data import durable_files
from conrft_data.bags import definitions
from conrft_data.bags.definitions import ACTION, EPISODE_STATE, EPISODE_TOPICS, OBSERVATION, RecordedTopic
from conrft_data.bags.errors import BagError
from conrft_data.bags.label import write_label
from conrft_data.bags.listing import custom_data
from conrft_data.types import Mode, Outcome

TEMPORARY_PREFIX = ".tmp-"


class EpisodeWriter:
    """Records one episode into ``<folder>/<episode_id>``: rosbag2 MCAP with Jazzy's metadata, uncompressed.

    It grows in the hidden folder ``.tmp-<episode_id>``; :meth:`finish` synchronises it with the disk and gives it its
    name by one rename. Every observation is handed to the operating system at once, so a killed process loses nothing
    before it, and what a crash leaves behind can be salvaged. A lock tells such a leftover from a recording that goes
    on.

    Leaving the ``with`` block unfinished keeps the leftover; :meth:`discard` removes it.
    """

    def __init__(
        self,
        folder: Path | str,
        episode_id: str,
        *,
        task: str,
        mode: Mode,
        extra_topics: Iterable[RecordedTopic] = (),
        temporary_prefix: str = TEMPORARY_PREFIX,
    ) -> None:
        """Opens the recording.

        Args:
            folder: of all episodes; made when it is missing.
            episode_id: name of the bag; a plain file name.
            task: name of the task.
            mode: why the episode is run.
            extra_topics: recorded besides those of the tick.
            temporary_prefix: of the hidden folder.

        Raises:
            BagError: the episode exists already, its name is no file name, or the disk refuses.
        """
        if not durable_files.is_plain_name(episode_id):
            raise BagError(f"episode id {episode_id!r} is not a plain file name")
        self._target = Path(folder) / episode_id
        self._temporary = Path(folder) / f"{temporary_prefix}{episode_id}"
        self._task, self._mode = task, mode
        self._connections: dict[str, Connection] = {}
        self._cameras: dict[str, tuple[int, int]] | None = None
        self._broken = ""
        self._lock: int | None = None
        self._writer: Writer | None = None
        self.observations = 0
        if self._target.exists():
            raise BagError(f"{self._target}: exists already")
        recorded = (*EPISODE_TOPICS, *extra_topics)
        if unknown := sorted({t.type_name for t in recorded} - set(definitions.typestore().fielddefs)):
            raise BagError(
                f"{self._target}: cannot be recorded, the definition of {', '.join(unknown)} is not known here"
            )
        try:
            self._open(recorded)
        except FileExistsError as error:
            raise BagError(
                f"{self._temporary}: is the leftover of an interrupted recording, salvage or remove it first"
            ) from error
        except OSError as error:
            raise self._failure(error) from error

    def __enter__(self) -> EpisodeWriter:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the files; what is not finished stays as a leftover."""
        self.close()

    @property
    def path(self) -> Path:
        """Where the finished episode will be."""
        return self._target

    def write(self, topic: str, raw: bytes, stamp_ns: int) -> None:
        """Appends one serialized message.

        Args:
            topic: with or without the leading slash.
            raw: CDR, as a raw subscription delivers it.
            stamp_ns: ROS time under which the bag files it.

        Raises:
            BagError: the topic is not recorded here, or the disk refuses, for example because it is full; then
                nothing more can be written.
        """
        name = topic if topic.startswith("/") else f"/{topic}"
        connection = self._connections.get(name)
        if connection is None:
            raise BagError(f"{self._target}: {name} is not one of the recorded topics {sorted(self._connections)}")
        try:
            self._usable_writer().write(connection, stamp_ns, raw)
            if name in (OBSERVATION.name, ACTION.name, EPISODE_STATE.name):  # what a transition is made of
                self._flush()
        except OSError as error:
            raise self._failure(error) from error
        if name == OBSERVATION.name:
            self.observations += 1
            if self._cameras is None:
                self._cameras = _camera_sizes(raw, self._target)

    def relabel(self, outcome: Outcome, reason: str) -> None:
        """Labels the episode while it is recorded: the label appears together with it, also when it is salvaged.

        Raises BagError when the disk refuses; then the recording goes on without the label.
        """
        try:
            write_label(self._temporary / self._target.name, outcome, reason)
        except OSError as error:
            raise BagError(f"{self._target}: the label cannot be written: {error.strerror or error}") from error

    def finish(self, outcome: Outcome, final_step: int) -> Path:
        """Completes the recording and lets it appear under its name.

        Args:
            outcome: how the episode ended.
            final_step: last step that belongs to its transitions.

        Returns:
            The folder of the finished bag.

        Raises:
            BagError: there is no observation, and nothing stays; or a write failed, or the disk refuses, and the
                leftover stays. Nothing appears under the name.
        """
        writer = self._usable_writer()
        if self._cameras is None:
            self.discard()
            raise BagError(f"{self._target}: has no observation, there is nothing to keep")
        if outcome is Outcome.NONE:
            raise BagError(f"{self._target}: an episode that has ended needs an outcome")
        entries = custom_data(
            task=self._task, mode=self._mode, outcome=outcome, final_step=final_step, cameras=self._cameras
        )
        for key, value in entries.items():
            writer.set_custom_data(key, value)
        try:
            writer.close()
            durable_files.sync_tree(self._temporary)
            durable_files.publish(self._temporary / self._target.name, self._target)
            self._temporary.rmdir()
        except OSError as error:
            raise self._failure(error) from error
        self._broken = "it is finished"
        self._release()
        return self._target

    def close(self) -> None:
        """Closes the files without finishing; the leftover can be salvaged."""
        if not self._broken:
            try:
                self._flush()
            except OSError as error:
                raise self._failure(error) from error
            self._broken = "it is closed"
        self._release()

    def discard(self) -> None:
        """Removes the unfinished recording."""
        self._broken = self._broken or "it is discarded"
        self._release()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _open(self, recorded: Iterable[RecordedTopic]) -> None:
        self._temporary.mkdir(parents=True)
        self._lock = lock_folder(self._temporary, wait=True)
        # One level deeper than the hidden folder, because rosbag2 names the recording after its folder.
        self._writer = Writer(
            self._temporary / self._target.name, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP
        )
        self._writer.open()
        for topic in recorded:
            self._connections[topic.name] = self._writer.add_connection(
                topic.name,
                topic.type_name,
                msgdef=definitions.definition_text(topic.type_name),
                rihs01=definitions.type_hash(topic.type_name),
                offered_qos_profiles=[definitions.bag_qos(topic.qos)],
            )

    def _flush(self) -> None:
        """Ends the chunk and hands it to the operating system: from here on it outlives this process."""
        storage = self._usable_writer().storage
        assert storage is not None
        if storage.chunk.bio.tell():  # type: ignore[attr-defined]
            storage.close_chunk()  # type: ignore[attr-defined]
        storage.bio.flush()  # type: ignore[attr-defined]

    def _usable_writer(self) -> Writer:
        if self._broken or self._writer is None:
            raise BagError(f"{self._target}: nothing can be written, {self._broken}")
        return self._writer

    def _failure(self, error: OSError) -> BagError:
        self._broken = f"a write failed: {error.strerror or error}"
        self._release()
        return BagError(
            f"{self._target}: recording failed: {error.strerror or error}; "
            f"what is on the disk stays in {self._temporary.name}"
        )

    def _release(self) -> None:
        """Closes files and lock; a second call does nothing."""
        if self._writer is not None:
            try:
                self._writer.abort()
            except OSError as error:
                # Closing flushes, and a full disk refuses that as well; the first failure has been told.
                self._broken = self._broken or f"a write failed: {error.strerror or error}"
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def lock_folder(folder: Path, *, wait: bool = False) -> int | None:
    """Locks a folder for the life of this process.

    Returns the descriptor that holds the lock, or None when another one holds it and ``wait`` is false.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _camera_sizes(raw: bytes, bag: Path) -> dict[str, tuple[int, int]]:
    try:
        message = definitions.unpack(raw, OBSERVATION.type_name)
    except ValueError as error:
        raise BagError(f"{bag}: {error}") from error
    return {image.header.frame_id: (int(image.width), int(image.height)) for image in message.images}
