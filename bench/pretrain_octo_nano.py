"""Pre-train octo-nano on every task: behaviour cloning through the whole network plus regression of where things are.

The network learns to predict, from two frames and the instruction, the action of the task's plan (through a small MLP
that all tasks share) and what LABELS of octo_nano_frames.py lists (by linear maps of the embedding, one for each task,
so that a linear map finds it again). All these heads are thrown away; the transformer is what is kept.

    python bench/pretrain_octo_nano.py --frames 4000 --samples 128000 --seed 0 --out FOLDER

writes FOLDER/{config.json, weights.safetensors, instructions.safetensors} and a JSON report beside the frames.
Run it from the repository with the workspace's packages importable. Same seed and same number of workers: same frames
and same batches.
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
import torch.distributed as dist
import torch.multiprocessing
from numpy.typing import NDArray
from octo_nano_frames import LABELS, PHASES, SLOTS, Frames
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from conrft_policy import text_encoder
from conrft_policy.backbone import models_folder
from conrft_policy.instructions import InstructionError, load_instruction, store_instruction
from conrft_policy.octo.attention import structural_mask
from conrft_policy.octo.backbone import INSTRUCTIONS_FILE, WEIGHTS_FILE, write_config
from conrft_policy.octo.config import OctoConfig, octo_nano
from conrft_policy.octo.model import OctoTransformer, logit_bias
from conrft_sim.task import task_class, task_names

LENGTH_UNIT = 0.05  # m; positions are learned in this unit, so that 5 mm is a tenth
REGRESSED = ("objects", "turn", "height", "opening", "to_go")
UNITS = {"objects": LENGTH_UNIT, "height": LENGTH_UNIT}
HELD_OUT = 0.06  # share of rollouts
EMA_DECAY = 0.75  # at each meeting of the workers: about the last 60 steps
SYNC_STEPS = 16
RIDGE = 1e-6  # of the probe, for each sample


class Heads(nn.Module):
    """What the embedding (and, more directly, the image tokens) must tell; thrown away after training."""

    def __init__(self, config: OctoConfig, tasks: int) -> None:
        super().__init__()
        dim = config.token_dim
        self.width = sum(LABELS[name].stop - LABELS[name].start for name in REGRESSED)
        self.scene = nn.Linear(dim, tasks * self.width)
        self.phase = nn.Linear(dim, tasks * PHASES)
        self.action = nn.Sequential(nn.Linear(dim, 256), nn.ReLU(), nn.Linear(256, 7))
        self.squeeze = nn.Linear(dim, 16)
        self.scene_from_tokens = nn.Linear(config.image_tokens * 16, tasks * self.width)


def of_task(values: Tensor, task: Tensor, width: int) -> Tensor:
    """Of the outputs (B, tasks * width) of all tasks' linear maps, those of each row's task (B, width)."""
    chosen: Tensor = values.unflatten(1, (-1, width))[torch.arange(len(task)), task]
    return chosen


def task_of(labels: Tensor) -> Tensor:
    """Index of each row's task (B,)."""
    return labels[:, LABELS["task"]][:, 0].long()


def targets(labels: Tensor) -> Tensor:
    """Regression targets (B, W) in the units of UNITS."""
    return torch.cat([labels[:, LABELS[name]] / UNITS.get(name, 1.0) for name in REGRESSED], dim=1)


def known(labels: Tensor) -> Tensor:
    """Which targets (B, W) there are: a task may have fewer objects than slots."""
    present = labels[:, LABELS["present"]].repeat_interleave(3, dim=1)
    return F.pad(present, (0, targets(labels[:1]).shape[1] - 3 * SLOTS), value=1.0)


def scene_loss(predicted: Tensor, labels: Tensor) -> Tensor:
    """Mean error of the targets that there are."""
    weight = known(labels)
    return (F.smooth_l1_loss(predicted, targets(labels), beta=0.1, reduction="none") * weight).sum() / weight.sum()


