"""What a stranger says on a topic: valid messages, wrong ones, such that came before, and such of another time."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message

from conrft_bringup.chaos.message_fuzzer import MessageFuzzer
from conrft_bringup.chaos.valid_messages import ValidMessages
from conrft_data.ticks import Tick

_OLD = 64  # messages of a topic that may come once more


class MessageMix:
    """Mixes them; the same generator and seed give the same mix."""

    def __init__(self, valid: ValidMessages, random: np.random.Generator, seed: int) -> None:
        """``seed``: of what is wrong with the wrong ones."""
        self._valid, self._random, self._fuzzer = valid, random, MessageFuzzer(seed)
        self._old: dict[str, deque[Any]] = {topic: deque(maxlen=_OLD) for topic in valid.topics}

    def make(self, topic: str, tick: Tick) -> Any:
        """A message of ``topic`` that pretends to be of ``tick``, or does not even do that."""
        choice, old = self._random.random(), self._old[topic]
        if choice < 0.1 and old:
            return old[-1]
        if choice < 0.2 and old:
            return old[int(self._random.integers(len(old)))]
        if choice < 0.3:
            shift_ns = int(self._random.choice([-1, 1])) * int(10 ** self._random.uniform(6, 18))
            step = int(self._random.choice([0, tick.step + 1, max(0, tick.step - 1), 2**32 - 1]))
            episode = int(self._random.choice([tick.episode, tick.episode + 1, 0, 2**32 - 1]))
            tick = Tick(max(0, tick.stamp_ns + shift_ns) % 2**61, episode, step)
        message = self._valid.make(topic, tick)
        if choice > 0.5:
            message = self._fuzzer.wrong(message)
        old.append(message)
        return message

    def serialized(self, message: Any) -> bytes:
        """The message as it is sent; one in ten is cut off, or no message at all."""
        raw = bytes(serialize_message(message))
        return self._fuzzer.cut(raw) if self._random.random() < 0.1 else raw
