"""An episode counts when the recorder has it whole on the disk; nothing begins before, nothing waits in vain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conrft_control.episode_supervisor import (
    AfterFault,
    EpisodeSupervisor,
    Now,
    Publish,
    Quit,
    Stage,
    SupervisorSettings,
)
from conrft_control.recording_watch import RecorderReport
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import ActionSource, Mode, Outcome, Phase

STEPS = 3
NAME = "s-training-000001"


class Session:
    """A supervisor that runs one episode of three steps."""

    def __init__(self, **settings: Any) -> None:
        defaults = {
            "task": "t",
            "instruction": "",
            "max_steps": STEPS,
            "mode": Mode.TRAINING,
            "session": "s",
            "recorder_expected": True,
            "after_fault": AfterFault.EXIT,
        }
        self.supervisor = EpisodeSupervisor(SupervisorSettings(**(defaults | settings)))
        self.wall_s = 0.0
        self.told: list[EpisodeStatus] = []
        self.quit: list[Quit] = []
        self.do(self.supervisor.begin(self.now))
        self.wait(0.0)
        self.hear()
        self.supervisor.learner("", 0)
        self.do(self.supervisor.arrived(0, self.now))
        self.wait(1.0)
        assert self.told[-1].phase is Phase.RUNNING

    @property
    def now(self) -> Now:
        return Now(int(self.wall_s * 1e9), self.wall_s)

    def do(self, effects: list[Any]) -> None:
        self.told += [effect.status for effect in effects if isinstance(effect, Publish)]
        self.quit += [effect for effect in effects if isinstance(effect, Quit)]

    def wait(self, wall_s: float, *failed: str) -> None:
        self.wall_s += wall_s
        self.do(self.supervisor.on_time([], list(failed), self.now))

    def hear(self, since: str = "first", **words: str) -> None:
        self.do(self.supervisor.recorder(RecorderReport(since=since, **words), self.now))

    def act(self, steps: int = STEPS) -> None:
        for step in range(steps + 1):
            self.do(self.supervisor.action(Tick(step, 1, step), ActionSource.POLICY, "", self.now))

    @property
    def outcome(self) -> Outcome:
        return self.told[-1].outcome


@pytest.fixture
def start() -> Callable[..., Session]:
    return Session


def test_the_next_episode_begins_when_the_recorder_has_the_last_one(start: Callable[..., Session]) -> None:
    session = start()
    session.act()
    assert session.outcome is Outcome.TIMEOUT
    session.wait(5.0)
    assert session.supervisor.stage is Stage.ENDED
    assert session.supervisor.waiting_for == f"waits for the recording of {NAME}"
    session.hear(finished="s-training-000000")
    session.wait(0.1)
    assert session.supervisor.stage is Stage.ENDED
    session.hear(finished=NAME)
    session.wait(0.1)
    assert session.told[-1].phase is Phase.RESETTING
    assert session.supervisor.counted == 1


@pytest.mark.parametrize("episodes", [0, 1])
def test_an_episode_that_could_not_be_recorded_was_a_fault_and_does_not_count(
    start: Callable[..., Session], episodes: int
) -> None:
    session = start(episodes=episodes)
    session.act()
    assert session.supervisor.counted == 1
    session.hear(failed=NAME, reason="No space left on device")
    assert session.outcome is Outcome.FAULT
    assert session.told[-1].reason == "not recorded whole: No space left on device"
    assert (session.told[-1].episode_id, session.told[-1].final_step) == (NAME, STEPS)
    assert session.supervisor.counted == 0
    session.wait(60.0)
    assert [quit.exit_code for quit in session.quit] == [1]


def test_a_recording_that_breaks_off_ends_the_running_episode(start: Callable[..., Session]) -> None:
    session = start()
    session.act(1)
    session.hear(failed=NAME, reason="No space left on device")
    assert session.outcome is Outcome.FAULT


def test_a_recorder_that_is_started_again_in_mid_episode_ends_it(start: Callable[..., Session]) -> None:
    session = start()
    session.act(1)
    session.hear("second")
    assert session.outcome is Outcome.FAULT
    assert "started again in the middle" in session.told[-1].reason


def test_a_recorder_that_is_started_again_after_the_end_may_still_have_it_whole(start: Callable[..., Session]) -> None:
    session = start()
    session.act()
    session.hear("second")
    assert session.outcome is Outcome.TIMEOUT
    session.hear("second", finished=NAME)
    session.wait(5.0)
    assert session.told[-1].phase is Phase.RESETTING


def test_a_recorder_that_is_silent_or_never_has_it_is_not_waited_for_in_vain(start: Callable[..., Session]) -> None:
    session = start()
    session.act()
    session.wait(1.0, "recorder: silent for 5.0 s")
    assert (session.outcome, session.told[-1].reason) == (Outcome.FAULT, "recorder: silent for 5.0 s")
    session = start(recording_timeout=30.0)
    session.act()
    session.wait(29.0)
    assert session.outcome is Outcome.TIMEOUT
    session.wait(2.0)
    assert (session.outcome, session.told[-1].reason) == (Outcome.FAULT, "not recorded within 30 s")


def test_after_a_lost_recording_the_learner_is_not_waited_for(start: Callable[..., Session]) -> None:
    session = start(wait_for_learner=True, after_fault=AfterFault.CONTINUE)
    session.act()
    session.hear(failed=NAME, reason="the disk is full")
    session.wait(5.0)
    assert session.told[-1].phase is Phase.RESETTING
    session.do(session.supervisor.arrived(session.now.ros_ns, session.now))
    session.wait(1.0)
    assert session.told[-1].phase is Phase.RUNNING


def test_without_a_recorder_nobody_waits_for_one(start: Callable[..., Session]) -> None:
    session = start(recorder_expected=False)
    session.act()
    session.wait(5.0)
    assert session.told[-1].phase is Phase.RESETTING


def test_a_report_comes_through_diagnostic_values_unchanged() -> None:
    report = RecorderReport(since="1", finished="a", failed="b", reason="c")
    assert RecorderReport.from_values(report.values() | {"free_mib": "3"}) == report
    assert RecorderReport.from_values({"free_mib": "3"}) is None
