"""Learner and robot as two machines: two network namespaces joined by a cable that is pulled out in mid-transfer."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from recorded_runs import DOWN

from conrft_data import topics
from conrft_data.bags import read_episode, relabel, write_episode
from conrft_data.types import ActionSource, Command, Episode, Mode, Observation, Outcome

TASK_FILE = Path(__file__).parents[1] / "config/tasks/pick_banana.yaml"
PRESET = {
    "name": "tiny",
    "head_hidden": [16, 16],
    "critic_hidden": 16,
    "batch_size": 8,
    "online_batch_size": 8,
    "offline_bc_steps": 1,
    "offline_critic_steps": 1,
    "offline_steps": 0,
    "training_starts": 1,
    "replay_capacity": 100,
}
ROBOT, LEARNER = f"conrft-robot-{os.getpid()}", f"conrft-learner-{os.getpid()}"
TIMEOUT_S = 90.0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Cable:
    """Two network namespaces and the veth pair between them."""

    def __init__(self) -> None:
        for name in (ROBOT, LEARNER):
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", ROBOT, "type", "veth", "peer", "name", "cable", "netns", LEARNER)
        for number, name in enumerate((ROBOT, LEARNER), 1):
            ip("-n", name, "address", "add", f"10.213.7.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            self._up(name)

    def _up(self, name: str) -> None:
        ip("-n", name, "link", "set", "cable", "up")
        ip("-n", name, "route", "add", "224.0.0.0/4", "dev", "cable")  # nodes find each other by multicast

    def pull_out(self) -> None:
        ip("-n", ROBOT, "link", "set", "cable", "down")

    def plug_in(self) -> None:
        self._up(ROBOT)


@pytest.fixture
def cable() -> Iterator[Cable]:
    if shutil.which("ip") is None:
        pytest.skip("two network namespaces need the command ip (package iproute2)")
    try:
        yield Cable()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"two network namespaces need root: {error.stderr.strip()}")
    finally:
        for name in (ROBOT, LEARNER):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a Python program in a namespace, or in this one."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: object, machine: str = "") -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        if machine:
            # Both see one /dev/shm, which two machines do not.
            environment |= {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
        prefix = ["ip", "netns", "exec", machine] if machine else []
        log = (tmp_path / f"{len(started)}.log").open("w")
        started.append(
            subprocess.Popen(
                [*prefix, sys.executable, *map(str, words)], env=environment, stdout=log, stderr=log, text=True
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def episode(number: int, steps: int, mode: Mode = Mode.TRAINING) -> Episode:
    rng = np.random.default_rng(number)
    return Episode(
        episode_id=f"test-{mode.name.lower()}-{number:06d}",
        task="pick_banana",
        instruction="Put the yellow banana on the green plate.",
        mode=mode,
        outcome=Outcome.SUCCESS,
        final_step=steps,
        observations=[
            Observation(
                stamp_ns=(step + 1) * 100_000_000,
                episode=number,
                step=step,
                images={
                    "side": rng.integers(0, 255, (256, 256, 3), np.uint8),
                    "wrist": rng.integers(0, 255, (128, 128, 3), np.uint8),
                },
                tcp_pose=DOWN,
                reset_pose=DOWN,
                tcp_twist=np.zeros(6),
                tcp_wrench=np.zeros(6),
                gripper_opening=1.0,
            )
            for step in range(steps + 1)
        ],
        commands=[Command(action=np.zeros(7, np.float32), source=ActionSource.POLICY) for _ in range(steps + 1)],
    )


def wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + TIMEOUT_S
    while not (value := condition()):
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.01)
    return value


def told(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [json.loads(line) for line in lines]


def test_a_cable_pulled_out_in_mid_transfer_only_delays_and_nothing_is_sent_twice(
    cable: Cable, run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    bag = write_episode(tmp_path / "robot", episode(1, 15))
    recording = bag / f"{bag.name}.mcap"
    local, log = tmp_path / "learner", tmp_path / "told.jsonl"
    serve = as_arguments({"episodes_dir": bag.parent, "max_rate": 2.0})
    run("-m", "conrft_control.nodes.episode_server_node", *serve, machine=ROBOT)
    run(Path(__file__).with_name("pull_process.py"), local, log, machine=LEARNER)
    part = local / f".pull-{bag.name}" / bag.name / recording.name
    wait_for(lambda: part.exists() and part.stat().st_size > recording.stat().st_size // 4)

    cable.pull_out()
    wait_for(lambda: any("has not answered" in line.get("said", "") for line in told(log)))
    before = part.stat().st_size
    asked_before = len(told(log))
    assert 0 < before < recording.stat().st_size and not (local / bag.name).exists()

    cable.plug_in()
    wait_for((local / bag.name).exists)
    assert (local / bag.name / recording.name).read_bytes() == recording.read_bytes()
    assert len(read_episode(local / bag.name).observations) == 16
    pieces = [line for line in told(log) if line.get("answered") == recording.name and line["size"]]
    after = [line["offset"] for line in told(log)[asked_before:] if line.get("answered") == recording.name]
    assert min(after) == before, "it goes on where it was"
    assert sum(line["size"] for line in pieces) == recording.stat().st_size, "no byte was taken twice"

    relabel(bag, Outcome.ABORTED, "the operator vetoed the success")
    wait_for((local / bag.name / "label.json").exists)
    assert read_episode(local / bag.name).outcome is Outcome.ABORTED


def labels_in_replay(folder: Path, episode_id: str) -> dict[str, float]:
    """Reward, return and terminal flag of the last transition of a stored episode."""
    stored = {item["episode_id"]: item for item in json.loads((folder / "episodes.json").read_text())}[episode_id]
    last = stored["start"] + stored["length"] - 1
    kinds = {"reward": np.float32, "mc_return": np.float32, "terminated": np.bool_}
    return {name: float(np.memmap(folder / f"{name}.bin", kind, "r")[last]) for name, kind in kinds.items()}


def test_a_learner_on_another_machine_learns_from_fetched_episodes_and_a_late_veto_reaches_its_replay(
    cable: Cable, run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    write_episode(tmp_path / "demos", episode(1, 3, Mode.DEMONSTRATION))
    bag = write_episode(tmp_path / "episodes", episode(2, 3))
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(PRESET))
    parameters = {"episodes_dir": bag.parent, "demos_dir": tmp_path / "demos"}
    run("-m", "conrft_control.nodes.episode_server_node", *as_arguments(parameters), machine=ROBOT)
    own = tmp_path / "learner"
    parameters = {"episodes_source": "service", "episodes_dir": own / "episodes", "demos_dir": own / "demos"}
    parameters |= {"run_dir": own / "run", "preset_file": tmp_path / "preset.yaml", "task_file": TASK_FILE}
    run("-m", "conrft_learner.nodes.learner_node", *as_arguments(parameters), machine=LEARNER)

    state = own / "run/checkpoints/step-000000005/state.json"  # two updates offline, three for the episode
    wait_for(state.exists)
    assert json.loads(json.loads(state.read_text())["state"])["journal"] == ["test-demonstration-000001", bag.name]
    replay = own / "run/replay"
    assert labels_in_replay(replay, bag.name) == {"reward": 10.0, "mc_return": 10.0, "terminated": 1.0}

    relabel(bag, Outcome.ABORTED, "the operator vetoed the success")
    # A failure's return goes on for ever: -0.05 / (1 - 0.98).
    vetoed = {"reward": pytest.approx(-0.05), "mc_return": pytest.approx(-2.5), "terminated": 0.0}
    wait_for(lambda: labels_in_replay(replay, bag.name) == vetoed)
    assert read_episode(own / "episodes" / bag.name).outcome is Outcome.ABORTED


def test_a_learner_whose_robot_serves_no_demonstrations_says_so_and_stays_up(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    bag = write_episode(tmp_path / "episodes", episode(2, 3))
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(PRESET))
    run("-m", "conrft_control.nodes.episode_server_node", *as_arguments({"episodes_dir": bag.parent}))
    own = tmp_path / "learner"
    parameters = {"episodes_source": "service", "episodes_dir": own / "episodes", "demos_dir": own / "demos"}
    parameters |= {"run_dir": own / "run", "preset_file": tmp_path / "preset.yaml", "task_file": TASK_FILE}
    learner = run("-m", "conrft_learner.nodes.learner_node", *as_arguments(parameters))
    with diagnostics_of("learner") as said:
        wait_for(lambda: any("no demonstrations are listed: collection 1 is not served" in text for text in said()))
    assert learner.poll() is None
    wait_for((own / "episodes" / bag.name).exists)


@contextlib.contextmanager
def diagnostics_of(node_name: str) -> Iterator[Callable[[], list[str]]]:
    """What a node says of itself on /diagnostics; ask again and again."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("listener", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    said: list[str] = []

    def hear(message: DiagnosticArray) -> None:
        said.extend(status.message for status in message.status if status.name == node_name)

    def listen() -> list[str]:
        executor.spin_once(timeout_sec=0.1)
        return said

    node.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, hear, 10)
    try:
        yield listen
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


def as_arguments(parameters: dict[str, Any]) -> list[str]:
    return ["--ros-args", *(word for name, value in parameters.items() for word in ("-p", f"{name}:={value}"))]
