"""Pre-train the shipped octo-nano: behaviour cloning plus regression of where things are, on simulated rollouts.

The network learns to predict, from two frames and the instruction, the scripted plan's action (through a small MLP) and
what LABELS of octo_nano_frames.py lists (by linear maps of the embedding, so that a linear map finds it again). All
these heads are thrown away; the transformer is what is shipped.

    python bench/pretrain_octo_nano.py --frames 48000 --samples 250000

writes src/conrft_policy/models/octo-nano/{config.json, weights.safetensors} and a JSON report beside the frames.
Run it from the repository with the workspace's packages importable. Same seed, same machine, same number of threads:
same frames and same batches.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import octo_nano_frames
import torch
from numpy.typing import NDArray
from octo_nano_frames import LABELS, PHASES, Frames
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from conrft_policy.backbone import INSTRUCTIONS_FILE, WEIGHTS_FILE, models_folder, write_config
from conrft_policy.instructions import load_instruction
from conrft_policy.octo.config import OctoConfig, octo_nano
from conrft_policy.octo.model import OctoTransformer, logit_bias
from conrft_sim.tasks import pick_banana

LENGTH_UNIT = 0.05  # m; positions are learned in this unit, so that 5 mm is a tenth
REGRESSED = ("banana", "plate", "turn", "height", "opening", "to_go")
UNITS = {"banana": LENGTH_UNIT, "plate": LENGTH_UNIT, "height": LENGTH_UNIT}
HELD_OUT = 0.06  # share of rollouts
EMA_DECAY = 0.998
RIDGE = 1e-6  # of the probe, for each sample


class Heads(nn.Module):
    """What the embedding (and, more directly, the image tokens) must tell; thrown away after training."""

    def __init__(self, config: OctoConfig) -> None:
        super().__init__()
        dim = config.token_dim
        width = sum(LABELS[name].stop - LABELS[name].start for name in REGRESSED)
        self.scene = nn.Linear(dim, width)
        self.phase = nn.Linear(dim, len(PHASES))
        self.action = nn.Sequential(nn.Linear(dim, 256), nn.ReLU(), nn.Linear(256, 7))
        tokens = config.image_tokens * 16
        self.squeeze = nn.Linear(dim, 16)
        self.scene_from_tokens = nn.Linear(tokens, width)


def targets(labels: Tensor) -> Tensor:
    """Regression targets (B, W) in the units of UNITS."""
    return torch.cat([labels[:, LABELS[name]] / UNITS.get(name, 1.0) for name in REGRESSED], dim=1)


def embed_training(model: OctoTransformer, images: dict[str, Tensor], language: Tensor) -> tuple[Tensor, Tensor]:
    """Embedding (B, dim) as ``model.embed`` gives it, and the image tokens of the newest frame.

    The last layer is computed for the last readout only.
    """
    prefix, steps = model.tokens(images, language)
    mask = model.attention_mask(1, model.config.window)
    bias = logit_bias(mask, steps.dtype)[:, None]
    x = torch.cat([prefix.expand(len(steps), -1, -1), steps.flatten(1, 2)], dim=1)
    for block in model.blocks[:-1]:
        x = block(x, bias)
    last = model.blocks[-1]
    query, key, value = last.attention.split(last.attention_norm(x))
    x = x[:, -1:] + last.attention.attend(query[:, :, -1:], key, value, bias[:, :, -1:])
    x = x + last.mlp(last.mlp_norm(x))
    return model.norm(x)[:, 0], steps[:, -1, : model.config.image_tokens]


def loss(
    model: OctoTransformer, heads: Heads, batch: tuple[dict[str, Tensor], Tensor], language: Tensor
) -> dict[str, Tensor]:
    """The terms of the objective."""
    images, labels = batch
    embedding, tokens = embed_training(model, images, language)
    wanted, action = targets(labels), labels[:, LABELS["action"]]
    predicted = heads.action(embedding)
    return {
        "scene": F.smooth_l1_loss(heads.scene(embedding), wanted, beta=0.1),
        "tokens": F.smooth_l1_loss(heads.scene_from_tokens(heads.squeeze(tokens).flatten(1)), wanted, beta=0.1),
        "action": F.smooth_l1_loss(predicted[:, :6], action[:, :6], beta=0.1),
        "gripper": 0.5 * F.binary_cross_entropy_with_logits(predicted[:, 6], (action[:, 6] > 0).float()),
        "phase": 0.2 * F.cross_entropy(heads.phase(embedding), labels[:, LABELS["phase"]][:, 0].long()),
    }


def load_batch(frames: Frames, index: NDArray[np.int64]) -> tuple[dict[str, Tensor], Tensor]:
    """Two stacked frames (B, 2, H, W, 3) of both cameras, and the newest frame's labels."""
    pairs = np.stack([frames.predecessors(index), index], axis=1)
    side, wrist = frames.images(pairs.ravel())
    images = {"primary": torch.from_numpy(side), "wrist": torch.from_numpy(wrist)}
    images = {name: value.unflatten(0, (len(index), 2)) for name, value in images.items()}
    return images, torch.from_numpy(frames.labels[index])


