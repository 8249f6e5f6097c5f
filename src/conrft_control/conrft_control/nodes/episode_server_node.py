"""Serves finished episodes from the robot's disk to a learner on another machine.

A process of its own, so that nothing it does can delay the recording of the running episode.
"""

from __future__ import annotations

import array
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from rclpy.node import Node

from conrft_control.episode_files import EpisodeFiles, FileRefused, RateLimit
from conrft_control.health_board import Level
from conrft_control.nodes.node_health import NodeHealth
from conrft_control.nodes.parameters import declare
from conrft_data import topics
from conrft_data.node_process import run
from conrft_msgs.srv import DescribeEpisode, ListEpisodes, ReadEpisodeChunk


class EpisodeServerNode(Node):
    """Services ``list_episodes``, ``describe_episode`` and ``read_episode_chunk``; it never writes."""

    def __init__(self, **options: Any) -> None:
        """``options`` go to rclpy's Node."""
        super().__init__("episode_server", **options)
        about = "folder of the recorder's episode bags"
        folders = {ListEpisodes.Request.EPISODES: declare(self, "episodes_dir", "", about)}
        about = "folder of the demonstrations' bags; empty: none are served"
        folders[ListEpisodes.Request.DEMONSTRATIONS] = declare(self, "demos_dir", "", about)
        if not any(folders.values()):
            raise ValueError("parameters episodes_dir and demos_dir are empty: there is nothing to serve")
        about = "what may go out, so that robot and cameras keep the network, MiB/s"
        rate = declare(self, "max_rate", 20.0, about, low=0.05, high=10_000.0)
        about = "how far it steps back behind the control loop"
        os.nice(declare(self, "niceness", 5, about, low=0, high=19))
        self._files = EpisodeFiles({number: Path(name).expanduser() for number, name in folders.items() if name})
        self._rate = RateLimit(rate * 2**20, time.monotonic)
        self._sent_bytes = 0
        self._last = ""
        self._health = NodeHealth(self, self._report)
        self.create_service(ListEpisodes, topics.LIST_EPISODES, self._on_list)
        self.create_service(DescribeEpisode, topics.DESCRIBE_EPISODE, self._on_describe)
        self.create_service(ReadEpisodeChunk, topics.READ_EPISODE_CHUNK, self._on_read)

    def _on_list(self, request: ListEpisodes.Request, response: ListEpisodes.Response) -> ListEpisodes.Response:
        try:
            listed, response.more = self._files.page(request.collection, request.after)
        except (FileRefused, OSError) as error:
            return self._refuse(response, error)
        response.episode_ids = [episode.episode_id for episode in listed]
        response.metadata_sha256 = [episode.metadata_sha256 for episode in listed]
        response.labels = [episode.label for episode in listed]
        response.success = True
        return response

    def _on_describe(
        self, request: DescribeEpisode.Request, response: DescribeEpisode.Response
    ) -> DescribeEpisode.Response:
        try:
            files, response.wait = self._files.describe(request.collection, request.episode_id)
        except (FileRefused, OSError) as error:
            return self._refuse(response, error)
        response.files = [file.name for file in files]
        response.sizes = [file.size for file in files]
        response.sha256 = [file.sha256 for file in files]
        response.success = True
        return response

    def _on_read(
        self, request: ReadEpisodeChunk.Request, response: ReadEpisodeChunk.Response
    ) -> ReadEpisodeChunk.Response:
        response.wait = max(0.0, self._rate.wait())
        if response.wait:
            response.success = True
            return response
        try:
            data = self._files.read(
                request.collection, request.episode_id, request.file, request.offset, request.length
            )
        except (FileRefused, OSError) as error:
            return self._refuse(response, error)
        response.data, response.sha256 = array.array("B", data), hashlib.sha256(data).hexdigest()
        response.wait = max(0.0, self._rate.spend(len(data)))
        response.success = True
        self._sent_bytes += len(data)
        self._last = request.episode_id
        return response

    def _refuse(self, response: Any, error: Exception) -> Any:
        response.success, response.message = False, str(error)
        self.get_logger().warning(response.message, throttle_duration_sec=10.0)
        return response

    def _report(self) -> None:
        values = {"sent_bytes": self._sent_bytes, "last_episode_id": self._last}
        problems = list(self._files.problems.values())[-3:]
        sentence = "; ".join(["serves finished episodes", *problems])
        self._health.say(Level.WARN if problems else Level.OK, sentence, values)

    def stop(self) -> None:
        """Ends the thread that computes checksums."""
        self._files.close()


def main() -> None:
    """Runs the episode server."""
    sys.exit(run(EpisodeServerNode, "episode_server"))


if __name__ == "__main__":
    main()
