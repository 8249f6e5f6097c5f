"""Kills learner, recorder, policy and simulator at random moments of online training, and counts what was lost.

python bench/kill_at_random.py [--kills 50] [--seed 0] [--out FOLDER]

Makes its own run: short episodes, few updates, in lockstep through the real graph. After each kill it waits until an
episode that began later has been recorded and learned from. A launch that ends by a fault is started again with the
same command. At the end bags, the learner's journal and the supervisor's word on every episode must agree. The exit
code is 0 when nothing was lost.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from short_run import make_run
from watched_launch import LaunchWitness, watched_launch

from conrft_bringup.launch_runner.process_supervisor import ProcessSupervisor
from conrft_data import topics
from conrft_data.bags import BagError, list_episodes, read_episode
from conrft_data.conversion import episode_status_from_msg, stamp_to_ns, tick_of
from conrft_data.ticks import EpisodeStatus
from conrft_data.types import ActionSource, Outcome, Phase
from conrft_learner.checkpoints import read_newest
from conrft_msgs.msg import Action, EpisodeState, LearnerStatus

VICTIMS = ("learner", "recorder", "policy", "simulator")
SPAN_S = 4.0  # a kill comes at a random moment of this time: an episode, its end, and what the learner makes of it
PATIENCE_S = 150.0  # for an episode after a kill
STILL_M = 1e-4
THROUGH_S = 0.5
# So long after its kill the arm may move at most: the answer under way; the recorder's silence must be noticed first.
HELD_AFTER_S = {"policy": 1.0, "simulator": 1.0, "recorder": 8.0}


class Move(NamedTuple):
    """Two targets in a row that differ, by their ticks' stamps; ``at_s`` after the kill."""

    from_ns: int
    to_ns: int
    at_s: float


@dataclass
class Kill:
    """One kill and what followed."""

    victim: str
    delay_s: float
    during: str = ""
    episodes_before: int = 0
    recovered_s: float | None = None
    restarts: int = 0
    moves: list[Move] = field(default_factory=list)
    ticks: dict[int, tuple[int, int]] = field(default_factory=dict)  # by stamp, ns: episode and who drove
    begun_s: list[float] = field(default_factory=list)
    back_s: float = math.inf
    problems: list[str] = field(default_factory=list)

    @property
    def moved_for_s(self) -> float:
        """When the arm last moved without a hand before the victim was back, s after the kill."""
        return max((move.at_s for move in self.moves if move.at_s < self.back_s and self._alone(move)), default=0.0)

    def _alone(self, move: Move) -> bool:
        """Within one episode and by no hand: between two episodes the simulator puts the arm back."""
        (before, _), (episode, source) = (self.ticks.get(ns, (-1, -1)) for ns in (move.from_ns, move.to_ns))
        return before == episode != -1 and source != ActionSource.OPERATOR

    @property
    def begun_without_victim(self) -> int:
        """Episodes that began before the victim was back."""
        return sum(at < self.back_s for at in self.begun_s)


@dataclass
class Ledger:
    """What was seen of the whole run, over all launches."""

    folder: Path
    plan: list[Kill]
    done: list[Kill] = field(default_factory=list)
    ended: dict[str, EpisodeStatus] = field(default_factory=dict)
    failure: str = ""

    @property
    def last(self) -> Kill | None:
        """The newest kill."""
        return self.done[-1] if self.done else None


