"""Disturbs each node of the online stage in turn and writes down what follows, as a Markdown table.

python bench/disturb_each_node.py --how kill|freeze|flood|leap [--run runs/NAME] [--nodes observer policy ...]

kill: SIGKILL, each node in a launch of its own. freeze: SIGSTOP, and SIGCONT some seconds later. flood: for some
seconds a stranger sends valid and malformed messages on all that the node hears, as fast as it can. leap: a stranger
says on /clock that it is an hour later, or earlier. Where the graph goes on, one launch sees all disturbances.

Without --run (a demo run that has finished its offline stage, or the folder run/ of an earlier --out) it makes a run of
short episodes and noise. The table says what the arm did, what was the first word about it on /diagnostics or in the
episode's outcome, and how long after the cause had gone an episode had run from beginning to end with no node in error.
The exit code is 0 when the graph has always recovered, no process died but those that were killed, and every recorded
episode can be read (but for a flood, in which the stranger is recorded too).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Pose, PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from short_run import make_run
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from watched_launch import LaunchWitness, watched_launch

from conrft_bringup.launch_runner.ament_index import package_share
from conrft_bringup.launch_runner.process_supervisor import LaunchResult, ProcessSupervisor
from conrft_data import topics
from conrft_data.bags.errors import BagError
from conrft_data.bags.listing import list_episodes
from conrft_data.bags.reader import read_episode
from conrft_data.bags.salvage import salvage_all
from conrft_data.conversion import episode_status_from_msg, stamp_to_ns
from conrft_data.node_process import HARDWARE_ID, STOPPED
from conrft_data.types import Outcome, Phase
from conrft_msgs.msg import Action, EpisodeState, SceneState

NODES = (
    "simulator", "observer", "intervention_mux", "commander", "recorder", "scripted_operator", "supervisor",
    "policy", "reward", "learner",
)  # fmt: skip
LEAPS = {"forwards": 3600.0, "backwards": -3600.0}  # s
SESSION = "train"  # what the names of the real episodes begin with; a stranger's do not
PATIENCE_S = 600.0  # for the graph to start
RECOVERY_S = 120.0
DISTURB_STEP = 8  # of an episode
WATCH_S = 25.0  # after a kill
STILL_M, STILL_S = 1e-4, 1.0  # a target that moves by less for so long stands still
SPEED_OVER_NS = 90_000_000
# A flood must not make the witness miss the supervisor's word.
EVERY_STATE = QoSProfile(depth=2000, reliability=topics.LATCHED.reliability, durability=topics.LATCHED.durability)


@dataclass
class Disturbance:
    """One cause and what followed; all times in s since it began."""

    name: str
    began: float | None = None  # monotonic
    ended: float | None = None  # monotonic
    undo: Callable[[], None] = lambda: None
    words: list[tuple[float, str]] = field(default_factory=list)
    targets: list[tuple[float, tuple[float, float, float]]] = field(default_factory=list)
    fastest: float = 0.0  # m/s, of the arm in an episode
    sent: int = 0  # messages of the stranger
    stop_reset: bool = False
    recovered_s: float | None = None  # after the end
    died: list[str] = field(default_factory=list)
    told: bool = False

    def still_after_s(self) -> float | None:
        """When the last target came before the arm stood still; None: it never did."""
        assert self.began is not None
        until = (self.ended or time.monotonic()) - self.began
        still_since, place = 0.0, None
        for at, target in self.targets:
            if at > until:
                break
            if place is None or math.dist(place, target) > STILL_M:
                if at - still_since > STILL_S:
                    break
                still_since, place = at, target
        return still_since if until - still_since > STILL_S else None

    def arm(self) -> str:
        """What the arm did."""
        still = self.still_after_s()
        return "went on" if still is None else "at once" if still < 0.25 else f"after {still:.1f} s"

    def first_word(self) -> str:
        """The first word about it."""
        return f"{self.words[0][1]} ({self.words[0][0]:.1f} s)" if self.words else ""


class Method:
    """How a disturbance begins and ends."""

    def __init__(self, how: str, seconds: float, files: dict[str, str]) -> None:
        """``files``: task_file and robot_file of the launch."""
        self.how, self._seconds, self._files = how, WATCH_S if how == "kill" else seconds, files
        self._stranger: subprocess.Popen[str] | None = None

    def begin(self, disturbance: Disturbance, pids: dict[str, int], step: int) -> None:
        """Called again and again until the disturbance has begun; ``step``: of the episode under way, else -1."""
        if self.how in ("flood", "leap"):
            self._begin_stranger(disturbance)
        elif step >= DISTURB_STEP and disturbance.name in pids:
            pid = pids[disturbance.name]
            if self.how == "freeze":
                disturbance.undo = lambda: os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGKILL if self.how == "kill" else signal.SIGSTOP)
            disturbance.began = time.monotonic()

    def end(self, disturbance: Disturbance) -> None:
        """Called again and again until the disturbance has ended."""
        assert disturbance.began is not None
        if self._stranger is not None:
            if self._stranger.poll() is None:
                return
            assert self._stranger.stdout is not None
            disturbance.sent = sum(json.loads(self._stranger.stdout.read()).values())
            self._stranger = None
        elif time.monotonic() - disturbance.began < self._seconds:
            return
        disturbance.undo()
        disturbance.undo = lambda: None
        disturbance.ended = time.monotonic()

    def _begin_stranger(self, disturbance: Disturbance) -> None:
        if self._stranger is None:
            command = [sys.executable, str(Path(__file__).with_name("stranger.py")), self.how]
            if self.how == "flood":
                names = {name.replace("_", "-"): path for name, path in self._files.items()}
                command += [disturbance.name, *(f"--{name}={path}" for name, path in names.items())]
            else:
                command += [f"--by={LEAPS[disturbance.name]}"]
            command += [f"--seconds={self._seconds}"]
            stranger = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert stranger.stdout is not None
            os.set_blocking(stranger.stdout.fileno(), False)
            self._stranger, disturbance.undo = stranger, stranger.kill
        elif self._stranger.stdout is not None and self._stranger.stdout.readline().startswith("begins"):
            disturbance.began = time.monotonic()
            os.set_blocking(self._stranger.stdout.fileno(), True)
        elif self._stranger.poll() is not None:
            raise RuntimeError(f"the stranger has ended with code {self._stranger.returncode}, see witness.log")


class Witness(LaunchWitness):
    """Sees the targets, the diagnostics and the outcomes; disturbs; ends the launch when it has seen enough."""

    def __init__(
        self, node: Node, method: Method, plan: list[Disturbance], tell: Callable[[Disturbance], None]
    ) -> None:
        """``tell``: called with each disturbance that is over while the launch goes on."""
        self._method, self._plan, self._tell = method, plan, tell
        self._now: Disturbance | None = None
        self._pids: dict[str, int] = {}
        self._deaths = 0
        self._since = time.monotonic()
        self._step = -1
        self._begun: dict[str, float] = {}  # episodes and when
        self._whole_begun = -math.inf  # when the newest began that ended well
        self._known: set[tuple[str, str]] = set()
        self._wrong: dict[str, str] = {}
        self._stopped = False
        self._arm: tuple[int, tuple[float, float, float]] | None = None
        self.seen_pids: dict[str, int] = {}
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._reset_stop = node.create_client(Trigger, topics.RESET_STOP)
        self._button = node.create_publisher(Bool, topics.EMERGENCY_STOP, topics.LATCHED)
        self._answer: Future | None = None
        node.create_subscription(PoseStamped, "target_pose", self._on_target, topics.TICK)
        node.create_subscription(PoseStamped, "current_pose", self._on_pose, topics.SENSOR)
        node.create_subscription(SceneState, topics.SCENE_STATE, self._on_scene, topics.TICK)
        node.create_subscription(Action, topics.ACTION, self._on_action, topics.TICK)
        node.create_subscription(EpisodeState, topics.EPISODE_STATE, self._on_state, EVERY_STATE)
        node.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, 1000)

    def look(self, supervisor: ProcessSupervisor) -> None:
        """Called by the runner again and again."""
        self._pids = {label.rsplit("-", 1)[0]: pid for label, pid in supervisor.running().items()}
        self.seen_pids |= self._pids
        until = time.monotonic() + 0.05
        while (left := until - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)
        died = list(supervisor.result.deaths.elements())
        if self._now is not None and len(died) > self._deaths:
            self._now.died += died[self._deaths :]
        self._deaths = len(died)
        self._go_on(supervisor)

    def _go_on(self, supervisor: ProcessSupervisor) -> None:
        now, disturbance = time.monotonic(), self._now
        if disturbance is None:
            waiting = [d for d in self._plan if d.began is None]
            if self._is_well(since=-math.inf):
                self._method.begin(waiting[0], self._pids, self._step)
            if waiting[0].began is not None:
                self._now = waiting[0]
                self._known.clear()
            elif now - self._since > PATIENCE_S:
                supervisor.shut_down(f"not well within {PATIENCE_S:.0f} s: {self._wrong}")
        elif disturbance.ended is None:
            self._method.end(disturbance)
        elif self._method.how == "kill":
            supervisor.shut_down("seen enough")
        else:
            self._await_recovery(disturbance, now, supervisor)

    def _await_recovery(self, disturbance: Disturbance, now: float, supervisor: ProcessSupervisor) -> None:
        assert disturbance.ended is not None
        self._let_the_arm_move(disturbance)
        if self._is_well(since=disturbance.ended):
            disturbance.recovered_s = now - disturbance.ended
        elif now - disturbance.ended < RECOVERY_S:
            return
        self._now, self._since, self._step = None, now, -1
        self._tell(disturbance)
        if disturbance.recovered_s is None or all(d.began is not None for d in self._plan):
            supervisor.shut_down("seen enough")

    def _is_well(self, since: float) -> bool:
        """Whether an episode that began after ``since`` has ended well, and no node is in error."""
        return self._whole_begun > since and not self._wrong

    def _let_the_arm_move(self, disturbance: Disturbance) -> None:
        """The operator's part, where a force or a stop made the arm stand."""
        if not self._stopped or not self._reset_stop.service_is_ready():
            return
        if self._answer is None or self._answer.done():
            for pressed in (True, False):  # whoever pressed it last may not have let it go
                self._button.publish(Bool(data=pressed))
            self._answer, disturbance.stop_reset = self._reset_stop.call_async(Trigger.Request()), True
            self._stopped = False  # until the commander says so again

    def _at(self) -> float | None:
        """Since the disturbance began; None: there is none."""
        return None if self._now is None or self._now.began is None else time.monotonic() - self._now.began

    def _say(self, word: str) -> None:
        if self._now is not None and (at := self._at()) is not None:
            self._now.words.append((at, word))

    def _on_target(self, message: PoseStamped) -> None:
        if self._now is not None and (at := self._at()) is not None:
            place = message.pose.position
            self._now.targets.append((at, (place.x, place.y, place.z)))

    def _on_pose(self, message: PoseStamped) -> None:
        # Of the two that say where the arm is, the one that is not flooded.
        if self._now is not None and self._now.name == "scripted_operator":
            self._measure(stamp_to_ns(message.header.stamp), message.pose)

    def _on_scene(self, message: SceneState) -> None:
        if self._now is not None and self._now.name != "scripted_operator":
            self._measure(stamp_to_ns(message.header.stamp), message.tcp_pose)

    def _measure(self, stamp_ns: int, pose: Pose) -> None:
        assert self._now is not None
        place = (pose.position.x, pose.position.y, pose.position.z)
        if self._step < 0 or self._arm is None or stamp_ns < self._arm[0]:
            self._arm = (stamp_ns, place)
        elif (passed_ns := stamp_ns - self._arm[0]) >= SPEED_OVER_NS:
            self._now.fastest = max(self._now.fastest, math.dist(place, self._arm[1]) / passed_ns * 1e9)
            self._arm = (stamp_ns, place)

    def _on_action(self, message: Action) -> None:
        if self._step >= 0:
            self._step = message.step

    def _on_state(self, message: EpisodeState) -> None:
        try:
            status = episode_status_from_msg(message)
        except ValueError:
            return
        if not status.episode_id.startswith(SESSION):
            return
        self._step = 0 if status.phase is Phase.RUNNING else -1
        if status.phase is Phase.RUNNING:
            self._begun[status.episode_id] = time.monotonic()
        elif status.outcome is Outcome.FAULT:
            self._say(f"FAULT: {status.reason}")
        elif status.phase is Phase.ENDED and status.final_step > 0:
            self._whole_begun = max(self._whole_begun, self._begun.get(status.episode_id, -math.inf))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.hardware_id != HARDWARE_ID or status.name not in NODES:
                continue
            error, word = status.level == DiagnosticStatus.ERROR, (status.name, status.message)
            if error:
                self._wrong[status.name] = status.message
            else:
                self._wrong.pop(status.name, None)
            if status.name == "commander":
                self._stopped = any(value.key == STOPPED for value in status.values)
            # Warnings are about much else, such as a learner that has nothing to learn from.
            if (error or "silent" in status.message) and word not in self._known:
                self._known.add(word)
                self._say(f"{status.name}: {status.message}")


