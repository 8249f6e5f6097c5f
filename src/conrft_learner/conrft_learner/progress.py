"""How far a learner is, in one line for a person."""

from __future__ import annotations

from collections.abc import Mapping

LOSSES = {"bc_loss": "bc loss", "td_loss": "td loss", "q_data": "Q"}


def offline_line(step: int, total: int, updates_per_s: float, figures: Mapping[str, float]) -> str:
    """Of the offline stage: updates done of all, their rate, losses, and the time that is left."""
    parts = [f"offline  {step}/{total}", f"{updates_per_s:.1f} updates/s", *_losses(figures)]
    if updates_per_s and step < total:
        parts.append(f"{duration((total - step) / updates_per_s)} left")
    return "  ".join(parts)


def online_line(
    episode_id: str, updates: int, updates_per_s: float, figures: Mapping[str, float], recent: Mapping[str, float]
) -> str:
    """Of the online stage, once an episode is paid for; ``recent``: rates and means over the newest episodes."""
    parts = [f"learned from {episode_id}", f"{updates} updates", f"{updates_per_s:.1f} updates/s", *_losses(figures)]
    if recent:
        parts.append(
            f"newest episodes: success {recent['success_rate']:.0%}, alone {recent['autonomous_success_rate']:.0%}, "
            f"{recent['mean_intervention_rate']:.0%} of steps by the operator, {recent['mean_length']:.0f} steps"
        )
    if "mean_staleness" in recent:
        parts.append(f"weights {recent['mean_staleness']:.0f} updates old")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Such as ``45 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _losses(figures: Mapping[str, float]) -> list[str]:
    return [f"{shown} {figures[name]:.3f}" for name, shown in LOSSES.items() if name in figures]
