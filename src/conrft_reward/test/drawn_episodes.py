"""Small drawn episodes: a yellow thing has to be on the green plate while the open hand is high."""

from __future__ import annotations

import numpy as np

from conrft_data.config import TaskConfig
from conrft_data.types import ActionSource, Command, Episode, Image, Mode, Observation, Outcome
from conrft_reward.training import TrainingSettings

QUICK = TrainingSettings(size=32, members=2, max_steps=100, batch=48)

TASK = TaskConfig.model_validate(
    {
        "name": "pick_banana",
        "instruction": "put the banana on the plate",
        "action_dim": 7,
        "max_steps": 100,
        "cameras": {"side": {"width": 64, "height": 64}, "wrist": {"width": 32, "height": 32}},
        "reset": {"position": [0.5, 0, 0.3], "euler_xyz": [3.14159, 0, 0], "kind": "script"},
        "workspace": {"low": [0.3, -0.3, 0], "high": [0.7, 0.3, 0.5]},
        "reward": {"threshold": 0.9, "consecutive": 2, "min_gripper_opening": 0.5, "min_tcp_height": 0.16},
    }
)


def picture(size: int, thing: float, hand: float, random: np.random.Generator) -> Image:
    """A table with a plate at the right, the thing at ``thing`` and the hand at ``hand``, both 0 left .. 1 right."""
    image = np.full((size, size, 3), 120, dtype=np.uint8)
    cell = size // 8

    def draw(position: float, row: int, width: int, colour: tuple[int, int, int]) -> None:
        column = round(position * (size - width * cell))
        image[row * cell : (row + width) * cell, column : column + width * cell] = colour

    draw(0.95, 5, 3, (40, 160, 70))
    draw(thing, 5, 2, (240, 210, 40))
    draw(hand, 1, 2, (240, 240, 240))
    return np.clip(image + random.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def observation(
    episode: int, step: int, *, thing: float = 0.1, hand: float = 0.1, opening: float = 1.0, height: float = 0.3
) -> Observation:
    random = np.random.default_rng([episode, step])
    pose = np.array([0.5, 0.0, height, 1.0, 0.0, 0.0, 0.0])
    return Observation(
        stamp_ns=(1 + step) * 100_000_000,
        episode=episode,
        step=step,
        images={n: picture(c.height, thing, hand, random) for n, c in TASK.cameras.items()},
        tcp_pose=pose,
        reset_pose=pose,
        tcp_twist=np.zeros(6),
        tcp_wrench=np.zeros(6),
        gripper_opening=opening,
    )


def drawn_episode(number: int, *, success: bool = True, tail: int = 3) -> Episode:
    """Reach, carry, let go, rise; a failed one lets go beside the plate and looks about with the open hand."""
    random = np.random.default_rng([7, number])
    goal = 0.92 if success else 0.5
    start = random.uniform(0.0, 0.2)
    frames = [{"thing": start, "hand": hand} for hand in np.linspace(random.uniform(0, 1), start, 4)]
    frames += [{"thing": at, "hand": at, "opening": 0.3, "height": 0.1} for at in np.linspace(start, goal, 5)]
    frames += [{"thing": goal, "hand": goal, "height": 0.1} for _ in range(2)]
    final = len(frames) if success else len(frames) + 5
    frames += [{"thing": goal, "hand": random.uniform(0, 1)} for _ in range(final - len(frames) + 1 + tail * success)]
    observations = [observation(number, step, **frame) for step, frame in enumerate(frames)]  # type: ignore[arg-type]
    still = Command(action=np.zeros(7, dtype=np.float32), source=ActionSource.OPERATOR)
    return Episode(
        episode_id=f"test-demonstration-{number:06d}",
        task=TASK.name,
        instruction=TASK.instruction,
        mode=Mode.DEMONSTRATION,
        outcome=Outcome.SUCCESS if success else Outcome.ABORTED,
        final_step=final,
        observations=observations[: final + 1],
        commands=[still] * (final + 1),
        tail=observations[final + 1 :],
    )
