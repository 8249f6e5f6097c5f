"""Puts the summaries of several demo runs into one Markdown table, with mean and spread.

python bench/demo_table.py runs/seed1 runs/seed2 runs/seed3
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

STAGES = ("demonstrator", "offline", "online")


def row(summary: dict[str, Any]) -> str:
    """One run."""
    cells = [f"{summary['seed']}"]
    for stage in STAGES:
        figures = summary[stage]
        won = round(figures["success"] * figures["trials"])
        interval = f"{100 * figures['wilson_low']:.0f}-{100 * figures['wilson_high']:.0f} %"
        cells.append(f"{won}/{figures['trials']} ({interval}), {figures['mean_length']:.1f}")
    rates = summary["interventions_per_episode"]
    cells.append(f"{statistics.mean(rates[:10]):.1f} to {statistics.mean(rates[-10:]):.1f}")
    cells.append(f"{summary['wall_s'] / 60:.1f} min")
    return "| " + " | ".join(cells) + " |"


def mean_row(summaries: list[dict[str, Any]]) -> str:
    """Mean and sample standard deviation over the runs."""
    cells = ["mean ± sd"]
    for stage in STAGES:
        success = [100 * summary[stage]["success"] for summary in summaries]
        length = [summary[stage]["mean_length"] for summary in summaries]
        spread = statistics.stdev if len(summaries) > 1 else lambda values: 0.0
        cells.append(
            f"{statistics.mean(success):.1f} ± {spread(success):.1f} %, "
            f"{statistics.mean(length):.1f} ± {spread(length):.1f}"
        )
    return "| " + " | ".join([*cells, "", ""]) + " |"


def main() -> int:
    """Prints the table."""
    summaries = [json.loads((Path(run) / "summary.json").read_text(encoding="utf-8")) for run in sys.argv[1:]]
    if not summaries:
        print(__doc__, file=sys.stderr)
        return 2
    print("| seed | demonstrator | after offline | after online | interventions, first to last 10 episodes | wall |")
    print("|---|---|---|---|---|---|")
    print("\n".join([*map(row, summaries), mean_row(summaries)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
