from __future__ import annotations

import pytest

from conrft_bringup.result_table import result_table, windows
from conrft_bringup.trials import summarise, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Solutions of (rate - p)^2 = z^2 p (1 - p) / n for p, computed with exact arithmetic.
        (19, 20, 0.763869, 0.991119),
        (10, 20, 0.299298, 0.700702),
        (1, 3, 0.061492, 0.792340),
    ],
)
def test_the_interval_solves_wilsons_equation(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-6)
    for bound in wilson_interval(successes, trials):
        assert (successes / trials - bound) ** 2 == pytest.approx(1.959964**2 * bound * (1 - bound) / trials, abs=1e-7)


def test_the_interval_ends_at_0_and_1_where_all_failed_or_succeeded() -> None:
    assert wilson_interval(0, 20) == (0.0, pytest.approx(0.161125, abs=1e-6))
    assert wilson_interval(20, 20) == (pytest.approx(0.838875, abs=1e-6), 1.0)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        wilson_interval(successes, trials)


def test_a_series_is_summarised() -> None:
    summary = summarise([(True, 40), (True, 50), (False, 100), (True, 30)])
    assert (summary.success, summary.mean_length, summary.trials) == (0.75, 55.0, 4)
    assert summary.as_dict() == {
        "success": 0.75,
        "mean_length": 55.0,
        "trials": 4,
        "wilson_low": pytest.approx(0.3006, abs=1e-4),
        "wilson_high": pytest.approx(0.9544, abs=1e-4),
    }
    assert summarise([]).as_dict() == {
        "success": 0.0,
        "mean_length": 0.0,
        "trials": 0,
        "wilson_low": 0.0,
        "wilson_high": 1.0,
    }


def test_the_table_shows_every_series_and_the_interventions_over_time() -> None:
    series = {"demonstrator": summarise([(True, 47)] * 20), "after offline": summarise([(True, 60), (False, 100)])}
    assert result_table(series, [2, 1, 1, 0]).splitlines() == [
        "               success  95 % interval  mean length  trials",
        "-------------  -------  -------------  -----------  ------",
        "demonstrator     100 %    84 to 100 %         47.0      20",
        "after offline     50 %      9 to 91 %         80.0       2",
        "",
        "interventions per episode",
        "  episodes   1 to   1: 2.00",
        "  episodes   2 to   2: 1.00",
        "  episodes   3 to   3: 1.00",
        "  episodes   4 to   4: 0.00",
    ]
    assert "interventions" not in result_table(series, [])


def test_windows_cover_everything_once() -> None:
    stretches = windows([1] * 12)
    assert [(begin, end) for begin, end, _ in stretches] == [(1, 2), (3, 5), (6, 7), (8, 10), (11, 12)]
    assert windows([]) == []
