"""The operator's node answers each scene as a SpaceMouse would, and acts as the episode's mode asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Twist
from sensor_msgs.msg import Joy

from conrft_data import topics
from conrft_data.conversion import episode_status_to_msg, stamp_to_ns
from conrft_data.ticks import EpisodeStatus
from conrft_data.types import MESSAGE_VERSION, Mode, Outcome, Phase
from conrft_msgs.msg import EpisodeState, SceneState
from conrft_sim.nodes.scripted_operator_node import ScriptedOperatorNode
from conrft_sim.operator import OperatorHabits
from conrft_sim.scene_message import scene_from_msg, scene_to_msg
from conrft_sim.scene_snapshot import SceneSnapshot

TICK_NS = 100_000_000
SUCCESS_BUTTON, VETO_BUTTON = 2, 4


def scene(tick: int, *, success: bool = False, achieved: bool = False) -> SceneSnapshot:
    """The start of the task at a tick."""
    return SceneSnapshot(
        stamp_ns=tick * TICK_NS,
        task="pick_banana",
        tcp_pose=np.array([0.45, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0]),
        gripper_opening=1.0,
        objects={
            "banana": np.array([0.51, 0.10, 0.017, 0.0, 0.0, 0.0, 1.0]),
            "plate": np.array([0.50, -0.13, 0.0, 0.0, 0.0, 0.0, 1.0]),
        },
        success=success,
        achieved=success or achieved,
    )


class Rest:
    """Stands for simulator and supervisor."""

    def __init__(self, graph: Any) -> None:
        self.graph, self.peer = graph, graph.peer
        self.peer.listen(Twist, "spacenav/twist", topics.TICK)
        self.peer.listen(Joy, "spacenav/joy", topics.TICK)
        self._scene = self.peer.create_publisher(SceneState, topics.SCENE_STATE, topics.TICK)
        self._state = self.peer.create_publisher(EpisodeState, topics.EPISODE_STATE, topics.LATCHED)
        assert graph.wait(lambda: self._scene.get_subscription_count() and self._state.get_subscription_count())
        joy, twist = topics.SPACENAV_JOY, topics.SPACENAV_TWIST
        assert graph.wait(lambda: graph.node.count_subscribers(joy) and graph.node.count_subscribers(twist))

    def supervise(
        self,
        phase: Phase,
        mode: Mode = Mode.DEMONSTRATION,
        episode: int = 1,
        outcome: Outcome = Outcome.NONE,
    ) -> None:
        status = EpisodeStatus(
            stamp_ns=TICK_NS,
            phase=phase,
            outcome=outcome,
            mode=mode,
            episode=episode,
            final_step=0,
            episode_id=f"test-{episode}",
            task="pick_banana",
            instruction="Put the yellow banana on the green plate.",
            message_version=MESSAGE_VERSION,
        )
        self._state.publish(episode_status_to_msg(status))
        self.graph.pause(0.2)

    def answer(self, shown: SceneSnapshot) -> tuple[np.ndarray, list[int]]:
        """Shows a scene and returns the device's twist (6,) and buttons."""
        joys, twists = self.peer.heard["spacenav/joy"], self.peer.heard["spacenav/twist"]
        joys.clear()
        twists.clear()
        self._scene.publish(scene_to_msg(shown, "base"))
        assert self.graph.wait(lambda: joys and twists and stamp_to_ns(joys[-1].header.stamp) == shown.stamp_ns)
        linear, angular = twists[-1].linear, twists[-1].angular
        values = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        assert joys[-1].axes == pytest.approx(values, abs=1e-6)
        return values, list(joys[-1].buttons)


@pytest.fixture
def rest(graph_of: Any) -> Iterator[Rest]:
    with graph_of(ScriptedOperatorNode, "lockstep:=true", "seed:=3") as graph:
        yield Rest(graph)


def test_scene_survives_the_message() -> None:
    sent = scene(4, achieved=True)
    received = scene_from_msg(scene_to_msg(sent, "base"))
    assert received.stamp_ns == sent.stamp_ns
    assert (received.success, received.achieved) == (False, True)
    assert scene_from_msg(scene_to_msg(scene(4, success=True), "base")).success
    assert received.tcp_pose == pytest.approx(sent.tcp_pose)
    assert {name: pose.tolist() for name, pose in received.objects.items()} == {
        name: pose.tolist() for name, pose in sent.objects.items()
    }


