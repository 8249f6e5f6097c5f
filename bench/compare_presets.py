"""Compares presets, tasks and backbones over seeds, in-process: demonstrations, offline, online, evaluations.

python bench/compare_presets.py --presets stable paper official_code --seeds 1 2 3 --out presets.json
python bench/compare_presets.py --tasks all --backbones random octo-nano --episodes 0 --seeds 1 2 --out pretraining.json

The backbone ``random`` is octo-nano with weights that have learned nothing; ``poses`` tells the true poses of hand and
objects in the place of an embedding (true_poses.py).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from in_process import Rollout
from safetensors.torch import save_file
from true_poses import TruePoses

from conrft_data.config import TaskConfig, load_config
from conrft_data.types import Episode, Mode, Outcome
from conrft_learner.presets import Preset
from conrft_learner.trainer import Trainer
from conrft_policy.acting import Actor
from conrft_policy.backbone import CONFIG_FILE, Backbone, backbone_folder, load_backbone
from conrft_policy.octo.backbone import INSTRUCTIONS_FILE, WEIGHTS_FILE
from conrft_policy.octo.config import octo_nano
from conrft_policy.octo.model import OctoTransformer
from conrft_sim.simulation import Simulation
from conrft_sim.task import task_names

CONFIG = Path(__file__).resolve().parents[1] / "src" / "conrft_bringup" / "config"
EVALUATION_SEED = 10_000


class Experiment:
    """One preset with one seed."""

    def __init__(
        self,
        preset: Preset,
        seed: int,
        task: TaskConfig,
        backbone: Backbone | TruePoses,
        folder: Path,
        simulation: Simulation,
    ) -> None:
        torch.manual_seed(seed)
        self.preset, self.seed, self.task = preset, seed, task
        head = preset.head_config(task, backbone.embedding_dim)
        self.trainer = Trainer(preset, head, backbone.fingerprint, task, seed, folder)
        self.rollout = Rollout(task, simulation, seed, backbone.stream())
        self.actor = Actor(cast(Backbone, backbone), None, task, seed)
        self.began = time.monotonic()

    def run(self, demonstrations: int, episodes: int, every: int, trials: int) -> dict[str, Any]:
        """The whole sequence; returns its figures."""
        lengths = self._demonstrate(demonstrations)
        self.trainer.offline()
        result: dict[str, Any] = {
            "task": self.task.name,
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
                self.trainer.ingest(episode, episode.embeddings)
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
            f"{self.task.name} {self.preset.name} seed {self.seed} {name:>10}: {text}, "
            f"{time.monotonic() - self.began:5.0f} s",
            flush=True,
        )
        return figures


def main(argv: list[str] | None = None) -> int:
    """Command line; one line for each evaluation and one JSON file at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["stable"], help="names, or paths of YAML files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--tasks", nargs="+", default=["pick_banana"], help="names, or all (default: pick_banana)")
    parser.add_argument("--backbones", nargs="+", default=["octo-nano"], help="names, folders, random or poses")
    parser.add_argument("--demonstrations", type=int, help="(default: as many as the task asks for)")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--every", type=int, default=20, help="episodes between evaluations")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes to every preset")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    changes = dict(item.split("=", 1) for item in args.set)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in task_names() if args.tasks == ["all"] else args.tasks:
            task = load_config(TaskConfig, CONFIG / "tasks" / f"{name}.yaml")
            with Simulation(task, 0) as simulation:
                for backbone in args.backbones:
                    for preset in args.presets:
                        _compare(args, changed(preset, changes), backbone, task, simulation, Path(folder), results)
    return 0


def _compare(
    args: argparse.Namespace,
    preset: Preset,
    backbone: str,
    task: TaskConfig,
    simulation: Simulation,
    folder: Path,
    results: list[dict[str, Any]],
) -> None:
    """All seeds of one combination; everything so far is written after each."""
    loaded: Backbone | TruePoses
    if backbone == "poses":
        loaded = TruePoses(simulation)
    else:
        loaded = load_backbone(untrained(folder) if backbone == "random" else backbone, task.instruction)
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as run:
            experiment = Experiment(preset, seed, task, loaded, Path(run), simulation)
            wanted = args.demonstrations or task.demonstrations
            figures = experiment.run(wanted, args.episodes, args.every, args.trials)
        results.append({"backbone": backbone, **figures})
        if args.out:
            args.out.write_text(json.dumps({"command": sys.argv[1:], "results": results}, indent=1) + "\n")


def changed(name: str, changes: dict[str, str]) -> Preset:
    """A preset by its name or file, with the changes of the command line."""
    file = Path(name) if name.endswith(".yaml") else CONFIG / "presets" / f"{name}.yaml"
    return Preset.model_validate({**load_config(Preset, file).model_dump(), **changes})


def untrained(folder: Path) -> str:
    """Writes octo-nano with random weights and the instructions' real tokens; gives its folder."""
    torch.manual_seed(0)
    shipped, made = backbone_folder("octo-nano"), folder / "octo-nano-random"
    made.mkdir(exist_ok=True)
    for file in (CONFIG_FILE, INSTRUCTIONS_FILE):
        shutil.copy(shipped / file, made)
    save_file(OctoTransformer(octo_nano()).state_dict(), made / WEIGHTS_FILE)
    return str(made)


if __name__ == "__main__":
    sys.exit(main())
