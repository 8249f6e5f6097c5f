"""The ROS graph: what each stream brings, and who is there. Pure: the figures come from ``graph_probe``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from conrft_bringup.doctor.finding import Finding, Level, error, ok, warning
from conrft_data.config import RobotConfig, TaskConfig
from conrft_data.types import Float64, Image

# The loop looks ten times a second; with fewer it sees some picture twice.
_LEAST_HZ = 10.0
# A stamp further off than this is of another clock.
_CLOCK_OFFSET_S = 0.5


@dataclass(kw_only=True)
class Stream:
    """What came on one topic while the doctor listened.

    Attributes:
        topic: fully resolved name.
        publishers: names of the nodes that publish it.
        count: of messages.
        seconds: for which it was listened to.
        age_s: median of arrival minus stamp; None where no stamp tells.
        problem: why the newest message cannot be used; empty when it can.
        size: width and height of the newest image.
    """

    topic: str
    publishers: Sequence[str] = ()
    count: int = 0
    seconds: float = 1.0
    age_s: float | None = None
    problem: str = ""
    size: tuple[int, int] | None = None

    @property
    def rate_hz(self) -> float:
        """Messages a second."""
        return self.count / self.seconds if self.seconds > 0 else 0.0


class Word(NamedTuple):
    """What a node of the suite says of itself on /diagnostics."""

    level: Level
    message: str


@dataclass(kw_only=True)
class GraphSnapshot:
    """What the doctor saw of the graph.

    Attributes:
        nodes: their full names.
        words: the newest word of each node of the suite, by its full name.
        cameras, sensors: streams by name.
        spacenav: the SpaceMouse's stream.
        target_publishers, target_subscribers: nodes at the controller's target.
        controllers: state of each controller by name; None: no controller manager was there to ask.
        simulated_time: somebody publishes /clock, so that wall time says nothing about rates and ages.
        images: newest image of each camera at the task's size.
        pose: newest measured pose ``(7,)``.
    """

    nodes: Sequence[str] = ()
    words: Mapping[str, Word] = field(default_factory=dict)
    cameras: Mapping[str, Stream] = field(default_factory=dict)
    sensors: Mapping[str, Stream] = field(default_factory=dict)
    spacenav: Stream
    target_publishers: Sequence[str] = ()
    target_subscribers: Sequence[str] = ()
    controllers: Mapping[str, str] | None = None
    simulated_time: bool = False
    images: Mapping[str, Image] = field(default_factory=dict)
    pose: Float64 | None = None


def graph_findings(snapshot: GraphSnapshot, task: TaskConfig, robot: RobotConfig, controller: str) -> list[Finding]:
    """All checks of the graph, a single one when nothing runs; ``controller``: the node that follows the target."""
    if not any(stream.publishers for stream in (*snapshot.cameras.values(), *snapshot.sensors.values())):
        cure = (
            "ros2 launch conrft_bringup robot.launch.yaml (or sim.launch.yaml); the same ROS_DOMAIN_ID and namespace?"
        )
        return [error("graph", "neither robot nor cameras are there", cure)]
    findings = [
        check_camera(name, stream, robot, simulated_time=snapshot.simulated_time)
        for name, stream in snapshot.cameras.items()
    ]
    findings += [
        check_sensor(name, stream, simulated_time=snapshot.simulated_time) for name, stream in snapshot.sensors.items()
    ]
    findings.append(check_target(snapshot, robot.target_pose, controller))
    simulated = any(_short(name) == "scripted_operator" for name in snapshot.nodes)
    findings.append(check_spacenav(snapshot.spacenav, operator_is_simulated=simulated))
    findings.append(check_workspace(snapshot.pose, task))
    return findings + check_words(snapshot.words)


def check_camera(name: str, stream: Stream, robot: RobotConfig, *, simulated_time: bool) -> Finding:
    """Images come, in time, of a size that the crop fits into, in an encoding that is known."""
    check, driver = f"camera {name}", "realsense2_camera (or whatever drives it)"
    if not stream.publishers:
        return error(
            check, f"nobody publishes {stream.topic}", f"start {driver}; is the topic's name in the robot's file right?"
        )
    if not stream.count:
        return error(
            check,
            f"{stream.topic}: no image in {stream.seconds:.0f} s",
            f"look at the log of {driver}; USB 3 port and cable?",
        )
    if stream.problem:
        return error(
            check, f"{stream.topic}: {stream.problem}", "set size, crop and encoding so that they fit together"
        )
    late = _late(check, stream, simulated_time)
    if late is not None:
        return late
    width, height = stream.size or (0, 0)
    wanted = robot.cameras[name].size
    if wanted is not None and (width, height) != wanted:
        told = f"{stream.topic}: {width}x{height}, the robot's file says {wanted[0]}x{wanted[1]}"
        return error(check, told, "set the camera's profile; or measure the crop again and write down the new size")
    if not simulated_time and stream.rate_hz < 1.5 / robot.camera_timeout:
        told = f"{stream.rate_hz:.1f} Hz; the newest image is often older than camera_timeout {robot.camera_timeout} s"
        return warning(
            check, told, "another colour profile (640x480x30), a USB 3 port for each camera, less exposure time"
        )
    return ok(check, f"{width}x{height}" + (", simulated time" if simulated_time else f" at {stream.rate_hz:.1f} Hz"))


def check_sensor(name: str, stream: Stream, *, simulated_time: bool) -> Finding:
    """A state of the robot comes, in time, and is finite."""
    check = f"robot {name}"
    if not stream.publishers:
        cure = "start franka_ros2 and the controllers (drivers:=franka); ros2 control list_controllers"
        return error(check, f"nobody publishes {stream.topic}", cure)
    if not stream.count:
        cure = "unlock the brakes and activate FCI in Desk; ros2 control list_controllers"
        return error(check, f"{stream.topic}: silent for {stream.seconds:.0f} s", cure)
    if stream.problem:
        return error(
            check, f"{stream.topic}: {stream.problem}", "a driver that says this must not be driven by: restart it"
        )
    late = _late(check, stream, simulated_time)
    return late if late is not None else ok(check, "simulated time" if simulated_time else f"{stream.rate_hz:.0f} Hz")


def check_target(snapshot: GraphSnapshot, topic: str, controller: str) -> Finding:
    """The controller listens and is active, and nobody but the commander speaks to it."""
    check, publishers = "controller", snapshot.target_publishers
    strangers = [name for name in publishers if _short(name) != "commander"]
    if strangers or len(publishers) > 1:
        cure = "stop all but one: the controller ignores a target that has more than one publisher"
        return error(check, f"{topic} is published by {', '.join(publishers)}", cure)
    activate = f"ros2 control switch_controllers --activate {controller}; see also node franka_adapter below"
    if not any(_short(name) == controller for name in snapshot.target_subscribers):
        others = f", only {', '.join(snapshot.target_subscribers)}" if snapshot.target_subscribers else ""
        return error(check, f"{controller} does not listen to {topic}{others}", activate)
    if snapshot.controllers is not None and (state := snapshot.controllers.get(controller)) != "active":
        return error(check, f"{controller} is {state or 'not loaded'}", activate)
    if not publishers:
        return warning(check, f"{controller} listens, no commander is there yet", "start robot.launch.yaml")
    return ok(check, f"{controller} listens to {publishers[0]} alone")


def check_words(words: Mapping[str, Word]) -> list[Finding]:
    """No node of the suite says that something is wrong: the robot's own state, a reflex and a stop among it."""
    if not words:
        return [warning("nodes", "no node of the loop says anything on /diagnostics", "start robot.launch.yaml")]
    cure = "take the cause away; docs/safety.md says what goes on by itself and what a person has to end"
    findings = []
    for name, word in sorted(words.items()):
        if word.level is not Level.OK:
            findings.append(Finding(f"node {_short(name)}", word.level, word.message, cure))
    return findings or [ok("nodes", f"{len(words)} say that they are well")]


