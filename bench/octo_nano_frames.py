"""Frames for pre-training octo-nano: noisy scripted rollouts of every task, task-like and widely randomised.

A rollout follows the task's plan with correlated noise, and now and then strays in a random direction, so that the
frames also show what a clumsy policy sees. Each frame carries what the scene's privileged state says about it. One pair
of files a task, so that a task that is new is generated alone.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from conrft_data import rotations
from conrft_data.config import TaskConfig
from conrft_data.reference_pose import ReferencePose
from conrft_sim.plan import Plan, ideal_action
from conrft_sim.scene_snapshot import SceneSnapshot
from conrft_sim.simulation import Simulation
from conrft_sim.task import task_class

SIDE_SIZE, WRIST_SIZE = 128, 64  # what octo-nano's stems see, pixels
PAIR_EVERY = 4  # ticks
ROLLOUT_TICKS = 90
TASK_SHARE = 0.5  # of rollouts in the task's own narrow layout and looks
SLOTS = 3  # objects of a task whose places are learned: what the plan aims at first
PHASES = 8  # at most, of a plan
NEAR = 0.12  # m: of what the hand is so near to nothing is moved any more
SHUFFLED = 0.4  # at most this share of a rollout's pairs begins with a new layout; more, and no hand ever arrives
_ROBOT_QPOS, _ROBOT_DOF = 9, 9  # arm and fingers come first
LABELS = {
    "objects": slice(0, 9),  # SLOTS places relative to the tool centre point, in its frame, m; 0 where there is none
    "present": slice(9, 12),  # 1: the slot holds an object
    "turn": slice(12, 14),  # sine and cosine of twice the first object's yaw seen from the hand: half turns look alike
    "height": slice(14, 16),  # of the first object and of the tool centre point above the table, m
    "opening": slice(16, 17),  # of the gripper, 0..1
    "to_go": slice(17, 18),  # ticks to success by the plan's own estimate, over 50
    "action": slice(18, 25),  # the plan's action for this frame
    "phase": slice(25, 26),  # index into the plan's phases
    "task": slice(26, 27),  # index into the tasks that were loaded together
    "narrow": slice(27, 28),  # 1: the task's own layout
    "episode": slice(28, 29),  # of the task
    "first": slice(29, 30),  # 1: has no frame before it
}
LABEL_WIDTH = 30


@dataclass(frozen=True)
class Frames:
    """Frames of all tasks: side (N, 128, 128, 3), wrist (N, 64, 64, 3) uint8 and labels (N, LABEL_WIDTH) float32."""

    side: list[NDArray[np.uint8]]
    wrist: list[NDArray[np.uint8]]
    labels: NDArray[np.float32]
    starts: NDArray[np.int64]

    def images(self, index: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Side and wrist images of the frames at ``index`` (B,)."""
        file = np.searchsorted(self.starts, index, side="right") - 1
        rows = index - self.starts[file]
        side = np.stack([self.side[f][r] for f, r in zip(file, rows, strict=True)])
        wrist = np.stack([self.wrist[f][r] for f, r in zip(file, rows, strict=True)])
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


def slots(plan: Plan, scene: SceneSnapshot) -> list[str]:
    """Names of the objects whose places are learned, what the plan aims at first."""
    return [*plan.aimed, *sorted(set(scene.objects) - set(plan.aimed))][:SLOTS]