class Witness(LaunchWitness):
    """Watches one launch, kills when the plan says so, and ends the launch when the plan is done."""

    def __init__(self, node: Node, ledger: Ledger) -> None:
        self._ledger = ledger
        self._kill_at: float | None = None
        self._killed_at = time.monotonic() if ledger.last and ledger.last.recovered_s is None else None
        self._quiet_since = time.monotonic()
        self._phase = "starts"
        self._learned = ("", 1)
        self._begun: set[str] = set()  # since the kill
        self._whole: list[str] = []  # begun and ended since the kill
        self._tick: tuple[int, tuple[int, int]] | None = None  # the newest
        self._target: tuple[int, tuple[float, float, float]] | None = None  # the newest, and its tick's stamp
        self._pids: dict[str, int] = {}
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        node.create_subscription(Action, topics.ACTION, self._on_action, topics.TICK)
        node.create_subscription(PoseStamped, "target_pose", self._on_target, topics.TICK)
        node.create_subscription(LearnerStatus, topics.LEARNER_STATUS, self._on_learner, topics.LEARNER_STANDING)
        node.create_subscription(EpisodeState, topics.EPISODE_STATE, self._on_state, topics.EVERY_STATE)

    def look(self, supervisor: ProcessSupervisor) -> None:
        """Called by the runner again and again."""
        until = time.monotonic() + 0.02
        while (left := until - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)
        pids = {label.rsplit("-", 1)[0]: pid for label, pid in supervisor.running().items()}
        self._pids = pids
        ledger, now = self._ledger, time.monotonic()
        if ledger.failure:
            supervisor.shut_down(ledger.failure)
        elif now - self._quiet_since > PATIENCE_S:
            ledger.failure = f"no episode was learned from within {PATIENCE_S:.0f} s after kill {len(ledger.done)}"
        elif self._kill_at is None:
            self._await_recovery(supervisor, now)
        elif now >= self._kill_at and self._next.victim in pids:
            self._kill(pids[self._next.victim], now)

    @property
    def _next(self) -> Kill:
        return self._ledger.plan[len(self._ledger.done)]

    def _await_recovery(self, supervisor: ProcessSupervisor, now: float) -> None:
        """The graph is well again when an episode that ended after the kill has been learned from."""
        episode_id, pending = self._learned
        if pending or episode_id not in self._whole:
            return
        ledger = self._ledger
        if ledger.last is not None and ledger.last.recovered_s is None:
            ledger.last.recovered_s = now - (self._killed_at or now)
            ledger.last.problems += missing_bags(ledger)
            print(f"{len(ledger.done)} of {len(ledger.plan)}: {describe(ledger.last)}", flush=True)
        if len(ledger.done) == len(ledger.plan):
            supervisor.shut_down("the plan is done")
        else:
            self._kill_at = now + self._next.delay_s

    def _kill(self, pid: int, now: float) -> None:
        kill = self._next
        os.kill(pid, signal.SIGKILL)
        kill.during, kill.episodes_before = self._phase, len(self._ledger.ended)
        kill.ticks.update([self._tick] if self._tick else [])
        self._ledger.done.append(kill)
        self._kill_at, self._killed_at, self._quiet_since = None, now, now
        self._begun, self._whole = set(), []

    def _on_action(self, message: Action) -> None:
        tick = tick_of(message)
        self._tick = tick.stamp_ns, (tick.episode, message.source)
        if (kill := self._ledger.last) is not None:
            kill.ticks.update([self._tick])

    def _on_target(self, message: PoseStamped) -> None:
        position = message.pose.position
        stamp_ns, place = stamp_to_ns(message.header.stamp), (position.x, position.y, position.z)
        before, self._target = self._target, (stamp_ns, place)
        kill = self._open_kill()
        if before is not None and kill is not None and math.dist(place, before[1]) > STILL_M:
            kill.moves.append(Move(before[0], stamp_ns, self._since_kill()))

    def _open_kill(self) -> Kill | None:
        """The kill of this launch whose victim is not back yet."""
        kill = self._ledger.last
        waits = kill is not None and kill.recovered_s is None and not kill.restarts and kill.back_s == math.inf
        return kill if waits and self._killed_at is not None else None

    def _since_kill(self) -> float:
        assert self._killed_at is not None
        return time.monotonic() - self._killed_at

    def _on_learner(self, message: LearnerStatus) -> None:
        self._learned = (message.last_episode_id, int(message.pending_updates))

    def hear(self, process: str, line: str) -> None:
        """The victim is back with its first line, which it writes before it takes part.

        Its first message would be too late a measure: the others may have heard it long before this process.
        """
        kill = self._open_kill()
        # What it had written before its death is through after this time; it takes longer to start again.
        if kill is not None and process.rsplit("-", 1)[0] == kill.victim and self._since_kill() > THROUGH_S:
            kill.back_s = self._since_kill()

    def _on_state(self, message: EpisodeState) -> None:
        status = episode_status_from_msg(message)
        self._phase = f"{status.phase.name} {status.episode}"
        if status.phase is Phase.RUNNING:
            self._begun.add(status.episode_id)
            if (kill := self._open_kill()) is not None:
                kill.begun_s.append(self._since_kill())
        if status.phase is Phase.ENDED:
            self._ledger.ended[status.episode_id] = status
            if status.outcome is not Outcome.FAULT and status.episode_id in self._begun:
                self._whole.append(status.episode_id)


