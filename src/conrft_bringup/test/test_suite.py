"""``conrft bench suite``: many tasks and seeds, unattended and resumable, and a table like the paper's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image
from suite_process import write_figures

from conrft_bringup.bench_cli import BENCHMARKS
from conrft_bringup.command import main
from conrft_bringup.demo.graph_run import Interrupted, StageFailed
from conrft_bringup.demo.run_folder import DemoSettings, RunFolder, RunFolderError
from conrft_bringup.evaluation.cli import _begin as begin_evaluation
from conrft_bringup.evaluation.result import EvaluationSettings
from conrft_bringup.suite import suite_run
from conrft_bringup.suite.suite_curves import draw_suite_curves, positions
from conrft_bringup.suite.suite_folder import METHODS, RUN_BYTES, SuiteFolder, SuiteSettings
from conrft_bringup.suite.suite_results import paper_figures, read_results
from conrft_bringup.suite.suite_run import run_suite
from conrft_bringup.suite.suite_table import suite_table
from conrft_data.config import TaskConfig, load_config
from conrft_policy.backbone import backbone_folder
from conrft_policy.instructions import load_instruction, store_instruction

PACKAGE = Path(__file__).parents[1]
ORDER = list(paper_figures(PACKAGE)["tasks"])


@pytest.fixture
def folder(tmp_path: Path) -> SuiteFolder:
    folder = SuiteFolder(tmp_path / "suite")
    folder.begin(SuiteSettings())
    return folder


def two_tasks(folder: SuiteFolder) -> None:
    """Put Spoon with one seed, Pick Banana with two."""
    demonstrations, training = [(True, 60, 60)] * 2, [(True, 60, 6)] * 10 + [(True, 40, 0)] * 10
    for seed, won in ((1, 20), (2, 18)):
        write_figures(
            folder,
            "pick_banana",
            seed,
            demonstrations=demonstrations,
            offline=[(True, 50, 0)] * 10 + [(False, 100, 0)] * 10,
            training=training,
            online=[(True, 30, 0)] * won + [(False, 100, 0)] * (20 - won),
        )
    write_figures(
        folder,
        "put_spoon",
        1,
        demonstrations=demonstrations,
        offline=[(False, 100, 0)] * 20,
        training=training,
        online=[(True, 24, 0)] * 20,
    )
    for task, seed in (("put_spoon", 1), ("pick_banana", 1), ("pick_banana", 2)):
        folder.finish(task, seed, drop_recordings=False)


def test_the_table_is_laid_out_like_the_papers(folder: SuiteFolder) -> None:
    two_tasks(folder)
    golden = (Path(__file__).parent / "data/suite_table.md").read_text()
    assert suite_table(read_results(folder, ORDER), paper_figures(PACKAGE)) + "\n" == golden


def test_the_json_says_what_each_seed_came_to(folder: SuiteFolder) -> None:
    two_tasks(folder)
    banana = read_results(folder, ORDER)[0].as_dict()
    assert banana["hil-conrft"] == {
        "success": 0.95,
        "successes": 38,
        "trials": 40,
        "wilson_low": pytest.approx(0.835, abs=1e-3),
        "wilson_high": pytest.approx(0.986, abs=1e-3),
        "success_of_seeds": [1.0, 0.9],
        "mean_length": 30.0,
        "length_of_seeds": [30.0, 30.0],
        "length_over_demonstrator": 0.5,
    }
    assert banana["interventions"] == {
        "take_overs_first": 1.0,
        "take_overs_last": 0.0,
        "operator_share_first": 0.1,
        "operator_share_last": 0.0,
    }
    assert banana["online_episodes"] == [20, 20]
    assert banana["online_robot_min"] == pytest.approx(1000 * 0.1 / 60, abs=1e-4)


def test_the_papers_numbers_are_those_of_its_means() -> None:
    tasks = paper_figures(PACKAGE)["tasks"].values()
    assert len(tasks) == 8
    means = {
        "minutes": np.mean([task["minutes"] for task in tasks]),
        **{kind + m: np.mean([t[kind][m] for t in tasks]) for kind in ("success", "length") for m in METHODS},
    }
    # As its last row gives them, rounded.
    assert means == {
        "minutes": pytest.approx(48.8, abs=0.06),
        "successhil-conrft": pytest.approx(96.3, abs=0.06),
        "successcal-conrft": pytest.approx(39.4, abs=0.06),
        "lengthhil-conrft": pytest.approx(30.7, abs=0.06),
        "lengthcal-conrft": pytest.approx(57.5, abs=0.06),
    }


@pytest.mark.parametrize("against", ["episodes", "minutes"])
def test_the_curves_have_a_row_for_each_task(folder: SuiteFolder, tmp_path: Path, against: str) -> None:
    two_tasks(folder)
    assert draw_suite_curves(read_results(folder, ORDER), {}, tmp_path / "curves.png", against)  # type: ignore[arg-type]
    assert np.asarray(Image.open(tmp_path / "curves.png").convert("L")).std() > 1


def test_the_curve_of_success_says_whose_verdict_it_is(
    folder: SuiteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import pyplot

    two_tasks(folder)
    figures: list[Figure] = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    draw_suite_curves(read_results(folder, ORDER), {}, tmp_path / "curves.png", "episodes")
    success = figures[0].axes[0]
    assert "by the classifier" in success.get_title()
    legend = [text.get_text() for text in success.get_legend().get_texts()]
    assert legend == [f"truth, without intervention, {when}" for when in ("before", "after")]


def test_the_time_is_that_of_the_robot(folder: SuiteFolder) -> None:
    two_tasks(folder)
    seed = read_results(folder, ORDER)[0].seeds[0]
    assert positions(seed, "episodes")[:2].tolist() == [1, 2]
    assert positions(seed, "minutes")[:2].tolist() == pytest.approx([0.1, 0.2])


def test_a_method_ends_where_it_ends() -> None:
    assert [stage.name for stage in METHODS["cal-conrft"]] == [
        *["demonstrations", "reward", "offline", "evaluation_offline"]
    ]
    assert METHODS["hil-conrft"][-1].name == "evaluation_online"


def run(folder: SuiteFolder, run_one: object, tasks: list[str], seeds: list[int]) -> dict[str, str]:
    return run_suite(folder, SuiteSettings(), Path(), tasks, seeds, run_one=run_one)  # type: ignore[arg-type]


def test_every_task_comes_with_the_first_seed_before_any_comes_with_the_second(folder: SuiteFolder) -> None:
    runs: list[str] = []
    run(folder, lambda _f, _s, _p, task, seed: runs.append(f"{task}{seed}"), ["a", "b"], [1, 2])
    assert runs == ["a1", "b1", "a2", "b2"]


def test_what_fails_is_named_and_tried_again_and_what_is_done_is_not(folder: SuiteFolder) -> None:
    runs: list[str] = []

    def run_one(_folder: SuiteFolder, _settings: SuiteSettings, _share: Path, task: str, _seed: int) -> None:
        runs.append(task)
        if task == "b" and runs.count("b") == 1:
            raise StageFailed("the simulator has died")

    assert run(folder, run_one, ["a", "b", "c"], [1]) == {"b seed 1": "StageFailed: the simulator has died"}
    assert run(folder, run_one, ["a", "b", "c"], [1]) == {}
    assert runs == ["a", "b", "c", "b"]


def test_ctrl_c_ends_the_whole_suite(folder: SuiteFolder) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        run(folder, interrupted, ["a", "b"], [1])
    assert folder.finished() == []


def test_two_processes_share_the_runs_of_one_folder(folder: SuiteFolder) -> None:
    runs: list[str] = []
    with folder.alone("a", 1) as alone:
        assert alone
        run(folder, lambda _f, _s, _p, task, _n: runs.append(task), ["a", "b"], [1])
    assert runs == ["b"]


def test_recordings_are_dropped_only_when_asked(folder: SuiteFolder) -> None:
    for task, drop in (("a", False), ("b", True)):
        recording = folder.run(task, 1).episodes / "episode"
        recording.mkdir(parents=True)
        folder.finish(task, 1, drop_recordings=drop)
        assert recording.exists() != drop
        assert folder.done(task, 1)


def test_recordings_that_a_kill_left_behind_are_dropped_by_the_same_command(
    folder: SuiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = {task: folder.run(task, 1).episodes / "episode" for task in ("kept", "dropped")}
    for recording in recordings.values():
        recording.mkdir(parents=True)
    folder.finish("kept", 1, drop_recordings=False)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        folder.finish("dropped", 1, drop_recordings=True)
    assert folder.done("dropped", 1) and recordings["dropped"].exists()
    run(folder, None, ["kept", "dropped"], [1])
    assert not recordings["dropped"].exists()
    assert recordings["kept"].exists()


@pytest.mark.parametrize("what", ["suite", "run", "evaluation"])
def test_a_kill_in_the_middle_of_writing_the_settings_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    evaluation = EvaluationSettings(**dict.fromkeys(EvaluationSettings.__annotations__, "x"))  # type: ignore[arg-type]

    def begin() -> None:
        if what == "suite":
            SuiteFolder(tmp_path).begin(SuiteSettings())
        elif what == "run":
            RunFolder(tmp_path).begin(DemoSettings())
        else:
            begin_evaluation(tmp_path, evaluation)

    def killed(path: Path, text: str, **_: object) -> None:
        path.write_bytes(text[:10].encode())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_text", killed)
        begin()
    begin()
    begin()


def test_a_full_disk_is_noticed_before_the_first_run(folder: SuiteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 3 * RUN_BYTES})())
    assert folder.room_for(3) == ""
    assert "--drop-recordings deletes the episodes" in folder.room_for(4)


def test_a_suite_goes_on_with_its_own_settings_only(folder: SuiteFolder) -> None:
    folder.begin(SuiteSettings())
    with pytest.raises(RunFolderError, match="other settings \\(trials 20, not 5\\)"):
        folder.begin(SuiteSettings(trials=5))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--tasks", "pick_banana,fly"], "config/tasks holds no 'fly'; known: pick_banana"),
        (["--method", "sft"], "no method is called 'sft'; known: hil-conrft, cal-conrft"),
        (["--preset", "none"], "config/presets holds no 'none'"),
        (["--backbone", "octo-mega"], "octo-mega: neither a folder with a config.json nor a shipped backbone"),
    ],
)
def test_wrong_choices_are_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    assert main(["bench", "suite", *words, "--out", str(tmp_path / "out")]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_instruction_that_the_backbone_does_not_know_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite_run, "run_suite", lambda *_, **__: pytest.fail("it runs"))
    shipped, own = backbone_folder("octo-nano"), tmp_path / "own"
    own.mkdir()
    for name in ("config.json", "weights.safetensors"):
        (own / name).symlink_to(shipped / name)
    known = load_instruction(shipped / "instructions.safetensors", "pick_banana")
    about = {"task": "pick_banana", "instruction": known.entry.instruction, "encoder": known.entry.encoder}
    store_instruction(own / "instructions.safetensors", tokens=known.tokens, **about)
    words = ["bench", "suite", "--backbone", str(own), "--tasks", "pick_banana,put_spoon"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "put_spoon: " in (said := capsys.readouterr().err) and "no tokens for" in said
    assert not (tmp_path / "out").exists()


def suite_process(out: Path, *words: str) -> subprocess.Popen[str]:
    code = [sys.executable, str(Path(__file__).with_name("suite_process.py"))]
    code += ["--tasks", "pick_banana", "--seeds", "2", "--json", "--out", str(out), *words]
    environment = {**os.environ, "PYTHONPATH": f"{PACKAGE}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(code, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_suite_that_is_killed_in_the_middle_goes_on_there(tmp_path: Path) -> None:
    begun = tmp_path / "begun.txt"
    killed = suite_process(tmp_path, "--wait-in", "pick_banana/2/training")
    deadline = time.monotonic() + 100
    while not begun.exists() or "pick_banana/2/training" not in begun.read_text():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    again = suite_process(tmp_path)
    output, _ = again.communicate(timeout=100)
    assert again.returncode == 0
    names = [stage.name for stage in METHODS["hil-conrft"]]
    second = [*names[:5], *names[4:]]  # the stage in which it was killed begins again, those before are done
    stages = [("1", name) for name in names] + [("2", name) for name in second]
    assert begun.read_text().split() == [f"pick_banana/{seed}/{name}" for seed, name in stages]
    evaluation = json.loads((tmp_path / "pick_banana/seed2/evaluation/evaluation.json").read_text())
    assert (evaluation["trials"], evaluation["intervention_free"]["proven"]) == (1, True)
    content = json.loads(output)
    assert content["tasks"]["pick_banana"]["hil-conrft"]["successes"] == 2
    assert content == json.loads((tmp_path / "suite.json").read_text())
    assert "| Pick Banana | 2 |" in (tmp_path / "table.md").read_text()


def test_a_suite_whose_recordings_are_gone_practises_on_when_asked_for_more_episodes(tmp_path: Path) -> None:
    words, run = ("--seeds", "1", "--drop-recordings"), tmp_path / "pick_banana/seed1"
    for episodes in ("1", "2"):
        process = suite_process(tmp_path, *words, "--episodes", episodes)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 0
    names = [stage.name for stage in METHODS["hil-conrft"]]
    again = ["training", "evaluation_online"]
    assert (tmp_path / "begun.txt").read_text().split() == [f"pick_banana/1/{name}" for name in [*names, *again]]
    assert [row["number"] for row in json.loads((run / "figures/training.json").read_text())] == [1, 2]
    figures = json.loads(output)["tasks"]["pick_banana"]
    assert [figures[method]["trials"] for method in METHODS] == [1, 1], "online only the last"
    assert (run / "evaluation_after_1/evaluation.json").is_file() and (run / "evaluation/evaluation.json").is_file()
    assert not list(run.glob("**/*.mcap"))
    assert set(RunFolder(run).finished()) == {*names, *(f"{name}_after_1" for name in again)}


def test_only_practice_can_be_prolonged(tmp_path: Path, folder: SuiteFolder) -> None:
    folder.finish("a", 1, drop_recordings=False)
    assert folder.done("a", 1)
    folder.begin(SuiteSettings(episodes=90))
    assert not folder.done("a", 1)
    for settings in (SuiteSettings(), SuiteSettings(episodes=120, trials=5)):
        with pytest.raises(RunFolderError, match="episodes 90, not"):
            folder.begin(settings)
    imitation = SuiteFolder(tmp_path / "imitation")
    imitation.begin(SuiteSettings(method="cal-conrft"))
    with pytest.raises(RunFolderError, match="episodes 60, not 90"):
        imitation.begin(SuiteSettings(method="cal-conrft", episodes=90))


def test_the_suite_is_a_benchmark() -> None:
    assert BENCHMARKS["suite"][:2] == ("conrft_bringup.suite.cli", "suite")


def test_every_task_of_the_paper_has_its_name_and_no_other() -> None:
    tasks = {path.stem for path in (PACKAGE / "config/tasks").glob("*.yaml")}
    for task in tasks & set(ORDER):
        assert yaml.safe_load((PACKAGE / "config/tasks" / f"{task}.yaml").read_text())["name"] == task


def test_octo_nano_has_the_tokens_of_every_instruction() -> None:
    stored = backbone_folder("octo-nano") / "instructions.safetensors"
    for file in (PACKAGE / "config/tasks").glob("*.yaml"):
        load_instruction(stored, load_config(TaskConfig, file).instruction)
