"""The launch files of this package fit the nodes that they start, and the genuine ``ros2 launch``."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from launch_files import add_package, expand
from rclpy.node import Node

from conrft_bringup.launch_runner.errors import LaunchFileError
from conrft_bringup.launch_runner.expansion import StartProcess
from conrft_bringup.launch_runner.runner import launch_arguments
from conrft_control.franka_settings import FrankaSettings
from conrft_control.impedance_settings import ImpedanceSettings
from conrft_data import topics as suite
from conrft_data.config import RobotConfig, TaskConfig, load_config

PACKAGE = Path(__file__).parents[1]
SOURCES = PACKAGE.parent
NODES = {
    "conrft_sim": ("simulator", "scripted_operator"),
    "conrft_control": (
        "observer", "intervention_mux", "commander", "supervisor", "recorder", "episode_server", "franka_adapter",
        "impedance_phases",
    ),
    "realsense2_camera": ("realsense2_camera_node",),
    "conrft_policy": ("policy",),
    "conrft_reward": ("reward",),
    "conrft_learner": ("learner", "critic"),
    "spacenav": ("spacenav_node",),
    "conrft_bringup": ("visualiser", "bag_player"),
    "robot_state_publisher": ("robot_state_publisher",),
    "rviz2": ("rviz2",),
}  # fmt: skip
ROBOT = {"franka_adapter", "impedance_phases", "spacenav_node", "realsense2_camera_node", "recorder"}
LOOP = {"observer", "intervention_mux", "commander", "supervisor"}
STARTED = {
    "sim": LOOP | {"simulator", "scripted_operator"},
    "record_demos": LOOP | {"simulator", "scripted_operator", "recorder"},
    "train": LOOP | {"simulator", "scripted_operator", "recorder", "policy", "reward", "learner"},
    "evaluate": LOOP | {"simulator", "scripted_operator", "recorder", "policy"},
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which every package is installed, with executables that do nothing."""
    prefix = tmp_path / "prefix"
    for package, executables in NODES.items():
        add_package(prefix, package, **dict.fromkeys(executables, "exit 0"))
    for folder in ("launch", "config"):
        (prefix / "share/conrft_bringup" / folder).symlink_to(PACKAGE / folder)
    return {"AMENT_PREFIX_PATH": str(prefix)}


def started(name: str, environment: dict[str, str], tmp_path: Path, **arguments: str) -> dict[str, StartProcess]:
    """The processes of a launch file by label."""
    file = tmp_path / f"{name}.launch.yaml"
    if not file.exists():
        file.symlink_to(PACKAGE / "launch" / f"{name}.launch.yaml")
    requests = expand(file, environment, **arguments)
    return {request.label: request for request in requests if isinstance(request, StartProcess)}


def parameters(process: StartProcess) -> dict[str, object]:
    values: dict[str, object] = {}
    for flag, file in itertools.pairwise(process.command):
        if flag == "--params-file":
            for content in yaml.safe_load(Path(file).read_text()).values():
                values.update(content["ros__parameters"])
    return values


def test_every_launch_file_has_a_name_of_its_own() -> None:
    names = [file.name for file in (PACKAGE / "launch").rglob("*.launch.yaml")]
    assert sorted(names) == sorted(set(names)), "`conrft up` and `ros2 launch` find them by name alone"


@pytest.mark.parametrize("name", STARTED)
def test_a_launch_file_starts_its_nodes(name: str, environment: dict[str, str], tmp_path: Path) -> None:
    assert set(started(name, environment, tmp_path)) == STARTED[name]


@pytest.mark.parametrize("name", [*STARTED, "learner"])
def test_every_parameter_is_one_that_the_node_declares(name: str, environment: dict[str, str], tmp_path: Path) -> None:
    for process in started(name, environment, tmp_path).values():
        package = Path(process.command[0]).parent.name
        # The package's own node modules hold the names as literals, be it in calls or in tables.
        source = "".join(path.read_text() for path in (SOURCES / package / package).rglob("*.py"))
        unknown = [key for key in parameters(process) if key != "use_sim_time" and f'"{key}"' not in source]
        assert not unknown, f"{process.label} declares no parameter {unknown}"


@pytest.mark.parametrize("name", ["sim", "record_demos", "train", "evaluate", "learner"])
def test_every_node_has_room_in_shared_memory_and_a_profile_of_your_own_goes_first(
    name: str, environment: dict[str, str], tmp_path: Path
) -> None:
    variable = "FASTRTPS_DEFAULT_PROFILES_FILE"
    files = {process.environment[variable] for process in started(name, environment, tmp_path).values()}
    assert [Path(file).resolve() for file in files] == [PACKAGE / "config/dds/fastdds.xml"]
    own = environment | {variable: "/etc/fastdds.xml"}
    assert {process.environment[variable] for process in started(name, own, tmp_path).values()} == {own[variable]}