def on_the_disk(folder: Path) -> tuple[str, bool]:
    """Reads every finished bag and salvages what was cut off; says what there is, and whether all of it is well."""
    whole, bad = 0, []
    for info in list_episodes(folder):
        try:
            read_episode(info.path)
            whole += 1
        except BagError as error:
            bad.append(str(error))
    recovered, problems = salvage_all(folder)
    salvaged = [f"one salvaged up to step {bag.final_step}" for bag in recovered]
    wrong = [*bad, *map(str, problems)]
    return ", ".join([f"{whole} whole", *salvaged, *wrong]), not wrong


def kill_row(disturbance: Disturbance, witness: Witness, result: LaunchResult, episodes: str) -> str:
    """What follows a kill."""
    if disturbance.began is None:
        return f"| {disturbance.name} | was not killed: {result.reason} |"
    left = [name for name, pid in witness.seen_pids.items() if Path(f"/proc/{pid}").exists()]
    end = f"{result.exit_code}: {result.reason}"
    cells = [disturbance.name, disturbance.arm(), disturbance.first_word(), end, ", ".join(left) or "none"]
    return f"| {' | '.join([*cells, episodes])} |"


def row(disturbance: Disturbance, how: str, seconds: float) -> str:
    """What follows any other disturbance."""
    if disturbance.began is None:
        return f"| {disturbance.name} | was not disturbed |"
    arm = disturbance.arm() if how == "freeze" else f"at most {disturbance.fastest:.2f} m/s"
    took = "never" if disturbance.recovered_s is None else f"{disturbance.recovered_s:.0f} s"
    took += ", after reset-stop" if disturbance.stop_reset else ""
    rate = [] if how == "freeze" else [f"{disturbance.sent / seconds:.0f}"]
    died = ", ".join(disturbance.died) or "none"
    return f"| {' | '.join([disturbance.name, *rate, arm, disturbance.first_word(), took, died])} |"


