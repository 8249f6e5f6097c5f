"""Frames of an MP4, for datasets that hold videos."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from conrft_data.bags.errors import BagError


def read_frames(file: Path, start_s: float, count: int, fps: int) -> NDArray[np.uint8]:
    """``count`` frames ``(N, H, W, 3)`` RGB from ``start_s`` on, ``1 / fps`` s apart; raises BagError."""
    frames: list[NDArray[np.uint8]] = []
    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            container.seek(int(start_s / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                # The seek ends at the key frame before.
                if frame.time is not None and frame.time > start_s + (len(frames) - 0.5) / fps:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == count:
                    break
    except (av.FFmpegError, IndexError, OSError) as error:
        raise BagError(f"{file}: cannot be read: {error}") from error
    if len(frames) < count:
        raise BagError(f"{file}: ends after {len(frames)} of {count} frames from {start_s:.3f} s on")
    return np.stack(frames)
