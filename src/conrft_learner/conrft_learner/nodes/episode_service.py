"""The robot's episode server as the learner sees it: each question is a service call with a time limit."""

from __future__ import annotations

import threading
import time
from typing import Any

from rclpy.client import Client
from rclpy.node import Node

from conrft_data import topics
from conrft_learner.episode_pull import Chunk, EpisodeUnavailable, RemoteEpisode, RemoteFile, SourceSilent
from conrft_msgs.srv import DescribeEpisode, ListEpisodes, ReadEpisodeChunk

_POLL_S = 0.2


class EpisodeService:
    """An ``EpisodeSource``. To be called on another thread than the one that spins the node."""

    def __init__(self, node: Node, timeout_s: float, stop: threading.Event) -> None:
        """Makes the clients.

        Args:
            node: it must be spun while questions are asked.
            timeout_s: for each answer.
            stop: set when nobody waits for answers any more.
        """
        self._timeout_s, self._stop = timeout_s, stop
        self._list = node.create_client(ListEpisodes, topics.LIST_EPISODES)
        self._describe = node.create_client(DescribeEpisode, topics.DESCRIBE_EPISODE)
        self._read = node.create_client(ReadEpisodeChunk, topics.READ_EPISODE_CHUNK)

    def episodes(self, collection: int) -> list[RemoteEpisode]:
        """All finished episodes, by name."""
        episodes: list[RemoteEpisode] = []
        request = ListEpisodes.Request(collection=collection)
        while True:
            page = self._ask(self._list, request)
            rows = zip(page.episode_ids, page.metadata_sha256, page.labels, strict=True)
            episodes += [RemoteEpisode(*row) for row in rows]
            if not page.more:
                return episodes
            request.after = page.episode_ids[-1]

    def describe(self, collection: int, episode_id: str) -> list[RemoteFile]:
        """The files of an episode."""
        request = DescribeEpisode.Request(collection=collection, episode_id=episode_id)
        while (answer := self._ask(self._describe, request)).wait > 0:
            if self._stop.wait(answer.wait):
                raise SourceSilent("it is not asked any more")
        return [RemoteFile(*row) for row in zip(answer.files, answer.sizes, answer.sha256, strict=True)]

    def read(self, collection: int, episode_id: str, name: str, offset: int, length: int) -> Chunk:
        """At most ``length`` bytes of a file."""
        answer = self._ask(
            self._read,
            ReadEpisodeChunk.Request(
                collection=collection, episode_id=episode_id, file=name, offset=offset, length=length
            ),
        )
        return Chunk(bytes(answer.data), answer.sha256, answer.wait)

    def _ask(self, client: Client, request: Any) -> Any:
        deadline = time.monotonic() + self._timeout_s
        while not client.service_is_ready():
            if time.monotonic() > deadline or self._stop.wait(_POLL_S):
                raise SourceSilent(f"nobody serves {client.srv_name}")
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        while not answered.wait(_POLL_S):
            if time.monotonic() < deadline and not self._stop.is_set():
                continue
            client.remove_pending_request(future)
            raise SourceSilent(f"{client.srv_name} has not answered within {self._timeout_s:g} s")
        answer = future.result()
        if answer is None:
            raise SourceSilent(f"{client.srv_name} was not answered")
        if not answer.success:
            raise EpisodeUnavailable(answer.message)
        return answer
