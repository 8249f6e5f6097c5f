"""Kills each node of the online stage in turn and writes down what follows, as a Markdown table.

python bench/kill_each_node.py runs/NAME [--real-time] [--nodes observer policy ...]

The run must have finished its offline stage. The table says when the arm was still, what was the first word about it on
/diagnostics or in the episode's outcome, how the launch ended, whether a process stayed, and what is on the disk.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from watched_launch import watched_launch

from conrft_bringup.launch_runner.process_supervisor import LaunchResult, ProcessSupervisor
from conrft_data import topics
from conrft_data.bags.errors import BagError
from conrft_data.bags.listing import list_episodes
from conrft_data.bags.reader import read_episode
from conrft_data.bags.salvage import salvage_all
from conrft_data.conversion import episode_status_from_msg
from conrft_data.types import Outcome, Phase
from conrft_msgs.msg import Action, EpisodeState

NODES = (
    "simulator", "observer", "intervention_mux", "commander", "recorder", "scripted_operator", "supervisor",
    "policy", "reward", "learner",
)  # fmt: skip
START_S = 600.0  # for the first episode to end and the second to be under way
KILL_STEP = 8  # of the second episode
WATCH_S = 25.0
STILL_M, STILL_S = 1e-4, 1.0  # a target that moves by less for so long stands still


class Witness:
    """Sees the targets, the diagnostics and the outcomes; kills the victim; ends the launch when it has seen enough."""

    def __init__(self, node: Node, victim: str) -> None:
        self._victim = victim
        self._killed: float | None = None
        self._begun = time.monotonic()
        self._seen_enough = False
        self._episodes = 0
        self._known: set[tuple[str, str]] = set()
        self._targets: list[tuple[float, tuple[float, float, float]]] = []
        self.pids: dict[str, int] = {}
        self.words: list[tuple[float, str]] = []
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        node.create_subscription(PoseStamped, "target_pose", self._on_target, topics.TICK)
        node.create_subscription(Action, topics.ACTION, self._on_action, topics.TICK)
        node.create_subscription(EpisodeState, topics.EPISODE_STATE, self._on_state, topics.LATCHED)
        node.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, 100)

    def look(self, supervisor: ProcessSupervisor) -> None:
        """Called by the runner again and again."""
        self.pids |= {label.rsplit("-", 1)[0]: pid for label, pid in supervisor.running().items()}
        until = time.monotonic() + 0.05
        while (left := until - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)
        waited = time.monotonic() - (self._killed or self._begun)
        if waited > (START_S if self._killed is None else WATCH_S) and not self._seen_enough:
            self._seen_enough = True
            supervisor.shut_down("seen enough")

    def still_after_s(self) -> float | None:
        """When the last target came before the arm stood still, s after the kill; None: it never stood still."""
        if self._killed is None:
            return None
        still_since, place = 0.0, None
        for at, target in self._targets:
            if place is None or math.dist(place, target) > STILL_M:
                if at - still_since > STILL_S:
                    break
                still_since, place = at, target
        return still_since if WATCH_S - still_since > STILL_S else None

    def _say(self, word: str) -> None:
        if self._killed is not None:
            self.words.append((time.monotonic() - self._killed, word))

    def _on_target(self, message: PoseStamped) -> None:
        if self._killed is not None:
            place = message.pose.position
            self._targets.append((time.monotonic() - self._killed, (place.x, place.y, place.z)))

    def _on_action(self, message: Action) -> None:
        if self._killed is None and self._episodes >= 2 and message.step >= KILL_STEP and self._victim in self.pids:
            os.kill(self.pids[self._victim], signal.SIGKILL)
            self._killed = time.monotonic()

    def _on_state(self, message: EpisodeState) -> None:
        status = episode_status_from_msg(message)
        self._episodes += status.phase is Phase.RUNNING
        if status.outcome is Outcome.FAULT:
            self._say(f"FAULT: {status.reason}")

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            word = (status.name, status.message)
            # Warnings are about much else, such as a learner that has nothing to learn from.
            if (status.level == DiagnosticStatus.ERROR or "silent" in status.message) and word not in self._known:
                self._known.add(word)
                self._say(f"{status.name}: {status.message}")


def on_the_disk(folder: Path) -> str:
    """Reads every finished bag and salvages what was cut off."""
    whole, bad = 0, []
    for info in list_episodes(folder):
        try:
            read_episode(info.path)
            whole += 1
        except BagError as error:
            bad.append(str(error))
    recovered, problems = salvage_all(folder)
    salvaged = [f"one salvaged up to step {bag.final_step}" for bag in recovered]
    return ", ".join([f"{whole} whole", *salvaged, *bad, *map(str, problems)])


def row(victim: str, witness: Witness, result: LaunchResult, folder: Path) -> str:
    """One line of the table."""
    if not result.deaths and not result.failed:
        return f"| {victim} | was not killed: no second episode within {START_S:.0f} s, see {folder} |"
    still = witness.still_after_s()
    arm = "went on" if still is None else "at once" if still < 0.25 else f"after {still:.1f} s"
    said = f"{witness.words[0][1]} ({witness.words[0][0]:.1f} s)" if witness.words else ""
    left = [name for name, pid in witness.pids.items() if Path(f"/proc/{pid}").exists()]
    end = f"{result.exit_code}: {result.reason}"
    return f"| {victim} | {arm} | {said} | {end} | {', '.join(left) or 'none'} | {on_the_disk(folder / 'episodes')} |"


def kill(victim: str, run: Path, folder: Path, lockstep: bool) -> str:
    """Runs the online stage, kills ``victim`` in the second episode and returns the table's line."""
    arguments = {
        "run_dir": str(folder),
        "demos_dir": str(run / "demos"),
        "checkpoint": str(run / "offline"),
        "learner_checkpoint": str(run / "offline"),
        "classifier": str(run / "reward" / "classifier.safetensors"),
        "lockstep": str(lockstep).lower(),
    }
    witness, result = watched_launch(
        "train", arguments, folder / "launch.log", lambda node: Witness(node, victim), period_s=0.05
    )
    return row(victim, witness, result, folder)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a demo run")
    parser.add_argument("--real-time", action="store_true", help="default: lockstep, as the demo")
    parser.add_argument("--nodes", nargs="+", choices=NODES, default=NODES, metavar="NODE", help=", ".join(NODES))
    parser.add_argument("--out", type=Path, help="new folder of logs and episodes (default: a temporary one)")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp(prefix="kill_each_node_"))
    if out.is_dir() and any(out.iterdir()):
        parser.error(f"{out} is not empty")
    print("| killed | arm stands still | first word about it | launch ends with | processes left | episodes |")
    print("|---|---|---|---|---|---|")
    for victim in args.nodes:
        folder = out / victim
        folder.mkdir(parents=True)
        try:
            print(kill(victim, args.run.resolve(), folder, not args.real_time), flush=True)
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
