"""How long a backbone takes for one acting step, and what 8 bits cost: ``conrft bench policy``.

Three ways to the same embedding take turns on the same rendered frames, so that whatever else the machine does falls
on all of them: the straightforward torch forward of both frames, the acting path in float32, and in int8.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from conrft_data.config import TaskConfig
from conrft_data.reference_pose import ReferencePose
from conrft_policy.backbone import BackboneError, backbone_folder, read_config
from conrft_policy.octo.backbone import OctoBackbone, open_parts
from conrft_policy.octo.model import OctoTransformer
from conrft_sim.plan import ideal_action
from conrft_sim.simulation import Simulation
from conrft_sim.tasks.pick_banana import PickBanana

Frame = Mapping[str, NDArray[np.uint8]]
Embedding = NDArray[np.float32]
BACKBONES = ("octo-nano", "octo-small")
WARM_UP = 2  # frames


@dataclass
class _Measured:
    """Times and embeddings of the three ways, frame by frame."""

    times_ms: dict[str, list[float]] = field(default_factory=dict)
    embeddings: dict[str, list[Embedding]] = field(default_factory=dict)

    def add(self, way: str, step: Callable[[], Embedding]) -> None:
        start = time.perf_counter()
        embedding = step()
        self.times_ms.setdefault(way, []).append(1e3 * (time.perf_counter() - start))
        self.embeddings.setdefault(way, []).append(embedding)

    def figures(self) -> dict[str, float]:
        """Median milliseconds by way, the worst frame's cosine of int8 to the reference, the largest fp32 error."""
        reference, fp32, int8 = (np.stack(self.embeddings[way]) for way in ("reference", "fp32", "int8"))
        lengths = np.linalg.norm(reference, axis=1) * np.linalg.norm(int8, axis=1)
        median = {way: statistics.median(times[WARM_UP:]) for way, times in self.times_ms.items()}
        return {
            **{f"{way}_ms": round(value, 2) for way, value in median.items()},
            "fp32_ratio": round(median["fp32"] / median["reference"], 3),
            "int8_ratio": round(median["int8"] / median["reference"], 3),
            "cosine": round(float(((reference * int8).sum(axis=1) / lengths).min()), 6),
            "fp32_error": float(np.abs(reference - fp32).max()),
        }


class _Reference:
    """The transformer as it is written down, both frames of the window anew at each step."""

    def __init__(self, model: OctoTransformer, tokens: NDArray[np.float32]) -> None:
        self._model = model.eval()
        self._language = torch.from_numpy(tokens)[None]
        self._window: list[Frame] = []

    @torch.inference_mode()
    def step(self, frame: Frame) -> Embedding:
        config = self._model.config
        self._window = [*(self._window or [frame] * config.window), frame][-config.window :]
        images = {
            image.name: torch.from_numpy(np.stack([one[image.camera] for one in self._window]))[None]
            for image in config.images
        }
        return np.asarray(self._model.embed(images, self._language)[0].numpy())


def policy(argv: list[str]) -> int:
    """Measures and prints; the last line of stdout is one JSON object by backbone."""
    parser = argparse.ArgumentParser(prog="conrft bench policy", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, help="names or folders (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=20, help="rendered frames (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: %(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    frames = list(rendered_frames(WARM_UP + args.frames))
    figures = {}
    for name in args.backbones:
        try:
            figures[str(name)] = measure(name, frames)
        except BackboneError as error:
            print(error)
            return 2
        if not args.json:
            print(f"{name}: {figures[str(name)]}", flush=True)
    print(json.dumps(figures))
    return 0


def measure(name: str, frames: list[Frame]) -> dict[str, float]:
    """Figures of one Octo; BackboneError if it is none."""
    folder = backbone_folder(name)
    config = read_config(folder)
    if config["architecture"] != "octo":
        raise BackboneError(f"{name}: only an Octo is measured here; see `conrft backbone info {name}`")
    read, instruction, _ = open_parts(folder, config, PickBanana.default_config().instruction)
    ways = {
        "reference": _Reference(read(), instruction.tokens),
        "fp32": OctoBackbone(read, instruction).stream(),
        "int8": OctoBackbone(read, instruction, precision="int8").stream(),
    }
    measured = _Measured()
    for frame in frames:
        for way, stream in ways.items():
            measured.add(way, lambda stream=stream, frame=frame: stream.step(frame))  # type: ignore[misc]
    return {**measured.figures(), "random_weights": config.get("weights") == "random"}


def rendered_frames(count: int, *, seed: int = 0) -> Iterator[Frame]:
    """Camera images of scripted episodes, one after the other."""
    task: TaskConfig = PickBanana.default_config()
    plan = PickBanana.plan(task)
    with Simulation(task, seed) as sim:
        episode, left = 0, count
        while left:
            sim.reset(seed, episode)
            reference = ReferencePose(task.motion_limits())
            reference.start(sim.tcp_pose)
            for _ in range(min(left, task.max_steps)):
                yield {camera: sim.render(camera).copy() for camera in task.cameras}
                left -= 1
                scene = sim.scene()
                if scene.success:
                    break
                action = ideal_action(plan, scene)
                gripper = 0.0 if action[6] <= -0.5 else 1.0 if action[6] >= 0.5 else None
                sim.set_target(reference.apply(action, sim.tcp_pose), gripper)
                sim.advance()
            episode += 1
