"""Wrong messages and failing partners: no crash, no motion without a valid command, and the arm holds in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rclpy.logging import LoggingSeverity, get_logger_effective_level
from rclpy.serialization import deserialize_message, serialize_message

from conrft_bringup.chaos.fuzz_benchmark import COMMANDS
from conrft_bringup.chaos.fuzzed_graph import FARTHEST_TARGET, FuzzedGraph
from conrft_bringup.chaos.kept_limits import SLOW, measure_places, measure_speeds, speeds_of
from conrft_bringup.chaos.message_fuzzer import MessageFuzzer
from conrft_bringup.chaos.played_world import SeenTarget
from conrft_bringup.chaos.stopping_times import ONE_TICK_MS, Cause, causes, drive, go_home, measure_stop
from conrft_bringup.chaos.valid_messages import MEASURED_JOINTS, ROBOT_STATE, ValidMessages
from conrft_bringup.chaos.watched_loop import WatchedLoop
from conrft_bringup.chaos.weights_sanity import PolicyLoop, measure_weights
from conrft_data import topics
from conrft_data.config import RobotConfig, TaskConfig, load_config
from conrft_data.ticks import Tick
from conrft_data.types import ActionSource, Phase

CONFIG = Path(__file__).parents[1] / "config"
TASK, ROBOT = CONFIG / "tasks/pick_banana.yaml", CONFIG / "robots/fr3.yaml"


def test_the_fuzzer_makes_messages_that_the_middleware_carries_and_the_same_ones_for_the_same_seed() -> None:
    valid = ValidMessages(load_config(TaskConfig, TASK), load_config(RobotConfig, ROBOT), 0)
    for topic in valid.topics:
        message = valid.make(topic, Tick(10**9, 1, 0))
        one, other = ([MessageFuzzer(3).wrong(message) for _ in range(5)] for _ in range(2))
        for left, right in zip(one, other, strict=True):
            assert repr(left) == repr(right)
            deserialize_message(serialize_message(left), type(message))


def test_nodes_are_silent_while_they_are_disturbed_and_heard_again_afterwards() -> None:
    before = get_logger_effective_level("supervisor")
    with closing(WatchedLoop(TASK, ROBOT)):
        assert get_logger_effective_level("supervisor") == LoggingSeverity.FATAL
    assert get_logger_effective_level("supervisor") == before < LoggingSeverity.ERROR


def test_wrong_messages_on_every_topic_crash_no_node_and_move_no_arm(
    tmp_path: Path, workstation_interfaces: None
) -> None:
    graph = FuzzedGraph(tmp_path, TASK, CONFIG / "robots/sim.yaml", seed=1)
    try:
        graph.fuzz(40, COMMANDS)
        assert graph.report.moved_without_command == 0
        graph.fuzz(40)
    finally:
        graph.close()
    assert dict(graph.report.failures) == {}
    assert graph.report.targets > 0
    heard_by = {
        topics.OBSERVATION, topics.VALUE, MEASURED_JOINTS, ROBOT_STATE, topics.READ_EPISODE_CHUNK, "target_pose",
    }  # fmt: skip
    assert heard_by <= set(graph.report.messages)
    assert graph.report.farthest_m <= FARTHEST_TARGET


def test_no_target_is_faster_or_gains_speed_faster_than_allowed() -> None:
    with closing(WatchedLoop(TASK, ROBOT, SLOW)) as loop:
        for speed in measure_speeds(loop):
            assert speed.kept, speed


def test_a_hold_for_the_time_of_an_action_is_not_its_answer() -> None:
    def target(stamp_ms: int, x: float) -> SeenTarget:
        pose = np.array([x, 0.0, 0.3, 1.0, 0.0, 0.0, 0.0])
        return SeenTarget((stamp_ms + 20) * 10**6, stamp_ms * 10**6, pose, pose)

    targets = [target(0, 0.0), target(100, 0.01), target(200, 0.01), target(200, 0.02)]  # the third is a HOLD
    actions = [((stamp + 20) * 10**6, stamp * 10**6, ActionSource.POLICY) for stamp in (100, 200)]
    speeds, gains = speeds_of(targets, actions, angular=False)
    assert speeds == pytest.approx([0.1, 0.1]), "1 cm a tick"
    assert gains == pytest.approx([1.0, 1.0]), "both from standing"


def test_weights_that_act_quite_differently_are_flagged_or_refused_while_the_old_ones_go_on(tmp_path: Path) -> None:
    with closing(PolicyLoop(tmp_path, TASK, ROBOT)) as loop:
        near, far, opposite, none = measure_weights(loop)
    assert (near.word, near.acted > 0) == ("", True)
    assert "weights version 3 changed the last actions by" in far.word and far.acted > 0
    assert "refused: weights version 4 change the last" in opposite.word and opposite.acted == 0
    assert "refused: weights version 5 hold numbers that are not finite" in none.word and none.acted == 0


def test_nothing_moves_the_arm_before_all_are_well_and_a_person_has_started_it() -> None:
    with closing(WatchedLoop(TASK, ROBOT, {"supervisor:wait_for_start": "true"})) as loop:
        world = loop.world
        world.bring(np.array([0.05, 0.0, 0.0]))
        world.silent.add(loop.robot.wrench)
        loop.until(
            lambda: any("supervisor: STANDBY: waits for commander: wrench" in w for _, w in world.words), "it goes on"
        )
        assert "commander: wrench: nothing received yet" in loop.ask(topics.START_EPISODE)
        world.silent.clear()
        loop.go_on(1.0)
        while (answer := loop.ask(topics.START_EPISODE)) != "granted":
            assert (answer.startswith("not ready"), world.targets, world.phase) == (True, [], None)
        loop.until(lambda: len(world.moves) > 2, "the arm does not go home")
        assert world.phase is Phase.RESETTING


def test_a_stop_outside_the_box_is_reset_without_a_leap() -> None:
    with closing(WatchedLoop(TASK, ROBOT, {"supervisor:after_fault": "wait"})) as loop:
        world = loop.world
        go_home(loop)
        world.bring(np.array([0.3, 0.0, 0.0]))
        assert world.valid.pose[0] > loop.task.workspace.high[0] + 0.1
        loop.go_on(0.3)
        world.moves.clear()
        loop.until(lambda: len(world.moves) >= 3, "the arm does not go home")
        loop.press_stop(True)
        loop.until(lambda: world.phase is Phase.ENDED, "the stop is no fault")
        loop.press_stop(False)
        loop.go_on(0.3)
        world.forget()
        loop.reset_stop()
        loop.go_on(0.5)
        steps = [np.linalg.norm(b.pose[:3] - a.pose[:3]) for a, b in pairwise(world.targets)]
        assert max(steps) == 0


def test_an_arm_that_was_guided_elsewhere_is_held_there_and_that_is_said() -> None:
    with closing(WatchedLoop(TASK, ROBOT, {"supervisor:after_fault": "wait"})) as loop:
        world = loop.world
        drive(loop)
        loop.press_stop(True)
        loop.until(lambda: world.phase is Phase.ENDED, "the stop is no fault")
        loop.press_stop(False)
        loop.go_on(0.3)
        loop.reset_stop()
        world.blocked = True
        world.bring(np.array([0.0, 0.2, 0.0]))
        loop.until(lambda: any("was moved by 0.20 m" in word for _, word in world.words), "nobody notices")
        loop.go_on(0.3)
        np.testing.assert_allclose(world.targets[-1].pose, world.valid.pose, atol=1e-6)


# Only one loop at a time: this one stays until the module's last test.
@pytest.fixture(scope="module")
def loop() -> Iterator[WatchedLoop]:
    with closing(WatchedLoop(TASK, ROBOT)) as loop:
        yield loop


@pytest.mark.parametrize(
    ("cause", "word"),
    [
        ("emergency stop pressed", "emergency stop"),
        ("emergency stop pressed on the way home", "emergency stop"),
        ("force of 52.5 N, limit 35 N", "wrench: 52.5 N, limit 35.0 N"),
        ("torque of 12 N m, limit 10 N m", "wrench: 12.00 N m, limit 10.00 N m"),
        ("deadman button released", "deadman: button 5 is not held"),
        ("deadman button released on the way home", "deadman: button 5 is not held"),
        ("SpaceMouse silent, deadman button held before", "deadman: nothing heard of button 5"),
        ("policy silent", "policy: no answer within 80 ms"),
        ("policy proposes NaN", "policy: the proposal is not 7 finite numbers"),
        ("reward node silent", "reward: silent"),
        ("camera silent", "side: stale"),
        ("measured pose silent", "current_pose: stale"),
        ("measured pose silent on the way home", "current_pose: stale"),
        ("measured pose NaN", "current_pose"),
        ("measured wrench silent", "wrench: stale"),
        ("measured wrench silent on the way home", "wrench: stale"),
        ("measured wrench NaN", "wrench"),
        ("measured twist silent", "twist: stale"),
        ("gripper's state silent", "gripper: stale"),
        ("observer frozen: no Observation", "action: none for"),
        ("intervention mux frozen", "action: none for"),
    ],
)
def test_whatever_fails_is_named_and_the_arm_holds_within_a_tick_of_its_detection(
    loop: WatchedLoop, cause: str, word: str
) -> None:
    stopped = measure_stop(loop, cause)
    assert any(word in said for _, said in loop.world.words)
    assert stopped.in_time, stopped
    if cause.startswith(("force", "torque")):
        safety = loop.robot.safety
        assert stopped.back_m == pytest.approx(safety.retreat_distance, rel=0.1)
        assert stopped.back_speed == pytest.approx(safety.retreat_speed, rel=0.1)
    else:
        assert stopped.back_m == 0


@pytest.mark.parametrize(
    "cause", ["harder contact", "measured wrench NaN", "measured wrench silent", "deadman button released"]
)
def test_a_retreat_ends_where_the_arm_may_not_move(loop: WatchedLoop, cause: str) -> None:
    world, force = loop.world, 1.5 * loop.robot.safety.force
    drive(loop)
    world.force_n = force
    loop.until(lambda: any("wrench:" in word for _, word in world.words), "the force is not noticed")
    world.moves.clear()
    loop.until(lambda: len(world.moves) >= 2, "the arm does not go back")
    how = (
        Cause(partial(setattr, world, "force_n", 3 * force), int) if cause == "harder contact" else causes(loop)[cause]
    )
    how.begin()
    began_ns = world.now_ns
    loop.go_on(0.6)
    how.end()
    loop.go_on(0.6)
    # A wrench that is silent is noticed after its timeout; then, as always, within a tick.
    timeout_ms = 1e3 * loop.robot.state_timeout if "silent" in cause else 0.0
    assert max(at for at, _ in world.moves) - began_ns <= (timeout_ms + ONE_TICK_MS) * 1e6
    world.force_n = 0.0
    loop.reset_stop()


def test_no_target_leaves_the_box_tilts_too_far_or_runs_too_far_ahead_whoever_drives(loop: WatchedLoop) -> None:
    for place in measure_places(loop):
        assert place.kept, place
        assert place.last_outward_ms is not None and place.last_outward_ms <= ONE_TICK_MS, place