def label(scene: SceneSnapshot, plan: Plan, *, narrow: bool, episode: int, first: bool) -> NDArray[np.float32]:
    """Everything that LABELS lists for one frame, (LABEL_WIDTH,); the task's index is filled in by ``load``."""
    tcp, names = scene.tcp_pose, slots(plan, scene)
    to_hand = rotations.inverse(tcp[3:])
    places, present = np.zeros((SLOTS, 3)), np.zeros(SLOTS)
    for slot, name in enumerate(names):
        places[slot], present[slot] = rotations.rotate(to_hand, scene.objects[name][:3] - tcp[:3]), 1.0
    main = scene.objects[names[0]]
    along = rotations.rotate(to_hand, rotations.rotate(main[3:], [1.0, 0.0, 0.0]))
    yaw = np.arctan2(along[1], along[0])
    step = plan.step(scene)
    values = [
        places.ravel(),
        present,
        [np.sin(2 * yaw), np.cos(2 * yaw), main[2], tcp[2], scene.gripper_opening, step.ticks_to_go / 50.0],
        ideal_action(plan, scene),
        [plan.phases.index(step.phase), 0.0, narrow, episode, first],
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


def shuffle(sim: Simulation, plan: Plan, rng: np.random.Generator, share: float) -> None:
    """Draw the layout (and in wide scenes the looks) anew in the middle of a rollout, as far as physics allows.

    Frames are then nearly independent. On the way to the first object everything is drawn anew; while the hand holds
    something, only what stands on the table by itself; what the hand is near to stays. The plan acts from any state, so
    whatever comes out is labelled rightly.
    """
    data, scene = sim.data, sim.scene()
    before = data.qpos.copy(), data.qvel.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()
    depth = _penetration(data)
    away = {name: float(np.linalg.norm(pose[:3] - scene.tcp_pose[:3])) for name, pose in scene.objects.items()}
    main, others = away[plan.aimed[0]], [d for name, d in away.items() if name not in plan.aimed]
    reaching = plan.step(scene).phase == plan.phases[0] and main > NEAR
    carrying = main < NEAR / 2 and all(distance > NEAR for distance in others)
    sim.place_objects(rng)
    if not reaching:
        data.qpos[_ROBOT_QPOS:], data.qvel[_ROBOT_DOF:] = before[0][_ROBOT_QPOS:], before[1][_ROBOT_DOF:]
    if not (reaching or carrying) or rng.random() > share:
        _put_back(data, before)
    mujoco.mj_forward(sim.model, data)
    if _penetration(data) > depth + 0.001:
        _put_back(data, before)
        mujoco.mj_forward(sim.model, data)


def _put_back(data: mujoco.MjData, state: tuple[NDArray, NDArray, NDArray, NDArray]) -> None:
    data.qpos[:], data.qvel[:], data.mocap_pos[:], data.mocap_quat[:] = state


def _penetration(data: mujoco.MjData) -> float:
    """How deep the deepest contact is, m, at least the depth of things at rest."""
    return max(0.001, float(-data.contact.dist[: data.ncon].min(initial=0.0)))


def rollout(sim: Simulation, seed: int, episode: int) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
    """Pairs of consecutive frames (side, wrist, label) of one rollout, the layout shuffled before each pair."""
    rng = np.random.default_rng([seed, episode, 7])
    narrow = bool(rng.random() < TASK_SHARE)
    sim.randomisation = "task" if narrow else "wide"
    sim.reset(seed, episode)
    config = sim.task_config
    plan, hand = task_class(config.name).plan(config), ClumsyHand(rng)
    shuffled = rng.uniform(0.0, SHUFFLED)
    # Turns with an object that lies in any direction, even where the commander will not follow.
    plan.servo = replace(plan.servo, max_yaw=np.inf)
    reference = ReferencePose(config.motion_limits())
    reference.start(sim.tcp_pose)
    done = 0
    for tick in range(ROLLOUT_TICKS):
        if tick and tick % PAIR_EVERY == 0:
            shuffle(sim, plan, rng, shuffled)
        scene = sim.scene()
        if tick % PAIR_EVERY < 2:
            labels = label(scene, plan, narrow=narrow, episode=episode, first=tick % PAIR_EVERY == 0)
            yield reduce(sim.render("side"), SIDE_SIZE), reduce(sim.render("wrist"), WRIST_SIZE), labels
        done += scene.success
        if done > 4:
            return
        action = hand.act(ideal_action(plan, scene))
        gripper = None
        if config.action_dim == 7:
            gripper = 0.0 if action[6] <= -0.5 else 1.0 if action[6] >= 0.5 else None
        sim.set_target(reference.apply(action, sim.tcp_pose), gripper)
        sim.advance()


def generate_task(folder: Path, task: TaskConfig, seed: int, frames: int) -> None:
    """Write the ``frames`` frames of one task."""
    folder.mkdir(parents=True, exist_ok=True)
    side = _create(folder / f"side_{task.name}.npy", (frames, SIDE_SIZE, SIDE_SIZE, 3), np.uint8)
    wrist = _create(folder / f"wrist_{task.name}.npy", (frames, WRIST_SIZE, WRIST_SIZE, 3), np.uint8)
    labels = _create(folder / f"labels_{task.name}.npy", (frames, LABEL_WIDTH), np.float32)
    count, episode = 0, 0
    with Simulation(task, seed) as sim:
        while count < frames:
            for images_and_label in rollout(sim, seed, episode):
                if count < frames:
                    side[count], wrist[count], labels[count] = images_and_label
                    count += 1
            episode += 1
    for array in (side, wrist, labels):
        array.flush()
    _done(folder, task.name, seed, frames).touch()


def generate(folder: Path, tasks: Sequence[str], *, seed: int, frames: int, workers: int) -> None:
    """Write the frames of every task, some tasks side by side; what is complete already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [task_class(task).default_config() for task in tasks if not _done(folder, task, seed, frames).exists()]
    for config in missing:
        for stale in folder.glob(f"*-{config.name}.done"):
            stale.unlink()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.starmap(generate_task, [(folder, config, seed, frames) for config in missing], chunksize=1)


def load(folder: Path, tasks: Sequence[str]) -> Frames:
    """The frames of these tasks, memory-mapped."""
    labels = [np.load(folder / f"labels_{task}.npy") for task in tasks]
    for index, part in enumerate(labels):
        part[:, LABELS["task"]] = index
    starts = np.concatenate([[0], np.cumsum([len(part) for part in labels])[:-1]])
    return Frames(
        side=[np.load(folder / f"side_{task}.npy", mmap_mode="r") for task in tasks],
        wrist=[np.load(folder / f"wrist_{task}.npy", mmap_mode="r") for task in tasks],
        labels=np.concatenate(labels),
        starts=starts.astype(np.int64),
    )


def _done(folder: Path, task: str, seed: int, frames: int) -> Path:
    return folder / f"{frames}-{seed}-{task}.done"


def _create(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
