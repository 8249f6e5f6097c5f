"""``conrft evaluate``: what the recordings prove, what is counted, and what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recorded_runs import write_trial

from conrft_bringup.command import main
from conrft_bringup.demo import graph_run
from conrft_bringup.demo.graph_run import StageFailed, missing_trials, run_trials, unused_session
from conrft_bringup.episode_figures import finished_trials
from conrft_bringup.evaluation.classifier_verdicts import TrialVerdict, comparison, confusion
from conrft_bringup.evaluation.result import EvaluationResult, EvaluationSettings
from conrft_bringup.evaluation.result_folder import recorded_trials, write_result
from conrft_bringup.evaluation.result_text import result_text
from conrft_bringup.evaluation.start_states import StartAxes, quadrants, start_axes
from conrft_bringup.evaluation.trial_recording import TrialRecording, read_trial
from conrft_bringup.evaluation.trial_series import persons_trials, simulated_trials
from conrft_bringup.trials import mean_success_length
from conrft_data import topics
from conrft_data.bags import EpisodeWriter, definitions
from conrft_data.bags.definitions import definition_text
from conrft_data.config import TaskConfig, load_config
from conrft_data.types import ActionSource, Mode, Outcome

SETTINGS = EvaluationSettings(
    task="pick_banana",
    checkpoint="policy.safetensors",
    checkpoint_sha256="0" * 64,
    backbone="octo-nano",
    robot="sim",
    judge="simulator",
    perturbation="none",
    seed=7,
    trials=3,
)
TASK_FILE = Path(__file__).parents[1] / "config/tasks/pick_banana.yaml"


@pytest.fixture
def task() -> TaskConfig:
    return load_config(TaskConfig, TASK_FILE)


def only_trial(folder: Path) -> TrialRecording:
    (info,) = finished_trials(folder)
    return read_trial(info)


def test_a_recording_tells_who_moved_the_arm_how_it_began_and_when_it_was_done(tmp_path: Path) -> None:
    write_trial(tmp_path, 4, "pphp", success=True, banana=(0.5, 0.1))
    trial = only_trial(tmp_path)
    assert (trial.number, trial.success, trial.length) == (4, True, 4)
    assert [trial.count(source) for source in ActionSource] == [1, 4, 0]
    assert trial.start["banana"][:2].tolist() == [0.5, 0.1]
    assert trial.truth == {0: False, 1: False, 2: False, 3: False, 4: True}
    assert trial.why_void() == ""


def test_a_recording_from_before_the_scene_told_what_is_achieved_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = "bool achieved\n"
    older, write = definition_text("conrft_msgs/msg/SceneState").replace(field, ""), EpisodeWriter.write

    def write_older(writer: EpisodeWriter, topic: str, raw: bytes, stamp_ns: int) -> None:
        write(writer, topic, raw[:-1] if topic == topics.SCENE_STATE else raw, stamp_ns)

    texts = {"conrft_msgs/msg/SceneState": older}
    monkeypatch.setattr(definitions, "definition_text", lambda name: texts.get(name) or definition_text(name))
    monkeypatch.setattr(EpisodeWriter, "write", write_older)
    write_trial(tmp_path, 4, "pp", success=True, banana=(0.5, 0.1))
    trial = only_trial(tmp_path)
    assert trial.start["banana"][:2].tolist() == [0.5, 0.1]
    assert trial.truth == {0: False, 1: False, 2: True}


def test_an_answer_of_the_policy_that_was_not_recorded_is_proven_by_the_action(tmp_path: Path) -> None:
    write_trial(tmp_path, 1, "pppp", success=True, unrecorded=0)
    assert only_trial(tmp_path).why_void() == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sources": "ppop"}, "the operator moved the arm in 1 steps, first in step 2"),
        ({"sources": "pppp", "last": "o"}, "the operator moved the arm in 1 steps, first in step 4"),
        ({"sources": "pppp", "unanswered": 1}, "nothing tells who moved the arm in step 1"),
        ({"sources": "pppp", "altered": 3}, "the action of step 3 is not what the policy put out"),
        ({"sources": "pppp", "versions": [1, 1, 2, 2, 2]}, "the policy's weights changed, versions [1, 2]"),
        ({"sources": "pppp", "mode": Mode.TRAINING}, "it was run in mode TRAINING, not EVALUATION"),
    ],
)
def test_a_trial_in_which_anything_but_the_policy_counts_is_void(
    tmp_path: Path, changes: dict[str, object], why: str
) -> None:
    write_trial(tmp_path, 1, success=True, **changes)
    assert only_trial(tmp_path).why_void() == why


def test_the_folder_holds_figures_table_plot_sheet_and_films(tmp_path: Path, task: TaskConfig) -> None:
    episodes = tmp_path / "episodes"
    write_trial(episodes, 1, "pppp", success=True, banana=(0.47, 0.10))
    write_trial(episodes, 2, "pppppp", success=False, banana=(0.53, 0.12))
    write_trial(episodes, 3, "pp", success=True, banana=(0.49, 0.13))
    write_result(tmp_path, episodes, SETTINGS, task)
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert (content["successes"], content["trials"], content["mean_success_length"]) == (2, 3, 3.0)
    assert content["intervention_free"] == {
        "proven": True,
        "actions": 15,
        "hold": 0,
        "policy": 15,
        "operator": 0,
        "void": [],
    }
    assert [row["start"]["banana"][0] for row in content["each"]] == [0.47, 0.53, 0.49]
    assert content["by_start"]["object"] == "banana"
    for name in ("starts.png", "failures.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 1, f"{name} shows nothing"
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [
        "trial_001_success.mp4",
        "trial_002_failure.mp4",
        "trial_003_success.mp4",
    ]
    assert "without intervention, by the recordings (15 actions" in (tmp_path / "table.txt").read_text()


def test_a_film_has_every_frame_with_both_cameras(tmp_path: Path, task: TaskConfig) -> None:
    import av

    write_trial(tmp_path / "episodes", 1, "pppp", success=True)
    write_result(tmp_path, tmp_path / "episodes", SETTINGS, task)
    with av.open(str(tmp_path / "videos/trial_001_success.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 5 + 10, "five observations, and the last one stands for a second"
    assert frames[0].shape == (256 + 24, 2 * 256, 3)
    # The side camera's grey value is the step, the wrist camera's 255 less the step.
    assert abs(int(frames[0][150, 128, 0]) - 0) < 12 and abs(int(frames[0][150, 384, 0]) - 255) < 12


def test_a_void_trial_is_named_and_not_counted(tmp_path: Path, task: TaskConfig) -> None:
    episodes = tmp_path / "episodes"
    write_trial(episodes, 1, "pppp", success=True)
    write_trial(episodes, 2, "ppoo", success=True)
    result = write_result(tmp_path, episodes, SETTINGS, task, films="none")
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert (content["trials"], content["successes"], content["intervention_free"]["proven"]) == (1, 1, False)
    assert list(result.void) == [2]
    assert (
        "VOID, and not counted: trial 2: the operator moved the arm in 2 steps" in (tmp_path / "table.txt").read_text()
    )


def test_films_of_failures_only(tmp_path: Path, task: TaskConfig) -> None:
    write_trial(tmp_path / "episodes", 1, "pp", success=True)
    write_trial(tmp_path / "episodes", 2, "pp", success=False)
    write_result(tmp_path, tmp_path / "episodes", SETTINGS, task, films="failures")
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["trial_002_failure.mp4"]


class SaysDoneFrom:
    """A classifier that takes every frame from a step on for success; the side image's grey value is the step."""

    def __init__(self, step: int) -> None:
        self._step = step
        self.config = type("Config", (), {"threshold": 0.5})()

    def thumbnails(self, images: dict[str, np.ndarray]) -> np.ndarray:
        return images["side"]

    def probabilities(self, frames: object) -> np.ndarray:
        return np.array([0.9 if int(frame[0, 0, 0]) >= self._step else 0.1 for frame in frames])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("step", "said", "differing"),
    [(4, True, []), (3, True, [3]), (9, False, [4])],
)
def test_the_classifier_is_compared_with_the_truth_frame_by_frame(
    tmp_path: Path, task: TaskConfig, step: int, said: bool, differing: list[int]
) -> None:
    write_trial(tmp_path / "episodes", 1, "pppp", success=True)
    result = write_result(
        tmp_path,
        tmp_path / "episodes",
        SETTINGS,
        task,
        classifier=SaysDoneFrom(step),  # type: ignore[arg-type]
        films="none",
    )
    content = result.as_dict()["classifier"]
    assert result.verdicts[1].success == said
    assert [row["step"] for row in content["differing_frames"]] == differing
    assert sum(content["frames"].values()) == 5
    assert (tmp_path / "classifier_differs.png").is_file() == bool(differing)