def small_image_config(config: OctoConfig) -> OctoConfig:
    """The same network for frames that are reduced already."""
    values = config.to_json()
    for image in values["images"]:
        image["source_size"] = image["size"]
    return OctoConfig.from_json(values)


@torch.no_grad()
def embeddings(model: OctoTransformer, frames: Frames, index: NDArray[np.int64], language: Tensor) -> Tensor:
    """Embeddings of the frames at ``index``, (N, dim)."""
    parts = np.array_split(index, max(1, len(index) // 64))
    return torch.cat([embed_training(model, load_batch(frames, part)[0], language)[0] for part in parts])


def ridge_probe(
    model: OctoTransformer, frames: Frames, train: NDArray, test: NDArray, language: Tensor
) -> dict[str, float]:
    """Errors in mm of banana and plate by ridge regression from the frozen embedding, in the task's own layout."""
    narrow = frames.labels[:, LABELS["narrow"]][:, 0] > 0
    rng = np.random.default_rng(0)
    fit = rng.choice(train[narrow[train]], min(5000, int(narrow[train].sum())), replace=False)
    score = rng.choice(test[narrow[test]], min(1500, int(narrow[test].sum())), replace=False)
    fit, score = np.sort(fit), np.sort(score)
    x, z = (F.pad(embeddings(model, frames, rows, language).double(), (0, 1), value=1.0) for rows in (fit, score))
    figures = {}
    for name in ("banana", "plate"):
        y, truth = (torch.from_numpy(frames.labels[rows, LABELS[name]]).double() for rows in (fit, score))
        weights = torch.linalg.solve(x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1]).double(), x.T @ y)
        error_mm = 1e3 * (z @ weights - truth).norm(dim=1)
        figures[f"probe_{name}_median_mm"] = float(error_mm.median())
        figures[f"probe_{name}_mean_mm"] = float(error_mm.mean())
    return figures


@torch.no_grad()
def evaluate(
    model: OctoTransformer, heads: Heads, frames: Frames, test: NDArray, language: Tensor
) -> dict[str, float]:
    """Held-out errors: positions in mm (median of the Euclidean error), cloned action, gripper and phase."""
    chosen = np.sort(np.random.default_rng(1).choice(test, min(3000, len(test)), replace=False))
    labels = torch.from_numpy(frames.labels[chosen])
    embedding = embeddings(model, frames, chosen, language)
    scene, action, phase = heads.scene(embedding), heads.action(embedding), heads.phase(embedding).argmax(1)
    narrow = labels[:, LABELS["narrow"]][:, 0] > 0
    near = narrow & (labels[:, LABELS["banana"]].norm(dim=1) < 0.08)
    figures: dict[str, float] = {}
    for name, columns in (("banana", slice(0, 3)), ("plate", slice(3, 6))):
        error_mm = 1e3 * LENGTH_UNIT * (scene[:, columns] - targets(labels)[:, columns]).norm(dim=1)
        for where, rows in (("narrow", narrow), ("narrow_near", near), ("wide", ~narrow)):
            figures[f"{name}_{where}_median_mm"] = float(error_mm[rows].median())
            figures[f"{name}_{where}_mean_mm"] = float(error_mm[rows].mean())
    wanted = labels[:, LABELS["action"]]
    figures["action_mean_abs"] = float((action[:, :6] - wanted[:, :6]).abs().mean())
    figures["action_mean_abs_of_predicting_the_mean"] = float((wanted[:, :6] - wanted[:, :6].mean(0)).abs().mean())
    figures["gripper_accuracy"] = float(((action[:, 6] > 0) == (wanted[:, 6] > 0)).float().mean())
    figures["phase_accuracy"] = float((phase == labels[:, LABELS["phase"]][:, 0].long()).float().mean())
    return figures