def embed_training(model: OctoTransformer, images: dict[str, Tensor], language: Tensor) -> tuple[Tensor, Tensor]:
    """Embedding (B, dim) as ``model.embed`` gives it, and the image tokens of the newest frame.

    language: (B, tokens, width), the instruction of each row.
    images: (B, 2, H, W, 3), or (B, 1, H, W, 3) for the newest frame alone: the older one then counts as padding, which
    costs half. The last layer is computed for the last readout only.
    """
    prefix, steps = model.language_block(language), timestep_tokens(model, images)
    count = steps.shape[1]
    mask = torch.from_numpy(structural_mask(model.config, count))[None]
    bias = logit_bias(mask, steps.dtype)[:, None]
    x = torch.cat([prefix, steps.flatten(1, 2)], dim=1)
    for block in model.blocks[:-1]:
        x = block(x, bias)
    last = model.blocks[-1]
    query, key, value = last.attention.split(last.attention_norm(x))
    x = x[:, -1:] + last.attention.attend(query[:, :, -1:], key, value, bias[:, :, -1:])
    x = x + last.mlp(last.mlp_norm(x))
    return model.norm(x)[:, 0], steps[:, -1, : model.config.image_tokens]


def timestep_tokens(model: OctoTransformer, images: dict[str, Tensor]) -> Tensor:
    """Tokens (B, T, step_tokens, dim) of the newest T frames, at the positions that they have in a full window."""
    parts = []
    for name, frames in images.items():
        batch, count = frames.shape[:2]
        block = model.image_block(name, frames.flatten(0, 1)).unflatten(0, (batch, count))
        parts.append(block + model.image_positions[name][:, -count:])
    return torch.cat([*parts, model.readout_position[:, -count:].expand(batch, -1, -1, -1)], dim=2)


def loss(
    model: OctoTransformer, heads: Heads, batch: tuple[dict[str, Tensor], Tensor], language: Tensor
) -> dict[str, Tensor]:
    """The terms of the objective; language: (tasks, tokens, width)."""
    images, labels = batch
    task = task_of(labels)
    embedding, tokens = embed_training(model, images, language[task])
    action = labels[:, LABELS["action"]]
    predicted, from_tokens = heads.action(embedding), heads.scene_from_tokens(heads.squeeze(tokens).flatten(1))
    phase = of_task(heads.phase(embedding), task, PHASES)
    return {
        "scene": scene_loss(of_task(heads.scene(embedding), task, heads.width), labels),
        "tokens": scene_loss(of_task(from_tokens, task, heads.width), labels),
        "action": F.smooth_l1_loss(predicted[:, :6], action[:, :6], beta=0.1),
        "gripper": 0.5 * F.binary_cross_entropy_with_logits(predicted[:, 6], (action[:, 6] > 0).float()),
        "phase": 0.2 * F.cross_entropy(phase, labels[:, LABELS["phase"]][:, 0].long()),
    }


def load_batch(frames: Frames, index: NDArray[np.int64], *, count: int = 2) -> tuple[dict[str, Tensor], Tensor]:
    """``count`` (1 or 2) stacked frames (B, count, H, W, 3) of both cameras, and the newest frame's labels."""
    window = np.stack([frames.predecessors(index), index], axis=1)[:, -count:]
    side, wrist = frames.images(window.ravel())
    images = {"primary": torch.from_numpy(side), "wrist": torch.from_numpy(wrist)}
    images = {name: value.unflatten(0, (len(index), count)) for name, value in images.items()}
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
    parts = []
    for rows in np.array_split(index, max(1, len(index) // 64)):
        images, labels = load_batch(frames, rows)
        parts.append(embed_training(model, images, language[task_of(labels)])[0])
    return torch.cat(parts)


def ridge_probe(
    model: OctoTransformer, frames: Frames, train: NDArray, test: NDArray, language: Tensor, task: int
) -> dict[str, float]:
    """Median and mean error in mm of the place of a task's first object, relative to the hand, in its own layout.

    By ridge regression from the frozen embedding, fitted to this task alone.
    """
    chosen = (frames.labels[:, LABELS["narrow"]][:, 0] > 0) & (frames.labels[:, LABELS["task"]][:, 0] == task)
    fit, score = (rows[chosen[rows]][:limit] for rows, limit in ((train, 2000), (test, 500)))
    x, z = (F.pad(embeddings(model, frames, rows, language).double(), (0, 1), value=1.0) for rows in (fit, score))
    y, truth = (torch.from_numpy(frames.labels[rows, LABELS["objects"]][:, :3]).double() for rows in (fit, score))
    weights = torch.linalg.solve(x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1]).double(), x.T @ y)
    error_mm = 1e3 * (z @ weights - truth).norm(dim=1)
    return {"median_mm": round(float(error_mm.median()), 2), "mean_mm": round(float(error_mm.mean()), 2)}


