"""The demo's stages, with a graph and programs that are small but real processes."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from launch_files import add_package, write
from recorded_runs import make_run, record

from conrft_bringup.command import main
from conrft_bringup.demo import graph_run, run_folder, stages
from conrft_bringup.demo.episode_count import EpisodeCount
from conrft_bringup.demo.graph_run import StageFailed, Watch, graph_environment, resumed, run_graph
from conrft_bringup.demo.pipeline import run_demo
from conrft_bringup.demo.progress_line import ProgressLine
from conrft_bringup.demo.run_folder import DemoSettings, RunFolder, RunFolderError, write_json
from conrft_bringup.demo.stages import STAGES, Run, Stage, train_online
from conrft_bringup.episode_figures import EpisodeFigures
from conrft_bringup.evaluation.trial_series import TrialSeries
from conrft_bringup.report.run_report import read_figures, report
from conrft_data.bags import relabel
from conrft_data.types import Outcome


@pytest.fixture
def line() -> ProgressLine:
    return ProgressLine("stage", io.StringIO())


@pytest.fixture
def launches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which launch files are found by their names."""
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path}/prefix:{os.environ.get('AMENT_PREFIX_PATH', '')}")
    add_package(tmp_path / "prefix", "conrft_bringup")
    return tmp_path / "prefix/share/conrft_bringup"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = RunFolder(tmp_path / "run")
    folder.begin(DemoSettings())
    return Run(folder=folder, settings=DemoSettings(), share=tmp_path)


def recording(folder: Path, tmp_path: Path) -> str:
    """A shell command that lets a finished episode appear in ``folder``."""
    name = record(tmp_path / "ready", 1, outcome=Outcome.SUCCESS, sources="pp")
    return f"mkdir -p {folder} && mv {tmp_path}/ready/{name} {folder}"


def test_a_graph_runs_until_its_episodes_are_there(launches: Path, tmp_path: Path, line: ProgressLine) -> None:
    episodes = tmp_path / "episodes"
    program = recording(episodes, tmp_path)
    write(
        launches,
        f"launch: [{{arg: {{name: n}}}}, {{executable: {{cmd: \"sh -c '{program}'\", on_exit: shutdown}}}}]",
        "x.launch.yaml",
    )
    count = EpisodeCount(episodes)
    run_graph("x", {"n": "1"}, tmp_path / "x.log", line, Watch(count, 1))
    assert count.successes == 1


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "- executable: {cmd: sh -c 'echo bad luck; exit 3', on_exit: shutdown}",
            "required process [sh-1] has died with exit code 3",
        ),
        ("- executable: {cmd: echo bad luck, on_exit: shutdown}", "the graph ended after 0/1"),
    ],
)
def test_a_graph_that_fails_names_its_log_and_shows_its_end(
    launches: Path, tmp_path: Path, line: ProgressLine, body: str, problem: str
) -> None:
    write(launches, f"launch:\n{body}\n", "x.launch.yaml")
    with pytest.raises(StageFailed) as error:
        run_graph("x", {}, tmp_path / "x.log", line, Watch(EpisodeCount(tmp_path / "none"), 1))
    assert problem in str(error.value)
    assert f"log: {tmp_path / 'x.log'}, which says:" in str(error.value)
    assert "-1] bad luck" in str(error.value)


def test_a_stage_is_asked_to_end_only_once(launches: Path, tmp_path: Path, line: ProgressLine) -> None:
    program = "trap 'sleep 1.5; touch written; exit 0' INT; while true; do sleep 0.1; done"
    (tmp_path / "slow").write_text(f"#!/bin/sh\ncd {tmp_path}\n{program}\n")
    (tmp_path / "slow").chmod(0o755)
    write(launches, f"launch: [{{executable: {{cmd: {tmp_path}/slow}}}}]", "x.launch.yaml")
    watch = Watch(EpisodeCount(tmp_path / "none"), 5, deadline=time.monotonic() + 0.5)
    run_graph("x", {}, tmp_path / "x.log", line, watch)
    assert (tmp_path / "written").exists(), "it was not given the time to write its checkpoint"


def test_a_dead_node_that_nobody_restarts_ends_the_stage(
    launches: Path, tmp_path: Path, line: ProgressLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_run, "_AFTER_A_DEATH", 0.3)
    write(
        launches,
        "launch: [{executable: {cmd: sleep 100}}, {executable: {cmd: sh -c 'kill -9 $$', name: eye}}]",
        "x.launch.yaml",
    )
    with pytest.raises(StageFailed, match=r"eye-2 has died \(exit code -9\); without it the arm holds still"):
        run_graph("x", {}, tmp_path / "x.log", line, Watch(EpisodeCount(tmp_path / "none"), 1))


