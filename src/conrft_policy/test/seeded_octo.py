"""Parameters and inputs of an Octo as a function of names and shapes, so that only outputs need storing."""

import itertools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

IMAGES = {"image_primary": (1, 2, 256, 256, 3), "image_wrist": (1, 2, 128, 128, 3)}
LANGUAGE = (1, 16, 768)


@dataclass(frozen=True)
class Variant:
    """A reduced Octo (width 64, two layers, images of 64 and 32 pixels, five language tokens of width 48)."""

    repeat_task_tokens: bool
    use_correct_attention: bool
    steps: int
    readouts: int

    def inputs(self) -> dict[str, np.ndarray]:
        """Two samples with goal images; timesteps, images and an instruction missing here and there."""
        random, batch, steps = _random(repr(self)), 2, self.steps
        values = {"language": random.standard_normal((batch, 5, 48)).astype(np.float32)}
        for name, size in VARIANT_SIZES.items():
            values[f"image_{name}"] = random.integers(0, 256, (batch, steps, size, size, 3), dtype=np.uint8)
            values[f"goal_{name}"] = random.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
            values[f"real_{name}"] = random.random((batch, steps)) < 0.7
        values["real_language"] = np.array([True, self.repeat_task_tokens])
        values["real_timesteps"] = np.arange(steps) >= np.array([0, steps // 2])[:, None]
        return values


VARIANT_SIZES = {"primary": 64, "wrist": 32}
VARIANTS = [
    Variant(repeat, correct, steps, readouts)
    for repeat, correct, (steps, readouts) in itertools.product((True, False), (True, False), ((1, 1), (2, 1), (3, 2)))
]


def parameters(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Of the size that training starts from, with norms and biases that differ from their neutral values."""
    return {name: _parameter(name, shape) for name, shape in shapes.items()}


def images() -> dict[str, np.ndarray]:
    """Smooth pictures with noise: flat parts, as rendered frames have, and texture."""
    return {name: _picture(name, shape) for name, shape in IMAGES.items()}


def language() -> np.ndarray:
    return (0.2 * _random("language").standard_normal(LANGUAGE)).astype(np.float32)


def _parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = _random(name).standard_normal(shape, dtype=np.float32)
    leaf = name.rsplit("/", 1)[-1]
    if leaf == "kernel":
        inputs = {2: shape[:1], 3: shape[:1], 4: shape[:3]}[len(shape)]
        if name.endswith("/out/kernel"):
            inputs = shape[:2]
        return values / np.float32(np.sqrt(np.prod(inputs)))
    return values * np.float32(0.05) + np.float32(leaf == "scale")


def _picture(name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = _random(name)
    _, steps, height, width, _ = shape
    rows, columns = np.mgrid[:height, :width] / height
    frames = []
    for _ in range(steps):
        colour, tilt = random.uniform(40, 200, 3), random.uniform(-60, 60, (2, 3))
        frame = colour + rows[..., None] * tilt[0] + columns[..., None] * tilt[1]
        textured = (rows > 0.6)[..., None] * random.normal(0, 25, (height, width, 3))
        frames.append(np.clip(frame + textured, 0, 255))
    return np.stack(frames)[None].astype(np.uint8)


def _random(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))
