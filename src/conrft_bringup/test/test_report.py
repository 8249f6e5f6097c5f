"""Figures come from the recorded episodes alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from recorded_runs import make_run, record

from conrft_bringup.command import main
from conrft_bringup.demo.episode_count import EpisodeCount
from conrft_bringup.demo.run_folder import RunFolder
from conrft_bringup.episode_figures import episode_figures, finished_trials, last_episode_number, outcomes
from conrft_bringup.learner_figures import curves, online_episodes, read_records
from conrft_bringup.report.learner_curves import draw_learner_curves
from conrft_bringup.report.learning_curves import moving_mean
from conrft_bringup.report.run_report import report
from conrft_data.bags import relabel
from conrft_data.types import Outcome


def test_take_overs_and_steps_are_counted_in_the_recorded_actions(tmp_path: Path) -> None:
    record(tmp_path, 1, outcome=Outcome.SUCCESS, sources="ppoohopp")
    (info,) = finished_trials(tmp_path)
    figures = episode_figures(info)
    assert (figures.take_overs, figures.operator_steps, figures.hold_steps) == (2, 3, 1)
    assert (figures.success, figures.length, figures.number) == (True, 8, 1)


def test_trials_are_in_the_order_of_their_numbers_and_faults_are_none(tmp_path: Path) -> None:
    for number, outcome, sources in (
        (10, Outcome.SUCCESS, "pp"),
        (9, Outcome.TIMEOUT, "ppp"),
        (11, Outcome.FAULT, "p"),
    ):
        record(tmp_path, number, outcome=outcome, sources=sources)
    assert outcomes(tmp_path) == [(False, 3), (True, 2)]
    assert last_episode_number(tmp_path) == 11


def test_a_vetoed_success_is_none(tmp_path: Path) -> None:
    name = record(tmp_path, 1, outcome=Outcome.SUCCESS, sources="pp")
    relabel(tmp_path / name, Outcome.TIMEOUT, "it lay beside the plate")
    assert outcomes(tmp_path) == [(False, 2)]


def test_a_folder_that_is_not_there_has_no_trials(tmp_path: Path) -> None:
    assert outcomes(tmp_path / "none") == []
    assert last_episode_number(tmp_path / "none") == 0


def test_episodes_are_counted_while_they_appear(tmp_path: Path) -> None:
    count = EpisodeCount(tmp_path / "episodes", with_take_overs=True)
    assert not count.refresh()
    assert count.describe(3, only_successes=False) == "0/3  success 0 of 0"
    record(tmp_path / "episodes", 1, outcome=Outcome.SUCCESS, sources="poop")
    record(tmp_path / "episodes", 2, outcome=Outcome.TIMEOUT, sources="pp")
    (tmp_path / "episodes/.tmp-unfinished").mkdir()
    (tmp_path / "episodes/no_bag").mkdir()
    assert count.refresh()
    assert not count.refresh()
    expected = "success 1 of 2  mean length 3  last 2: success 1  take-overs 0.5"
    assert count.describe(3, only_successes=False) == f"2/3  {expected}"
    assert count.describe(3, only_successes=True) == f"1/3  {expected}"


def test_the_summary_has_exactly_the_keys_that_others_read(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", seed=7)
    folder.finish("demonstrations", 10.04)
    folder.finish("training", 20.0)
    report(folder, plots=False)
    summary = json.loads(folder.summary.read_text())
    assert list(summary) == ["demonstrator", "offline", "online", "interventions_per_episode", "seed", "wall_s"]
    for series in ("demonstrator", "offline", "online"):
        assert list(summary[series]) == ["success", "mean_length", "trials", "wilson_low", "wilson_high"]
    assert (summary["demonstrator"]["success"], summary["demonstrator"]["mean_length"]) == (0.5, 5.0)
    assert (summary["offline"]["success"], summary["online"]["success"], summary["online"]["trials"]) == (0.0, 1.0, 1)
    assert (summary["interventions_per_episode"], summary["seed"], summary["wall_s"]) == ([2, 0], 7, 30.0)


def test_a_report_writes_figures_plots_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "runs/one")
    (folder.offline).mkdir()
    lines = [{"stage": "offline", "step": step, "bc_loss": 1.0 / step} for step in (50, 100)]
    (folder.offline / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main(["report", "one", "--runs", str(tmp_path / "runs")]) == 0
    table = capsys.readouterr().out
    assert [row.split()[:4] for row in table.splitlines() if row.startswith("after online")] == [
        ["after", "online", "training", "100"]
    ]
    assert "episodes   1 to   1: 2.00" in table
    training = json.loads((folder.figures / "training.json").read_text())
    assert [episode["episode_id"] for episode in training] == ["test-training-000001", "test-training-000003"]
    for name in ("learning_curves.png", "learner_curves.png", "contact_sheet.png"):
        assert np.asarray(Image.open(folder.root / name).convert("L")).std() > 1, f"{name} shows nothing"


def learner_lines(stage: str, steps: tuple[int, ...], **figures: float) -> str:
    return "".join(json.dumps({"stage": stage, "step": step, **figures}) + "\n" for step in steps)


def episode_line(number: int, *, mode: str = "training", **figures: float) -> str:
    about = {"stage": "episodes", "step": 100 + number, "episode_id": f"e{number}", "mode": mode, "success": 1}
    return json.dumps(about | {"length": 40, "intervention_rate": 0.25, "staleness": 2.0} | figures) + "\n"


def test_a_learner_alone_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = learner_lines("offline", (50, 100), td_loss=0.5, bc_loss=0.1) + episode_line(1) + episode_line(2)
    (tmp_path / "metrics.jsonl").write_text(text)
    assert main(["report", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["offline", "update", "100", "td_loss", "0.5", "bc_loss", "0.1"]
    assert said[1].startswith("episodes  2 taken in; the newest: success 1  length 40")
    assert said[2] == str(tmp_path / "learner_curves.png")
    assert np.asarray(Image.open(tmp_path / "learner_curves.png").convert("L")).std() > 1


def test_every_figure_of_the_learner_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    lines = {"offline": {"td_loss": 1.0, "bc_loss": 0.5}, "online": {"td_loss": 0.1, "q_data": 5.0, "entropy": 0.3}}
    text = "".join(learner_lines(stage, (step,), **lines[stage]) for step, stage in ((50, "offline"), (150, "online")))
    speed = learner_lines("learner", (150,), updates_per_s=20.0, waiting_episodes=1, weights_version=150)
    (tmp_path / "metrics.jsonl").write_text(text + episode_line(1, success_rate=0.5) + speed)
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.extend(drawn_labels(figure)))
    assert draw_learner_curves([tmp_path / "metrics.jsonl"], tmp_path / "curves.png")
    assert drawn == [
        "critic: td_loss", "actor: bc_loss", "values: q_data", "success: each episode", "success: newest episodes",
        "interventions: each episode", "episode length: each episode",
        "staleness of the acting weights: each episode", "speed: updates_per_s",
        "episodes that wait, updates owed: waiting_episodes", "weights published: weights_version", "entropy: entropy",
    ]  # fmt: skip


def drawn_labels(figure: Figure) -> list[str]:
    """Panel and label of each curve; every panel has both axes named, but for a figure that nobody knows."""
    found = []
    for axes in figure.axes:
        assert axes.get_xlabel() == "update" or not axes.get_visible()
        assert axes.get_ylabel() or axes.get_title() == "entropy" or not axes.get_visible()
        labels = [str(line.get_label()) for line in axes.get_lines()]
        found += [f"{axes.get_title()}: {label}" for label in labels if label != "online begins"]
    return found


def test_episodes_of_the_learner_are_those_of_training_with_their_last_label() -> None:
    relabelled = {"stage": "relabelled", "step": 103, "episode_id": "e1", "success": 0}
    lines = [json.loads(episode_line(number)) for number in (1, 2)]
    demonstration = json.loads(episode_line(3, mode="demonstration"))
    found = online_episodes([demonstration, *lines, relabelled])
    assert [(episode["episode_id"], episode["success"]) for episode in found] == [("e1", 0), ("e2", 1)]


def test_the_contact_sheet_shows_frames_of_each_stage_in_time(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    report(folder)
    sheet = np.asarray(Image.open(folder.root / "contact_sheet.png"))
    row = 18 + 2 * 128
    assert sheet.shape == (4 * row, 8 * 128, 3)
    # The last demonstration has 7 observations; its side camera's grey value is the step.
    middles = sheet[18 + 64, 64::128, 0]
    assert middles.tolist() == [0, 1, 2, 3, 3, 4, 5, 6]


def test_a_run_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "is no configuration of a run" in capsys.readouterr().err


def test_a_report_of_a_run_that_has_only_begun_is_empty(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(make_run(tmp_path / "other").settings())
    assert "demonstrator" in report(folder)
    assert json.loads(folder.summary.read_text())["online"]["trials"] == 0


def test_the_learners_figures_are_read_by_stage_and_a_cut_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"stage": "offline", "step": 50, "bc_loss": 0.5}\n'
        '{"stage": "episodes", "step": 0, "episode_id": "x", "success": 1}\n'
        '{"stage": "offline", "step": 100, "bc_loss": 0.25, "td_loss": 1}\n'
        '{"stage": "offline", "st'
    )
    assert curves(read_records(path), "offline") == {
        "bc_loss": ([50.0, 100.0], [0.5, 0.25]),
        "td_loss": ([100.0], [1.0]),
    }
    assert read_records(tmp_path / "none") == []


def test_the_moving_mean_has_a_value_from_the_beginning() -> None:
    assert moving_mean([1, 0, 0, 3], window=2).tolist() == [1.0, 0.5, 0.0, 1.5]
