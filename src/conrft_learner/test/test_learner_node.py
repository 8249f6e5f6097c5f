"""The learner node as a process of its own: it learns from bags, publishes, stops cleanly, and survives a kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor

from conrft_data import topics
from conrft_data.bags import write_episode
from conrft_data.types import Episode, Mode
from conrft_learner.checkpoints import checkpoints
from conrft_learner.presets import Preset
from conrft_msgs.msg import LearnerStatus, Weights
from conrft_policy.backbone import load_backbone
from conrft_policy.policy_weights import PolicyWeights, unpack

MakeEpisode = Callable[..., Episode]
TASK_FILE = Path(__file__).parents[2] / "conrft_bringup" / "config" / "tasks" / "pick_banana.yaml"
TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def backbone() -> object:
    return load_backbone("octo-nano", "pick_banana")


@pytest.fixture
def camera_episode(make_episode: MakeEpisode, backbone: object) -> MakeEpisode:
    """An episode with the task's cameras; its embeddings are said to be the backbone's, so that nothing is computed."""

    def make(number: int, **changes: object) -> Episode:
        episode = make_episode(number, length=4, **changes)
        images = {"side": np.zeros((256, 256, 3), np.uint8), "wrist": np.zeros((128, 128, 3), np.uint8)}
        embeddings = np.random.default_rng(number).normal(size=(5, backbone.embedding_dim)).astype(np.float32)
        return replace(
            episode,
            observations=[replace(observation, images=images) for observation in episode.observations],
            embeddings=embeddings,
            embedding_fingerprint=backbone.fingerprint,
        )

    return make


def write_preset(file: Path, preset: Preset, **changes: object) -> Path:
    file.write_text(yaml.safe_dump(preset.model_copy(update=changes).model_dump(mode="json")))
    return file


class Listener:
    """Keeps the newest weights, status and diagnostics of a learner."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node("listener")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.weights: Weights | None = None
        self.status: LearnerStatus | None = None
        self.diagnostics: list[str] = []
        self.values: dict[str, str] = {}
        self.levels: list[bytes] = []
        self.node.create_subscription(Weights, topics.WEIGHTS, self._on_weights, topics.LATCHED)
        self.node.create_subscription(LearnerStatus, topics.LEARNER_STATUS, self._on_status, topics.LATCHED)
        self.node.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, 10)

    def _on_weights(self, message: Weights) -> None:
        self.weights = message

    def _on_status(self, message: LearnerStatus) -> None:
        self.status = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics += [status.message for status in message.status]
        self.values = {pair.key: pair.value for status in message.status for pair in status.values}
        self.levels += [status.level for status in message.status]

    def wait(self, condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = TIMEOUT_S) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "timed out"
            assert process.poll() is None, f"the learner ended: {process.communicate()[0]}"
            self.executor.spin_once(timeout_sec=0.1)

    def caught_up_with(self, episode_id: str) -> bool:
        status = self.status
        return status is not None and status.last_episode_id == episode_id and status.pending_updates == 0

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def start(tmp_path: Path, preset: Preset) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    preset_file = write_preset(tmp_path / "preset.yaml", preset)
    started: list[subprocess.Popen[str]] = []
    parameters = {
        "task_file": TASK_FILE,
        "preset_file": preset_file,
        "demos_dir": tmp_path / "demos",
        "episodes_dir": tmp_path / "episodes",
        "run_dir": tmp_path / "run",
        "tensorboard": "false",
    }

    def start(**changes: object) -> subprocess.Popen[str]:
        arguments = [part for name, value in (parameters | changes).items() for part in ("-p", f"{name}:={value}")]
        command = [sys.executable, "-m", "conrft_learner.nodes.learner_node", "--ros-args", *arguments]
        path = os.pathsep.join(part for part in sys.path if part)
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_it_learns_from_bags_survives_a_kill_and_stops_cleanly(
    start: Callable[..., subprocess.Popen[str]],
    listener: Listener,
    camera_episode: MakeEpisode,
    backbone: object,
    tmp_path: Path,
) -> None:
    write_episode(tmp_path / "demos", camera_episode(1, mode=Mode.DEMONSTRATION))
    learner = start()
    listener.wait(lambda: listener.weights is not None and listener.status is not None, learner)
    assert listener.status.updates == 10, "the offline stage of the demonstrations is done first"
    weights = PolicyWeights(
        version=listener.weights.version,
        fingerprint=listener.weights.fingerprint,
        sha256=listener.weights.sha256,
        data=bytes(listener.weights.data),
    )
    unpack(weights, backbone_fingerprint=backbone.fingerprint)

    write_episode(tmp_path / "episodes", camera_episode(2))
    listener.wait(lambda: listener.caught_up_with("test-000002"), learner)
    assert (listener.status.ingested_episodes, listener.status.updates) == (1, 14)
    listener.wait(lambda: listener.weights.version == 14, learner)  # another topic: it may come after the status

    learner.kill()
    learner.wait()
    write_episode(tmp_path / "episodes", camera_episode(3))
    learner = start()
    listener.wait(lambda: listener.caught_up_with("test-000003"), learner)
    assert (listener.status.ingested_episodes, listener.status.updates) == (2, 18)
    listener.wait(lambda: listener.weights.version == 18, learner)

    listener.wait(lambda: any("waits for episodes" in sentence for sentence in listener.diagnostics), learner)
    listener.wait(lambda: listener.values["ingested_episodes"] == "2", learner)
    figures = {
        "td_loss",
        "bc_loss",
        "q_data",
        "success_rate",
        "mean_intervention_rate",
        "mean_length",
        "mean_staleness",
    }
    assert figures <= set(listener.values)
    assert (listener.values["success_rate"], listener.values["mean_length"]) == ("1", "4")
    for _ in range(2):
        learner.send_signal(signal.SIGINT)
    assert learner.wait(timeout=120) == 0, learner.communicate()[0]