def test_idle_operator_answers_with_zeros(rest: Rest) -> None:
    twist, buttons = rest.answer(scene(1))
    assert not twist.any()
    assert not any(buttons)


def test_demonstrator_drives_towards_the_banana(rest: Rest) -> None:
    rest.supervise(Phase.RUNNING)
    twist, _ = rest.answer(scene(1))
    assert twist[1] > 0.1  # to the left, base frame
    assert twist[2] < -0.1


def test_the_same_scene_gets_the_same_answer(rest: Rest) -> None:
    rest.supervise(Phase.RUNNING)
    first, _ = rest.answer(scene(1))
    again, _ = rest.answer(scene(1))
    later, _ = rest.answer(scene(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)


def test_the_first_move_is_ready_before_the_episode_runs_and_does_not_depend_on_the_wait(rest: Rest) -> None:
    rest.supervise(Phase.READY)
    rest.answer(scene(1))
    waited, _ = rest.answer(scene(2))
    rest.supervise(Phase.RUNNING)
    at_once, _ = rest.answer(scene(2))
    assert np.array_equal(waited, at_once)
    rest.supervise(Phase.ENDED)
    rest.supervise(Phase.READY)
    assert np.array_equal(rest.answer(scene(5))[0], waited)


def test_operator_lets_go_when_the_episode_has_ended(rest: Rest) -> None:
    rest.supervise(Phase.RUNNING)
    assert rest.answer(scene(1))[0].any()
    rest.supervise(Phase.ENDED)
    assert not rest.answer(scene(2))[0].any()


def test_success_button_in_demonstrations(rest: Rest) -> None:
    rest.supervise(Phase.RUNNING)
    _, buttons = rest.answer(scene(1, success=True))
    assert buttons[SUCCESS_BUTTON] == 1


def test_in_training_the_operator_watches_first(rest: Rest) -> None:
    rest.supervise(Phase.RUNNING, Mode.TRAINING)
    patience = OperatorHabits().stall_ticks
    answers = [rest.answer(scene(tick))[0].any() for tick in range(1, patience + 3)]
    assert not any(answers[:patience])
    assert answers[patience]


def test_in_evaluation_the_judge_only_presses_success(rest: Rest) -> None:
    rest.supervise(Phase.RUNNING, Mode.EVALUATION)
    for tick in range(1, 20):
        twist, buttons = rest.answer(scene(tick, success=tick == 19))
        assert not twist.any()
        assert buttons[SUCCESS_BUTTON] == int(tick == 19)


def vetoes(rest: Rest, mode: Mode, outcome: Outcome, last: SceneSnapshot) -> list[int]:
    """The veto button's states after an episode that ended at a scene."""
    rest.supervise(Phase.RUNNING, mode)
    rest.answer(last)
    joys = rest.peer.heard["spacenav/joy"]
    joys.clear()
    for _ in range(2):  # the supervisor may say it again
        rest.supervise(Phase.ENDED, mode, outcome=outcome)
    return [joy.buttons[VETO_BUTTON] for joy in joys]


def test_a_success_that_is_none_is_taken_back_once(rest: Rest) -> None:
    assert vetoes(rest, Mode.TRAINING, Outcome.SUCCESS, scene(1)) == [1, 0]


@pytest.mark.parametrize(
    ("mode", "outcome", "last"),
    [
        (Mode.TRAINING, Outcome.SUCCESS, scene(1, success=True)),
        (Mode.TRAINING, Outcome.SUCCESS, scene(1, achieved=True)),
        (Mode.TRAINING, Outcome.TIMEOUT, scene(1)),
        (Mode.EVALUATION, Outcome.SUCCESS, scene(1)),
    ],
)
def test_nothing_else_is_taken_back(rest: Rest, mode: Mode, outcome: Outcome, last: SceneSnapshot) -> None:
    assert not any(vetoes(rest, mode, outcome, last))
