"""``conrft bench operator`` ends with one line of valid JSON, whatever comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conrft_sim import operator_benchmark
from conrft_sim.operator_benchmark import Demonstration, main


def strictly(line: str) -> Any:
    """What the line says in JSON proper, which knows no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(line, parse_constant=refuse)


def test_one_line_for_each_task_and_all_figures_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tasks", "open_toaster", "open_drawer", "--episodes", "1", "--flawless"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["open_toaster", "open_drawer"]
    figures = strictly(last)["open_toaster"]
    assert (figures["success"], figures["episodes"], figures["max_steps"]) == (1.0, 1, 100)
    assert 15 < figures["mean_length"] < 60


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_without_any_success_there_is_no_mean_length(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operator_benchmark, "run_episode", lambda *_: Demonstration(success=False, length=100))
    assert main(["--tasks", "open_toaster", "--episodes", "2", *options]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == (0 if options else 1)
    figures = strictly(last)["open_toaster"]
    assert (figures["success"], figures["mean_length"]) == (0.0, None)
    assert figures["interrupted"] is None


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--tasks", "fold_laundry"], "no task 'fold_laundry'"),
        (["--episodes", "0"], "at least 1"),
        (["--perturbation", "rain"], "rain"),
    ],
)
def test_wrong_choices_are_refused_before_anything_runs(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert why in capsys.readouterr().err
