"""Each check of the doctor with input that is well and input that is not; and one look at a running simulation."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from recorded_runs import record

from conrft_bringup.command import main
from conrft_bringup.doctor import demonstration_checks as demonstrations
from conrft_bringup.doctor import graph_checks as graph
from conrft_bringup.doctor import machine_checks as machine
from conrft_bringup.doctor.cli import _controller, report
from conrft_bringup.doctor.finding import Finding, Level, error, ok
from conrft_bringup.doctor.graph_checks import GraphSnapshot, Stream, Word
from conrft_bringup.doctor.graph_probe import listen
from conrft_data.config import RobotConfig, TaskConfig, load_config
from conrft_data.node_process import diagnostic_array
from conrft_data.rotations import from_euler_xyz
from conrft_data.types import Outcome

PACKAGE = Path(__file__).parents[1]
MIB, GIB = 2**20, 2**30
OK, WARNING, ERROR = Level.OK, Level.WARNING, Level.ERROR
ROBOT = load_config(RobotConfig, PACKAGE / "config/robots/fr3.yaml")
TASK = load_config(TaskConfig, PACKAGE / "config/tasks/pick_banana.yaml")
HOME = np.array([0.45, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0])


def is_found(finding: Finding, level: Level, words: str = "") -> None:
    assert finding.level is level, finding
    assert words in finding.told + finding.cure, finding
    assert bool(finding.cure) is (level is not OK), "what is not well has a cure"


def stream(**changed: Any) -> Stream:
    well: dict[str, Any] = {
        "topic": "/t", "publishers": ["/driver"], "count": 90, "seconds": 3.0, "age_s": 0.01, "size": (640, 480),
    }  # fmt: skip
    return Stream(**{**well, **changed})


@pytest.mark.parametrize(("synchronised", "level"), [(True, OK), (False, WARNING), (None, WARNING)])
def test_the_clock(synchronised: bool | None, level: Level) -> None:
    is_found(machine.check_clock(synchronised), level)


@pytest.mark.parametrize(("rmem_max", "level"), [(16 * MIB, OK), (212_992, WARNING), (None, WARNING)])
def test_dds_buffers(rmem_max: int | None, level: Level) -> None:
    is_found(machine.check_receive_buffer(rmem_max), level, "rmem_max")


@pytest.mark.parametrize(("free", "level"), [(GIB, OK), (10 * MIB, WARNING), (None, WARNING)])
def test_shared_memory(free: int | None, level: Level) -> None:
    is_found(machine.check_shared_memory(free), level, "/dev/shm")


@pytest.mark.parametrize(("free", "level"), [(50 * GIB, OK), (5 * GIB, WARNING), (GIB // 2, ERROR)])
def test_the_disk(free: int, level: Level) -> None:
    is_found(machine.check_disk(free, Path("/runs")), level, "/runs")


@pytest.mark.parametrize(
    ("device", "cuda_devices", "level"),
    [("cpu", 0, OK), ("cpu", 1, WARNING), ("cuda", 1, OK), ("cuda:1", 1, ERROR), ("cuda", 0, ERROR)],
)
def test_the_gpu(device: str, cuda_devices: int, level: Level) -> None:
    is_found(machine.check_gpu(device, cuda_devices), level)


@pytest.mark.parametrize(
    ("changed", "level", "words"),
    [
        ({}, OK, "640x480 at 30.0 Hz"),
        ({"publishers": []}, ERROR, "nobody publishes /t"),
        ({"count": 0}, ERROR, "no image in 3 s"),
        ({"problem": "crop needs an image of at least 560x480"}, ERROR, "crop needs"),
        ({"count": 12}, ERROR, "4.0 Hz, the loop needs 10"),
        ({"size": (1280, 720)}, ERROR, "1280x720, the robot's file says 640x480"),
        ({"age_s": 3600.0}, ERROR, "+3600.00 s off"),
        ({"age_s": -2.0}, ERROR, "-2.00 s off"),
    ],
)
def test_a_camera(changed: dict[str, Any], level: Level, words: str) -> None:
    is_found(graph.check_camera("side", stream(**changed), ROBOT, simulated_time=False), level, words)


def test_a_camera_that_is_too_slow_for_its_time_out_is_a_warning() -> None:
    slow = ROBOT.model_copy(update={"camera_timeout": 0.1})
    is_found(graph.check_camera("side", stream(count=36), slow, simulated_time=False), WARNING, "camera_timeout")


def test_in_simulated_time_rates_and_ages_say_nothing() -> None:
    is_found(graph.check_camera("side", stream(count=2, age_s=1e9), ROBOT, simulated_time=True), OK)


@pytest.mark.parametrize(
    ("changed", "level", "words"),
    [
        ({}, OK, "30 Hz"),
        ({"publishers": []}, ERROR, "nobody publishes"),
        ({"count": 0}, ERROR, "activate FCI"),
        ({"problem": "not finite"}, ERROR, "not finite"),
        ({"age_s": 5.0}, ERROR, "one time source"),
    ],
)
def test_a_state_of_the_robot(changed: dict[str, Any], level: Level, words: str) -> None:
    is_found(graph.check_sensor("pose", stream(**changed), simulated_time=False), level, words)


CONTROLLER = "cartesian_impedance_controller"


@pytest.mark.parametrize(
    ("publishers", "subscribers", "controllers", "level", "words"),
    [
        (["/commander"], [f"/{CONTROLLER}"], None, OK, f"{CONTROLLER} listens to /commander alone"),
        (["/left/commander"], [f"/left/{CONTROLLER}", "/left/visualiser"], {CONTROLLER: "active"}, OK, "alone"),
        ([], [f"/{CONTROLLER}"], None, WARNING, "no commander is there yet"),
        (["/commander"], [], None, ERROR, "does not listen to target_pose"),
        (["/commander"], ["/visualiser"], None, ERROR, "does not listen to target_pose, only /visualiser"),
        (["/commander"], [f"/{CONTROLLER}"], {CONTROLLER: "inactive"}, ERROR, f"{CONTROLLER} is inactive"),
        (["/commander"], [f"/{CONTROLLER}"], {"pose_broadcaster": "active"}, ERROR, "is not loaded"),
        (["/commander", "/rqt"], [f"/{CONTROLLER}"], None, ERROR, "published by /commander, /rqt"),
        (["/teleop"], [f"/{CONTROLLER}"], None, ERROR, "published by /teleop"),
        (["/commander", "/commander"], [f"/{CONTROLLER}"], None, ERROR, "more than one publisher"),
    ],
)
def test_the_controller(
    publishers: list[str], subscribers: list[str], controllers: dict[str, str] | None, level: Level, words: str
) -> None:
    snapshot = GraphSnapshot(
        spacenav=stream(), target_publishers=publishers, target_subscribers=subscribers, controllers=controllers
    )
    is_found(graph.check_target(snapshot, "target_pose", CONTROLLER), level, words)


def test_the_controller_is_the_one_that_the_robots_gains_are_for(tmp_path: Path) -> None:
    assert _controller(None, ROBOT) == CONTROLLER
    assert _controller(None, load_config(RobotConfig, PACKAGE / "config/robots/sim.yaml")) == "simulator"
    own = tmp_path / "own.yaml"
    own.write_text("{controller: mine, reset: {task.k_pos_x: 1}, contact: {task.k_pos_x: 1}}")
    assert _controller(own, ROBOT) == "mine"


def test_what_the_nodes_say_of_themselves() -> None:
    reflex = Word(ERROR, "robot: a reflex stopped the arm (cartesian_reflex)")
    words = {"/left/franka_adapter": reflex, "/left/mux": Word(OK, "well"), "/left/policy": Word(WARNING, "late")}
    adapter, policy = graph.check_words(words)
    assert (adapter.check, policy.check) == ("node franka_adapter", "node policy")
    is_found(adapter, ERROR, "cartesian_reflex")
    is_found(policy, WARNING, "late")
    (well,) = graph.check_words({"/mux": Word(OK, "well")})
    is_found(well, OK)
    (silent,) = graph.check_words({})
    is_found(silent, WARNING, "/diagnostics")


@pytest.mark.parametrize(
    ("changed", "simulated", "level", "words"),
    [
        ({}, False, OK, "30 Hz"),
        ({"publishers": []}, False, ERROR, "spacenavd"),
        ({"count": 0}, False, WARNING, "push the cap"),
        ({"count": 0}, True, OK, "scripted"),
    ],
)
def test_the_spacemouse(changed: dict[str, Any], simulated: bool, level: Level, words: str) -> None:
    is_found(graph.check_spacenav(stream(**changed), operator_is_simulated=simulated), level, words)


@pytest.mark.parametrize(("x", "level"), [(0.45, OK), (0.9, WARNING)])
def test_the_workspace(x: float, level: Level) -> None:
    is_found(graph.check_workspace(np.array([x, *HOME[1:]]), TASK), level, "box")


def test_without_a_graph_there_is_one_finding() -> None:
    nobody = stream(publishers=[], count=0)
    snapshot = GraphSnapshot(spacenav=nobody, cameras={"side": nobody}, sensors={"pose": nobody})
    (finding,) = graph.graph_findings(snapshot, TASK, ROBOT, CONTROLLER)
    is_found(finding, ERROR, "ROS_DOMAIN_ID")


def scenes(count: int = 5) -> list[np.ndarray]:
    """Pictures of one place: a grey gradient with a little noise."""
    generator = np.random.default_rng(0)
    base = np.tile(np.linspace(60, 160, 64), (64, 1))[..., None].repeat(3, axis=2)
    return [np.clip(base + generator.normal(0, 6, base.shape), 0, 255).astype(np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    ("change", "level"),
    [(lambda image: image, OK), (lambda image: image // 3, ERROR), (lambda image: np.zeros_like(image), ERROR),
     (lambda image: np.clip(image.astype(int) + 17, 0, 255).astype(np.uint8), WARNING)],
    ids=["as it was", "lights out", "black", "brighter"],
)  # fmt: skip
def test_the_view_of_a_camera(change: Any, level: Level) -> None:
    *demonstrated, live = scenes(6)
    is_found(demonstrations.check_image("side", change(live), demonstrated), level)


def test_a_view_that_is_not_there_is_an_error() -> None:
    is_found(demonstrations.check_image("side", None, scenes()), ERROR, "no live image")


def test_a_histogram_knows_how_far_colours_moved() -> None:
    black, white = (np.full((4, 4, 3), value, np.uint8) for value in (0, 255))
    histograms = [demonstrations.colour_histogram(image) for image in (black, white)]
    assert demonstrations.histogram_distance(*histograms) == pytest.approx(1.0)


@pytest.mark.parametrize(("x", "level"), [(0.45, OK), (0.49, OK), (0.6, WARNING)])
def test_the_start_pose(x: float, level: Level) -> None:
    is_found(demonstrations.check_start_pose(np.array([x, *HOME[1:]]), [HOME, HOME]), level)


@pytest.mark.parametrize(("angle", "level"), [(0.1, OK), (0.4, WARNING)])
def test_the_start_pose_counts_with_its_orientation(angle: float, level: Level) -> None:
    turned = np.concatenate([HOME[:3], from_euler_xyz([np.pi, 0.0, angle])])
    is_found(demonstrations.check_start_pose(turned, [HOME, HOME]), level, "" if level is OK else "0.40 rad")


def test_the_policys_actions_must_beat_a_constant() -> None:
    generator = np.random.default_rng(0)
    demonstrated = generator.uniform(-1, 1, (200, 7))
    is_found(demonstrations.check_action_error(demonstrated + 0.1, demonstrated), OK, "0.010")
    is_found(demonstrations.check_action_error(demonstrated + 0.5, demonstrated), WARNING)
    is_found(demonstrations.check_action_error(generator.uniform(-1, 1, (200, 7)), demonstrated), ERROR)
    is_found(demonstrations.check_action_error(np.full((200, 7), np.nan), demonstrated), ERROR, "not finite")
    nothing = np.zeros((0, 7))
    is_found(demonstrations.check_action_error(nothing, nothing), WARNING)


def test_the_report_shows_each_cure_below_what_it_cures() -> None:
    text = report([ok("clock", "fine"), error("disk", "full", "make room")])
    assert text.splitlines() == [
        "ok    clock  fine",
        "FAIL  disk   full",
        "             -> make room",
        "1 errors, 0 warnings: do not let the arm move",
    ]


def test_a_robot_that_does_not_exist_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", "--robot", str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml: cannot be read" in capsys.readouterr().err


def files(robot: str) -> list[str]:
    task_file, robot_file = PACKAGE / "config/tasks/pick_banana.yaml", PACKAGE / f"config/robots/{robot}.yaml"
    return ["doctor", "--task", str(task_file), "--robot", str(robot_file), "--json"]


def test_what_the_demonstrations_need_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "demos").mkdir()
    record(tmp_path / "demos", 1, outcome=Outcome.TIMEOUT, sources="ooo")
    assert main([*files("sim"), "--no-graph", "--run-dir", str(tmp_path)]) == 0
    told = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert "no successful one" in told["demonstrations"]["told"]
    record(tmp_path / "demos", 2, outcome=Outcome.SUCCESS, sources="ooo")
    assert main([*files("sim"), "--no-graph", "--run-dir", str(tmp_path)]) == 1
    told = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert "recorded at 32x32 pixels, expected 256x256" in told["demonstrations"]["told"]


@pytest.fixture
def simulation() -> Iterator[subprocess.Popen[bytes]]:
    """The simulator in real time, alone."""
    parameters = {"task_file": "tasks/pick_banana.yaml", "robot_file": "robots/sim.yaml"}
    code = "from conrft_data.node_start import start; start('conrft_sim.nodes.simulator_node')"
    words = [word for name, file in parameters.items() for word in ("-p", f"{name}:={PACKAGE / 'config' / file}")]
    command = [sys.executable, "-c", code, "--ros-args", *words]
    process = subprocess.Popen(command, env=dict(os.environ))
    yield process
    process.send_signal(signal.SIGINT)
    process.wait(30.0)


def test_a_running_simulation_is_looked_at(
    simulation: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for _ in range(20):
        main([*files("sim"), "--run-dir", str(tmp_path), "--seconds", "1"])
        told = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
        if told.get("camera side", {}).get("level") == "ok":
            break
        assert simulation.poll() is None
    assert told["camera side"]["told"].startswith("256x256")
    assert [told[f"robot {name}"]["level"] for name in ("pose", "twist", "wrench", "gripper")] == ["ok"] * 4
    assert "simulator listens, no commander is there yet" in told["controller"]["told"]
    assert told["spacemouse"]["level"] == "error", "nobody is there to take over"
    assert told["workspace"]["level"] == "ok"
    # With nobody else there it waits, and says so.
    assert told.get("nodes", told.get("node simulator"))["told"]


class Bench:
    """Nodes of a robot whose driver has other names, spun beside the doctor."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self.nodes = {
            name: Node(name, namespace="left", context=self.context)
            for name in (CONTROLLER, "commander", "driver", "controller_manager")
        }
        for node in self.nodes.values():
            self._executor.add_node(node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._executor.shutdown()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.end()


def test_renamed_topics_controllers_and_words_of_one_robot_are_seen(bench: Bench, workstation_interfaces: None) -> None:
    kind = importlib.import_module("controller_manager_msgs.srv").ListControllers
    state = importlib.import_module("controller_manager_msgs.msg").ControllerState

    def on_list(_: Any, response: Any) -> Any:
        response.controller = [state(name=CONTROLLER, state="inactive")]
        return response

    nodes = bench.nodes
    nodes["controller_manager"].create_service(kind, "controller_manager/list_controllers", on_list)
    nodes[CONTROLLER].create_subscription(PoseStamped, "goal", lambda message: None, 1)
    nodes["commander"].create_publisher(PoseStamped, "goal", 1)
    words = nodes["commander"].create_publisher(DiagnosticArray, "/diagnostics", 10)
    stranger = DiagnosticArray(status=[DiagnosticStatus(name="left/drive", level=DiagnosticStatus.ERROR)])
    other = diagnostic_array(Node("commander", namespace="right", context=bench.context), b"\2", "not asked", {})
    pose = nodes["driver"].create_publisher(PoseStamped, "pose", 1)

    def speak() -> None:
        for array in (diagnostic_array(nodes["commander"], b"\2", "deadman", {}), stranger, other):
            words.publish(array)
        pose.publish(PoseStamped())

    nodes["driver"].create_timer(0.05, speak)
    bench.start()
    for _ in range(20):
        seen = listen(TASK, ROBOT, "left", 1.0, ["target_pose:=goal", "current_pose:=pose"])
        if seen.controllers and seen.words and seen.sensors["pose"].count:
            break
    assert seen.controllers == {CONTROLLER: "inactive"}
    assert seen.words == {"/left/commander": Word(ERROR, "deadman")}
    assert seen.sensors["pose"].publishers == ["/left/driver"]
    assert (seen.target_publishers, seen.target_subscribers) == (["/left/commander"], [f"/left/{CONTROLLER}"])
