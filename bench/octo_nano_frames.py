"""Frames for pre-training octo-nano: noisy scripted rollouts in task-like and in widely randomised scenes.

A rollout follows the scripted plan with correlated noise, and now and then strays in a random direction, so that the
frames also show what a clumsy policy sees. Each frame carries what the scene's privileged state says about it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_data import rotations
from conrft_data.config import TaskConfig
from conrft_data.reference_pose import ReferencePose
from conrft_sim import plate
from conrft_sim.plan import Plan, Servo, ideal_action
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.simulation import Simulation
from conrft_sim.tasks.pick_banana import PickBanana

PHASES = ("reach", "carry", "release", "retreat", "done")
SIDE_SIZE, WRIST_SIZE = 128, 64  # what octo-nano's stems see, pixels
PAIR_EVERY = 4  # ticks
TASK_SHARE = 0.5  # of rollouts in the task's own narrow layout and looks
LABELS = {
    "banana": slice(0, 3),  # relative to the tool centre point, in its frame, m
    "plate": slice(3, 6),  # the same
    "turn": slice(6, 8),  # sine and cosine of twice the banana's yaw seen from the hand: a half turn looks alike
    "height": slice(8, 10),  # of the banana and of the tool centre point above the table, m
    "opening": slice(10, 11),  # of the gripper, 0..1
    "to_go": slice(11, 12),  # ticks to success by the plan's own estimate, over 50
    "action": slice(12, 19),  # the plan's action for this frame
    "phase": slice(19, 20),  # index into PHASES
    "narrow": slice(20, 21),  # 1: the task's own layout
    "episode": slice(21, 22),
    "first": slice(22, 23),  # 1: has no frame before it
}
LABEL_WIDTH = 23


@dataclass(frozen=True)
class Frames:
    """Frames of all shards: side (N, 128, 128, 3), wrist (N, 64, 64, 3) uint8 and labels (N, LABEL_WIDTH) float32."""

    side: list[NDArray[np.uint8]]
    wrist: list[NDArray[np.uint8]]
    labels: NDArray[np.float32]
    starts: NDArray[np.int64]

    def images(self, index: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Side and wrist images of the frames at ``index`` (B,)."""
        shard = np.searchsorted(self.starts, index, side="right") - 1
        rows = index - self.starts[shard]
        side = np.stack([self.side[s][r] for s, r in zip(shard, rows, strict=True)])
        wrist = np.stack([self.wrist[s][r] for s, r in zip(shard, rows, strict=True)])
        return side, wrist

    def predecessors(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """The frame before each; the first frame of a pair is its own predecessor."""
        first = self.labels[index, LABELS["first"]][:, 0] > 0
        return np.where(first, index, index - 1)


def reduce(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Area average of a square image (H, H, 3) to (size, size, 3), rounded."""
    factor = image.shape[0] // size
    total = np.full((size, size, 3), factor * factor // 2, dtype=np.uint16)
    for row in range(factor):
        for column in range(factor):
            total += image[row::factor, column::factor]
    return (total // (factor * factor)).astype(np.uint8)


def label(scene: SceneSnapshot, plan: Plan, *, narrow: bool, episode: int, first: bool) -> NDArray[np.float32]:
    """Everything that LABELS lists for one frame, (LABEL_WIDTH,)."""
    tcp, banana, place = scene.tcp_pose, scene.objects["banana"], scene.objects["plate"]
    to_hand = rotations.inverse(tcp[3:])
    along = rotations.rotate(to_hand, rotations.rotate(banana[3:], [1.0, 0.0, 0.0]))
    yaw = np.arctan2(along[1], along[0])
    step = plan.step(scene)
    values = [
        rotations.rotate(to_hand, banana[:3] - tcp[:3]),
        rotations.rotate(to_hand, place[:3] - tcp[:3]),
        [np.sin(2 * yaw), np.cos(2 * yaw), banana[2], tcp[2], scene.gripper_opening, step.ticks_to_go / 50.0],
        ideal_action(plan, scene),
        [PHASES.index(step.phase), narrow, episode, first],
    ]
    return np.concatenate(values).astype(np.float32)


class ClumsyHand:
    """Turns the plan's action into one with correlated noise and, at times, a stray in a random direction."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        clumsy = rng.random() < 0.6
        self._noise = rng.uniform(0.05, 0.5) if clumsy else rng.uniform(0.05, 0.2)
        self._speed = rng.uniform(0.5, 1.0)
        self._stray_probability = rng.uniform(0.0, 0.05) if clumsy else 0.0
        self._error = np.zeros(6)
        self._stray_ticks = int(rng.integers(3, 16)) if clumsy else 0
        self._stray = self._direction()

    def _direction(self) -> NDArray[np.float64]:
        linear = self._rng.normal(size=3)
        turn = np.array([*self._rng.normal(0, 0.1, 2), self._rng.normal(0, 0.6)])
        grip = self._rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.7, 0.15])
        return np.array([*(linear / np.linalg.norm(linear)), *np.clip(turn, -1, 1), grip])

    def act(self, wish: NDArray[np.float32]) -> NDArray[np.float64]:
        """The action (7,) that is carried out when the plan wishes ``wish`` (7,)."""
        self._error = 0.75 * self._error + 0.66 * self._noise * self._rng.normal(size=6) * [1, 1, 1, 0.4, 0.4, 0.4]
        if self._stray_ticks == 0 and self._rng.random() < self._stray_probability:
            self._stray_ticks, self._stray = int(self._rng.integers(3, 13)), self._direction()
        action = wish.astype(np.float64)
        action[:6] *= self._speed
        if self._stray_ticks:
            self._stray_ticks -= 1
            action = np.array([*self._stray[:6], self._stray[6] or action[6]])
        action[:6] = np.clip(action[:6] + self._error, -1.0, 1.0)
        return action