@torch.no_grad()
def evaluate(
    model: OctoTransformer, heads: Heads, frames: Frames, test: NDArray, language: Tensor, task: int
) -> dict[str, float]:
    """Held-out errors of one task: place of its first object with its own map, cloned action, gripper and phase."""
    rows = test[frames.labels[test, LABELS["task"]][:, 0] == task][:1000]
    labels = torch.from_numpy(frames.labels[rows])
    embedding, wanted = embeddings(model, frames, rows, language), labels[:, LABELS["action"]]
    scene = of_task(heads.scene(embedding), task_of(labels), heads.width)[:, :3]
    error_mm = 1e3 * LENGTH_UNIT * (scene - targets(labels)[:, :3]).norm(dim=1)
    near = labels[:, LABELS["objects"]][:, :3].norm(dim=1) < 0.08
    action, phase = heads.action(embedding), of_task(heads.phase(embedding), task_of(labels), PHASES).argmax(1)
    figures = {
        "object_median_mm": error_mm.median(),
        "object_near_median_mm": error_mm[near].median() if near.any() else math.nan,
        "action_mean_abs": (action[:, :6] - wanted[:, :6]).abs().mean(),
        "action_mean_abs_of_predicting_the_mean": (wanted[:, :6] - wanted[:, :6].mean(0)).abs().mean(),
        "gripper_accuracy": ((action[:, 6] > 0) == (wanted[:, 6] > 0)).float().mean(),
        "phase_accuracy": (phase == labels[:, LABELS["phase"]][:, 0].long()).float().mean(),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def train(
    model: OctoTransformer, heads: Heads, frames: Frames, rows: NDArray, language: Tensor, args: argparse.Namespace
) -> tuple[OctoTransformer, Heads]:
    """Train; returns model and heads with exponentially averaged parameters.

    Several workers train side by side on their own batches and meet every SYNC_STEPS to average their parameters, which
    keeps two busy cores busier than threads that wait for each other in every operation.
    """
    rank = dist.get_rank()
    average = copy.deepcopy((model, heads))
    averaged_parameters = [*average[0].parameters(), *average[1].parameters()]
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.01)
    steps = args.samples // args.batch // args.workers
    rng, start = np.random.default_rng([args.seed, rank]), time.perf_counter()
    objective = torch.compile(loss) if args.compile else loss
    for step in range(steps):
        warm, progress = min(1.0, (step + 1) / 100), step / steps
        for group in optimiser.param_groups:
            group["lr"] = args.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        count = 1 if progress < args.single_frame else 2
        batch = load_batch(frames, np.sort(rng.choice(rows, args.batch)), count=count)
        terms = objective(model, heads, batch, language)
        optimiser.zero_grad(set_to_none=True)
        sum(terms.values()).backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % SYNC_STEPS == SYNC_STEPS - 1:
            meet(parameters)
            decay = min(EMA_DECAY, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(averaged_parameters, parameters, 1 - decay)
        if rank == 0 and step % 50 == 0:
            named = " ".join(f"{name} {value.item():.4f}" for name, value in terms.items())
            print(f"{step}/{steps} {time.perf_counter() - start:.0f} s {named}", flush=True)
    return average


@torch.no_grad()
def meet(parameters: list[nn.Parameter]) -> None:
    """Replace the parameters by their mean over all workers."""
    flat = torch.cat([parameter.reshape(-1) for parameter in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view(parameter.shape))


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
    parser.add_argument("--tasks", nargs="+", default=task_names(), help="(default: all)")
    parser.add_argument("--cache", type=Path, default=cache, help="folder of the frames (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=4_000, help="of each task (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=128_000, help="drawn in all (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes, generating and training, one thread each")
    compiled = "torch.compile: twice as fast, needs a C++ compiler"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help=compiled)
    single = "share of training, at its start, with the older frame padded, which costs half (default: %(default)s)"
    parser.add_argument("--single-frame", type=float, default=0.6, help=single)
    parser.add_argument("--init", type=Path, help="weights to start from instead of random ones")
    parser.add_argument("--out", type=Path, default=models_folder() / "octo-nano")
    parser.add_argument("--only-frames", action="store_true", help="generate the frames and stop")
    return parser.parse_args()


def split(frames: Frames) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows held out, by whole rollouts, both in random order."""
    rng = np.random.default_rng(2)
    task, episode = frames.labels[:, LABELS["task"]][:, 0], frames.labels[:, LABELS["episode"]][:, 0]
    held_out = np.zeros(len(task), dtype=bool)
    for index in np.unique(task):
        shuffled = rng.permutation(np.unique(episode[task == index]))
        held_out |= (task == index) & np.isin(episode, shuffled[: max(1, int(HELD_OUT * len(shuffled)))])
    return rng.permutation(np.flatnonzero(~held_out)), rng.permutation(np.flatnonzero(held_out))


def prepare_instructions(folder: Path, tasks: list[str]) -> None:
    """Stores the tokens of each task's instruction beside the weights; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        text = task_class(task).default_config().instruction
        try:
            load_instruction(folder / INSTRUCTIONS_FILE, text)
        except InstructionError:
            tokens = text_encoder.encode(text)
            store_instruction(
                folder / INSTRUCTIONS_FILE, task=task, instruction=text, encoder=text_encoder.NAME, tokens=tokens
            )


def work(rank: int, args: argparse.Namespace, start: float, generated_s: float) -> None:
    """One training process; the first also measures and saves."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    dist.init_process_group("gloo", init_method=f"file://{args.cache}/rendezvous", rank=rank, world_size=args.workers)
    frames = octo_nano_frames.load(args.cache, args.tasks)
    rows, test = split(frames)
    tokens = [load_instruction(args.out / INSTRUCTIONS_FILE, task).tokens for task in args.tasks]
    language = torch.from_numpy(np.stack(tokens))
    config = small_image_config(octo_nano())
    model, heads = OctoTransformer(config), Heads(config, len(args.tasks))
    random = copy.deepcopy(model)
    if args.init:
        model.load_state_dict(load_file(args.init))
    model.stems.to(memory_format=torch.channels_last)
    average, averaged_heads = train(model, heads, frames, rows, language, args)
    if rank == 0:
        save(average, args.out)
        report = {
            "arguments": {name: str(value) for name, value in vars(args).items()},
            "generated_s": generated_s,
            "wall_s": time.perf_counter() - start,
            "tasks": {
                task: {
                    "random_weights": ridge_probe(random, frames, rows, test, language, index),
                    "trained_weights": ridge_probe(average, frames, rows, test, language, index),
                    "held_out": evaluate(average, averaged_heads, frames, test, language, index),
                }
                for index, task in enumerate(args.tasks)
            },
        }
        (args.cache / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        print(json.dumps(report, indent=2))
    dist.destroy_process_group()


def main() -> None:
    """Generate, train, save, measure."""
    args = arguments()
    start = time.perf_counter()
    octo_nano_frames.generate(args.cache, args.tasks, seed=args.seed, frames=args.frames, workers=args.workers)
    if args.only_frames:
        return
    prepare_instructions(args.out, args.tasks)
    (args.cache / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(work, (args, start, time.perf_counter() - start), nprocs=args.workers)


if __name__ == "__main__":
    main()