def test_the_profile_is_in_force() -> None:
    probe = "import rclpy, pathlib; rclpy.init(); node = rclpy.create_node('probe')\n"
    probe += "print(pathlib.Path('/proc/self/maps').read_text())"
    profile = {"FASTRTPS_DEFAULT_PROFILES_FILE": str(PACKAGE / "config/dds/fastdds.xml")}
    done = subprocess.run([sys.executable, "-c", probe], env=os.environ | profile, capture_output=True, text=True)
    spans = [line.split()[0].split("-") for line in done.stdout.splitlines() if "/dev/shm/fastrtps_" in line]
    assert max(int(end, 16) - int(begin, 16) for begin, end in spans) >= 8 * 2**20, done.stderr


@pytest.mark.parametrize("name", STARTED)
def test_every_argument_is_described(name: str, environment: dict[str, str]) -> None:
    arguments = launch_arguments(PACKAGE / "launch" / f"{name}.launch.yaml", environment)
    assert {"task", "namespace", "seed", "episodes", "lockstep", "use_sim_time"} <= {a.name for a in arguments}
    assert [argument.name for argument in arguments if not argument.description] == []


@pytest.mark.parametrize("name", STARTED)
def test_a_namespace_moves_the_whole_graph(name: str, environment: dict[str, str], tmp_path: Path) -> None:
    for process in started(name, environment, tmp_path, namespace="left").values():
        assert "__ns:=/left" in process.command


