from collections.abc import Callable

import numpy as np
import pytest

from conrft_data import rotations
from conrft_data.types import (
    ActionSource,
    Command,
    Episode,
    Mode,
    Observation,
    Outcome,
    Verdict,
)

CAMERA_SIZES = {"side": (24, 16), "wrist": (16, 16)}  # width, height
TICK_NS = 100_000_000
START_NS = 1_700_000_000_123_456_789

EpisodeMaker = Callable[..., Episode]


def make_observation(step: int, *, number: int = 1, sizes: dict[str, tuple[int, int]] | None = None) -> Observation:
    rng = np.random.default_rng([number, step])
    pose = np.concatenate([rng.normal(size=3), rotations.from_rotation_vector(rng.normal(size=3))])
    reset = np.concatenate([[0.5, 0.0, 0.3], rotations.from_euler_xyz([np.pi, 0, 0])])
    return Observation(
        stamp_ns=START_NS + (number * 1000 + step) * TICK_NS,
        episode=number,
        step=step,
        images={
            name: rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            for name, (width, height) in (sizes or CAMERA_SIZES).items()
        },
        tcp_pose=pose,
        reset_pose=reset,
        tcp_twist=rng.normal(size=6),
        tcp_wrench=rng.normal(size=6),
        gripper_opening=float(np.float32(rng.uniform())),
    )


def _make_episode(
    *,
    number: int = 1,
    final_step: int = 6,
    tail: int = 0,
    outcome: Outcome = Outcome.SUCCESS,
    sizes: dict[str, tuple[int, int]] | None = None,
    session: str = "s1",
) -> Episode:
    rng = np.random.default_rng([number, 77])
    observations = [make_observation(step, number=number, sizes=sizes) for step in range(final_step + tail + 1)]
    commands = [
        Command(
            action=rng.uniform(-1, 1, 7).astype(np.float32),
            source=ActionSource(step % 3),
            proposal=rng.uniform(-1, 1, 7).astype(np.float32) if step % 3 else None,
            reason="" if step % 3 else "the policy is late",
        )
        for step in range(final_step + 1)
    ]
    return Episode(
        episode_id=f"{session}-training-{number:06d}",
        task="pick_banana",
        instruction="pick up the banana",
        mode=Mode.TRAINING,
        outcome=outcome,
        final_step=final_step,
        observations=observations[: final_step + 1],
        commands=commands,
        tail=observations[final_step + 1 :],
        verdicts={
            k: Verdict(
                probability=float(np.float32(k / 100)), gates_passed=k % 2 == 0, success=outcome is Outcome.SUCCESS
            )
            for k in range(final_step + 1)
        },
        embeddings=rng.normal(size=(final_step + 1, 5)).astype(np.float32),
        embedding_fingerprint="fingerprint",
        recorded_outcome=outcome,
        weights_versions={k: 10 + k // 3 for k in range(final_step + 1)},
    )


@pytest.fixture(scope="session")
def make_episode() -> EpisodeMaker:
    return _make_episode