def missing_bags(ledger: Ledger) -> list[str]:
    """Finished episodes without a bag that can be read; those in which nothing happened need none.

    One that a fault ended may have none: the recorder may have died before anything of it was on the disk.
    """
    problems: list[BagError] = []
    there = {info.episode_id for info in list_episodes(ledger.folder / "episodes", problems)}
    ended = {
        name for name, status in ledger.ended.items() if status.final_step > 0 and status.outcome is not Outcome.FAULT
    }
    return [f"{name} has no bag" for name in sorted(ended - there)] + [str(problem) for problem in problems]


def describe(kill: Kill) -> str:
    """One line about a kill."""
    took = "never" if kill.recovered_s is None else f"after {kill.recovered_s:.0f} s"
    return (
        f"{kill.victim} in {kill.during}: goes on {took}, {kill.restarts} restarts {'; '.join(kill.problems)}".rstrip()
    )


def settle(ledger: Ledger) -> dict[str, Any]:
    """Compares bags, journal, replay and the supervisor's word after the last launch has ended."""
    folder = ledger.folder
    found = read_newest(folder / "learner" / "checkpoints", print)
    assert found is not None, "the learner has left no checkpoint"
    state = found[2]
    journal = [name for name in state["journal"] if "-training-" in name]
    bags, unreadable, cut, transitions = list_episodes(folder / "episodes", []), [], [], 0
    for info in bags:
        try:
            transitions += len(read_episode(info.path))
        except BagError as error:
            unreadable.append(str(error))
        ended = ledger.ended.get(info.episode_id)
        if ended is not None and (ended.outcome, ended.final_step) != (info.outcome, info.final_step):
            cut.append(f"{info.episode_id}: {ended.outcome.name} at {ended.final_step}, recorded {info.outcome.name}")
    recorded = {info.episode_id for info in bags}
    faults = {name for name, status in ledger.ended.items() if status.outcome is Outcome.FAULT}
    names = {info.episode_id for info in bags if info.final_step > 0}  # the others hold nothing to learn from
    lines = [json.loads(line) for line in (folder / "learner" / "metrics.jsonl").read_text().splitlines()]
    told = [line["episode_id"] for line in lines if line["stage"] == "episodes" and line.get("mode") == "training"]
    return {
        "ended": len([status for status in ledger.ended.values() if status.final_step > 0]),
        "bags": len(bags),
        "learned": len(journal),
        "missing": missing_bags(ledger) + sorted(f"{name} was not learned from" for name in names - set(journal)),
        "twice": sorted({name for name in journal if journal.count(name) > 1 or told.count(name) != 1}),
        "unreadable": unreadable,
        "not_in_replay": sorted(set(journal) - {name for name, _ in state["replay"]}),
        "updates_owed": [transitions, state["owed"], state["online_updates"]],
        "cut_by_the_kill": cut,
        "faults": len(faults),
        "faults_without_a_bag": sorted(faults - recorded),
    }


class LastLook(LaunchWitness):
    """Ends a launch of the learner alone when it has learned from everything that was recorded."""

    def __init__(self, node: Node, ledger: Ledger) -> None:
        names = [info.episode_id for info in list_episodes(ledger.folder / "episodes", []) if info.final_step > 0]
        self._last, self._caught_up = names[-1], False
        self._begun = time.monotonic()
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        node.create_subscription(LearnerStatus, topics.LEARNER_STATUS, self._on_learner, topics.LEARNER_STANDING)

    def look(self, supervisor: ProcessSupervisor) -> None:
        """Called by the runner again and again."""
        self._executor.spin_once(timeout_sec=0.02)
        if self._caught_up or time.monotonic() - self._begun > PATIENCE_S:
            supervisor.shut_down("it has caught up" if self._caught_up else "it does not catch up")

    def _on_learner(self, message: LearnerStatus) -> None:
        self._caught_up = message.last_episode_id >= self._last and not message.pending_updates