def test_simulation_runs_in_lockstep_but_for_the_interactive_launch(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for name in STARTED:
        processes = started(name, environment, tmp_path)
        wanted = name != "sim"
        for label in ("simulator", "observer", "intervention_mux", "commander", "supervisor", "scripted_operator"):
            assert parameters(processes[label])["lockstep"] is wanted, f"{name}: {label}"
        assert parameters(processes["observer"])["use_sim_time"] is wanted, (
            "in real time the system's clock is good enough"
        )
        assert parameters(processes["simulator"])["use_sim_time"] is False


def test_a_real_robot_has_no_simulator_its_own_clock_and_a_person_at_the_device(
    environment: dict[str, str], tmp_path: Path
) -> None:
    processes = started("train", environment, tmp_path, robot="fr3")
    assert set(processes) == STARTED["train"] - {"simulator", "scripted_operator"} | {"spacenav_node"}
    supervisor = parameters(processes["supervisor"])
    assert (supervisor["lockstep"], supervisor["use_sim_time"], supervisor["scene_reset"]) == (False, False, False)
    assert supervisor["after_fault"] == "wait"
    assert str(parameters(processes["commander"])["robot_file"]).endswith("config/robots/fr3.yaml")
    assert parameters(processes["intervention_mux"])["operator_expected"] is True, "nothing begins without the device"


@pytest.mark.parametrize("name", ["record_demos", "train", "evaluate"])
def test_on_a_robot_each_episode_waits_until_a_person_has_put_the_scene_back(
    name: str, environment: dict[str, str], tmp_path: Path
) -> None:
    def waits(**arguments: str) -> object:
        return parameters(started(name, environment, tmp_path, **arguments)["supervisor"])["wait_for_start"]

    assert waits() is False
    assert waits(robot="fr3") is True
    assert waits(robot="fr3", wait_for_start="false") is False


def test_an_episode_ends_when_a_node_that_nobody_starts_again_falls_silent(
    environment: dict[str, str], tmp_path: Path
) -> None:
    loop = {"observer", "intervention_mux", "commander", "recorder"}
    simulated = parameters(started("train", environment, tmp_path)["supervisor"])
    assert set(simulated["required_nodes"]) == loop | {"simulator", "scripted_operator"}
    real = parameters(started("train", environment, tmp_path, robot="fr3")["supervisor"])
    assert set(real["required_nodes"]) == loop
    assert simulated["node_timeout"] == real["node_timeout"] == 5.0


def test_only_the_supervisor_ends_a_launch_and_only_what_can_go_on_is_started_again(
    environment: dict[str, str], tmp_path: Path
) -> None:
    processes = started("train", environment, tmp_path)
    assert {label for label, process in processes.items() if process.required} == {"supervisor"}
    assert {label for label, process in processes.items() if process.respawn} == {
        "policy",
        "reward",
        "learner",
        "recorder",
        "simulator",
    }


def test_on_a_robot_what_only_listens_to_the_loop_and_its_drivers_are_started_again(
    environment: dict[str, str], tmp_path: Path
) -> None:
    processes = started("robot", environment, tmp_path, drivers="none", mode="demonstration")
    assert {label for label, process in processes.items() if process.respawn} == {
        "franka_adapter", "impedance_phases", "spacenav_node", "realsense2_camera_node", "recorder",
    }  # fmt: skip
    assert parameters(processes["supervisor"])["arm_nodes"] == ["commander", "franka_adapter", "impedance_phases"]


def test_training_waits_for_learner_policy_and_reward(environment: dict[str, str], tmp_path: Path) -> None:
    processes = started("train", environment, tmp_path, run_dir="runs/x", preset="paper", seed="5")
    supervisor, learner = parameters(processes["supervisor"]), parameters(processes["learner"])
    assert (supervisor["mode"], supervisor["wait_for_learner"], supervisor["seed"]) == ("training", True, 5)
    mux = parameters(processes["intervention_mux"])
    assert (mux["policy_expected"], mux["reward_expected"], mux["operator_expected"]) == (True, True, True)
    assert parameters(processes["scripted_operator"])["mode"] == "intervene"
    assert supervisor["after_fault"] == "continue"
    assert (learner["episodes_dir"], learner["run_dir"], learner["demos_dir"]) == (
        "runs/x/episodes",
        "runs/x/learner",
        "runs/x/demos",
    )
    assert str(learner["preset_file"]).endswith("config/presets/paper.yaml")
    assert parameters(processes["recorder"])["episodes_dir"] == "runs/x/episodes"


def test_a_learner_on_another_machine_fetches_what_this_one_serves(environment: dict[str, str], tmp_path: Path) -> None:
    robot = started("train", environment, tmp_path, learner="elsewhere", run_dir="runs/x", namespace="left")
    assert set(robot) == STARTED["train"] - {"learner"} | {"episode_server"}
    served = parameters(robot["episode_server"])
    assert (served["episodes_dir"], served["demos_dir"]) == ("runs/x/episodes", "runs/x/demos")
    assert robot["episode_server"].respawn
    (learner,) = started("learner", environment, tmp_path, run_dir="/data/x", namespace="left").values()
    assert learner.respawn and "__ns:=/left" in learner.command
    values = parameters(learner)
    assert (values["episodes_source"], values["episodes_dir"]) == ("service", "/data/x/episodes")
    assert values["demos_dir"] == "/data/x/demos"
    assert parameters(started("train", environment, tmp_path)["learner"])["episodes_source"] == "folder"


@pytest.mark.parametrize("name", ["train", "learner", "robot"])
def test_the_learner_is_told_the_project_of_weights_and_biases(
    name: str, environment: dict[str, str], tmp_path: Path
) -> None:
    robot = {"drivers": "none", "learner": "here", "mode": "training"} if name == "robot" else {}
    plain = started(name, environment, tmp_path, **robot)["learner"]
    assert parameters(plain)["wandb"] == "", "none, unless it is asked for"
    told = started(name, environment, tmp_path, wandb="banana", **robot)["learner"]
    assert parameters(told)["wandb"] == "banana"


def test_an_evaluation_is_judged_by_the_simulator_and_by_no_classifier(
    environment: dict[str, str], tmp_path: Path
) -> None:
    processes = started("evaluate", environment, tmp_path)
    assert parameters(processes["scripted_operator"])["mode"] == "judge"
    assert parameters(processes["supervisor"])["mode"] == "evaluation"
    assert "reward" not in processes


@pytest.mark.parametrize(
    ("mode", "others"),
    [("demonstration", set()), ("evaluation", {"policy"}), ("training", {"policy", "reward"})],
)
def test_the_robot_starts_with_all_that_its_mode_needs(
    mode: str, others: set[str], environment: dict[str, str], tmp_path: Path
) -> None:
    processes = started("robot", environment, tmp_path, drivers="none", mode=mode)
    assert set(processes) == LOOP | ROBOT | others
    supervisor = parameters(processes["supervisor"])
    assert (supervisor["mode"], supervisor["lockstep"], supervisor["after_fault"]) == (mode, False, "wait")
    assert {"franka_adapter", "impedance_phases"} <= set(supervisor["required_nodes"])  # type: ignore[call-overload]
    assert supervisor["wait_for_learner"] is False
    folder = {"demonstration": "demos", "training": "episodes"}.get(mode, mode)
    assert parameters(processes["recorder"])["episodes_dir"] == f"runs/robot/{folder}"


@pytest.mark.parametrize(("learner", "started_by_it"), [("here", "learner"), ("elsewhere", "episode_server")])
def test_the_robot_waits_for_a_learner_that_is_told_to_be_there(
    learner: str, started_by_it: str, environment: dict[str, str], tmp_path: Path
) -> None:
    processes = started("robot", environment, tmp_path, drivers="none", learner=learner)
    assert started_by_it in processes
    assert parameters(processes["supervisor"])["wait_for_learner"] is True
    assert parameters(processes["policy"])["wait_for_weights"] == 10.0


def test_the_robots_cameras_serial_numbers_and_topics_are_arguments(
    environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "robot.launch.yaml"
    file.symlink_to(PACKAGE / "launch" / "robot.launch.yaml")
    given = {"drivers": "none", "side_serial": "0123", "wrist_serial": "4567", "namespace": "left"}
    topics = {argument.name for argument in launch_arguments(file, environment) if argument.name.endswith("_topic")}
    requests = expand(file, environment, **given, **{topic: f"renamed/{topic}" for topic in topics})
    processes = [request for request in requests if isinstance(request, StartProcess)]
    for process in processes:
        assert "__ns:=/left" in process.command
    cameras = [parameters(process) for process in processes if process.label == "realsense2_camera_node"]
    assert [(camera["camera_name"], camera["serial_no"]) for camera in cameras] == [("side", "0123"), ("wrist", "4567")]
    assert cameras[0]["rgb_camera.enable_auto_exposure"] is False
    robot = load_config(RobotConfig, PACKAGE / "config/robots/fr3.yaml")
    names = [robot.current_pose, robot.target_pose, robot.twist, robot.wrench, robot.gripper_state]
    names += [robot.gripper_command, *(camera.topic for camera in robot.cameras.values())]
    gains = load_config(ImpedanceSettings, PACKAGE / "config/impedance/fr3.yaml")
    names += [load_config(FrankaSettings, PACKAGE / "config/franka/fr3.yaml").robot_state]
    names += [gains.joint_states, gains.target_joint]
    names += [suite.SPACENAV_TWIST, suite.SPACENAV_JOY, suite.EMERGENCY_STOP, suite.WEIGHTS, suite.LEARNER_STATUS]
    remaps = {word.partition(":=")[0] for word in processes[0].command if ":=renamed/" in word}
    assert set(names) == remaps, "each topic of drivers, devices and of a learner that several robots share"
    assert len(remaps) == len(topics)


def test_the_hands_device_is_set_by_arguments(environment: dict[str, str], tmp_path: Path) -> None:
    given = {"close_button": "7", "open_button": "8", "spacemouse_axes": "[2, -1, 3, 5, -4, 6]"}
    given |= {"translation_gain": "1.5", "rotation_gain": "0.5", "spacenav_full_scale": "350"}
    processes = started("robot", environment, tmp_path, drivers="none", mode="demonstration", **given)
    mux = parameters(processes["intervention_mux"])
    assert (mux["close_button"], mux["open_button"], mux["axes"]) == (7, 8, [2, -1, 3, 5, -4, 6])
    assert (mux["translation_gain"], mux["rotation_gain"]) == (1.5, 0.5)
    assert parameters(processes["spacenav_node"]) == {"full_scale": 350.0}


def test_franka_drivers_need_the_genuine_ros2_launch(environment: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(LaunchFileError, match=r"franka_drivers\.launch\.py is no YAML .* only 'ros2 launch' runs it"):
        started("robot", environment, tmp_path)


def test_two_robots_feed_one_learner_and_act_with_the_same_weights(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "two_robots.launch.yaml"
    file.symlink_to(PACKAGE / "launch" / "two_robots.launch.yaml")
    requests = expand(file, environment, run_dir="runs/x", seed="3")
    by_node: dict[str, list[StartProcess]] = {}
    for request in requests:
        if isinstance(request, StartProcess):
            by_node.setdefault(request.label, []).append(request)
    (learner,) = by_node.pop("learner")
    assert parameters(learner)["episodes_source"] == "folder"
    assert not any("__ns:=/left" in word or "__ns:=/right" in word for word in learner.command)
    assert set(by_node) == STARTED["train"] - {"learner"}
    for left, right in by_node.values():
        assert "__ns:=/left" in left.command and "__ns:=/right" in right.command
        for robot in (left, right):
            assert {"weights:=/weights", "learner_status:=/learner_status"} <= set(robot.command)
        assert "/clock:=/left/clock" in left.command and "/clock:=/right/clock" in right.command
    folders = {parameters(process)["episodes_dir"] for process in [learner, *by_node["recorder"]]}
    assert folders == {"runs/x/episodes"}
    supervisors = [parameters(process) for process in by_node["supervisor"]]
    assert [(one["session"], one["seed"], one["wait_for_learner"]) for one in supervisors] == [
        ("left", 3, True),
        ("right", 500003, True),
    ]


@pytest.mark.parametrize("robot", ["fr3", "panda"])
def test_a_franka_has_settings_gains_and_controllers_that_agree(robot: str) -> None:
    gains = load_config(ImpedanceSettings, PACKAGE / f"config/impedance/{robot}.yaml")
    assert load_config(FrankaSettings, PACKAGE / f"config/franka/{robot}.yaml").collision is not None
    controllers = yaml.safe_load((PACKAGE / f"config/controllers/{robot}.yaml").read_text())["/**"]
    impedance = controllers[gains.controller]["ros__parameters"]
    assert (
        tuple(impedance["joints"])
        == gains.joints
        == tuple(controllers["pose_broadcaster"]["ros__parameters"]["joints"])
    )
    for name, value in gains.contact.items():
        entry: Any = impedance
        for part in name.split("."):
            entry = entry[part]
        assert entry == value, f"{name}: the controller starts with the gains of an episode"


@pytest.mark.parametrize("file", sorted((PACKAGE / "config/tasks").glob("*.yaml")), ids=lambda path: path.stem)
def test_task_files_are_valid(file: Path) -> None:
    assert load_config(TaskConfig, file).name == file.stem


@pytest.mark.parametrize("file", sorted((PACKAGE / "config/robots").glob("*.yaml")), ids=lambda path: path.stem)
def test_robot_files_are_valid_and_have_the_tasks_cameras(file: Path) -> None:
    robot = load_config(RobotConfig, file)
    assert robot.name == file.stem
    for task_file in (PACKAGE / "config/tasks").glob("*.yaml"):
        assert set(load_config(TaskConfig, task_file).cameras) <= set(robot.cameras)


@pytest.mark.parametrize("file", sorted((PACKAGE / "launch").rglob("*.launch.yaml")), ids=lambda path: path.stem)
def test_the_genuine_ros2_launch_reads_the_same_file(
    file: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("launch_ros", reason="a workstation with ROS 2 has it")
    frontend = pytest.importorskip("launch.frontend")
    prefixes = [environment["AMENT_PREFIX_PATH"], os.environ["AMENT_PREFIX_PATH"]]
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join(prefixes))
    root, parser = frontend.Parser.load(str(file))
    declared = {argument.name for argument in parser.parse_description(root).get_launch_arguments()}
    assert {argument.name for argument in launch_arguments(file, {})} <= declared


def test_a_recording_is_played_where_no_commander_listens(environment: dict[str, str], tmp_path: Path) -> None:
    chosen = {"bag": "some/bag", "namespace": "left", "rviz": "true", "transforms": "true", "learner_dir": "some/run"}
    view = started("view", environment, tmp_path, **chosen)
    assert set(view) == {"visualiser", "bag_player", "critic", "robot_state_publisher", "rviz2"}
    assert parameters(view["critic"])["source"] == "playback"
    assert parameters(view["bag_player"])["into"] == parameters(view["visualiser"])["source"] == "playback"
    assert all("__ns:=/left" in process.command for process in view.values())
    assert set(live := started("view", environment, tmp_path)) == {"visualiser"}
    assert parameters(live["visualiser"])["source"] == ""


def test_rviz_shows_the_graph_of_its_namespace(environment: dict[str, str], tmp_path: Path) -> None:
    command = started("view", environment, tmp_path, namespace="left", rviz="true")["rviz2"].command
    text = (PACKAGE / "rviz/conrft.rviz").read_text()
    shown = re.findall(r"Value: (/\S+)", text)
    assert "/view/markers" in shown
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("any", context=context, cli_args=list(command[command.index("--ros-args") :]))
    assert [node.resolve_topic_name(topic) for topic in shown] == [f"/left{topic}" for topic in shown]
    rclpy.shutdown(context=context)


def test_the_viewers_nodes_declare_the_parameters_that_they_are_given(
    environment: dict[str, str], tmp_path: Path
) -> None:
    packages = [SOURCES / "conrft_bringup" / "conrft_bringup" / "visualisation", SOURCES / "conrft_control"]
    packages.append(SOURCES / "conrft_learner" / "conrft_learner" / "nodes")
    source = "".join(path.read_text() for package in packages for path in package.rglob("*.py"))
    for process in started("view", environment, tmp_path, bag="some/bag", learner_dir="some/run").values():
        assert [key for key in parameters(process) if f'"{key}"' not in source] == []
