"""The arm moves only while the button is held."""

from collections.abc import Callable
from typing import Any

import pytest
from rclpy.node import Node

from conrft_control.deadman import Deadman
from conrft_control.nodes.intervention_mux_node import InterventionMuxNode
from conrft_control.nodes.supervisor_node import SupervisorNode

MS = 1_000_000


def test_without_a_button_the_arm_may_always_move() -> None:
    assert Deadman(-1, 0.2).released(10**18) == ""


def test_the_button_must_have_been_seen_held() -> None:
    deadman = Deadman(2, 0.2)
    assert deadman.released(0) == "deadman: button 2 is not held"
    deadman.put([0, 0, 1], 0)
    assert deadman.released(0) == ""
    deadman.put([1, 1, 0], 1)
    assert "not held" in deadman.released(1)
    deadman.put([1], 2)  # a device with fewer buttons
    assert "not held" in deadman.released(2)


def test_a_device_that_fell_silent_does_not_hold_the_button() -> None:
    deadman = Deadman(0, 0.2)
    deadman.put([1], 0)
    assert deadman.released(200 * MS) == ""
    assert "nothing heard of button 0 for 0.20 s" in deadman.released(201 * MS)


def test_in_lockstep_buttons_do_not_grow_old() -> None:
    deadman = Deadman(0, 0.0)
    deadman.put([1], 0)
    assert deadman.released(10**12) == ""


@pytest.mark.parametrize(
    ("make", "button"),
    [
        *((InterventionMuxNode, name) for name in ("close_button", "open_button")),
        *((SupervisorNode, name) for name in ("success_button", "abort_button", "veto_button", "start_button")),
    ],
)
def test_a_button_that_is_held_while_the_arm_moves_has_no_other_meaning(
    graph: Any, files: dict[str, str], make: Callable[..., Node], button: str
) -> None:
    files = files if make is SupervisorNode else {"task_file": files["task_file"]}
    with pytest.raises(ValueError, match=f"deadman_button and {button} are both 7"):
        graph.start(make, **files, deadman_button=7, **{button: 7})


def test_no_button_may_be_the_deadmans_where_there_is_none(graph: Any, files: dict[str, str]) -> None:
    graph.start(InterventionMuxNode, deadman_button=-1, close_button=-1)
