"""Wrong messages and failing partners: no crash, no motion without a valid command, and the arm holds in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rclpy.serialization import deserialize_message, serialize_message

from conrft_bringup.chaos.fuzz_benchmark import COMMANDS
from conrft_bringup.chaos.fuzzed_graph import FARTHEST_TARGET, FuzzedGraph
from conrft_bringup.chaos.message_fuzzer import MessageFuzzer
from conrft_bringup.chaos.stopping_times import SafetyBench
from conrft_bringup.chaos.valid_messages import ValidMessages
from conrft_data.config import RobotConfig, TaskConfig, load_config
from conrft_data.ticks import Tick

CONFIG = Path(__file__).parents[1] / "config"
TASK, ROBOT = CONFIG / "tasks/pick_banana.yaml", CONFIG / "robots/fr3.yaml"
ONE_TICK_MS = 100.0


def test_the_fuzzer_makes_messages_that_the_middleware_carries_and_the_same_ones_for_the_same_seed() -> None:
    valid = ValidMessages(load_config(TaskConfig, TASK), load_config(RobotConfig, ROBOT), 0)
    for topic in valid.topics:
        message = valid.make(topic, Tick(10**9, 1, 0))
        one, other = ([MessageFuzzer(3).wrong(message) for _ in range(5)] for _ in range(2))
        for left, right in zip(one, other, strict=True):
            assert repr(left) == repr(right)
            deserialize_message(serialize_message(left), type(message))


def test_wrong_messages_on_every_topic_crash_no_node_and_move_no_arm(tmp_path: Path) -> None:
    graph = FuzzedGraph(tmp_path, TASK, CONFIG / "robots/sim.yaml", seed=1)
    try:
        graph.fuzz(40, COMMANDS)
        assert graph.report.moved_without_command == 0
        graph.fuzz(40)
    finally:
        graph.close()
    assert dict(graph.report.failures) == {}
    assert graph.report.targets > 0
    assert graph.report.farthest_m <= FARTHEST_TARGET


@pytest.fixture(scope="module")
def bench() -> Iterator[SafetyBench]:
    bench = SafetyBench(TASK, ROBOT)
    yield bench
    bench.close()


@pytest.mark.parametrize(
    ("cause", "word"),
    [
        ("emergency stop pressed", "emergency stop"),
        ("force of 60 N, limit 40 N", "wrench: 60.0 N, limit 40.0 N"),
        ("deadman button released", "deadman: button 5 is not held"),
        ("SpaceMouse silent, deadman button held before", "deadman: nothing heard of button 5"),
        ("policy silent", "policy: no answer within 80 ms"),
        ("policy proposes NaN", "policy: the proposal is not 7 finite numbers"),
        ("reward node silent", "reward: silent"),
        ("camera silent", "side: stale"),
        ("measured pose silent", "current_pose: stale"),
        ("measured pose NaN", "current_pose"),
        ("measured wrench silent", "wrench: stale"),
        ("observer frozen", "action: none for"),
        ("intervention mux frozen", "action: none for"),
    ],
)
def test_whatever_fails_is_named_and_the_arm_holds_within_a_tick_of_its_detection(
    bench: SafetyBench, cause: str, word: str
) -> None:
    stopped = bench.measure(cause)
    assert any(word in said for _, said in bench.world.words)
    assert stopped.from_detection_ms is not None
    assert stopped.from_detection_ms <= ONE_TICK_MS
