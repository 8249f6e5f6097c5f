"""Figures of a series of trials: success with its confidence interval, and length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def wilson_interval(successes: int, trials: int, z: float = _Z_95) -> tuple[float, float]:
    """Confidence interval of a success rate (Wilson 1927, without continuity correction).

    Unlike the normal approximation it stays within [0, 1] and is of use with 20 trials and rates near 0 or 1.

    Args:
        successes: of the trials.
        trials: at least 0; without trials nothing is known and the interval is (0, 1).
        z: quantile of the normal distribution; the default gives 95 %.

    Raises:
        ValueError: successes are negative or more than the trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials cannot be")
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    scale = 1.0 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    # At the ends rounding could leave the bound off by one unit in the last place.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high


@dataclass(frozen=True, kw_only=True)
class TrialsSummary:
    """What summary.json says of one series.

    Attributes:
        success: rate, 0 to 1.
        mean_length: steps of all trials, failed ones with their full length; 0 without trials.
        trials: how many.
        wilson_low, wilson_high: 95 % confidence interval of the rate.
    """

    success: float
    mean_length: float
    trials: int
    wilson_low: float
    wilson_high: float

    def as_dict(self) -> dict[str, float | int]:
        """For JSON, rounded to what can be known."""
        return {key: value if isinstance(value, int) else round(value, 4) for key, value in asdict(self).items()}


def summarise(outcomes: Sequence[tuple[bool, int]]) -> TrialsSummary:
    """Figures of trials given as (success, length in steps)."""
    trials = len(outcomes)
    successes = sum(success for success, _ in outcomes)
    low, high = wilson_interval(successes, trials)
    return TrialsSummary(
        success=successes / trials if trials else 0.0,
        mean_length=sum(length for _, length in outcomes) / trials if trials else 0.0,
        trials=trials,
        wilson_low=low,
        wilson_high=high,
    )


def describe_outcomes(outcomes: Sequence[tuple[bool, int]], done: int, wanted: int) -> str:
    """How far a series of trials given as (success, length) is, for a person: ``done`` of ``wanted``."""
    text = f"{done}/{wanted}  success {sum(success for success, _ in outcomes)} of {len(outcomes)}"
    if outcomes:
        text += f"  mean length {sum(length for _, length in outcomes) / len(outcomes):.0f}"
    return text


def mean_success_length(outcomes: Sequence[tuple[bool, int]]) -> float | None:
    """Mean steps of the successes among trials given as (success, length); None without any."""
    won = [length for success, length in outcomes if success]
    return round(sum(won) / len(won), 4) if won else None
