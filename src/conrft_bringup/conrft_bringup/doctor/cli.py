"""``conrft doctor``: looks before the arm moves."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conrft_bringup.doctor.finding import Finding, Level, error

if TYPE_CHECKING:
    from conrft_bringup.doctor.graph_checks import GraphSnapshot
    from conrft_data.config import RobotConfig, TaskConfig
    from conrft_data.types import Episode

_MARKS = {Level.OK: "ok  ", Level.WARNING: "WARN", Level.ERROR: "FAIL"}

# Enough to know a light or a camera by, few enough to be read in a few seconds.
_DEMONSTRATIONS = 5


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``doctor``."""
    parser = subparsers.add_parser("doctor", help="look at machine, robot, cameras and policy before the arm moves")
    parser.add_argument("--task", default="pick_banana", help="name of a task, or its file (default: pick_banana)")
    about = "name of a robot, or its file; alone: fr3 (default: sim)"
    parser.add_argument("--robot", nargs="?", default="sim", const="fr3", help=about)
    about = "YAML file that names the impedance controller (default: the robot's)"
    parser.add_argument("--impedance-file", type=Path, help=about)
    about = "a topic that is not called as in the robot's file; as often as needed"
    parser.add_argument("--remap", action="append", default=[], metavar="FROM:=TO", help=about)
    parser.add_argument("--namespace", default="", help="ROS namespace of the graph")
    parser.add_argument(
        "--run-dir", type=Path, default=Path("runs/robot"), help="folder of the run (default: runs/robot)"
    )
    parser.add_argument("--demos", type=Path, help="folder of demonstrations to compare with (default: RUN_DIR/demos)")
    parser.add_argument(
        "--policy", type=Path, help="policy to try on them (default: RUN_DIR/offline/policy.safetensors)"
    )
    parser.add_argument("--backbone", default="octo-nano", help="of the policy (default: octo-nano)")
    parser.add_argument("--device", default="cpu", help="of the policy (default: cpu)")
    parser.add_argument("--seconds", type=float, default=3.0, help="to listen to the graph (default: 3)")
    parser.add_argument("--no-graph", action="store_true", help="look at the machine and the policy only")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the findings; 0 without an error, 1 with one, 2 when it could not look."""
    from conrft_bringup.doctor.machine_checks import machine_findings
    from conrft_data.config import ConfigError, RobotConfig, TaskConfig, load_config

    try:
        task = load_config(TaskConfig, _config_file("tasks", args.task))
        robot = load_config(RobotConfig, _config_file("robots", args.robot))
        controller = _controller(args.impedance_file, robot)
    except ConfigError as problem:
        print(f"conrft doctor: {problem}", file=sys.stderr)
        return 2
    findings = machine_findings(args.run_dir, args.device)
    snapshot = None
    if not args.no_graph:
        snapshot, seen = _look_at_graph(args, task, robot, controller)
        findings += seen
    findings += _look_at_demonstrations(args, task, snapshot)
    print(json.dumps([finding.as_json() for finding in findings], indent=2) if args.json else report(findings))
    return 1 if any(finding.level is Level.ERROR for finding in findings) else 0


def report(findings: Sequence[Finding]) -> str:
    """The findings as lines for a person, cures below what they cure."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.level]}  {finding.check:<{width}}  {finding.told}")
        if finding.cure:
            lines.append(f"      {'':<{width}}  -> {finding.cure}")
    errors = sum(finding.level is Level.ERROR for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    lines.append(f"{errors} errors, {warnings} warnings" + (": do not let the arm move" if errors else ""))
    return "\n".join(lines)


def _config_file(kind: str, name: str) -> Path:
    """The file of a task or robot: ``name`` is one that is shipped, or a path."""
    from conrft_bringup.launch_runner.ament_index import package_share

    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    return package_share("conrft_bringup", os.environ) / "config" / kind / f"{name}.yaml"


def _controller(impedance_file: Path | None, robot: RobotConfig) -> str:
    """The node that is to follow the target; raises ConfigError."""
    from conrft_control.impedance_settings import ImpedanceSettings
    from conrft_data.config import load_config

    if impedance_file is None and robot.name == "sim":
        return "simulator"  # it takes target_pose itself
    return load_config(ImpedanceSettings, impedance_file or _config_file("impedance", robot.name)).controller


def _look_at_graph(
    args: argparse.Namespace, task: TaskConfig, robot: RobotConfig, controller: str
) -> tuple[GraphSnapshot | None, list[Finding]]:
    from conrft_bringup.doctor.graph_checks import graph_findings
    from conrft_bringup.doctor.graph_probe import listen

    missing = sorted(set(task.cameras) - set(robot.cameras))
    if missing:
        cure = f"name them in the file of robot {robot.name}"
        return None, [error("cameras", f"the task wants {', '.join(missing)}, the robot has none of them", cure)]
    snapshot = listen(task, robot, args.namespace, args.seconds, args.remap)
    there = bool(snapshot.images) or snapshot.pose is not None
    return snapshot if there else None, graph_findings(snapshot, task, robot, controller)


def _look_at_demonstrations(
    args: argparse.Namespace, task: TaskConfig, snapshot: GraphSnapshot | None
) -> list[Finding]:
    from conrft_bringup.doctor.demonstration_checks import demonstration_findings
    from conrft_bringup.doctor.finding import ok, warning
    from conrft_data.bags import BagError, list_episodes, read_episode
    from conrft_data.types import Outcome

    folder = args.demos or args.run_dir / "demos"
    if not folder.is_dir():
        return [ok("demonstrations", f"none in {folder} to compare with")]
    try:
        infos = [info for info in list_episodes(folder) if info.outcome is Outcome.SUCCESS][:_DEMONSTRATIONS]
        episodes = [read_episode(info.path, task) for info in infos]
    except BagError as problem:
        return [error("demonstrations", str(problem), "conrft demos list; conrft demos salvage")]
    if not episodes:
        return [warning("demonstrations", f"no successful one in {folder}", "conrft up record_demos.launch.yaml")]
    findings = [ok("demonstrations", f"{len(episodes)} of {folder} looked at")]
    if snapshot is not None:
        findings += demonstration_findings(episodes, snapshot.images, snapshot.pose, list(task.cameras))
    policy = args.policy or args.run_dir / "offline" / "policy.safetensors"
    if policy.is_file():
        findings.append(_try_policy(policy, args, task, episodes))
    elif args.policy is not None:
        findings.append(error("action error", f"{policy} does not exist", "conrft train offline"))
    return findings


def _try_policy(file: Path, args: argparse.Namespace, task: TaskConfig, episodes: Sequence[Episode]) -> Finding:
    """The policy's action error on the person's steps of the demonstrations."""
    import numpy as np

    from conrft_bringup.doctor.demonstration_checks import check_action_error, demonstrated_steps
    from conrft_policy.acting import Actor, CannotAct
    from conrft_policy.backbone import BackboneError, load_backbone
    from conrft_policy.policy_weights import WeightsRefused, load

    proposals, demonstrated = [], []
    try:
        backbone = load_backbone(args.backbone, task.instruction, device=args.device)
        actor = Actor(backbone, None, task, seed=0, deterministic=True, device=args.device)
        actor.set_weights(load(file))
        for number, episode in enumerate(episodes):
            actor.reset(number)
            steps = set(demonstrated_steps(episode))
            for step, observation in enumerate(episode.observations[: episode.final_step]):
                action, _ = actor.act(observation)
                if step in steps:
                    proposals.append(action)
                    demonstrated.append(episode.commands[step].action)
    except (WeightsRefused, BackboneError, CannotAct, OSError) as problem:
        return error("action error", str(problem), "conrft policy info; is this the backbone that it was trained on?")
    return check_action_error(np.asarray(proposals, np.float64), np.asarray(demonstrated, np.float64))
