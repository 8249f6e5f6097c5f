"""How often and how fast the scripted operator solves each task, in one process and without rendering."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conrft_data import rotations
from conrft_data.reference_pose import ReferencePose
from conrft_sim.operator import FLAWLESS, OperatorHabits, OperatorInput, ScriptedOperator
from conrft_sim.perturbation import Perturbation
from conrft_sim.simulation import Simulation
from conrft_sim.task import UnknownTask, task_class, task_names

_GRIPPER_DECISION = 0.5  # an action beyond +-0.5 opens or closes, in between the gripper stays


def hand_action(hand: OperatorInput, tcp_pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The action (7,) that the control loop makes of the device's state: end-effector frame, clipped."""
    body = rotations.rotate_blocks(rotations.inverse(tcp_pose[3:]), hand.twist)
    return np.array([*np.clip(body, -1.0, 1.0), float(hand.open) - float(hand.close)])


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """How a demonstration went.

    Attributes:
        success: whether it reached success within the step limit.
        length: steps it took.
        interrupted: whether one who watches it would have taken over before its end.
    """

    success: bool
    length: int
    interrupted: bool = False


def run_episode(
    simulation: Simulation,
    operator: ScriptedOperator,
    seed: int,
    episode: int,
    watcher: ScriptedOperator | None = None,
) -> Demonstration:
    """One demonstration from the start state of (``seed``, ``episode``), perhaps under the eyes of a ``watcher``."""
    task = simulation.task_config
    simulation.reset(seed, episode)
    operator.reset(episode)
    if watcher is not None:
        watcher.reset(episode)
    reference = ReferencePose(task.motion_limits())
    reference.start(simulation.tcp_pose)
    interrupted = False
    for step in range(task.max_steps):
        scene = simulation.scene()
        if scene.success:
            return Demonstration(success=True, length=step, interrupted=interrupted)
        if watcher is not None and not interrupted:
            watcher.act(scene)
            interrupted = watcher.intervening
        execute(simulation, reference, hand_action(operator.act(scene), scene.tcp_pose))
    return Demonstration(success=simulation.success(), length=task.max_steps, interrupted=interrupted)


def execute(simulation: Simulation, reference: ReferencePose, action: NDArray[np.float64]) -> None:
    """Carries an action (7,) out for one tick, as the commander does."""
    target = reference.apply(action, simulation.tcp_pose)
    decided = simulation.task_config.action_dim == 7 and abs(action[6]) >= _GRIPPER_DECISION
    simulation.set_target(target, float(action[6] > 0) if decided else None)
    simulation.advance()


def measure(
    task: str, episodes: int, seed: int, perturbation: Perturbation, habits: OperatorHabits | None = None
) -> dict[str, float | None]:
    """Share of episodes that succeed, mean length of those (None without any), and seconds; raises UnknownTask.

    ``interrupted``: share of the successes in which the same person, watching, would have taken over: needlessly.
    """
    kind = task_class(task)
    config = kind.default_config()
    operator = ScriptedOperator("demonstrate", kind.plan(config), seed, habits=habits)
    watcher = ScriptedOperator("intervene", kind.plan(config), seed, habits=habits)
    start = time.perf_counter()
    with Simulation(config, seed, perturbation=perturbation) as simulation:
        results = [run_episode(simulation, operator, seed, episode, watcher) for episode in range(1, episodes + 1)]
    won = [result for result in results if result.success]
    return {
        "success": len(won) / episodes,
        "mean_length": round(float(np.mean([result.length for result in won])), 1) if won else None,
        "interrupted": round(float(np.mean([result.interrupted for result in won])), 3) if won else None,
        "episodes": episodes,
        "max_steps": config.max_steps,
        "wall_s": round(time.perf_counter() - start, 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; the last line of stdout is one JSON object."""
    parser = argparse.ArgumentParser(prog="conrft bench operator", description=__doc__)
    parser.add_argument("--episodes", type=int, default=20, help="of each task (default: %(default)s)")
    parser.add_argument("--tasks", nargs="+", default=["all"], help="names of tasks, or all (default)")
    parser.add_argument("--seed", type=int, default=0, help="of start states and of the hand (default: %(default)s)")
    about = "the plan at full speed, without a hand's noise, misjudgement and pauses: how short an episode can be"
    parser.add_argument("--flawless", action="store_true", help=about)
    parser.add_argument("--perturbation", type=Perturbation.parse, default="none", help="such as lighting,friction:0.5")
    parser.add_argument("--json", action="store_true", help="only the JSON object")
    arguments = parser.parse_args(argv)
    if arguments.episodes < 1:
        parser.error("--episodes must be at least 1")
    tasks = task_names() if arguments.tasks == ["all"] else arguments.tasks
    try:
        for task in tasks:
            task_class(task)
    except UnknownTask as error:
        parser.error(str(error))
    figures, habits = {}, FLAWLESS if arguments.flawless else OperatorHabits()
    for task in tasks:
        figures[task] = measure(task, arguments.episodes, arguments.seed, arguments.perturbation, habits)
        if not arguments.json:
            print(_line(task, figures[task]), flush=True)
    print(json.dumps(figures))
    return 0


def _line(task: str, f: dict[str, float | None]) -> str:
    length = "    -" if f["mean_length"] is None else f"{f['mean_length']:5.1f}"
    interrupted = "     -" if f["interrupted"] is None else f"{f['interrupted']:6.1%}"
    return (
        f"{task:<20} success {f['success']:6.1%}   mean length {length} steps   "
        f"interrupted needlessly {interrupted}   {f['wall_s']:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
