"""Presses of the operator's buttons: edges, without the chatter of a switch."""

from __future__ import annotations

from collections.abc import Sequence


class ButtonPresses:
    """Turns the state of buttons into presses.

    A button that is held, or was held when it was first seen, is not a press.
    """

    def __init__(self, debounce_s: float) -> None:
        """``debounce_s``: a second press within this time of the first is chatter."""
        self._debounce_ns = round(debounce_s * 1e9)
        self._down: list[bool] | None = None
        self._pressed_ns: dict[int, int] = {}

    def update(self, buttons: Sequence[int], stamp_ns: int) -> list[int]:
        """Indices of the buttons that were pressed; ``buttons`` is 1 for each that is down at ``stamp_ns``."""
        down = [button == 1 for button in buttons]
        before, self._down = self._down, down
        if before is None:
            return []
        presses = []
        for index, is_down in enumerate(down):
            was_down = index < len(before) and before[index]
            if not is_down or was_down:
                continue
            last = self._pressed_ns.get(index)
            if last is None or not 0 <= stamp_ns - last < self._debounce_ns:
                self._pressed_ns[index] = stamp_ns
                presses.append(index)
        return presses