def test_verdicts_are_counted_by_what_was_said_and_what_is_true() -> None:
    counts = confusion([(True, True), (True, False), (False, True), (False, True), (False, False)])
    assert list(counts.values()) == [1, 1, 2, 1]


def test_start_states_are_shown_along_the_axes_that_vary(tmp_path: Path) -> None:
    for number, (x, y) in enumerate([(0.47, 0.10), (0.53, 0.10), (0.47, 0.14), (0.53, 0.14)], 1):
        write_trial(tmp_path, number, "p" * number, success=number != 2, banana=(x, y))
    trials = simulated_trials(tmp_path, 4).counted
    axes = start_axes(trials)
    assert axes == StartAxes(name="banana", axes=(0, 1))
    rows = quadrants(trials, axes)
    assert [(row["successes"], row["trials"], row["mean_success_length"]) for row in rows] == [
        (1, 1, 1.0),
        (1, 1, 3.0),
        (0, 1, None),
        (1, 1, 4.0),
    ]
    assert rows[0]["where"] == "banana x <= 0.500, banana y <= 0.120"


def test_start_states_that_nobody_knows_are_not_shown(tmp_path: Path) -> None:
    write_trial(tmp_path, 1, "pp", success=True, banana=None)
    trial = only_trial(tmp_path)
    assert start_axes([trial]) is None
    assert "start" not in result_text(EvaluationResult(settings=SETTINGS, trials=[trial], void={}))


