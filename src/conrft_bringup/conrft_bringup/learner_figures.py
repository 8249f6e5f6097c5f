"""Reads what a learner wrote about its training: ``metrics.jsonl``, one JSON object a line."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
Curves = dict[str, tuple[list[float], list[float]]]


def read_records(path: Path) -> list[dict[str, Any]]:
    """Every line of a file of figures; none where there is no such file. A line that was cut off is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            records.append(record)
    return records


def curves(records: Iterable[dict[str, Any]], stage: str) -> Curves:
    """Steps and values of each figure that was written in ``stage``, by its name."""
    found: Curves = defaultdict(lambda: ([], []))
    for record in records:
        if record.get("stage") != stage:
            continue
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float):
                found[name][0].append(float(record["step"]))
                found[name][1].append(float(value))
    return dict(found)


def online_episodes(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was written about each training episode, with the success that it was relabelled to."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        episode_id = record.get("episode_id", "")
        if record.get("stage") == "episodes" and record.get("mode") == "training":
            found[episode_id] = dict(record)
        elif record.get("stage") == "relabelled" and episode_id in found:
            found[episode_id]["success"] = record["success"]
    return list(found.values())