def test_who_comes_late_gets_the_newest_weights(
    start: Callable[..., subprocess.Popen[str]], listener: Listener, camera_episode: MakeEpisode, tmp_path: Path
) -> None:
    write_episode(tmp_path / "demos", camera_episode(1, mode=Mode.DEMONSTRATION))
    learner = start()
    for number in (2, 3):
        write_episode(tmp_path / "episodes", camera_episode(number))
    listener.wait(lambda: listener.weights is not None and listener.weights.version == 18, learner)
    got: list[int] = []
    listener.node.create_subscription(Weights, topics.WEIGHTS, lambda m: got.append(m.version), topics.LATCHED)
    listener.wait(lambda: bool(got), learner, timeout_s=30)
    assert got == [18], "and no older ones before"


def test_it_says_again_how_it_stands_with_the_last_episode_of_each_robot(
    start: Callable[..., subprocess.Popen[str]], listener: Listener, camera_episode: MakeEpisode, tmp_path: Path
) -> None:
    write_episode(tmp_path / "demos", camera_episode(1, mode=Mode.DEMONSTRATION))
    for number, name in ((2, "left-000001"), (3, "left-000002"), (4, "right-000001")):
        write_episode(tmp_path / "episodes", replace(camera_episode(number), episode_id=name))
    learner = start()
    listener.wait(lambda: listener.caught_up_with("right-000001"), learner)
    listener.wait(lambda: any("waits for episodes" in said for said in listener.diagnostics), learner)
    said: list[LearnerStatus] = []
    listener.node.create_subscription(LearnerStatus, topics.LEARNER_STATUS, said.append, 10)  # without the history
    listener.wait(lambda: len(said) >= 4, learner, timeout_s=30)
    assert [m.last_episode_id for m in said if m.last_episode_id][-2:] == ["left-000002", "right-000001"]
    assert not any(m.pending_updates for m in said)


FAKE_WANDB = """
import json, os, pathlib

class Error(Exception): ...

class Settings:
    def __init__(self, **settings): ...

class Run:
    def __init__(self, project): self.project = project
    def define_metric(self, *names, **options): ...
    def log(self, figures):
        with open(os.environ["FAKE_WANDB_FILE"], "a") as file:
            file.write(json.dumps([self.project, sorted(figures)]) + "\\n")
    def finish(self): ...

def init(project, **options): return Run(project)
"""


def test_weights_and_biases_is_one_parameter(
    start: Callable[..., subprocess.Popen[str]],
    listener: Listener,
    camera_episode: MakeEpisode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "wandb.py").write_text(FAKE_WANDB)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setenv("FAKE_WANDB_FILE", str(tmp_path / "shown"))
    write_episode(tmp_path / "demos", camera_episode(1, mode=Mode.DEMONSTRATION))
    learner = start(wandb="banana")
    listener.wait(lambda: listener.weights is not None, learner)
    shown = [json.loads(line) for line in (tmp_path / "shown").read_text().splitlines()]
    assert {project for project, _ in shown} == {"banana"}
    assert any({"update", "offline/bc_loss"} <= set(figures) for _, figures in shown)