def test_the_mean_length_is_of_successes_only() -> None:
    assert mean_success_length([(True, 40), (False, 100), (True, 50)]) == 45.0
    assert mean_success_length([(False, 100)]) is None


def test_a_trial_keeps_its_number_and_the_first_recording_of_a_number_counts(tmp_path: Path) -> None:
    write_trial(tmp_path, 1, "pp", success=True)
    write_trial(tmp_path, 3, "ppp", success=True)
    write_trial(tmp_path, 5, "p", success=True)
    write_trial(tmp_path, 2, "", outcome=Outcome.FAULT)
    assert missing_trials(tmp_path, 4) == [(2, 1), (4, 1)]
    assert unused_session("test", tmp_path, 4) == "test-2"
    write_trial(tmp_path, 3, "pppp", success=False, session="test-2")
    write_trial(tmp_path, 2, "pp", success=False, session="test-2")
    assert [(trial.info.episode_id, trial.length) for trial in simulated_trials(tmp_path, 4).counted] == [
        ("test-evaluation-000001", 2),
        ("test-2-evaluation-000002", 2),
        ("test-evaluation-000003", 3),
    ]
    assert missing_trials(tmp_path, 3) == []


def test_a_trial_spoilt_by_a_fault_is_run_again_from_the_same_start_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str]] = []

    def graph(_file: str, arguments: dict[str, str], *_: object) -> None:
        asked.append((arguments["session"], arguments["first_episode"], arguments["episodes"]))
        first, wanted = int(arguments["first_episode"]), int(arguments["episodes"])
        spoilt = 2 if len(asked) == 1 else 0
        for number in range(first, first + wanted + (spoilt > 0)):
            about = {"outcome": Outcome.FAULT} if number == spoilt else {"success": True}
            write_trial(tmp_path, number, "p", session=arguments["session"], **about)

    monkeypatch.setattr(graph_run, "run_graph", graph)
    run_trials({}, 3, tmp_path, tmp_path / "x.log", None)  # type: ignore[arg-type]
    assert asked == [("evaluation", "1", "3"), ("evaluation-2", "2", "1")]
    assert missing_trials(tmp_path, 3) == []


def test_a_void_trial_is_run_again_from_the_same_start_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []

    def graph(_file: str, arguments: dict[str, str], *_: object) -> None:
        asked.append((arguments["session"], arguments["first_episode"], arguments["episodes"]))
        first, wanted = int(arguments["first_episode"]), int(arguments["episodes"])
        for number in range(first, first + wanted):
            sources = "po" if (number, len(asked)) == (2, 1) else "pp"
            write_trial(tmp_path, number, sources, success=True, session=arguments["session"])

    monkeypatch.setattr(graph_run, "run_graph", graph)
    series = run_trials({}, 3, tmp_path, tmp_path / "x.log", None)  # type: ignore[arg-type]
    assert asked == [("evaluation", "1", "3"), ("evaluation-2", "2", "1")]
    assert [trial.number for trial in series.counted] == [1, 2, 3]
    assert series.counted[1].info.episode_id == "evaluation-2-evaluation-000002"
    assert series.void == {}