def test_a_node_that_keeps_dying_ends_the_stage(launches: Path, tmp_path: Path, line: ProgressLine) -> None:
    write(launches, "launch: [{executable: {cmd: 'false', respawn: 'true', respawn_delay: 0.1}}]", "x.launch.yaml")
    with pytest.raises(StageFailed, match=r"false-1 has died \d+ times"):
        run_graph("x", {}, tmp_path / "x.log", line, Watch(EpisodeCount(tmp_path / "none"), 1))


def test_a_graph_that_finishes_no_episode_is_given_up(launches: Path, tmp_path: Path, line: ProgressLine) -> None:
    write(launches, "launch: [{executable: {cmd: sleep 100}}]", "x.launch.yaml")
    with pytest.raises(StageFailed, match="no episode has been finished for 1 s"):
        run_graph("x", {}, tmp_path / "x.log", line, Watch(EpisodeCount(tmp_path / "none"), 1, patience=0.6))


def test_a_stage_may_end_early_when_the_time_is_up(launches: Path, tmp_path: Path, line: ProgressLine) -> None:
    write(launches, "launch: [{executable: {cmd: sleep 100}}]", "x.launch.yaml")
    watch = Watch(EpisodeCount(tmp_path / "none"), 5, deadline=time.monotonic() + 0.5)
    run_graph("x", {}, tmp_path / "x.log", line, watch)


def test_the_time_that_is_left_is_told_from_the_episodes_so_far(tmp_path: Path, line: ProgressLine) -> None:
    now = [100.0]
    record(tmp_path, 1, outcome=Outcome.SUCCESS, sources="p")  # by an earlier process
    watcher = graph_run._Watcher(Watch(EpisodeCount(tmp_path), 5), line, lambda: now[0])
    assert watcher._time_left == ""
    for number in (2, 3):
        now[0] += 30.0
        record(tmp_path, number, outcome=Outcome.SUCCESS, sources="p")
        watcher.look_at_episodes()
    assert watcher._time_left == "  60 s left"
    for number in (4, 5):
        record(tmp_path, number, outcome=Outcome.SUCCESS, sources="p")
    watcher.look_at_episodes()
    assert watcher._time_left == ""


def test_a_veto_of_an_episode_that_was_counted_is_seen(tmp_path: Path) -> None:
    count = EpisodeCount(tmp_path)
    bag = tmp_path / record(tmp_path, 1, outcome=Outcome.SUCCESS, sources="pp")
    assert count.refresh()
    assert (len(count.trials), count.successes) == (1, 1)
    relabel(bag, Outcome.TIMEOUT, "the operator vetoed the success")
    assert not count.refresh(), "it is no new episode"
    assert (len(count.trials), count.successes) == (1, 0)


