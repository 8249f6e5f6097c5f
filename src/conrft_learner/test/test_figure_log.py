"""Figures: one JSON object a line, TensorBoard's event files, and Weights & Biases, which need not be installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conrft_learner.figure_log import FigureLog
from conrft_learner.figure_sinks import TensorBoard, WeightsAndBiases, open_sinks


class FakeRun:
    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments, self.logged, self.metrics, self.finished = arguments, [], [], False

    def define_metric(self, name: str, *, step_metric: str) -> None:
        self.metrics.append((name, step_metric))

    def log(self, figures: dict[str, float]) -> None:
        self.logged.append(figures)

    def finish(self) -> None:
        self.finished = True


class FakeWandb(SimpleNamespace):
    """The part of the package that is used; ``refusal`` is raised by ``init``."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__(runs=[], refusal=None, Settings=lambda **settings: settings)

    def init(self, **arguments: Any) -> FakeRun:
        if self.refusal is not None:
            raise self.refusal
        self.runs.append(FakeRun(arguments))
        return self.runs[-1]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


class Wall:
    """A sink that fails while it is broken."""

    name = "the wall"

    def __init__(self) -> None:
        self.broken = True
        self.added: list[int] = []

    def add(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        if self.broken:
            raise RuntimeError("it fell")
        self.added.append(step)

    def close(self) -> None:
        if self.broken:
            raise RuntimeError("it fell")


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of every figure in TensorBoard's files."""
    accumulator = EventAccumulator(str(folder)).Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def test_means_of_a_window_are_one_line(tmp_path: Path) -> None:
    log = FigureLog(tmp_path, every=2)
    for step, value in ((1, 1.0), (2, 3.0), (3, 9.0)):
        log.add("online", step, {"td_loss": value})
    (line,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert line == {"stage": "online", "step": 2, "td_loss": 2.0}
    assert log.latest == {"td_loss": 2.0}


def test_tensorboards_files_hold_the_numbers_of_every_line_that_is_shown(tmp_path: Path) -> None:
    log = FigureLog(tmp_path, every=1, sinks=[TensorBoard(tmp_path / "tensorboard")])
    log.add("offline", 1, {"td_loss": 0.5})
    log.write("episodes", 1, {"episode_id": "a", "success": 1, "staleness": 2.5})
    log.write("episodes", 1, {"episode_id": "b", "success": 0}, shown=False)
    log.add("online", 2, {"td_loss": 0.25, "q_data": 4.0})
    log.close()
    assert events(tmp_path / "tensorboard") == {
        "offline/td_loss": [(1, 0.5)],
        "episodes/success": [(1, 1.0)],
        "episodes/staleness": [(1, 2.5)],
        "online/td_loss": [(2, 0.25)],
        "online/q_data": [(2, 4.0)],
    }


def test_updates_that_are_done_again_replace_theirs_in_tensorboard(tmp_path: Path) -> None:
    for first, value in ((1, 1.0), (3, 7.0)):
        board = TensorBoard(tmp_path)
        for step in range(first, first + 4):
            board.add("online", step, {"td_loss": value})
        board.close()
    assert events(tmp_path)["online/td_loss"] == [(1, 1.0), (2, 1.0), (3, 7.0), (4, 7.0), (5, 7.0), (6, 7.0)]


def test_weights_and_biases_gets_project_configuration_and_figures_by_update(tmp_path: Path, wandb: FakeWandb) -> None:
    sinks = open_sinks(tmp_path, tensorboard=False, wandb_project="banana", config={"seed": 3})
    log = FigureLog(tmp_path, every=1, sinks=sinks)
    log.add("online", 7, {"td_loss": 0.5})
    log.close()
    (run,) = wandb.runs
    assert (run.arguments["project"], run.arguments["config"]) == ("banana", {"seed": 3})
    assert run.logged == [{"update": 7, "online/td_loss": 0.5}]
    assert run.metrics == [("*", "update")] and run.finished


def test_a_run_that_goes_on_is_the_same_run_of_weights_and_biases(tmp_path: Path, wandb: FakeWandb) -> None:
    for folder in ("a", "a", "b"):
        WeightsAndBiases("banana", tmp_path / folder, {})
    first, again, other = (run.arguments["id"] for run in wandb.runs)
    assert first == again != other
    assert wandb.runs[1].arguments["resume"] == "allow"


def test_a_package_that_is_missing_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="Weights & Biases is not installed: pip install wandb"):
        open_sinks(tmp_path, tensorboard=True, wandb_project="banana", config={})


def test_weights_and_biases_that_refuses_is_one_sentence(tmp_path: Path, wandb: FakeWandb) -> None:
    wandb.refusal = FakeWandb.Error("api_key not configured")
    with pytest.raises(ValueError, match=r"cannot begin \(WANDB_MODE=offline .*\): api_key not configured"):
        WeightsAndBiases("banana", tmp_path, {})


def test_a_sink_that_fails_stops_nothing_is_reported_once_and_goes_on_when_it_can(tmp_path: Path) -> None:
    said: list[str] = []
    wall = Wall()
    log = FigureLog(tmp_path, every=1, sinks=[wall], report=said.append)
    for step in (1, 2, 3, 4, 5):
        wall.broken = step not in (3, 4)
        log.add("online", step, {"td_loss": 0.5})
    assert (said, wall.added) == (["the wall gets no figures: it fell"] * 2, [3, 4]), "once each time"
    log.close()
    assert said[2:] == ["the wall has not got the last figures: it fell"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's own thread
def test_tensorboard_goes_on_after_a_full_disk(
    small_disk: Path, fill_disk: Callable[..., None], tmp_path: Path
) -> None:
    said: list[str] = []
    log = FigureLog(tmp_path, every=1, sinks=[TensorBoard(small_disk)], report=said.append)
    log.add("online", 1, {"td_loss": 1.0})
    fill_disk(leaving=0)
    step = 1
    while not said:  # it writes in a thread of its own
        step += 1
        log.add("online", step, {"td_loss": 1.0})
        assert step < 100_000
    (small_disk / "filler").unlink()
    log.add("online", step + 1, {"td_loss": 2.0})
    log.close()
    assert events(small_disk)["online/td_loss"][-1] == (step + 1, 2.0)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    log = FigureLog(tmp_path, every=1)
    log.write("online", 1, {"td_loss": 0.5})
    before = (tmp_path / "metrics.jsonl").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(OSError):
            log.write("online", 2, {"td_loss": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    log.write("online", 2, {"td_loss": 0.5})
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 2