def test_a_trial_that_is_void_each_time_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def graph(_file: str, arguments: dict[str, str], *_: object) -> None:
        asked.append(arguments["session"])
        write_trial(tmp_path, 1, "o", success=True, session=arguments["session"])

    monkeypatch.setattr(graph_run, "run_graph", graph)
    series = run_trials({}, 1, tmp_path, tmp_path / "x.log", None)  # type: ignore[arg-type]
    assert asked == ["evaluation", "evaluation-2", "evaluation-3"]
    assert (series.counted, list(series.void)) == ([], [1])


def test_a_person_is_asked_for_another_trial_in_the_place_of_a_void_one(tmp_path: Path) -> None:
    settings = replace(SETTINGS, judge="person")
    for number, sources in enumerate(("pp", "po", "pp"), 1):
        write_trial(tmp_path, number, sources, success=True)
    series = recorded_trials(tmp_path, settings)
    assert ([trial.number for trial in series.counted], list(series.void)) == ([1, 3], [2])
    write_trial(tmp_path, 4, "pp", success=False)
    series = recorded_trials(tmp_path, settings)
    assert ([trial.number for trial in series.counted], series.void) == ([1, 3, 4], {})


@pytest.mark.parametrize(
    ("outcome", "done", "why"),
    [
        (Outcome.SUCCESS, False, "it ended as SUCCESS, but the task was not done in its last step"),
        (Outcome.TIMEOUT, True, "it ended as TIMEOUT, but the task was done in its last step"),
    ],
)
def test_an_outcome_that_is_not_the_truth_of_the_last_step_is_void_unless_a_person_gave_it(
    tmp_path: Path, outcome: Outcome, done: bool, why: str
) -> None:
    write_trial(tmp_path, 1, "pp", success=done, outcome=outcome)
    assert simulated_trials(tmp_path, 1).void == {1: why}
    assert persons_trials(tmp_path, 1).void == {}


def test_nothing_is_proven_by_no_trial(tmp_path: Path) -> None:
    result = EvaluationResult(settings=SETTINGS, trials=[], void={})
    assert result.as_dict()["intervention_free"]["proven"] is False


def test_a_trial_that_always_ends_with_a_fault_ends_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_run, "run_graph", lambda *_: None)
    with pytest.raises(StageFailed, match="trial 1 ended with a fault 3 times"):
        run_trials({}, 1, tmp_path, tmp_path / "x.log", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["fly_banana"], "config/tasks holds no 'fly_banana'; known: "),
        (["pick_banana", "--robot", "none"], "config/robots holds no 'none'; known: "),
        (["pick_banana", "--robot", "fr3", "--judge", "simulator"], "no simulator that knows the truth"),
        (["pick_banana", "--perturbation", "fog"], "'fog' is none of none, all, lighting"),
        (
            ["pick_banana", "--robot", "fr3", "--perturbation", "all"],
            "only the simulator takes a perturbation, not fr3",
        ),
        (["pick_banana"], "nowhere does not exist"),
    ],
)
def test_wrong_choices_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *words, "--checkpoint", "nowhere"]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_folder_goes_on_with_its_own_settings_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from conrft_bringup.evaluation.cli import EvaluationError, _begin

    _begin(tmp_path, SETTINGS)
    _begin(tmp_path, SETTINGS)
    with pytest.raises(EvaluationError, match="other settings \\(seed 7, not 8\\)"):
        _begin(tmp_path, replace(SETTINGS, seed=8))


def test_unjudged_frames_count_nowhere(tmp_path: Path) -> None:
    write_trial(tmp_path, 1, "pp", success=True, banana=None)
    trial = only_trial(tmp_path)
    verdict = TrialVerdict(success=True, passes={0: False, 1: False, 2: True}, probability={0: 0, 1: 0, 2: 1})
    content = comparison([trial], {1: verdict})
    assert content["trials"]["true_positive"] == 1
    assert sum(content["frames"].values()) == 0
