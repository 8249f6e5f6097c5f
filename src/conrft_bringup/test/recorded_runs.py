"""Small real episode bags and run folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conrft_bringup.demo.run_folder import DemoSettings, RunFolder
from conrft_data.bags import write_episode
from conrft_data.types import ActionSource, Command, Episode, Mode, Observation, Outcome

DOWN = np.array([0.45, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0])


def record(folder: Path, number: int, *, outcome: Outcome, sources: str, session: str = "test") -> str:
    """Writes an episode whose transitions were driven as ``sources`` says: o operator, p policy, h hold."""
    steps = len(sources)
    names = {"o": ActionSource.OPERATOR, "p": ActionSource.POLICY, "h": ActionSource.HOLD}
    # The command of the last observation leads nowhere and must not be counted.
    kinds = [names[letter] for letter in sources] + [ActionSource.OPERATOR]
    episode_id = f"{session}-training-{number:06d}"
    write_episode(
        folder,
        Episode(
            episode_id=episode_id,
            task="pick_banana",
            instruction="Put the yellow banana on the green plate.",
            mode=Mode.TRAINING,
            outcome=outcome,
            final_step=steps,
            observations=[observation(number, step) for step in range(steps + 1)],
            commands=[
                Command(action=np.zeros(7, np.float32), source=kind, reason="late" * (kind == 0)) for kind in kinds
            ],
        ),
    )
    return episode_id


def observation(episode: int, step: int) -> Observation:
    images = {"side": np.full((32, 32, 3), step, np.uint8), "wrist": np.full((16, 16, 3), 255 - step, np.uint8)}
    return Observation(
        stamp_ns=(1 + step) * 100_000_000,
        episode=episode,
        step=step,
        images=images,
        tcp_pose=DOWN,
        reset_pose=DOWN,
        tcp_twist=np.zeros(6),
        tcp_wrench=np.zeros(6),
        gripper_opening=1.0,
    )


def make_run(root: Path, **settings: object) -> RunFolder:
    """A run folder in which every stage has recorded something."""
    folder = RunFolder(root)
    folder.begin(DemoSettings(**settings))  # type: ignore[arg-type]
    record(folder.demonstrations, 1, outcome=Outcome.SUCCESS, sources="oooo")
    record(folder.demonstrations, 2, outcome=Outcome.TIMEOUT, sources="oooooo")
    record(folder.offline_trials, 1, outcome=Outcome.TIMEOUT, sources="pppppp")
    record(folder.episodes, 1, outcome=Outcome.SUCCESS, sources="ppoopo")
    record(folder.episodes, 2, outcome=Outcome.FAULT, sources="phhh")
    record(folder.episodes, 3, outcome=Outcome.SUCCESS, sources="phpp")
    record(folder.online_trials, 1, outcome=Outcome.SUCCESS, sources="ppp")
    return folder
