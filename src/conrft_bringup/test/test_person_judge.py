"""A person says how each trial ended."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conrft_bringup.demo.graph_run import graph_environment
from conrft_bringup.evaluation.person_judge import End, Label, PersonJudge, Request, Say, Start
from conrft_bringup.evaluation.person_judge_link import PersonJudgeLink
from conrft_data.config import TaskConfig, load_config
from conrft_data.conversion import episode_status_to_msg
from conrft_data.ticks import EpisodeStatus
from conrft_data.types import MESSAGE_VERSION, Mode, Outcome, Phase
from conrft_policy.backbone import load_backbone
from conrft_policy.consistency_head import ConsistencyHead, HeadConfig
from conrft_policy.policy_weights import pack, save

FAILED, SUCCEEDED = "a person called it a failure", "a person called it a success"


def status(phase: Phase, outcome: Outcome = Outcome.NONE, reason: str = "", episode: int = 1) -> EpisodeStatus:
    return EpisodeStatus(
        stamp_ns=0,
        phase=phase,
        outcome=outcome,
        mode=Mode.EVALUATION,
        episode=episode,
        final_step=9,
        episode_id=f"trial-{episode}",
        task="pick_banana",
        instruction="",
        message_version=MESSAGE_VERSION,
        reason=reason,
    )


def done_with(requests: list[Request]) -> list[Request]:
    """What is done, without what is said."""
    return [request for request in requests if not isinstance(request, Say)]


def said(requests: list[Request]) -> str:
    return " / ".join(request.text for request in requests if isinstance(request, Say))


@pytest.fixture
def running() -> PersonJudge:
    """The first of two trials runs."""
    judge = PersonJudge(2)
    judge.status(status(Phase.READY))
    assert judge.line("\n") == [Start()]
    judge.status(status(Phase.RUNNING))
    return judge


def test_a_supervisor_that_says_the_same_again_does_not_make_the_judge_ask_again() -> None:
    judge = PersonJudge(2)
    assert "put the scene back" in said(judge.status(status(Phase.READY)))
    assert judge.status(status(Phase.READY)) == []
    judge.line("\n")
    assert judge.status(status(Phase.READY)) == []
    assert "it runs" in said(judge.status(status(Phase.RUNNING)))


def test_a_trial_begins_when_the_person_has_put_the_scene_back() -> None:
    judge = PersonJudge(2)
    assert not judge.wants_line
    assert "trial 1 of 2: put the scene back" in said(judge.status(status(Phase.READY)))
    assert judge.wants_line
    assert judge.line("") == [Start()]


@pytest.mark.parametrize("stray", ["s", "f", "y", "go", "\\n"])
def test_a_stray_line_does_not_let_a_trial_begin(stray: str) -> None:
    judge = PersonJudge(2)
    judge.status(status(Phase.READY))
    assert judge.line(stray) == [Say(f"'{stray}' is no answer: only Enter")]
    assert judge.line("\n") == [Start()]


def test_a_trial_whose_start_was_refused_is_asked_about_again() -> None:
    judge = PersonJudge(2)
    judge.status(status(Phase.READY))
    judge.line("")
    assert "not started: nothing waits for a start" in said(judge.not_started("nothing waits for a start"))
    assert judge.line("") == [Start()]


def test_a_trial_that_runs_already_was_started() -> None:
    judge = PersonJudge(2)
    judge.status(status(Phase.READY))
    judge.line("")
    judge.status(status(Phase.RUNNING))
    assert judge.not_started("/start_episode does not answer") == []


class Keyboard:
    """A link without its threads, with what the person has typed, and a supervisor that the test plays."""

    def __init__(self, episodes: Path, typed: str, refuses: str = "") -> None:
        self.judge = PersonJudge(2)
        self.link = PersonJudgeLink(self.judge, episodes, {}, io.StringIO(typed))
        self.link._start_client, self.link._end_client = "start", "end"
        self.asked: list[str] = []
        self.refuses = refuses
        self.link._ask = self.answer  # type: ignore[method-assign,assignment]
        self.link._read()

    def answer(self, client: str, *_: object, **__: object) -> str:
        self.asked.append(client)
        return self.refuses

    def hear(self, heard: EpisodeStatus) -> None:
        self.link._statuses.put(episode_status_to_msg(heard))
        self.steps()

    def steps(self) -> None:
        for _ in range(5):
            self.link._step(None)


def test_what_was_typed_before_the_question_lets_no_trial_begin(tmp_path: Path) -> None:
    keyboard = Keyboard(tmp_path, "\ns\n\n")
    keyboard.hear(status(Phase.READY))
    assert keyboard.asked == []
    assert "the answers ended" in keyboard.link.problem, "the person has gone"


def test_a_second_s_does_not_let_the_next_trial_begin(tmp_path: Path) -> None:
    keyboard = Keyboard(tmp_path, "")
    keyboard.link._lines.get()
    keyboard.hear(status(Phase.RUNNING))
    for line in ("s\n", "s\n", "\n"):
        keyboard.link._lines.put(line)
    keyboard.steps()
    keyboard.hear(status(Phase.ENDED, Outcome.SUCCESS))
    keyboard.hear(status(Phase.READY, episode=2))
    assert keyboard.asked == ["end"]
    keyboard.link._lines.put("\n")
    keyboard.steps()
    assert keyboard.asked == ["end", "start"]


def test_a_refused_start_is_told_and_can_be_given_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keyboard = Keyboard(tmp_path, "", refuses="nothing waits for a start")
    keyboard.link._lines.get()
    keyboard.hear(status(Phase.READY))
    for _ in range(2):
        keyboard.link._lines.put("\n")
        keyboard.steps()
    assert keyboard.asked == ["start", "start"]
    assert "not started: nothing waits for a start" in capsys.readouterr().err


def test_the_person_ends_a_running_trial_as_a_success(running: PersonJudge) -> None:
    assert running.line("s") == [End(Outcome.SUCCESS, SUCCEEDED)]
    assert said(running.status(status(Phase.ENDED, Outcome.SUCCESS))) == "trial 1: success"
    assert running.judged == 1


def test_a_trial_that_the_person_calls_a_failure_counts_as_a_time_out(running: PersonJudge) -> None:
    assert running.line("f") == [End(Outcome.ABORTED, FAILED)]
    requests = running.status(status(Phase.ENDED, Outcome.ABORTED, FAILED))
    assert done_with(requests) == [Label("trial-1", Outcome.TIMEOUT, FAILED)]
    assert running.judged == 1


@pytest.mark.parametrize(("answer", "labels"), [("y", [Label("trial-1", Outcome.SUCCESS, SUCCEEDED)]), ("n", [])])
def test_a_trial_at_the_step_limit_is_asked_about(running: PersonJudge, answer: str, labels: list[Request]) -> None:
    assert "Has it succeeded?" in said(running.status(status(Phase.ENDED, Outcome.TIMEOUT)))
    running.status(status(Phase.RESETTING))
    running.status(status(Phase.READY, episode=2))
    requests = running.line(answer)
    assert done_with(requests) == labels
    assert "trial 2 of 2: put the scene back" in said(requests), "the arm was back before the answer"


@pytest.mark.parametrize("outcome", [Outcome.ABORTED, Outcome.FAULT])
def test_an_aborted_or_faulty_trial_is_repeated(running: PersonJudge, outcome: Outcome) -> None:
    assert "that was no trial" in said(running.status(status(Phase.ENDED, outcome, "the camera is dead")))
    assert (running.judged, running.done) == (0, False)


def test_after_a_fault_the_robot_goes_on_when_the_person_says_so(running: PersonJudge) -> None:
    running.status(status(Phase.ENDED, Outcome.FAULT, "reflex"))
    assert running.line("") == [Start()]


def test_it_is_over_when_every_trial_is_judged(running: PersonJudge) -> None:
    running.line("s")
    running.status(status(Phase.ENDED, Outcome.SUCCESS))
    running.status(status(Phase.READY, episode=2))
    running.line("")
    running.status(status(Phase.RUNNING, episode=2))
    running.line("s")
    running.status(status(Phase.ENDED, Outcome.SUCCESS, episode=2))
    assert running.done and not running.wants_line
    assert PersonJudge(2, done=2).done


def test_what_is_no_answer_is_said_to_be_none(running: PersonJudge) -> None:
    assert running.line("maybe") == [Say("'maybe' is no answer: s or f")]
    running.status(status(Phase.ENDED, Outcome.TIMEOUT))
    assert running.line("s") == [Say("'s' is no answer: y or n")]


def test_a_trial_that_could_not_be_ended_runs_on(running: PersonJudge) -> None:
    running.line("s")
    assert running.not_ended("nobody offers /end_episode") == [Say("not done: nobody offers /end_episode")]
    assert running.line("s") == [End(Outcome.SUCCESS, SUCCEEDED)]


def left(link: PersonJudgeLink) -> bool:
    deadline = time.monotonic() + 20.0
    while not link.over and time.monotonic() < deadline:
        time.sleep(0.05)
    return link.over


def test_the_link_leaves_the_graph_when_every_trial_is_judged(tmp_path: Path) -> None:
    link = PersonJudgeLink(PersonJudge(1), tmp_path, graph_environment(), io.StringIO(""))
    link.start()
    time.sleep(0.5)
    assert not link.over, "a trial is still to come"
    link._judge.status(status(Phase.RUNNING))
    link._judge.status(status(Phase.ENDED, Outcome.SUCCESS))
    assert left(link) and not link.problem


def test_a_link_that_cannot_join_the_graph_says_why_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no room for another participant")

    monkeypatch.setattr("rclpy.init", refuse)
    link = PersonJudgeLink(PersonJudge(1), tmp_path, graph_environment(), io.StringIO(""))
    link.start()
    assert left(link)
    assert link.problem == "RuntimeError: no room for another participant"


def converse(command: list[str], answers: list[tuple[str, str]]) -> tuple[str, str, int]:
    """Answers each question of a command when it is asked; what it asked, its output and its exit code."""
    heard: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        timer = threading.Timer(240, process.kill)
        timer.start()
        try:
            for line in process.stderr:
                heard.append(line)
                if answers and answers[0][0] in line:
                    process.stdin.write(answers.pop(0)[1])
                    process.stdin.flush()
            output = process.stdout.read()
        finally:
            timer.cancel()
    return "".join(heard), output, process.returncode


def test_the_command_asks_a_person_in_a_graph_without_a_judge(tmp_path: Path) -> None:
    task = load_config(TaskConfig, Path(__file__).parents[1] / "config/tasks/pick_banana.yaml")
    backbone = load_backbone("octo-nano", task.instruction)
    head = ConsistencyHead(HeadConfig(embedding_dim=backbone.embedding_dim))
    save(pack(head, version=1, backbone_fingerprint=backbone.fingerprint), tmp_path / "policy.safetensors")
    command = [sys.executable, "-m", "conrft_bringup", "evaluate", "pick_banana", "--judge", "person", "--trials", "2"]
    command += ["--checkpoint", str(tmp_path), "--films", "none", "--out", str(tmp_path / "out")]
    asked, output, exit_code = converse(
        command,
        [
            ("put the scene back, then press Enter", "s\n\n"),
            ("it runs", "s\ns\n"),
            ("put the scene back, then press Enter", "\n"),
            ("it runs", "f\n"),
        ],
    )
    assert exit_code == 0, asked
    assert asked.count("put the scene back, then press Enter") == 2
    content = json.loads(output.splitlines()[-1])
    assert [row["success"] for row in content["each"]] == [True, False]
    assert (content["judge"], content["intervention_free"]["proven"]) == ("person", True)
    assert content["intervention_free"]["operator"] == 0
