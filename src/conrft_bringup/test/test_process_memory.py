"""How the memory of a process grows."""

import os

import pytest

from conrft_bringup.process_memory import ProcessMemory


def test_it_samples_once_a_period_and_passes_over_processes_that_have_ended() -> None:
    memory = ProcessMemory(period_s=2.0)
    for now_s in (0.0, 1.0, 2.0, 4.0):
        memory.look({"me": os.getpid(), "gone": 2**22 + 1}, now_s)
    assert list(memory.figures()) == ["me"]
    assert memory.figures()["me"]["first_mib"] > 5


def test_what_a_process_takes_while_it_warms_up_is_no_growth() -> None:
    memory = ProcessMemory()
    for second in range(0, 101, 2):
        memory._samples["node"].append((second, 100.0 if second < 50 else 200.0 + second / 3600))
    figures = memory.figures()["node"]
    assert (figures["first_mib"], figures["largest_mib"]) == (100.0, 200.0)
    assert figures["slope_mib_per_hour"] == pytest.approx(1.0, abs=0.01)
