"""A button that has to be held for the arm to move."""

from __future__ import annotations

from collections.abc import Sequence


class Deadman:
    """The arm may move only while one button of the operator's device is held."""

    def __init__(self, button: int, timeout_s: float) -> None:
        """``button``: index in ``Joy.buttons``, -1: none, the arm may always move.

        ``timeout_s``: buttons that came so long ago do not count as held, because their device may be gone; 0: they do.
        """
        self._button = button
        self._timeout_ns = round(timeout_s * 1e9)
        self._held_ns: int | None = None

    def put(self, buttons: Sequence[int], now_ns: int) -> None:
        """The device's buttons, 1 while pressed, came at ROS time ``now_ns``."""
        held = 0 <= self._button < len(buttons) and buttons[self._button] == 1
        self._held_ns = now_ns if held else None

    def released(self, now_ns: int) -> str:
        """Why the arm must not move at ROS time ``now_ns``; empty when it may."""
        if self._button < 0:
            return ""
        if self._held_ns is None:
            return f"deadman: button {self._button} is not held"
        # A negative age is a clock that was set back; the next message tells.
        if self._timeout_ns and abs(now_ns - self._held_ns) > self._timeout_ns:
            return f"deadman: nothing heard of button {self._button} for {abs(now_ns - self._held_ns) / 1e9:.2f} s"
        return ""