def check_spacenav(stream: Stream, *, operator_is_simulated: bool) -> Finding:
    """The person's way to take over is there."""
    check = "spacemouse"
    if not stream.publishers:
        cure = "sudo systemctl start spacenavd, then start spacenav_node; lsusb shows the device"
        return error(check, f"nobody publishes {stream.topic}", cure)
    if operator_is_simulated:
        return ok(check, "the scripted operator")
    if not stream.count:
        return warning(
            check, "its driver is there and silent", "push the cap while the doctor listens; spacenavd sees the device?"
        )
    return ok(check, f"{stream.rate_hz:.0f} Hz")


def check_workspace(pose: Float64 | None, task: TaskConfig) -> Finding:
    """The arm stands inside the task's box, or can be led into it."""
    check = "workspace"
    if pose is None:
        return error(check, "no measured pose", "see robot pose")
    low, high = np.asarray(task.workspace.low), np.asarray(task.workspace.high)
    outside = np.maximum(low - pose[:3], pose[:3] - high).max()
    if outside <= 0:
        return ok(check, f"the arm stands at {_point(pose)}, inside the box")
    told = f"the arm stands at {_point(pose)}, {outside:.3f} m outside the box"
    return warning(
        check, told, "lead it by hand (guiding mode) to the reset pose; is the task's base frame this robot's?"
    )


def _late(check: str, stream: Stream, simulated_time: bool) -> Finding | None:
    if simulated_time:
        return None
    if stream.age_s is not None and abs(stream.age_s) > _CLOCK_OFFSET_S:
        cure = "one time source for both machines (chrony); realsense: global_time_enabled; is use_sim_time set?"
        return error(check, f"{stream.topic}: stamps are {stream.age_s:+.2f} s off this machine's clock", cure)
    if stream.rate_hz < 0.9 * _LEAST_HZ:  # counted over a few seconds
        return error(
            check,
            f"{stream.topic}: {stream.rate_hz:.1f} Hz, the loop needs {_LEAST_HZ:.0f}",
            "a driver at 30 Hz or more; CPU load?",
        )
    return None


def _short(name: str) -> str:
    """A node's name without its namespace."""
    return name.rpartition("/")[2]


def _point(pose: Float64) -> str:
    return "({:.2f}, {:.2f}, {:.2f}) m".format(*pose[:3])