HEADS = {
    "kill": "| killed | arm stands still | first word about it | launch ends with | processes left | episodes |",
    "freeze": "| frozen | arm stands still | first word about it | whole episode after it | died |",
    "flood": "| flooded | messages/s | arm | first word about it | whole episode after it | died |",
    "leap": "| ROS time leaps | messages/s | arm | first word about it | whole episode after it | died |",
}


@contextlib.contextmanager
def standard_error_to(path: Path) -> Iterator[None]:
    """Of this process: the middleware writes a page there for each message that was cut off."""
    sys.stderr.flush()
    before = os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def launch(
    method: Method,
    plan: list[Disturbance],
    arguments: dict[str, str],
    folder: Path,
    tell: Callable[[Disturbance], None],
) -> tuple[Witness, LaunchResult]:
    """One launch of the online stage, with as much of the plan as it survives."""
    arguments = arguments | {"run_dir": str(folder)}
    try:
        with standard_error_to(folder / "witness.log"):
            return watched_launch(
                "train", arguments, folder / "launch.log", lambda node: Witness(node, method, plan, tell), period_s=0.05
            )
    finally:
        for disturbance in plan:  # an interrupted bench leaves no process frozen, and no stranger
            disturbance.undo()


def run_arguments(run: Path | None, out: Path) -> dict[str, str]:
    """Launch arguments of a run, or of one that is made now."""
    if run is None:
        run = out / "run"
        run.mkdir()
        make_run(run)
    run, config = run.resolve(), package_share("conrft_bringup", os.environ) / "config"
    # A short run has files of its own.
    task, preset = run / "task.yaml", run / "preset.yaml"
    return {
        "task_file": str(task if task.is_file() else config / "tasks/pick_banana.yaml"),
        "preset_file": str(preset if preset.is_file() else config / "presets/stable.yaml"),
        "demos_dir": str(run / "demos"),
        "checkpoint": str(run / "offline"),
        "learner_checkpoint": str(run / "offline"),
        "classifier": str(run / "reward" / "classifier.safetensors"),
    }


