"""Which targets the simulated controller follows."""

from __future__ import annotations

from conrft_sim.target_gate import Judgement, TargetGate


def test_lockstep_takes_exactly_one_target_for_each_tick() -> None:
    gate = TargetGate(lockstep=True)
    gate.open(100)
    assert gate.judge(100, publishers=1) is Judgement.FOLLOW
    assert gate.judge(100, publishers=1) is Judgement.OTHER_TICK


def test_lockstep_passes_over_targets_of_other_ticks() -> None:
    gate = TargetGate(lockstep=True)
    assert gate.judge(0, publishers=1) is Judgement.OTHER_TICK
    gate.open(100)
    assert gate.judge(99, publishers=1) is Judgement.OTHER_TICK
    assert gate.judge(101, publishers=1) is Judgement.OTHER_TICK
    assert gate.judge(100, publishers=1) is Judgement.FOLLOW


def test_two_publishers_are_ignored_and_the_tick_goes_on_waiting() -> None:
    gate = TargetGate(lockstep=True)
    gate.open(100)
    assert gate.judge(100, publishers=2) is Judgement.SEVERAL_PUBLISHERS
    assert gate.judge(100, publishers=1) is Judgement.FOLLOW


def test_real_time_follows_every_target_of_one_publisher() -> None:
    gate = TargetGate(lockstep=False)
    assert gate.judge(1, publishers=1) is Judgement.FOLLOW
    assert gate.judge(1, publishers=1) is Judgement.FOLLOW
    assert gate.judge(2, publishers=2) is Judgement.SEVERAL_PUBLISHERS
