"""``conrft episode``: the operator's services from a shell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import Trigger

from conrft_bringup.command import main


@pytest.fixture
def serve() -> Iterator[Callable[[str, bool, str], list[str]]]:
    """Offers a Trigger service; returns the list into which its calls are written."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("robot", namespace="left", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)

    def start(name: str, success: bool, message: str) -> list[str]:
        calls: list[str] = []

        def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            calls.append(name)
            response.success, response.message = success, message
            return response

        node.create_service(Trigger, name, answer)
        thread.start()
        return calls

    yield start
    executor.shutdown()
    thread.join()
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ("command", "service", "success", "code"),
    [
        ("start", "start_episode", True, 0),
        ("recover", "recover_robot", False, 1),
        ("configure", "configure_robot", True, 0),
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
