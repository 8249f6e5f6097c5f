"""The operator's hand: a SpaceMouse's twist and buttons as an action, and who is driving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from conrft_control.deadman import Deadman
from conrft_data import rotations
from conrft_data.types import Float64

CLOSE, KEEP, OPEN = -1.0, 0.0, 1.0


@dataclass(frozen=True, kw_only=True)
class TakeoverSettings:
    """When a hand on the device takes over and when it lets go.

    Attributes:
        deadband: an axis below this counts as zero; the device's own noise at rest. All three are fractions of a full
            action.
        enter: an axis at or above this takes over.
        leave: below this, on every axis, the hand rests; lower than ``enter`` so that the control does not flutter.
        hold_ticks: ticks for which the operator keeps control after the last motion.
    """

    deadband: float = 0.05
    enter: float = 0.15
    leave: float = 0.08
    hold_ticks: int = 5

    def __post_init__(self) -> None:
        """Raises ValueError when the thresholds are not in order."""
        if not 0 <= self.deadband <= self.leave <= self.enter:
            raise ValueError(f"needs 0 <= deadband <= leave <= enter, got {self.deadband}, {self.leave}, {self.enter}")
        if self.hold_ticks < 0:
            raise ValueError(f"hold_ticks must not be negative, got {self.hold_ticks}")


class Takeover:
    """Whether the operator drives, tick by tick, and which way the gripper was sent meanwhile."""

    def __init__(self, settings: TakeoverSettings) -> None:
        self.settings = settings
        self.driving = False
        self.gripper = KEEP
        self._resting_ticks = 0

    def reset(self) -> None:
        """A new episode begins: nobody drives."""
        self.driving, self.gripper, self._resting_ticks = False, KEEP, 0

    def without_noise(self, axes: ArrayLike) -> Float64:
        """``axes`` with those inside the deadband set to zero."""
        values = np.asarray(axes, dtype=np.float64)
        return np.where(np.abs(values) < self.settings.deadband, 0.0, values)

    def update(self, axes: Float64, gripper: float) -> bool:
        """One tick; returns whether the operator drives it.

        ``axes``: ``(6,)`` without noise; ``gripper``: CLOSE, OPEN or KEEP (no button).
        """
        motion = float(np.max(np.abs(axes)))
        if gripper != KEEP or motion >= self.settings.enter:
            self.driving, self._resting_ticks = True, 0
        elif self.driving:
            self._resting_ticks = 0 if motion >= self.settings.leave else self._resting_ticks + 1
            if self._resting_ticks > self.settings.hold_ticks:
                self.reset()
        if self.driving and gripper != KEEP:
            self.gripper = gripper
        return self.driving


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """How the device's axes and buttons are read.

    Attributes:
        axes: for each of the six base-frame axes (translation xyz, rotation xyz) the device's axis, from 1, negative to
            turn its direction.
        translation_gain, rotation_gain: device units to full actions.
        close_button, open_button: index in ``Joy.buttons``; -1: not assigned.
        deadman_button: the arm moves only while this button is held; -1: none.
        timeout_s: a twist older than this counts as zero (a device that was unplugged must not go on pushing), and so
            does a held deadman button; 0: never.
    """

    axes: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    translation_gain: float = 1.0
    rotation_gain: float = 1.0
    close_button: int = 0
    open_button: int = 1
    deadman_button: int = -1
    timeout_s: float = 0.2

    def __post_init__(self) -> None:
        """Raises ValueError when ``axes`` is not a signed permutation of 1..6."""
        if sorted(abs(axis) for axis in self.axes) != [1, 2, 3, 4, 5, 6]:
            raise ValueError(f"axes must name each of 1..6 once, with a sign, got {list(self.axes)}")


class OperatorDevice:
    """The newest state of the device, with button presses shorter than a tick kept until the tick reads them."""

    def __init__(self, settings: DeviceSettings) -> None:
        self.settings = settings
        self.deadman = Deadman(settings.deadman_button, settings.timeout_s)
        self.buttons_stamp_ns = -1
        self._twist = np.zeros(6)
        self._twist_ns: int | None = None
        self._held = KEEP
        self._pressed = KEEP

    def put_twist(self, twist: ArrayLike, now_ns: int) -> None:
        """The device's twist ``(6,)`` in its own axes and units."""
        self._twist, self._twist_ns = np.asarray(twist, dtype=np.float64), now_ns

    def put_buttons(self, buttons: Sequence[int], stamp_ns: int) -> None:
        """The device's buttons, 1 while pressed."""
        self.buttons_stamp_ns = max(self.buttons_stamp_ns, stamp_ns)
        close, open_ = (
            0 <= index < len(buttons) and buttons[index] == 1
            for index in (self.settings.close_button, self.settings.open_button)
        )
        self._held = KEEP if close == open_ else (CLOSE if close else OPEN)
        self._pressed = self._held or self._pressed

    def axes(self, now_ns: int) -> Float64:
        """``(6,)`` in the base frame, in full actions, not clipped.

        Zeros when the device went silent, NaN where it sent NaN.
        """
        timeout_ns = round(self.settings.timeout_s * 1e9)
        if self._twist_ns is None or (timeout_ns and now_ns - self._twist_ns > timeout_ns):
            return np.zeros(6)
        mapped = np.array([np.sign(axis) * self._twist[abs(axis) - 1] for axis in self.settings.axes])
        mapped[:3] *= self.settings.translation_gain
        mapped[3:] *= self.settings.rotation_gain
        return mapped

    def take_gripper(self) -> float:
        """CLOSE or OPEN when its button is held or was pressed since the last call, else KEEP."""
        pressed, self._pressed = self._held or self._pressed, KEEP
        return pressed


def end_effector_action(axes: Float64, orientation: ArrayLike, gripper: float) -> Float64:
    """The action ``(7,)`` in [-1, 1] of base-frame ``axes`` ``(6,)``.

    Rotated into the end-effector frame of ``orientation`` ``(4,)``, both halves alike, then clipped.
    """
    turned = rotations.rotate_blocks(rotations.inverse(orientation), axes)
    return np.clip(np.append(turned, gripper), -1.0, 1.0)
