"""The episode supervisor: begins episodes, ends them with an outcome, and stops at a fault."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState, Joy
from std_srvs.srv import Trigger

from conrft_control import episode_supervisor as core
from conrft_control.button_presses import ButtonPresses
from conrft_control.episode_supervisor import AfterFault, EpisodeSupervisor, Now, Stage, SupervisorSettings
from conrft_control.gripper_opening import gripper_opening
from conrft_control.health_board import HealthBoard, Level
from conrft_control.nodes import quality_of_service as qos
from conrft_control.nodes.node_health import NodeHealth
from conrft_control.nodes.parameters import (
    Bounded,
    declare,
    declare_deadman,
    declare_fields,
    declare_lockstep,
    declare_robot,
    declare_task,
    declare_tolerance,
)
from conrft_control.recording_watch import RecorderReport
from conrft_control.reset_motion import not_arrived, reset_pose
from conrft_data import topics
from conrft_data.bags.listing import last_episode_number
from conrft_data.conversion import (
    MessageError,
    episode_status_to_msg,
    pose_from_msg,
    stamp_to_ns,
    tick_of,
)
from conrft_data.node_process import HARDWARE_ID, STOPPED, StopRequested, run
from conrft_data.types import ActionSource, Mode, Outcome
from conrft_msgs.msg import Action, EpisodeState, LearnerStatus, Reward
from conrft_msgs.srv import EndEpisode, RelabelEpisode, ResetScene

_STEP_S = 0.02

_SETTINGS: dict[str, Bounded | str] = {
    "episodes": Bounded(0, 1_000_000, "how many to run; 0: no limit"),
    "only_successes": "count successful episodes only; else all but aborted and faulty ones",
    "first_episode": Bounded(0, 1_000_000, "number of the first episode; 0: after the last one in episodes_dir"),
    "seed": Bounded(0, 2**31 - 1, "of the scene's start states"),
    "scene_reset": "a simulator puts the scene back; false: a person does",
    "reward_expected": "a reward node judges every tick",
    "wait_for_learner": "the next episode begins when the learner has caught up",
    "wait_for_start": "each episode waits for the operator's start",
    "tail_steps": Bounded(0, 1000, "demonstrations: ticks after the success that show the goal to the classifier"),
    "hold_limit": Bounded(0, 10_000, "so many HOLDs in a row are a fault where a policy drives; 0: never"),
    "action_timeout": Bounded(0.2, 600.0, "without an Action for so long the episode is a fault, s of wall time"),
    "decision_timeout": Bounded(0.0, 60.0, "longest wait for the reward of the final step, s of wall time"),
    "scene_timeout": Bounded(0.1, 600.0, "for the scene to be put back, s of wall time"),
    "scene_retry": Bounded(0.1, 600.0, "without an answer the scene is asked for again, s of wall time"),
    "reset_timeout": Bounded(0.1, 600.0, "for the arm to reach the reset pose, s of wall time"),
    "recording_timeout": Bounded(0.1, 600.0, "for the recorder to have an ended episode on the disk, s of wall time"),
    "veto_retry": Bounded(0.1, 600.0, "a veto that the recorder has not taken in is told again, s of wall time"),
    "error_patience": Bounded(0.0, 600.0, "a node may be in error for so long in an episode, s of wall time"),
}


class SupervisorNode(Node):
    """Gives the state machine its events and carries out its effects."""

    def __init__(self, **options: Any) -> None:
        """``options`` go to rclpy's Node."""
        super().__init__("supervisor", **options)
        self._task, self._robot = declare_task(self), declare_robot(self)
        self._tolerance, self._goal = declare_tolerance(self), reset_pose(self._task.reset)
        about = "nodes that must report themselves well on /diagnostics"
        required = declare(self, "required_nodes", ["observer", "intervention_mux", "commander"], about)
        about = "those of them whose errors end the way home too: without them the arm must not move"
        self._arm_nodes = declare(self, "arm_nodes", ["commander"], about)
        self._supervisor = EpisodeSupervisor(self._declare_settings(recorder_expected="recorder" in required))
        self._board = self._declare_board(required)
        self._recorder_name = f"{self.get_namespace()}/recorder".lstrip("/")
        about = "a second press within this time is chatter, s"
        self._presses = ButtonPresses(declare(self, "debounce", 0.05, about, low=0.0, high=1.0))
        self._success_button = self._declare_button("success_button", 2, "ends the episode with success")
        self._abort_button = self._declare_button("abort_button", 3, "ends the episode as aborted")
        self._veto_button = self._declare_button("veto_button", 4, "takes back the success of the last episode")
        self._start_button = self._declare_button("start_button", -1, "starts the waiting episode")
        buttons = {
            "success_button": self._success_button,
            "abort_button": self._abort_button,
            "veto_button": self._veto_button,
            "start_button": self._start_button,
        }
        declare_deadman(self, buttons)
        self._pose: PoseStamped | None = None
        self._gripper: JointState | None = None
        self._scene_request: ResetScene.Request | None = None
        self._scene_future: Future | None = None
        self._relabel_futures: dict[str, Future] = {}
        self._begun = False
        inputs = [topics.ACTION, *([topics.REWARD] if self._supervisor.settings.reward_expected else [])]
        self._told: EpisodeState | None = None
        self._health = NodeHealth(self, self._beat, inputs=inputs, outputs=[topics.EPISODE_STATE])
        self._connect()

    def _declare_settings(self, *, recorder_expected: bool) -> SupervisorSettings:
        task, mode = self._task, self._declare_mode()
        ends = self._declare_ends(mode)
        default = SupervisorSettings(
            task=task.name,
            instruction=task.instruction,
            max_steps=task.max_steps,
            mode=mode,
            session=self._declare_session(),
            lockstep=declare_lockstep(self),
            reward_ends="reward" in ends,
            operator_ends="operator" in ends,
            # What follows depends on the mode, and can be changed by parameter.
            only_successes=mode is Mode.DEMONSTRATION,
            reward_expected="reward" in ends,
            wait_for_learner=mode is Mode.TRAINING,
            tail_steps=5 if mode is Mode.DEMONSTRATION else 0,
            reset_timeout=task.reset.timeout,
            recorder_expected=recorder_expected,
        )
        about = "wait: for the operator's start; exit: with code 1; continue: when all nodes are well"
        after_fault = declare(self, "after_fault", default.after_fault.value, about, constraints="wait, exit, continue")
        settings = replace(default, after_fault=AfterFault(after_fault), **declare_fields(self, default, _SETTINGS))
        folder = declare(self, "episodes_dir", "", "folder of the episode bags, for first_episode 0")
        if settings.first_episode:
            return settings
        # The same command given again goes on with the next number: no episode's name is used twice.
        last = last_episode_number(Path(folder).expanduser(), settings.episode_stem) if folder else 0
        return replace(settings, first_episode=last + 1)

    def _declare_mode(self) -> Mode:
        names = [mode.name.lower() for mode in Mode]
        name = declare(self, "mode", "training", "why the episodes are run", constraints=", ".join(names))
        if name not in names:
            raise ValueError(f"mode must be one of {', '.join(names)}, got {name!r}")
        return Mode[name.upper()]

    def _declare_ends(self, mode: Mode) -> list[str]:
        """Who calls an episode a success: a person or the simulator's judge, and in training the reward node too."""
        default = ["reward", "operator"] if mode is Mode.TRAINING else ["operator"]
        about = "who calls an episode a success"
        ends: list[str] = declare(self, "success_from", default, about, constraints="reward, operator, or both")
        if not ends or set(ends) - {"reward", "operator"}:
            raise ValueError(f"success_from must hold reward, operator or both, got {ends}")
        return ends

    def _declare_session(self) -> str:
        session = str(declare(self, "session", "", "first part of the episodes' names; empty: the time of the start"))
        return session or datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")

    def _declare_board(self, required: list[str]) -> HealthBoard:
        about = "a required node that says nothing for so long has failed, s of wall time"
        timeout_s = declare(self, "node_timeout", 5.0, about, low=1.5, high=120.0)
        return HealthBoard([name for name in required if name], timeout_s, self.get_namespace())

    def _declare_button(self, name: str, default: int, about: str) -> int:
        return int(declare(self, name, default, f"{about}; -1: none", low=-1, high=64))

    def _connect(self) -> None:
        lockstep = self._supervisor.settings.lockstep
        self._state_publisher = self.create_publisher(EpisodeState, topics.EPISODE_STATE, topics.LATCHED)
        self.create_subscription(Action, topics.ACTION, self._on_action, topics.TICK)
        self.create_subscription(Reward, topics.REWARD, self._on_reward, topics.TICK)
        self.create_subscription(Joy, topics.SPACENAV_JOY, self._on_joy, qos.device(lockstep))
        self.create_subscription(LearnerStatus, topics.LEARNER_STATUS, self._on_learner, topics.LEARNER_STANDING)
        self.create_subscription(PoseStamped, self._robot.current_pose, self._on_pose, topics.SENSOR)
        self.create_subscription(JointState, self._robot.gripper_state, self._on_gripper, topics.SENSOR)
        self.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, 100)
        self.create_service(EndEpisode, topics.END_EPISODE, self._on_end)
        self.create_service(Trigger, topics.START_EPISODE, self._on_start)
        self._scene_client = self.create_client(ResetScene, topics.RESET_SCENE)
        self._relabel_client = self.create_client(RelabelEpisode, topics.RELABEL_EPISODE)
        self.create_timer(_STEP_S, self._on_time, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _now(self) -> Now:
        return Now(int(self.get_clock().now().nanoseconds), time.monotonic())

    def _on_action(self, message: Action) -> None:
        try:
            source = ActionSource(message.source)
        except ValueError:
            # What no node may follow, the commander holds at: for the count it is a HOLD.
            source = ActionSource.HOLD
        self._carry_out(self._supervisor.action(tick_of(message), source, message.reason, self._now()))

    def _on_reward(self, message: Reward) -> None:
        self._carry_out(self._supervisor.reward(tick_of(message), bool(message.success), self._now()))

    def _on_joy(self, message: Joy) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        for button in self._presses.update(message.buttons, stamp_ns):
            self._on_press(button, stamp_ns)
        self._carry_out(self._supervisor.buttons_seen(stamp_ns, self._now()))

    def _on_press(self, button: int, stamp_ns: int) -> None:
        supervisor, now = self._supervisor, self._now()
        if button == self._success_button:
            self._carry_out(supervisor.success_pressed(stamp_ns, now))
        elif button == self._abort_button:
            self._carry_out(supervisor.end_request(Outcome.ABORTED, "aborted by the operator's button", now)[1])
        elif button == self._veto_button:
            self._carry_out(supervisor.veto(now))
        elif button == self._start_button and (problem := supervisor.start_request(now)):
            self.get_logger().warning(f"start: {problem}")

    def _on_learner(self, message: LearnerStatus) -> None:
        self._supervisor.learner(message.last_episode_id, int(message.pending_updates))

    def _on_pose(self, message: PoseStamped) -> None:
        self._pose = message
        self._supervisor.tick_seen(stamp_to_ns(message.header.stamp), self._now())
        self._check_arrival()

    def _on_gripper(self, message: JointState) -> None:
        self._gripper = message
        self._check_arrival()

    def _check_arrival(self) -> None:
        """Judges pose and gripper exactly as the commander does, so that in lockstep both stop at the same tick."""
        if self._supervisor.stage is not Stage.RESETTING or self._pose is None or self._gripper is None:
            return
        stamp_ns = stamp_to_ns(self._pose.header.stamp)
        if self._supervisor.settings.lockstep and stamp_to_ns(self._gripper.header.stamp) != stamp_ns:
            return
        try:
            pose = pose_from_msg(self._pose.pose, self._robot.current_pose)
            opening = gripper_opening(self._gripper.position, self._robot.gripper_max_width, self._robot.gripper_state)
        except MessageError as error:
            self._supervisor.waiting_for = str(error)
            return
        opening = opening if self._task.action_dim == 7 else 1.0
        problem = not_arrived(pose, opening, self._goal, self._tolerance)
        self._supervisor.waiting_for = problem
        if not problem:
            self._carry_out(self._supervisor.arrived(stamp_ns, self._now()))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            level, own = Level(min(status.level[0], Level.STALE)), status.hardware_id == HARDWARE_ID
            stopped = any(value.key == STOPPED for value in status.values)
            self._board.put(status.name, level, status.message, time.monotonic(), own=own, stopped=stopped)
            if own and status.name == self._recorder_name:
                self._on_recorder(status)

    def _on_recorder(self, status: DiagnosticStatus) -> None:
        report = RecorderReport.from_values({value.key: value.value for value in status.values})
        if report is not None:
            self._carry_out(self._supervisor.recorder(report, self._now()))

    def _on_end(self, request: EndEpisode.Request, response: EndEpisode.Response) -> EndEpisode.Response:
        try:
            outcome = Outcome(request.outcome)
        except ValueError:
            response.message = f"outcome {request.outcome} is unknown"
            return response
        problem, effects = self._supervisor.end_request(outcome, request.reason, self._now())
        self._carry_out(effects)
        response.success, response.message = (
            not problem,
            problem or f"{self._supervisor.episode_id} ends with {outcome.name}",
        )
        return response

    def _on_start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        problem = self._supervisor.start_request(self._now())
        response.success, response.message = not problem, problem or "granted"
        return response

    def _on_time(self) -> None:
        now, supervisor = self._now(), self._supervisor
        if not self._begun:
            self._begun = True
            self._carry_out(supervisor.begin(now))
        self._call_scene_when_served()
        self._board.listen(now.wall_s)
        patience = supervisor.settings.error_patience
        not_ready = self._health.missing + self._board.not_ready(now.wall_s)
        if supervisor.stage in (Stage.RUNNING, Stage.DECIDING, Stage.TAIL):
            failed = self._board.failed(now.wall_s, patience)
        elif supervisor.stage is Stage.RESETTING:
            failed = self._board.failed(now.wall_s, patience, self._arm_nodes)
        else:
            failed = self._board.silent(now.wall_s)
        self._carry_out(supervisor.on_time(not_ready, failed, now))
        # In lockstep the tick after a reset came before the news that the arm is to go home, and nothing else comes.
        self._check_arrival()

    def _carry_out(self, effects: list[core.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, core.Publish):
                self._tell(effect)
            elif isinstance(effect, core.ResetScene):
                self._scene_request = ResetScene.Request(seed=effect.seed, episode=effect.episode)
                self._call_scene_when_served()
            elif isinstance(effect, core.Relabel):
                self._relabel(effect)
            else:
                self._quit(effect)

    def _tell(self, effect: core.Publish) -> None:
        status = effect.status
        self._told = episode_status_to_msg(status, self._robot.base_frame)
        self._state_publisher.publish(self._told)
        text = f"{status.episode_id} {status.phase.name}"
        if status.outcome is not Outcome.NONE:
            takeovers, ticks = self._supervisor.interventions
            text += f" {status.outcome.name} at step {status.final_step}, {takeovers} interventions ({ticks} ticks)"
        self._log(f"{text} {status.reason}".rstrip(), bad=status.outcome is Outcome.FAULT)
        self._report()

    def _call_scene_when_served(self) -> None:
        """Asks for the scene once its server is there; never waits for it."""
        request = self._scene_request
        if request is None or not self._scene_client.service_is_ready():
            return
        self._scene_request = None
        if self._scene_future is not None:
            self._scene_client.remove_pending_request(self._scene_future)  # a late answer is not this one's
        self._scene_future = self._scene_client.call_async(request)
        self._scene_future.add_done_callback(self._on_scene_reset)

    def _on_scene_reset(self, future: Future) -> None:
        if future is not self._scene_future or future is None or future.cancelled():
            return
        response = future.result()
        self._carry_out(self._supervisor.scene_reset_done(bool(response.success), response.message, self._now()))

    def _relabel(self, effect: core.Relabel) -> None:
        """Tells the recorder; where it does not answer, the state machine asks for it again."""
        if (unanswered := self._relabel_futures.pop(effect.episode_id, None)) is not None:
            self._relabel_client.remove_pending_request(unanswered)
        if not self._relabel_client.service_is_ready():
            self._log_unheard(f"{effect.episode_id} is not relabelled: no recorder serves {topics.RELABEL_EPISODE}")
            return
        request = RelabelEpisode.Request(
            episode_id=effect.episode_id, outcome=int(effect.outcome), reason=effect.reason
        )
        future = self._relabel_futures[effect.episode_id] = self._relabel_client.call_async(request)
        future.add_done_callback(partial(self._on_relabelled, effect.episode_id))

    def _on_relabelled(self, episode_id: str, future: Future) -> None:
        response = future.result()
        if response.success:
            self._supervisor.veto_taken(episode_id)
            self._log(response.message, bad=False)
        else:
            self._log_unheard(f"{episode_id} is not relabelled: {response.message}")

    def _log_unheard(self, message: str) -> None:
        # It is told again every second until it is heard.
        self.get_logger().error(message, throttle_duration_sec=30.0)

    def _quit(self, effect: core.Quit) -> None:
        self._log(effect.message, bad=effect.exit_code != 0)
        raise StopRequested(effect.exit_code)

    def _log(self, message: str, *, bad: bool) -> None:
        # Two lines, because rclpy allows one severity for each line that logs.
        if bad:
            self.get_logger().error(message)
        else:
            self.get_logger().info(message)

    def _beat(self) -> None:
        """Once a second: says the state again while it waits for others to be well, and reports.

        They may be in error because a stranger spoke in the supervisor's name: a recorder about an episode that there
        is not, for one. Hearing the same again changes nothing for the others.
        """
        stage = self._supervisor.stage
        waits = stage is Stage.FAULTED or (stage is Stage.READY and self._waits_for_nodes())
        if waits and self._told is not None:
            self._state_publisher.publish(self._told)
        self._report()

    def _waits_for_nodes(self) -> bool:
        return bool(self._board.not_ready(time.monotonic()))

    def _report(self) -> None:
        supervisor = self._supervisor
        silent = self._board.silent(time.monotonic(), required=False)
        takeovers, ticks = supervisor.interventions
        values = {
            "stage": supervisor.stage.name,  # a simulator that starts reads it
            "episode_id": supervisor.episode_id,
            "step": supervisor.steps,
            "episodes_counted": supervisor.counted,
            "interventions": takeovers,
            "operator_ticks": ticks,
        }
        if supervisor.stage is Stage.FAULTED:
            self._health.say(Level.ERROR, f"waits after a fault: {supervisor.reason}", values)
        elif supervisor.stage in (Stage.STANDBY, Stage.READY) and supervisor.waiting_for and self._waits_for_nodes():
            self._health.say(Level.WARN, f"{supervisor.stage.name}: waits for {supervisor.waiting_for}", values)
        else:
            doing = f"{supervisor.stage.name}: {supervisor.waiting_for}".rstrip(": ")
            vetoes = [f"the recorder has not taken in the veto of {name}" for name in supervisor.open_vetoes]
            warnings = [*silent, *vetoes]
            self._health.say(Level.WARN if warnings else Level.OK, "; ".join([doing, *warnings]), values)

    def stop(self) -> None:
        """Ends a running episode as aborted, so that its recording says so; names the vetoes that nobody took in."""
        self._carry_out(self._supervisor.stop(self._now()))
        for name in self._supervisor.open_vetoes:
            self._log(
                f"no recorder took in the veto of {name}; do it by: conrft demos relabel {name} timeout", bad=True
            )


def main() -> None:
    """Runs the supervisor."""
    sys.exit(run(SupervisorNode, "supervisor"))


if __name__ == "__main__":
    main()
