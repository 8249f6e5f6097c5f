"""Statistics of a dataset's columns, as LeRobot's policies want them for normalising."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Statistics = dict[str, Any]

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_LEVELS = np.arange(256) / 255


def number_statistics(values: NDArray[Any]) -> Statistics:
    """Of the numbers ``(N, D)`` of N frames, each ``(D,)``."""
    numbers = values.astype(np.float64)
    quantiles = dict(zip(_QUANTILES, np.quantile(numbers, list(_QUANTILES.values()), axis=0), strict=True))
    figures = {"min": numbers.min(0), "max": numbers.max(0), "mean": numbers.mean(0), "std": numbers.std(0)}
    return {name: figure.tolist() for name, figure in (figures | quantiles).items()} | {"count": [len(numbers)]}


def image_counts(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """How often each level occurs in each channel ``(3, 256)`` of images ``(H, W, 3)``."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for image in images:
        counts += np.stack([np.bincount(image[:, :, channel].ravel(), minlength=256) for channel in range(3)])
    return counts


def image_statistics(counts: NDArray[np.int64], frames: int) -> Statistics:
    """Of all pixels, each figure ``(3, 1, 1)`` with levels from 0 to 1; ``counts`` as in :func:`image_counts`."""
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ _LEVELS
    present = counts > 0
    figures = {
        "min": _LEVELS[present.argmax(axis=1)],
        "max": _LEVELS[255 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(share @ _LEVELS**2 - mean**2, 0)),
        **{name: _LEVELS[(share.cumsum(axis=1) >= q).argmax(axis=1)] for name, q in _QUANTILES.items()},
    }
    return {name: figure.reshape(3, 1, 1).tolist() for name, figure in figures.items()} | {"count": [frames]}


def flattened(statistics: Mapping[str, Statistics]) -> dict[str, Any]:
    """As columns of the episodes' table: ``stats/<feature>/<figure>``."""
    return {
        f"stats/{feature}/{name}": value for feature, figures in statistics.items() for name, value in figures.items()
    }