def shuffle(sim: Simulation, rng: np.random.Generator) -> None:
    """Draw the layout (and in wide scenes the looks) anew in the middle of a rollout, as far as physics allows.

    Frames are then nearly independent. What the hand is near to, or would be, stays where it is.
    """
    data, mocap = sim.data, int(sim.model.body("plate").mocapid[0])
    joint = data.joint("banana")
    before = joint.qpos.copy(), joint.qvel.copy(), data.mocap_pos[mocap].copy()
    tcp = sim.tcp_pose[:3]
    sim.place_objects(rng)
    resting = before[0][2] < 0.03 and np.linalg.norm(before[0][:3] - tcp) > 0.12
    room = np.linalg.norm(joint.qpos[:2] - tcp[:2]) > 0.12 or tcp[2] > 0.12
    if not (resting and room and rng.random() < 0.6):
        joint.qpos[:], joint.qvel[:] = before[0], before[1]
    place = data.mocap_pos[mocap]
    over_plate = joint.qpos[2] < 0.05 and np.linalg.norm(joint.qpos[:2] - place[:2]) < plate.RADIUS + 0.09
    hand_over_plate = tcp[2] < 0.08 and np.linalg.norm(tcp[:2] - place[:2]) < plate.RADIUS + 0.10
    if over_plate or hand_over_plate:
        joint.qpos[:], joint.qvel[:], data.mocap_pos[mocap] = before
    mujoco.mj_forward(sim.model, data)


def rollout(sim: Simulation, seed: int, episode: int, ticks: int) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
    """Pairs of consecutive frames (side, wrist, label) of one rollout, the layout shuffled before each pair."""
    rng = np.random.default_rng([seed, episode, 7])
    narrow = bool(rng.random() < TASK_SHARE)
    sim.randomisation = "task" if narrow else "wide"
    sim.reset(seed, episode)
    plan, hand = PickBanana.plan(sim.task_config), ClumsyHand(rng)
    plan.servo = Servo()  # turns with a banana that lies in any direction, even where the commander will not follow
    reference = ReferencePose(sim.task_config.motion_limits())
    reference.start(sim.tcp_pose)
    done = 0
    for tick in range(ticks):
        if tick and tick % PAIR_EVERY == 0:
            shuffle(sim, rng)
        scene = sim.scene()
        if tick % PAIR_EVERY < 2:
            labels = label(scene, plan, narrow=narrow, episode=episode, first=tick % PAIR_EVERY == 0)
            yield reduce(sim.render("side"), SIDE_SIZE), reduce(sim.render("wrist"), WRIST_SIZE), labels
        done += scene.success
        if done > 4:
            return
        action = hand.act(ideal_action(plan, scene))
        gripper = 0.0 if action[6] <= -0.5 else 1.0 if action[6] >= 0.5 else None
        sim.set_target(reference.apply(action, sim.tcp_pose), gripper)
        sim.advance()


def generate_shard(folder: Path, task: TaskConfig, seed: int, shard: int, frames: int) -> None:
    """Write one shard of ``frames`` frames; episodes are numbered so that no two shards share one."""
    folder.mkdir(parents=True, exist_ok=True)
    side = _create(folder / f"side_{shard}.npy", (frames, SIDE_SIZE, SIDE_SIZE, 3), np.uint8)
    wrist = _create(folder / f"wrist_{shard}.npy", (frames, WRIST_SIZE, WRIST_SIZE, 3), np.uint8)
    labels = _create(folder / f"labels_{shard}.npy", (frames, LABEL_WIDTH), np.float32)
    count, episode = 0, shard * 1_000_000
    with Simulation(task, seed) as sim:
        while count < frames:
            for images_and_label in rollout(sim, seed, episode, ticks=90):
                if count < frames:
                    side[count], wrist[count], labels[count] = images_and_label
                    count += 1
            episode += 1
    for array in (side, wrist, labels):
        array.flush()
    (folder / f"shard_{shard}.done").touch()


def generate(folder: Path, task: TaskConfig, *, seed: int, frames: int, shards: int) -> None:
    """Write all shards in parallel processes; shards that are complete already are kept."""
    context = multiprocessing.get_context("spawn")
    missing = [shard for shard in range(shards) if not (folder / f"shard_{shard}.done").exists()]
    workers = [context.Process(target=generate_shard, args=(folder, task, seed, s, frames // shards)) for s in missing]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"a generating process ended with exit code {worker.exitcode}")


def load(folder: Path, shards: int) -> Frames:
    """The frames of a folder, memory-mapped."""
    labels = [np.load(folder / f"labels_{shard}.npy") for shard in range(shards)]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in labels])[:-1]])
    return Frames(
        side=[np.load(folder / f"side_{shard}.npy", mmap_mode="r") for shard in range(shards)],
        wrist=[np.load(folder / f"wrist_{shard}.npy", mmap_mode="r") for shard in range(shards)],
        labels=np.concatenate(labels),
        starts=starts.astype(np.int64),
    )


def _create(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
