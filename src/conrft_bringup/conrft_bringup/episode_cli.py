"""``conrft episode``: what the operator's buttons do, from a shell."""

from __future__ import annotations

import argparse
import sys
from typing import Any

_TIMEOUT_S = 10.0
# The arm is set up step by step.
_SETUP_TIMEOUT_S = 60.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``episode`` and its subcommands."""
    parser = subparsers.add_parser("episode", help="end the running episode, or change the outcome of a recorded one")
    commands = parser.add_subparsers(dest="episode_command", required=True, metavar="COMMAND")
    for name, text in (("success", "end the running episode as a success"), ("abort", "end the running episode")):
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run_end)
    veto = commands.add_parser("veto", help="a recorded success was none: it becomes a time-out")
    veto.add_argument("--episode", default="", metavar="ID", help="name of the episode (default: the last one)")
    veto.set_defaults(run=run_veto)
    for command in commands.choices.values():
        command.add_argument("--reason", default="", help="kept with the episode")
    stop = commands.add_parser("stop", help="emergency stop: the arm stands at once, until reset-stop")
    stop.set_defaults(run=run_stop)
    reset_stop = commands.add_parser("reset-stop", help="allow the arm to move again after a stop")
    reset_stop.set_defaults(run=run_reset_stop)
    for name, text in (
        ("start", "start the episode that waits for the operator"),
        ("recover", "end a reflex of the arm and set it up again; nothing does that by itself"),
        ("configure", "set up the arm once more: its load and thresholds, then its controllers; ends gripper errors"),
    ):
        commands.add_parser(name, help=text).set_defaults(run=run_trigger)
    for command in commands.choices.values():
        command.add_argument("--namespace", default="", help="ROS namespace of the graph")


def run_end(args: argparse.Namespace) -> int:
    """Ends the running episode."""
    from conrft_data import topics
    from conrft_data.types import Outcome
    from conrft_msgs.srv import EndEpisode

    outcome = Outcome.SUCCESS if args.episode_command == "success" else Outcome.ABORTED
    reason = args.reason or f"conrft episode {args.episode_command}"
    return _call(EndEpisode, topics.END_EPISODE, args.namespace, outcome=int(outcome), reason=reason)


def run_veto(args: argparse.Namespace) -> int:
    """Takes back a success."""
    from conrft_data import topics
    from conrft_data.types import Outcome
    from conrft_msgs.srv import RelabelEpisode

    fields = {
        "episode_id": args.episode,
        "outcome": int(Outcome.TIMEOUT),
        "reason": args.reason or "conrft episode veto",
    }
    return _call(RelabelEpisode, topics.RELABEL_EPISODE, args.namespace, **fields)


def run_stop(args: argparse.Namespace) -> int:
    """Stops the arm; a button that is held as well still has to be let go."""
    from std_srvs.srv import Trigger

    from conrft_data import topics

    code = _call(Trigger, topics.STOP, args.namespace)
    if code:
        print("conrft episode: the arm was NOT stopped: USE THE ROBOT'S OWN STOP", file=sys.stderr)
    return code


def run_reset_stop(args: argparse.Namespace) -> int:
    """Allows the arm to move again."""
    from std_srvs.srv import Trigger

    from conrft_data import topics

    return _call(Trigger, topics.RESET_STOP, args.namespace)


def run_trigger(args: argparse.Namespace) -> int:
    """Calls the service of a command that needs no more than its name."""
    from std_srvs.srv import Trigger

    from conrft_data import topics

    names = {"start": topics.START_EPISODE, "recover": topics.RECOVER_ROBOT, "configure": topics.CONFIGURE_ROBOT}
    timeout_s = _TIMEOUT_S if args.episode_command == "start" else _SETUP_TIMEOUT_S
    return _call(Trigger, names[args.episode_command], args.namespace, timeout_s)


def _call(service: Any, name: str, namespace: str, timeout_s: float = _TIMEOUT_S, **fields: Any) -> int:
    """Calls a service and prints its answer; 0 done, 1 refused, 2 nobody answered within ``timeout_s``."""
    import rclpy

    rclpy.init(args=[])
    try:
        node = rclpy.create_node("conrft_episode", namespace=namespace or None)
        client, full_name = node.create_client(service, name), node.resolve_service_name(name)
        if not client.wait_for_service(_TIMEOUT_S):
            print(
                f"conrft episode: nobody offers {full_name} (is the graph running in this domain?)",
                file=sys.stderr,
            )
            return 2
        future = client.call_async(service.Request(**fields))
        rclpy.spin_until_future_complete(node, future, timeout_sec=timeout_s)
        if not future.done():
            print(f"conrft episode: {full_name} does not answer", file=sys.stderr)
            return 2
        answer = future.result()
        print(answer.message or "done")
        return 0 if answer.success else 1
    finally:
        rclpy.try_shutdown()
