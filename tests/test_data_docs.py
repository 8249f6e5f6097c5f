"""docs/data.md names the topics and commands that there are."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from conrft_bringup import demos_cli
from conrft_data.bags.definitions import EPISODE_TOPICS, REQUIRED_TOPICS

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text(encoding="utf-8")


def test_the_topics_to_record_are_those_that_are_imported() -> None:
    (words,) = re.findall(r"^ros2 bag record -o \S+ (.*)$", TEXT, flags=re.MULTILINE)
    assert sorted(words.split()) == sorted(topic.name for topic in EPISODE_TOPICS)
    rows = re.findall(r"^\| `(/\w+)` \| (\S+) \| (needed)?", TEXT, flags=re.MULTILINE)
    assert {name: kind for name, kind, _ in rows} == {topic.name: topic.type_name for topic in EPISODE_TOPICS}
    assert {name for name, _, needed in rows if needed} == {topic.name for topic in REQUIRED_TOPICS}


def test_the_commands_are_those_that_there_are() -> None:
    parser = argparse.ArgumentParser()
    demos_cli.register(parser.add_subparsers())
    (demos,) = parser._actions[1].choices.values()  # type: ignore[union-attr]
    commands = set(demos._subparsers._group_actions[0].choices)
    assert set(re.findall(r"^\| `conrft demos (\w+)", TEXT, flags=re.MULTILINE)) == commands - {"record"}