def train(
    model: OctoTransformer, heads: Heads, frames: Frames, rows: NDArray, language: Tensor, args: argparse.Namespace
) -> tuple[OctoTransformer, Heads]:
    """Train; returns model and heads with exponentially averaged parameters."""
    average = copy.deepcopy((model, heads))
    averaged_parameters = [*average[0].parameters(), *average[1].parameters()]
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.01)
    steps = args.samples // args.batch
    rng, start = np.random.default_rng(args.seed), time.perf_counter()
    objective = torch.compile(loss) if args.compile else loss
    for step in range(steps):
        warm, progress = min(1.0, (step + 1) / 200), step / steps
        for group in optimiser.param_groups:
            group["lr"] = args.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        terms = objective(model, heads, load_batch(frames, np.sort(rng.choice(rows, args.batch))), language)
        optimiser.zero_grad(set_to_none=True)
        sum(terms.values()).backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(averaged_parameters, parameters, 1 - decay)
        if step % 100 == 0 or step == steps - 1:
            named = " ".join(f"{name} {float(value):.4f}" for name, value in terms.items())
            print(f"{step}/{steps} {time.perf_counter() - start:.0f} s {named}", flush=True)
    return average


def save(model: OctoTransformer, folder: Path) -> None:
    """Write weights and configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "weights.tmp"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
    temporary.chmod(0o644)
    temporary.replace(folder / WEIGHTS_FILE)
    write_config(folder, octo_nano(), precision="float32")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path.home() / ".cache" / "conrft" / "octo_nano_frames"
    parser.add_argument("--cache", type=Path, default=cache, help="folder of the frames (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=48_000)
    parser.add_argument("--shards", type=int, default=2, help="generating processes")
    parser.add_argument("--samples", type=int, default=250_000, help="training samples drawn in all")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    compiled = "torch.compile: twice as fast, needs a C++ compiler"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help=compiled)
    parser.add_argument("--init", type=Path, help="weights to start from instead of random ones")
    parser.add_argument("--out", type=Path, default=models_folder() / "octo-nano")
    return parser.parse_args()


def split(frames: Frames) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows held out, by whole rollouts."""
    episode = frames.labels[:, LABELS["episode"]][:, 0]
    shuffled = np.random.default_rng(2).permutation(np.unique(episode))
    held_out = np.isin(episode, shuffled[: max(1, int(HELD_OUT * len(shuffled)))])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def main() -> None:
    """Generate, train, save, measure."""
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    start = time.perf_counter()
    task = pick_banana.default_config()
    octo_nano_frames.generate(args.cache, task, seed=args.seed, frames=args.frames, shards=args.shards)
    generated_s = time.perf_counter() - start
    frames = octo_nano_frames.load(args.cache, args.shards)
    rows, test = split(frames)
    language = torch.from_numpy(load_instruction(args.out / INSTRUCTIONS_FILE, task.name).tokens)[None]
    config = small_image_config(octo_nano())
    model, heads = OctoTransformer(config), Heads(config)
    random = ridge_probe(model, frames, rows, test, language)
    if args.init:
        model.load_state_dict(load_file(args.init))
    model.stems.to(memory_format=torch.channels_last)
    average, averaged_heads = train(model, heads, frames, rows, language, args)
    save(average, args.out)
    report = {
        "arguments": {name: str(value) for name, value in vars(args).items()},
        "generated_s": generated_s,
        "wall_s": time.perf_counter() - start,
        "random_weights": random,
        "trained_weights": ridge_probe(average, frames, rows, test, language),
        "held_out": evaluate(average, averaged_heads, frames, test, language),
    }
    (args.cache / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
