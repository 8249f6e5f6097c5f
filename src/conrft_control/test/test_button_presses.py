"""A press is an edge, once, without chatter."""

from conrft_control.button_presses import ButtonPresses

MS = 1_000_000


def test_a_press_counts_once_however_long_it_is_held() -> None:
    presses = ButtonPresses(0.05)
    assert [presses.update([down], k * 100 * MS) for k, down in enumerate([0, 1, 1, 0, 1])] == [[], [0], [], [], [0]]


def test_a_button_that_is_down_when_first_seen_was_not_pressed_now() -> None:
    presses = ButtonPresses(0.05)
    assert presses.update([1], 0) == []
    assert presses.update([1], 100 * MS) == []


def test_chatter_within_the_debounce_time_is_one_press() -> None:
    presses = ButtonPresses(0.05)
    presses.update([0], 0)
    assert presses.update([1], 10 * MS) == [0]
    presses.update([0], 20 * MS)
    assert presses.update([1], 30 * MS) == []
    presses.update([0], 40 * MS)
    assert presses.update([1], 60 * MS) == [0]


def test_buttons_are_independent_and_a_device_may_show_more_of_them_later() -> None:
    presses = ButtonPresses(0.05)
    presses.update([0, 0], 0)
    assert presses.update([1, 0, 1], 1) == [0, 2]
    assert presses.update([1, 1, 1], 2) == [1]


def test_a_clock_that_was_started_again_does_not_swallow_presses() -> None:
    presses = ButtonPresses(0.05)
    presses.update([0], 900 * MS)
    presses.update([1], 901 * MS)
    presses.update([0], 0)
    assert presses.update([1], 1 * MS) == [0]
