"""A tick is made of samples that belong together; a stale stream is named with its age."""

import pytest

from conrft_control.tick_assembly import EpisodeTicks, TickAssembler
from conrft_data.ticks import Tick

MS = 1_000_000


def assembler() -> TickAssembler:
    return TickAssembler({"side": 0.2, "pose": 0.1})


def test_in_lockstep_a_tick_is_complete_when_all_streams_carry_one_stamp() -> None:
    streams = assembler()
    assert streams.common_stamp() is None
    streams.put("side", 100, "image")
    assert streams.common_stamp() is None
    streams.put("pose", 100, "pose")
    assert streams.common_stamp() == 100
    streams.put("pose", 200, "pose")
    assert streams.common_stamp() is None


def test_a_sample_that_arrives_out_of_order_is_passed_over() -> None:
    streams = assembler()
    streams.put("pose", 200, "new")
    streams.put("pose", 100, "old")
    assert streams.samples() == {"pose": "new"}


def test_a_simulator_that_was_started_again_is_followed() -> None:
    streams = assembler()
    streams.put("pose", 90_000 * MS, "before")
    streams.put("pose", 0, "after")
    assert streams.samples() == {"pose": "after"}


def test_each_stream_has_its_own_limit_and_is_named_with_its_age() -> None:
    streams = assembler()
    streams.put("side", 0, "image")
    streams.put("pose", 0, "pose")
    assert streams.stale(100 * MS) == []
    assert streams.stale(150 * MS) == ["pose: stale, 0.150 s old (at most 0.100 s)"]
    assert [problem.split(":")[0] for problem in streams.stale(201 * MS)] == ["side", "pose"]


def test_a_stream_that_never_spoke_is_named() -> None:
    streams = assembler()
    streams.put("pose", 0, "pose")
    assert streams.stale(0) == ["side: nothing received yet"]
    assert streams.missing(0.0, 1.0) == ["side: nothing received yet"]


def test_a_stamp_far_in_the_future_is_not_fresh() -> None:
    streams = assembler()
    streams.put("side", 0, "image")
    streams.put("pose", 500 * MS, "pose")
    assert "clocks" in streams.stale(0)[0]


def test_in_lockstep_a_stream_that_lacks_a_tick_for_too_long_is_named() -> None:
    streams = assembler()
    streams.put("side", 0, "image", wall_s=5.0)
    streams.put("pose", 100 * MS, "pose", wall_s=5.0)
    assert streams.missing(5.9, 1.0) == []
    assert streams.missing(6.1, 1.0) == ["side: missing at tick 0.100 s, last came 0.000 s"]


def test_a_tick_that_is_given_up_is_no_problem_and_the_next_is_one_again() -> None:
    streams = assembler()
    streams.put("side", 0, "image", wall_s=5.0)
    streams.put("pose", 100 * MS, "pose", wall_s=5.0)
    streams.give_up()
    assert streams.missing(9.0, 1.0) == []
    streams.put("pose", 200 * MS, "pose", wall_s=10.0)
    assert streams.missing(11.1, 1.0) == ["side: missing at tick 0.200 s, last came 0.000 s"]


def test_an_assembler_without_streams_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        TickAssembler({})


def test_after_a_late_tick_the_next_keeps_its_distance() -> None:
    ticks = EpisodeTicks(shortest_s=0.05)
    ticks.begin(1, 0)
    assert ticks.next(0) is not None
    assert ticks.next(160 * MS) is not None
    assert not ticks.is_due(200 * MS)
    assert ticks.next(200 * MS) is None
    assert ticks.next(300 * MS) == Tick(300 * MS, 1, 2)


def test_steps_count_from_zero_in_each_episode_and_each_stamp_counts_once() -> None:
    ticks = EpisodeTicks()
    assert ticks.next(100) is None
    ticks.begin(7, 100)
    assert ticks.next(99) is None
    assert ticks.next(100) == Tick(100, 7, 0)
    assert ticks.next(100) is None
    assert ticks.next(200) == Tick(200, 7, 1)
    ticks.begin(7, 100)  # the state said again
    assert ticks.next(300) == Tick(300, 7, 2)
    ticks.end()
    assert not ticks.running
    assert ticks.next(400) is None
    ticks.begin(8, 500)
    assert ticks.next(500) == Tick(500, 8, 0)
