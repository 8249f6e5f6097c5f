"""``conrft episode``: the operator's services from a shell."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from conrft_bringup import episode_cli
from conrft_bringup.command import main
from conrft_control.nodes.commander_node import CommanderNode
from conrft_data import topics

CONFIG = Path(__file__).parents[1] / "config"


@pytest.fixture
def robot() -> Iterator[Node]:
    """A node of the robot ``left``, served by a thread."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("robot", namespace="left", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown()
    thread.join()
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture
def serve(robot: Node) -> Callable[[str, bool, str], list[str]]:
    """Offers a Trigger service; returns the list into which its calls are written."""

    def start(name: str, success: bool, message: str) -> list[str]:
        calls: list[str] = []

        def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            calls.append(name)
            response.success, response.message = success, message
            return response

        robot.create_service(Trigger, name, answer)
        return calls

    return start


@pytest.mark.parametrize(
    ("command", "service", "success", "code"),
    [
        ("start", "start_episode", True, 0),
        ("recover", "recover_robot", False, 1),
        ("configure", "configure_robot", True, 0),
        ("stop", "stop", True, 0),
        ("reset-stop", "reset_stop", True, 0),
        ("reset-stop", "reset_stop", False, 1),
    ],
)
def test_a_command_calls_its_service_once_and_tells_the_answer(
    command: str,
    service: str,
    success: bool,
    code: int,
    serve: Callable[[str, bool, str], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = serve(service, success, "what the robot says")
    assert main(["episode", command, "--namespace", "left"]) == code
    assert calls == [service]
    assert capsys.readouterr().out == "what the robot says\n"


def test_a_stop_that_nobody_hears_says_so(
    robot: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(episode_cli, "_TIMEOUT_S", 0.2)
    assert main(["episode", "stop", "--namespace", "left"]) == 2
    told = capsys.readouterr().err
    assert "nobody offers /left/stop" in told and "USE THE ROBOT'S OWN STOP" in told


@pytest.fixture
def commander(robot: Node) -> Iterator[CommanderNode]:
    """The commander of the robot ``left``, served by a thread."""
    context = rclpy.Context()
    rclpy.init(context=context, args=["--ros-args", "-r", "__ns:=/left"])
    values = {"task_file": CONFIG / "tasks/pick_banana.yaml", "robot_file": CONFIG / "robots/sim.yaml"}
    parameters = [Parameter(name, value=str(value)) for name, value in values.items()]
    commander = CommanderNode(context=context, parameter_overrides=parameters)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(commander)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield commander
    executor.shutdown()
    thread.join()
    commander.destroy_node()
    rclpy.shutdown(context=context)


def test_the_commander_stops_and_allows_the_arm_to_move_again(
    commander: CommanderNode, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [main(["episode", command, "--namespace", "left"]) for command in ("reset-stop", "stop", "reset-stop")]
    assert answers == [0, 0, 0]
    assert capsys.readouterr().out.splitlines() == [
        "the arm was not stopped",
        "the arm stands, until conrft episode reset-stop",
        "the arm may move again",
    ]


def test_a_stop_from_the_shell_does_not_let_go_of_a_button_that_is_held(
    robot: Node, commander: CommanderNode, capsys: pytest.CaptureFixture[str]
) -> None:
    button = robot.create_publisher(Bool, topics.EMERGENCY_STOP, topics.LATCHED)
    button.publish(Bool(data=True))
    end = time.monotonic() + 60.0
    while not commander._commander.stop.reason and time.monotonic() < end:
        time.sleep(0.01)
    assert [main(["episode", command, "--namespace", "left"]) for command in ("stop", "reset-stop")] == [0, 1]
    assert capsys.readouterr().out.splitlines()[1] == "the emergency stop is still pressed"