def run(ledger: Ledger, arguments: dict[str, str], name: str, launch_file: str, kind: type[Witness | LastLook]) -> None:
    """One launch, until ``kind`` ends it or it ends by a fault."""
    log = ledger.folder / f"{name}.log"
    watched_launch(launch_file, arguments, log, lambda node: kind(node, ledger), period_s=0.02)


def plan(kills: int, seed: int) -> list[Kill]:
    """Victims, as equally often as it goes, and moments."""
    rng = random.Random(seed)
    victims = [VICTIMS[i % len(VICTIMS)] for i in range(kills)]
    rng.shuffle(victims)
    return [Kill(victim, rng.uniform(0.0, SPAN_S)) for victim in victims]


def table(kills: list[Kill]) -> str:
    """The kills by victim, as Markdown."""
    rows = [
        "| killed | times | went on by itself | same command again | next episode, s: median, most | arm moved, s |",
        "|---|---|---|---|---|---|",
    ]
    for victim in VICTIMS:
        own = [kill for kill in kills if kill.victim == victim]
        took = [kill.recovered_s for kill in own if kill.recovered_s is not None]
        if not took:
            continue
        alone = sum(kill.recovered_s is not None and not kill.restarts for kill in own)
        rows.append(
            f"| {victim} | {len(own)} | {alone} | {sum(bool(kill.restarts) for kill in own)} | "
            f"{statistics.median(took):.0f}, {max(took):.0f} | {max(kill.moved_for_s for kill in own):.1f} |"
        )
    return "\n".join(rows)


def problems(ledger: Ledger, account: dict[str, Any]) -> list[str]:
    """Everything that must not be."""
    found = [ledger.failure] if ledger.failure else []
    for name in ("missing", "twice", "unreadable", "not_in_replay"):
        found += [f"{name}: {item}" for item in account[name]]
    transitions, owed, updates = account["updates_owed"]
    if (transitions, transitions) != (owed, updates):
        found.append(f"{transitions} transitions are worth {owed} updates, {updates} were done")
    for number, kill in enumerate(ledger.done, 1):
        found += [f"kill {number} ({kill.victim}): {problem}" for problem in kill.problems]
        if kill.moved_for_s > HELD_AFTER_S.get(kill.victim, math.inf):
            found.append(f"kill {number} ({kill.victim}): the arm moved for {kill.moved_for_s:.1f} s")
        if kill.victim == "learner" and kill.begun_without_victim > 1:
            found.append(f"kill {number}: {kill.begun_without_victim} episodes began without the learner")
    return found


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of victims and moments")
    parser.add_argument("--out", type=Path, help="new folder of the run (default: a temporary one)")
    args = parser.parse_args()
    folder = args.out or Path(tempfile.mkdtemp(prefix="kill_at_random_"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    begun = time.monotonic()
    ledger = Ledger(folder, plan(args.kills, args.seed))
    arguments = make_run(folder)
    launches = 0
    while not ledger.failure and (len(ledger.done) < args.kills or ledger.done[-1].recovered_s is None):
        if ledger.last is not None and launches:
            ledger.last.restarts += 1
            if ledger.last.restarts > 3:
                ledger.failure = "the launch does not stay up"
                break
        launches += 1
        run(ledger, arguments, f"launch_{launches}", "train", Witness)
    alone = {key: value for key, value in arguments.items() if key != "checkpoint"} | {"episodes_source": "folder"}
    run(ledger, alone, "learner_alone", "learner", LastLook)
    account = settle(ledger)
    print(table(ledger.done))
    account |= {"kills": len(ledger.done), "seed": args.seed, "launches": launches}
    account |= {"wall_s": round(time.monotonic() - begun), "problems": problems(ledger, account)}
    print(json.dumps(account, indent=1))
    return int(bool(account["problems"]))


if __name__ == "__main__":
    sys.exit(main())
