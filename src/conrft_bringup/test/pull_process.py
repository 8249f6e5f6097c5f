"""Fetches episodes from the episode server into a folder, as the learner does, and writes down every question.

python pull_process.py FOLDER LOG
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor

from conrft_learner.episode_pull import EPISODES, Chunk, PullThread
from conrft_learner.nodes.episode_service import EpisodeService


def main(folder: Path, log: Path) -> None:
    rclpy.init()
    node = rclpy.create_node("learner")
    stop = threading.Event()

    class Witnessed(EpisodeService):
        def read(self, collection: int, episode_id: str, name: str, offset: int, length: int) -> Chunk:
            chunk = super().read(collection, episode_id, name, offset, length)
            tell(answered=name, offset=offset, size=len(chunk.data))
            return chunk

    def tell(**what: object) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")

    source = Witnessed(node, 1.0, stop)
    PullThread(source, {EPISODES: folder}, report=lambda text: tell(said=text), on_new=lambda: tell(arrived=True))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while True:
        executor.spin_once()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
