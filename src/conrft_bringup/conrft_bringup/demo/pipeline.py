"""Runs the stages of a demo and reports what came out."""

from __future__ import annotations

import time
from collections.abc import Sequence

from conrft_bringup.demo.graph_run import Interrupted
from conrft_bringup.demo.progress_line import ProgressLine
from conrft_bringup.demo.stages import STAGES, Run, Stage
from conrft_bringup.report.run_report import report


def run_demo(run: Run, stages: Sequence[Stage] = STAGES) -> str:
    """Runs what is not yet done, writes the report and gives its table; raises StageFailed or Interrupted."""
    width = max(len(stage.title) for stage in stages)
    for number, stage in enumerate(stages, 1):
        title = f"[{number}/{len(stages)}] {stage.title:<{width}}"
        done = run.folder.finished()
        if stage.name in done:
            print(f"{title}  done before in {done[stage.name]:.0f} s")
            continue
        _run_stage(run, stage, ProgressLine(title))
    return report(run.folder)


def _run_stage(run: Run, stage: Stage, line: ProgressLine) -> None:
    begin = time.monotonic()
    try:
        line.show("starts")
        state = stage.run(run, line)
    except (Interrupted, RuntimeError):
        line.break_off()
        raise
    run.folder.finish(stage.name, time.monotonic() - begin)
    line.finish(state)
