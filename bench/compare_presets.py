"""Compares presets over seeds, in-process: demonstrations, offline, online with interventions, evaluations without.

python bench/compare_presets.py --presets stable paper official_code --seeds 1 2 3 --out presets.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from in_process import Rollout

from conrft_data.config import TaskConfig, load_config
from conrft_data.types import Episode, Mode, Outcome
from conrft_learner.presets import Preset
from conrft_learner.trainer import Trainer
from conrft_policy.acting import Actor
from conrft_policy.backbone import Backbone, load_backbone
from conrft_sim.simulation import Simulation

CONFIG = Path(__file__).resolve().parents[1] / "src" / "conrft_bringup" / "config"
EVALUATION_SEED = 10_000


class Experiment:
    """One preset with one seed."""

    def __init__(
        self, preset: Preset, seed: int, task: TaskConfig, backbone: Backbone, folder: Path, simulation: Simulation
    ) -> None:
        torch.manual_seed(seed)
        self.preset, self.seed, self.task, self.backbone = preset, seed, task, backbone
        head = preset.head_config(task, backbone.embedding_dim)
        self.trainer = Trainer(preset, head, backbone.fingerprint, task, seed, folder)
        self.rollout = Rollout(task, simulation, seed)
        self.actor = Actor(backbone, None, task, seed)
        self.began = time.monotonic()

    def run(self, demonstrations: int, episodes: int, every: int, trials: int) -> dict[str, Any]:
        """The whole sequence; returns its figures."""
        lengths = self._demonstrate(demonstrations)
        self.trainer.offline()
        result: dict[str, Any] = {
            "preset": self.preset.name,
            "seed": self.seed,
            "demonstrator_length": float(np.mean(lengths)),
        }
        result["offline"] = self._evaluate(trials, "offline")
        result["online"], result["take_overs"] = [], []
        for number in range(1, episodes + 1):
            self._practise(number, result["take_overs"])
            if number % every == 0:
                result["online"].append({"episode": number, **self._evaluate(trials, f"episode {number}")})
        result["wall_s"] = time.monotonic() - self.began
        return result

    def _demonstrate(self, count: int) -> list[int]:
        lengths: list[int] = []
        number = 0
        while len(lengths) < count:
            number += 1
            episode = self.rollout.run(Mode.DEMONSTRATION, number, None)
            if episode.outcome is Outcome.SUCCESS:
                frames = episode.observations
                embeddings = self.backbone.encode_episode(
                    {name: np.stack([o.images[name] for o in frames]) for name in self.task.cameras}
                )
                self.trainer.ingest(episode, embeddings)
                lengths.append(len(episode))
        return lengths

    def _practise(self, number: int, take_overs: list[int]) -> None:
        self.actor.set_weights(self.trainer.acting_weights())
        episode = self.rollout.run(Mode.TRAINING, number, self.actor, self.seed + 5000)
        self.trainer.ingest(episode, episode.embeddings)
        self.trainer.train(self.trainer.pending_updates)
        driven = episode.interventions()
        take_overs.append(int((driven & ~np.concatenate([[False], driven[:-1]])).sum()))

    def _evaluate(self, trials: int, name: str) -> dict[str, float]:
        self.actor.set_weights(self.trainer.acting_weights())
        runs: list[Episode] = [
            self.rollout.run(Mode.EVALUATION, i, self.actor, EVALUATION_SEED) for i in range(1, trials + 1)
        ]
        won = [len(e) for e in runs if e.outcome is Outcome.SUCCESS]
        figures = {
            "success": len(won) / trials,
            "length_of_successes": float(np.mean(won)) if won else float("nan"),
            "mean_length": float(np.mean([len(e) for e in runs])),
        }
        text = f"success {figures['success']:.2f}, length {figures['length_of_successes']:5.1f}"
        print(
            f"{self.preset.name} seed {self.seed} {name:>10}: {text}, {time.monotonic() - self.began:5.0f} s",
            flush=True,
        )
        return figures


def main(argv: list[str] | None = None) -> int:
    """Command line; one line for each evaluation and one JSON file at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["stable"], help="names, or paths of YAML files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--backbone", default="octo-nano")
    parser.add_argument("--demonstrations", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--every", type=int, default=20, help="episodes between evaluations")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes to every preset")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    task = load_config(TaskConfig, CONFIG / "tasks" / "pick_banana.yaml")
    changes = dict(item.split("=", 1) for item in args.set)
    backbone = load_backbone(args.backbone, task.instruction)
    results = []
    with Simulation(task, 0) as simulation:
        for name in args.presets:
            file = Path(name) if name.endswith(".yaml") else CONFIG / "presets" / f"{name}.yaml"
            preset = Preset.model_validate({**load_config(Preset, file).model_dump(), **changes})
            for seed in args.seeds:
                with tempfile.TemporaryDirectory() as folder:
                    experiment = Experiment(preset, seed, task, backbone, Path(folder), simulation)
                    results.append(experiment.run(args.demonstrations, args.episodes, args.every, args.trials))
                if args.out:
                    args.out.write_text(json.dumps({"command": sys.argv[1:], "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