def disturb(args: argparse.Namespace, out: Path) -> bool:
    """Prints the table; returns whether all went well."""
    names = list(LEAPS) if args.how == "leap" else args.nodes
    arguments = run_arguments(args.run, out) | {"lockstep": str(not args.real_time).lower(), "session": SESSION}
    robot_file = package_share("conrft_bringup", os.environ) / "config/robots/sim.yaml"
    files = {"task_file": arguments["task_file"], "robot_file": str(robot_file)}
    columns = HEADS[args.how].count("|") - 1
    print(f"{HEADS[args.how]}\n|{'---|' * columns}", flush=True)
    well, waiting = True, [Disturbance(name) for name in names]

    def tell(disturbance: Disturbance) -> None:
        disturbance.told = True
        print(row(disturbance, args.how, args.seconds), flush=True)

    while waiting:
        folder = out / waiting[0].name
        folder.mkdir(parents=True)
        plan = waiting[:1] if args.how == "kill" else waiting
        witness, result = launch(Method(args.how, args.seconds, files), plan, arguments, folder, tell)
        seen = [disturbance for disturbance in plan if disturbance.began is not None] or plan[:1]
        episodes, readable = on_the_disk(folder / "episodes")
        if args.how == "kill":
            print(kill_row(seen[0], witness, result, episodes), flush=True)
        else:
            for disturbance in seen:
                if not disturbance.told:
                    tell(disturbance)
                well &= disturbance.recovered_s is not None and not disturbance.died
            print(f"{folder.name}: {episodes}", file=sys.stderr)
        # What a stranger says on a recorded topic is recorded, and refused when it is read.
        well &= readable or args.how == "flood"
        waiting = waiting[len(seen) :]
    return well


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--how", choices=HEADS, required=True)
    parser.add_argument("--run", type=Path, help="folder of a run (default: makes a short one)")
    parser.add_argument("--real-time", action="store_true", help="default: lockstep, as the demo")
    parser.add_argument("--nodes", nargs="+", choices=NODES, default=NODES, metavar="NODE", help=", ".join(NODES))
    parser.add_argument("--seconds", type=float, default=12.0, help="of a freeze, flood or leap (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="new folder of logs and episodes (default: a temporary one)")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp(prefix="disturb_each_node_"))
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        parser.error(f"{out} is not empty")
    try:
        return int(not disturb(args, out))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