def test_the_graphs_of_a_process_have_a_domain_that_no_other_process_has() -> None:
    code = "from conrft_bringup.demo.graph_run import graph_environment as e; print(e()['ROS_DOMAIN_ID']); input()"
    command = [sys.executable, "-c", code]
    others = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    try:
        mine = graph_environment()
        domains = [mine["ROS_DOMAIN_ID"], *(other.stdout.readline().strip() for other in others if other.stdout)]
    finally:
        for other in others:
            other.communicate("\n")
    assert len(set(domains)) == 9
    assert all(1 <= int(domain) <= 101 for domain in domains)
    assert os.environ["ROS_DOMAIN_ID"] not in domains
    assert mine == graph_environment()
    assert mine["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


def test_a_broken_off_stage_goes_on_with_the_next_number(tmp_path: Path) -> None:
    assert resumed(tmp_path) == {"first_episode": "1", "after_fault": "continue"}
    record(tmp_path, 4, outcome=Outcome.FAULT, sources="p")
    assert resumed(tmp_path)["first_episode"] == "5"


def test_an_evaluation_with_a_void_trial_is_no_finished_stage(
    run: Run, line: ProgressLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    void = TrialSeries(counted=[], void={3: "the operator moved the arm in 2 steps, first in step 7"})
    monkeypatch.setattr(stages, "run_trials", lambda *_: void)
    with pytest.raises(StageFailed, match=r"trial 3 in .*evaluation_online is void: the operator moved the arm"):
        stages.evaluate_online(run, line)


def test_finished_stages_are_not_run_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []

    def stage(name: str) -> Stage:
        return Stage(name, name, lambda _run, _line: calls.append(name) or f"{name} is done")

    def failing(_run: Run, _line: ProgressLine) -> str:
        raise StageFailed("out of luck")

    with pytest.raises(StageFailed):
        run_demo(run, [stage("a"), Stage("b", "b", failing), stage("c")])
    assert calls == ["a"]
    run_demo(run, [stage("a"), stage("b"), stage("c")])
    assert calls == ["a", "b", "c"]
    assert "[1/3] a  done before in" in capsys.readouterr().out


def test_the_stages_are_those_of_the_method() -> None:
    assert [stage.name for stage in STAGES] == [
        *["demonstrations", "reward", "offline", "evaluation_offline", "training", "evaluation_online"]
    ]


def test_a_run_is_taken_up_again_only_with_its_own_settings(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").begin(DemoSettings(seed=1))
    RunFolder(tmp_path / "run").begin(DemoSettings(seed=1))
    with pytest.raises(RunFolderError, match=r"other settings \(seed 1, not 2\)"):
        RunFolder(tmp_path / "run").begin(DemoSettings(seed=2))


@pytest.mark.parametrize("killed_at", ["", "rename", "write_json", "write_yaml"])
def test_a_run_practises_on_and_what_was_dropped_still_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    folder = make_run(tmp_path, episodes=2)
    for stage in STAGES:
        folder.finish(stage.name, 1.0)
    report(folder, plots=False)
    before = read_figures(folder)
    folder.drop_recordings()
    folder.drop_recordings()
    assert not folder.episodes.exists() and read_figures(folder) == before

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    if killed_at:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path if killed_at == "rename" else run_folder, killed_at, killed)
            folder.begin(DemoSettings(episodes=4))
    folder.begin(DemoSettings(episodes=4))
    assert before.online
    assert read_figures(folder) == replace(before, online=[]), "those trials were of the policy before"
    assert {"training", "evaluation_online"}.isdisjoint(folder.finished())
    assert sum(folder.finished().values()) == len(STAGES), "the time before is not forgotten"


def test_the_online_stage_asks_only_for_the_episodes_that_are_missing(
    run: Run, line: ProgressLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, str] = {}
    monkeypatch.setattr(stages, "run_graph", lambda _name, arguments, *_: asked.update(arguments))
    dropped = [EpisodeFigures(episode_id=f"train-{n:06d}", number=n, success=True, length=9) for n in (1, 2, 4)]
    write_json(run.folder.dropped / "training.json", [figures.as_dict() for figures in dropped])
    record(run.folder.episodes, 5, outcome=Outcome.SUCCESS, sources="pp")
    train_online(replace(run, settings=DemoSettings(episodes=6)), line)
    assert (asked["episodes"], asked["first_episode"]) == ("2", "6")
    shutil.rmtree(run.folder.episodes)
    train_online(replace(run, settings=DemoSettings(episodes=6)), line)
    assert (asked["episodes"], asked["first_episode"]) == ("3", "5")


def test_the_configuration_says_what_the_run_was_made_with(tmp_path: Path) -> None:
    settings = DemoSettings(seed=3, preset="paper", episodes=5, seconds=60.0)
    folder = RunFolder(tmp_path / "run")
    folder.begin(settings)
    assert folder.settings() == settings


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--preset", "none"], "config/presets holds no 'none'; known: quick"),
        (["--task", "none"], "config/tasks holds no 'none'; known: pick_banana"),
        (["--run", "a/b"], "'a/b' is no name of a run"),
        (["--backbone", "octo-mega"], "octo-mega: neither a folder with a config.json nor a shipped backbone"),
    ],
)
def test_wrong_choices_are_refused_before_anything_runs(
    launches: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, name in (("tasks", "pick_banana"), ("presets", "quick")):
        (launches / "config" / kind).mkdir(parents=True)
        (launches / "config" / kind / f"{name}.yaml").touch()
    assert main(["demo", "--preset", "quick", *words]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_progress_line_is_rewritten_on_a_terminal_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        progress = ProgressLine("work", stream)
        for state in ("1/3", "2/3", "3/3"):
            progress.show(state)
        progress.finish("done")
    assert plain.getvalue() == "work  1/3  0 s\nwork  done  0 s\n"
    assert terminal.getvalue().count("\r\x1b[K") == 4
    assert terminal.getvalue().endswith("work  done  0 s\n")


def test_help_is_there_at_once() -> None:
    command = [sys.executable, "-m", "conrft_bringup", "--help"]
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
    begin = time.monotonic()
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert time.monotonic() - begin < 2.0
    for name in ("up", "demo", "demos", "reward", "train", "evaluate", "report", "backbone", "bench", "episode"):
        assert f"  {name} " in output


def test_help_imports_no_package_but_its_own() -> None:
    heavy = ("numpy", "torch", "rclpy", "conrft_data", "yaml")
    code = (
        "import sys; from conrft_bringup.command import main; main(['--help']); "
        f"print([name for name in sys.modules if name.split('.')[0] in {heavy}])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.endswith("[]\n")


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fly"]) == 2
    assert "there is no command 'fly'" in capsys.readouterr().err


def test_a_whole_run_folder_gives_its_table(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for stage in STAGES:
        folder.finish(stage.name, 1.0)
    table = run_demo(Run(folder=folder, settings=folder.settings(), share=tmp_path))
    assert [row.split()[:4] for row in table.splitlines() if row.startswith("after")] == [
        ["after", "offline", "training", "0"],
        ["after", "online", "training", "100"],
    ]
