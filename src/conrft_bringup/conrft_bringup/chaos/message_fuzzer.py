"""Wrong messages of any ROS type: a valid one, with a few of its fields set to what no sender should send."""

from __future__ import annotations

import copy
import re
from array import array
from typing import Any

import numpy as np

_FLOATS = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-38, 3e38, -3e38, 1.0, -1.0, 1e6)
_STRINGS = ("", "../../etc/passwd", "/", ".", "ünknøwn", "x" * 5000, "rgb8", "bgr8", "mono8", "16UC1", "32FC1", "side")
_BOUNDS = {f"{sign}int{bits}": (0 if sign else -(2 ** (bits - 1)), 2**bits - 1 if sign else 2 ** (bits - 1) - 1)
           for sign in ("", "u") for bits in (8, 16, 32, 64)}  # fmt: skip
_ARRAY_CODES = {"uint8": "B", "int8": "b", "int32": "i", "uint32": "I", "float": "f", "double": "d"}
_LONG = 100_000  # elements of a huge array
_MOST_NESTED = 20  # elements of an array of messages


class MessageFuzzer:
    """Makes wrong messages; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def wrong(self, valid: Any) -> Any:
        """A copy of ``valid`` of which one to three fields have other values, of the right ROS type."""
        message = copy.deepcopy(valid)
        for _ in range(int(self._random.integers(1, 4))):
            self._spoil(message)
        return message

    def cut(self, raw: bytes) -> bytes:
        """A serialized message that was cut off, or bytes that are none."""
        if self._random.random() < 0.3:
            return self._random.bytes(int(self._random.integers(0, 200)))
        return raw[: int(self._random.integers(0, len(raw)))]

    def _spoil(self, message: Any) -> None:
        """Changes one field, at any depth."""
        fields = message.get_fields_and_field_types()
        if not fields:
            return
        name = str(self._random.choice(list(fields)))
        kind, value = fields[name], getattr(message, name)
        if match := re.fullmatch(r"sequence<(.+?)(?:, \d+)?>", kind):
            self._spoil_sequence(message, name, match[1], value)
        elif match := re.fullmatch(r"(.+)\[(\d+)\]", kind):
            setattr(message, name, [self._scalar(match[1]) for _ in range(int(match[2]))])
        elif "/" in kind:
            self._spoil(value)
        else:
            setattr(message, name, self._scalar(kind))

    def _spoil_sequence(self, message: Any, name: str, kind: str, value: Any) -> None:
        choice, length = self._random.random(), len(value)
        if "/" in kind:
            items = list(value)
            if choice < 0.5 and items:
                self._spoil(items[int(self._random.integers(length))])
            elif choice < 0.7:
                items = items[: int(self._random.integers(0, length + 1))]
            elif items:
                items = items * int(self._random.integers(2, max(3, _MOST_NESTED // length)))
            setattr(message, name, items)
            return
        size = _LONG if choice < 0.01 else int(self._random.integers(0, 2 * length + 3)) if choice < 0.5 else length
        values = [self._scalar(kind) for _ in range(min(size, 16))]
        if kind in _ARRAY_CODES:
            filled = array(_ARRAY_CODES[kind], values)
            whole = filled * (size // max(1, len(filled)) + 1)
            setattr(message, name, whole[:size])
        else:
            setattr(message, name, values)

    def _scalar(self, kind: str) -> Any:
        random = self._random
        if kind in ("float", "double"):
            if random.random() < 0.7:
                return float(random.choice(_FLOATS))
            # No float32 is larger than 3.4e38, and a message says so.
            return float(np.clip(random.normal() * 10 ** random.uniform(-3, 6), -3e38, 3e38))
        if kind == "boolean":
            return bool(random.integers(2))
        if kind == "octet":
            return bytes([int(random.integers(256))])
        if kind.startswith(("string", "wstring")):
            return str(random.choice(_STRINGS))
        low, high = _BOUNDS[kind]
        if random.random() < 0.7:
            return (low, high, 0, 1, high - 1)[int(random.integers(5))]
        return int(random.integers(0, 100))