def test_a_full_disk_pauses_training_and_damages_nothing(
    start: Callable[..., subprocess.Popen[str]],
    listener: Listener,
    camera_episode: MakeEpisode,
    small_disk: Path,
    fill_disk: Callable[..., None],
    tmp_path: Path,
) -> None:
    def says(words: str) -> Callable[[], bool]:
        return lambda: any(words in said for said in listener.diagnostics[-1:])

    told = says(f"no room is left for {small_disk}")

    write_episode(tmp_path / "demos", camera_episode(1, mode=Mode.DEMONSTRATION))
    write_episode(tmp_path / "episodes", camera_episode(2))
    learner = start(run_dir=small_disk / "run", tensorboard="true")
    listener.wait(lambda: listener.caught_up_with("test-000002"), learner)
    listener.wait(says("waits for episodes"), learner)

    fill_disk(leaving=0)  # no room for the frames
    write_episode(tmp_path / "episodes", camera_episode(3))
    listener.wait(told, learner)
    assert f"make room in {small_disk / 'run'}, and it goes on by itself" in listener.diagnostics[-1]
    assert listener.levels[-1] == DiagnosticStatus.ERROR
    assert not listener.caught_up_with("test-000003")

    fill_disk(leaving=150_000)  # room for the frames, none for a checkpoint
    listener.diagnostics.clear()
    listener.wait(lambda: "test-000003" in (small_disk / "run/metrics.jsonl").read_text(), learner)
    listener.wait(told, learner)

    (small_disk / "filler").unlink()
    listener.wait(lambda: listener.caught_up_with("test-000003"), learner)
    listener.wait(says("waits for episodes"), learner)
    assert (listener.status.ingested_episodes, listener.status.updates) == (2, 18)

    learner.kill()
    learner.wait()
    listener.status = None
    learner = start(run_dir=small_disk / "run", tensorboard="true")
    listener.wait(lambda: listener.caught_up_with("test-000003"), learner)
    assert (listener.status.ingested_episodes, listener.status.updates) == (2, 18)


def test_training_that_diverges_is_an_error_on_diagnostics_of_a_node_that_stays(
    start: Callable[..., subprocess.Popen[str]],
    listener: Listener,
    camera_episode: MakeEpisode,
    tmp_path: Path,
) -> None:
    write_episode(tmp_path / "demos", camera_episode(1, mode=Mode.DEMONSTRATION))
    episode = camera_episode(2)
    episode.embeddings[:] = 3e38  # finite, but no sum of them
    write_episode(tmp_path / "episodes", episode)
    learner = start()
    listener.wait(lambda: any("training has stopped" in said for said in listener.diagnostics), learner)
    assert listener.levels[-1] == DiagnosticStatus.ERROR and "is nan" in listener.diagnostics[-1]
    learner.send_signal(signal.SIGINT)
    assert learner.wait(timeout=120) == 0, learner.communicate()[0]
    kept = [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")]
    assert kept[-1] == "step-000000010", "nothing of it was saved"


def cpu_seconds(pid: int) -> tuple[float, dict[str, float]]:
    """Of a process, the threads that have ended included, and of each thread that there is."""

    def read(folder: Path) -> float:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    by_thread = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has ended
            by_thread[task.name] = read(task)
    return read(Path(f"/proc/{pid}")), by_thread


def test_a_learner_without_a_pause_uses_no_more_than_its_cores(
    start: Callable[..., subprocess.Popen[str]],
    listener: Listener,
    camera_episode: MakeEpisode,
    preset: Preset,
    tmp_path: Path,
) -> None:
    write_episode(tmp_path / "demos", camera_episode(1, mode=Mode.DEMONSTRATION))
    busy = {"offline_bc_steps": 0, "offline_critic_steps": 100_000, "checkpoint_every": 100_000, "log_every": 1000}
    # Large batches for small networks: as much work as can be for a thread that makes them ahead.
    busy |= {"prefetch_batches": 3, "batch_size": 4096, "n_step": 20}
    busy |= {
        "offline_cql_alpha": 0.0,
        "critic_members": 1,
        "critic_hidden": 8,
        "head_hidden": (8,),
        "proprio_latent": 1,
    }
    learner = start(preset_file=write_preset(tmp_path / "busy.yaml", preset, **busy), threads=1)
    listener.wait(lambda: any("trains offline" in said for said in listener.diagnostics), learner)
    (before, threads_before), begun = cpu_seconds(learner.pid), time.monotonic()
    time.sleep(6.0)
    (after, threads), seconds = cpu_seconds(learner.pid), time.monotonic() - begun
    used, busiest = after - before, max(threads[name] - threads_before.get(name, 0.0) for name in threads)
    assert used < 1.1 * seconds
    assert used < 1.1 * busiest, "whatever else the machine does: one thread does it all"


def test_a_wrong_configuration_is_one_sentence(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    learner = start(preset_file=tmp_path / "missing.yaml")
    output, _ = learner.communicate(timeout=TIMEOUT_S)
    assert learner.returncode != 0
    assert "missing.yaml: cannot be read" in output and "Traceback" not in output
