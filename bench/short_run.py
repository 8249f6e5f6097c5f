"""A run of the online stage that is made in seconds: noise as demonstrations, short episodes, few updates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml
from ament_index_python.packages import get_package_share_directory

from conrft_data.bags import write_episode
from conrft_data.config import TaskConfig, load_config
from conrft_data.types import ActionSource, Command, Episode, Mode, Observation, Outcome
from conrft_learner.offline import train_offline
from conrft_reward.classifier import ClassifierConfig, SuccessClassifier, camera_sizes

STEPS = 12  # of an episode
PRESET = {
    "name": "short",
    "head_hidden": [32, 32],
    "critic_hidden": 32,
    "batch_size": 16,
    "online_batch_size": 16,
    "offline_bc_steps": 20,
    "offline_critic_steps": 5,
    "offline_steps": 0,
    "training_starts": 1,
    "updates_per_tick": 1.0,
    "replay_capacity": 20000,
    "checkpoint_every": 5,
    "keep_checkpoints": 2,
    "log_every": 5,
}


def make_run(folder: Path, *, false_successes: bool = False) -> dict[str, str]:
    """Makes demonstrations, classifier and the offline stage of a short run; returns the launch arguments.

    ``false_successes``: the classifier calls every episode a success after a few ticks, and it is none.
    """
    share = Path(get_package_share_directory("conrft_bringup"))
    task_file, preset_file = folder / "task.yaml", folder / "preset.yaml"
    content = yaml.safe_load((share / "config/tasks/pick_banana.yaml").read_text())
    threshold = 1e-6 if false_successes else 0.999
    content |= {"max_steps": STEPS, "reward": content["reward"] | {"threshold": threshold}}
    task_file.write_text(yaml.safe_dump(content))
    preset_file.write_text(yaml.safe_dump(PRESET))
    task = load_config(TaskConfig, task_file)
    for number in (1, 2):
        write_episode(folder / "demos", demonstration(task, number))
    torch.manual_seed(0)
    classifier = folder / "reward" / "classifier.safetensors"
    # It has learned nothing. Where it says nothing either, every episode ends at the step limit.
    config = ClassifierConfig(task=task.name, cameras=camera_sizes(task), threshold=threshold)
    SuccessClassifier(config).save(classifier)
    train_offline(
        demos=folder / "demos",
        out=folder / "offline",
        task_file=task_file,
        preset_file=preset_file,
        seed=0,
        backbone="octo-nano",
        resnet_weights=None,
        device="cpu",
        tensorboard=False,
    )
    files = {"task_file": task_file, "preset_file": preset_file, "run_dir": folder, "checkpoint": folder / "offline"}
    return {name: str(path) for name, path in files.items()}


def demonstration(task: TaskConfig, number: int) -> Episode:
    """A demonstration in which the arm sinks and the images are noise."""
    rng = np.random.default_rng(number)
    home = np.array([*task.reset.position, 1.0, 0.0, 0.0, 0.0])

    def observation(step: int) -> Observation:
        return Observation(
            stamp_ns=(step + 1) * 100_000_000,
            episode=number,
            step=step,
            images={
                name: rng.integers(0, 255, (camera.height, camera.width, 3), np.uint8)
                for name, camera in task.cameras.items()
            },
            tcp_pose=home - np.array([0, 0, 0.005 * step, 0, 0, 0, 0]),
            reset_pose=home,
            tcp_twist=np.zeros(6),
            tcp_wrench=np.zeros(6),
            gripper_opening=1.0,
        )

    action = np.array([0, 0, 0.2, 0, 0, 0, 1], np.float32)
    return Episode(
        episode_id=f"noise-demonstration-{number:06d}",
        task=task.name,
        instruction=task.instruction,
        mode=Mode.DEMONSTRATION,
        outcome=Outcome.SUCCESS,
        final_step=STEPS,
        observations=[observation(step) for step in range(STEPS + 1)],
        commands=[Command(action=action, source=ActionSource.OPERATOR) for _ in range(STEPS + 1)],
    )
