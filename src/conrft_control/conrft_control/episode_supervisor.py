"""The episode supervisor: a state machine that begins episodes, ends them with an outcome, and stops at a fault."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from conrft_control.recording_watch import RecorderReport, RecordingWatch
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import MESSAGE_VERSION, ActionSource, Mode, Outcome, Phase

_REMEMBERED_STEPS = 64

# Steps go up by one. One that runs ahead by more than a subscriber's queue is no step of this episode.
_CREDIBLE_STEPS = 100


class AfterFault(Enum):
    """What follows an episode that ended with a fault. Nothing is ever cleared silently."""

    WAIT = "wait"
    EXIT = "exit"
    CONTINUE = "continue"


@dataclass(frozen=True, kw_only=True)
class SupervisorSettings:
    """What is run, and how long the supervisor waits. All times are wall time in seconds.

    Attributes:
        task, instruction, max_steps: of the task.
        mode: why the episodes are run.
        session: first part of every episode's id.
        episodes: how many to run; 0: no limit.
        only_successes: count successful episodes only (demonstrations), else all but aborted and faulty ones.
        first_episode: number of the first.
        seed: of the scene's start states.
        lockstep: simulated time waits for each tick's Action.
        scene_reset: a simulator puts the scene back; else a person does, and before the first motion all must be well.
        reward_ends: a success of the reward node ends the episode.
        operator_ends: the operator's success button ends the episode.
        reward_expected: at the step limit, wait for the reward of the final step.
        wait_for_learner: the next episode begins when the learner has caught up.
        wait_for_start: each episode waits for the operator's start; so does the first motion of an arm that a person
            stands beside.
        tail_steps: ticks after a demonstration's success that show the goal to the reward classifier.
        hold_limit: so many HOLDs in a row are a fault where a policy drives; 0: never.
        action_timeout: without an Action for so long the episode ends with a fault.
        decision_timeout: for the reward of the final step.
        scene_timeout: for the scene to be put back.
        scene_retry: without an answer for so long it is asked for again: who was asked may have died.
        reset_timeout: for the arm to reach the reset pose.
        error_patience: a node may be in error for so long before the episode ends.
        recorder_expected: an episode counts when the recorder has it whole on the disk.
        recording_timeout: for that; else the episode was a fault.
        veto_retry: a veto that the recorder has not taken in for so long is told to it again: it may have died.
        quiet: lockstep: simulated time has stopped when no tick came for so long.
        ready_pause: for which an episode is shown as ready, so that the operator's first move is there when it begins.
        ended_pause: for which an ended episode is shown before the next begins.
        exit_delay: after the last episode, so that its recording is finished.
        after_fault: what follows a fault.
    """

    task: str
    instruction: str
    max_steps: int
    mode: Mode
    session: str
    episodes: int = 0
    only_successes: bool = False
    first_episode: int = 1
    seed: int = 0
    lockstep: bool = False
    scene_reset: bool = False
    reward_ends: bool = False
    operator_ends: bool = False
    reward_expected: bool = False
    wait_for_learner: bool = False
    wait_for_start: bool = False
    recorder_expected: bool = False
    recording_timeout: float = 30.0
    veto_retry: float = 1.0
    tail_steps: int = 0
    hold_limit: int = 20
    action_timeout: float = 15.0
    decision_timeout: float = 1.0
    scene_timeout: float = 30.0
    scene_retry: float = 5.0
    reset_timeout: float = 60.0
    error_patience: float = 3.0
    quiet: float = 0.03
    ready_pause: float = 0.05
    ended_pause: float = 0.05
    exit_delay: float = 1.0
    after_fault: AfterFault = AfterFault.WAIT

    @property
    def episode_stem(self) -> str:
        """What the names of all episodes begin with; a number of six digits follows."""
        return f"{self.session}-{self.mode.name.lower()}-"


class Now(NamedTuple):
    """Both clocks: ROS time in ns, monotonic wall time in s."""

    ros_ns: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class Publish:
    """Effect: tell everybody the state."""

    status: EpisodeStatus


@dataclass(frozen=True, slots=True)
class ResetScene:
    """Effect: ask the simulator to put the scene back; answer with ``scene_reset_done``."""

    seed: int
    episode: int


@dataclass(frozen=True, slots=True)
class Relabel:
    """Effect: ask the recorder to change the outcome of a finished episode."""

    episode_id: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Quit:
    """Effect: the session is over."""

    exit_code: int
    message: str


Effect = Publish | ResetScene | Relabel | Quit


class Stage(Enum):
    """Where the supervisor is, finer than the phase that it publishes."""

    IDLE = auto()
    STANDBY = auto()
    SCENE = auto()
    SETTLING = auto()
    RESETTING = auto()
    READY = auto()
    RUNNING = auto()
    DECIDING = auto()
    TAIL = auto()
    ENDED = auto()
    FAULTED = auto()
    LAST = auto()
    DONE = auto()


_IN_EPISODE = (Stage.RUNNING, Stage.DECIDING, Stage.TAIL)
_BEFORE_EPISODE = (Stage.SCENE, Stage.SETTLING, Stage.RESETTING, Stage.READY)


@dataclass(slots=True)
class _Running:
    """What is known of the running episode."""

    last_action_wall_s: float
    step: int = -1
    holds: int = 0
    hold_reason: str = ""
    operator_ticks: int = 0
    interventions: int = 0
    operator_drives: bool = False
    success_step: int | None = None
    pressed_ns: int | None = None
    deciding_since_wall_s: float = 0.0
    rewarded_step: int = -1


@dataclass(slots=True)
class _Veto:
    """A veto that the recorder may not have written yet.

    Attributes:
        relabel: what the recorder is to do.
        told_wall_s: when it was last told.
        recorded: the whole episode was on the disk then; before, the recorder's word is a promise that dies with it.
    """

    relabel: Relabel
    told_wall_s: float = 0.0
    recorded: bool = False


class EpisodeSupervisor:
    """Begins and ends episodes. Every event method returns the effects that the node has to carry out, in order."""

    def __init__(self, settings: SupervisorSettings) -> None:
        self.settings = settings
        self.stage = Stage.IDLE
        self.episode = settings.first_episode - 1
        self.counted = 0
        self.waiting_for = ""
        self.last_outcome = Outcome.NONE
        self._entered_wall_s = 0.0
        self._entered_ros_ns = 0
        self._asked_wall_s = 0.0
        self._run = _Running(0.0)
        self._steps: OrderedDict[int, int] = OrderedDict()
        self._reason = ""
        self._last_id = ""
        self._unlearned_id = self._learned_id = ""
        self._newest_tick_ns = -1
        self._newest_tick_wall_s = 0.0
        self._joy_ns = -1
        self._start_requested = False
        self._not_ready: list[str] = []
        self._learner_id: str | None = None
        self._pending_updates = 0
        self._recording = RecordingWatch()
        self._last_counted = False
        self._vetoes: dict[str, _Veto] = {}

    @property
    def episode_id(self) -> str:
        """Unique name of the present episode."""
        return f"{self.settings.episode_stem}{self.episode:06d}"

    @property
    def reason(self) -> str:
        """Why the last episode was aborted or faulty; empty when it was not."""
        return self._reason

    @property
    def steps(self) -> int:
        """Step of the newest Action, -1 before the first."""
        return self._run.step

    @property
    def interventions(self) -> tuple[int, int]:
        """How often the operator took over in this episode, and for how many ticks in all."""
        return self._run.interventions, self._run.operator_ticks

    @property
    def open_vetoes(self) -> list[str]:
        """Episodes whose veto the recorder has not taken in yet."""
        return list(self._vetoes)

    def begin(self, now: Now) -> list[Effect]:
        """The session begins; nobody stands beside a simulator."""
        if self.settings.scene_reset:
            return self._next_episode(now)
        self._enter(Stage.STANDBY, now)
        return []

    def scene_reset_done(self, success: bool, message: str, now: Now) -> list[Effect]:
        """The simulator answered."""
        if self.stage is not Stage.SCENE:
            return []
        if not success:
            return self._fault(f"the scene could not be reset: {message}", now)
        self._enter(Stage.SETTLING, now)
        return self.on_time([], [], now)

    def tick_seen(self, stamp_ns: int, now: Now) -> list[Effect]:
        """A measured pose came: simulated time stands at ``stamp_ns``."""
        if stamp_ns != self._newest_tick_ns:
            self._newest_tick_ns, self._newest_tick_wall_s = stamp_ns, now.wall_s
        return []

    def arrived(self, stamp_ns: int, now: Now) -> list[Effect]:
        """At ``stamp_ns`` the arm is at the reset pose and the gripper is open."""
        if self.stage is not Stage.RESETTING or stamp_ns < self._entered_ros_ns:
            return []
        self._enter(Stage.READY, now)
        self._entered_ros_ns = stamp_ns if self.settings.lockstep else now.ros_ns
        return [self._publish(Phase.READY)]

    def action(self, tick: Tick, source: ActionSource, reason: str, now: Now) -> list[Effect]:
        """An Action was commanded."""
        run = self._run
        if self.stage not in _IN_EPISODE or tick.episode != self.episode:
            return []
        if not run.step < tick.step <= run.step + _CREDIBLE_STEPS:
            return []
        run.step, run.last_action_wall_s = tick.step, now.wall_s
        self._steps[tick.stamp_ns] = tick.step
        if len(self._steps) > _REMEMBERED_STEPS:
            self._steps.popitem(last=False)
        self._count_source(source, reason)
        if self.stage is Stage.TAIL:
            return self._end_of_tail(now)
        if run.pressed_ns is not None and tick.stamp_ns >= run.pressed_ns and tick.step <= self.settings.max_steps:
            return self._succeed(tick.step, now)
        if 0 < self.settings.hold_limit <= run.holds and self.settings.mode is not Mode.DEMONSTRATION:
            return self._fault(f"{run.holds} HOLDs in a row: {run.hold_reason}", now)
        if self.stage is Stage.RUNNING and tick.step >= self.settings.max_steps:
            self.stage, run.deciding_since_wall_s = Stage.DECIDING, now.wall_s
        return self._decide(now)

    def reward(self, tick: Tick, success: bool, now: Now) -> list[Effect]:
        """The reward node has judged a tick."""
        if (
            self.stage not in (Stage.RUNNING, Stage.DECIDING)
            or tick.episode != self.episode
            or tick.step > self.settings.max_steps
        ):
            return []
        self._run.rewarded_step = max(self._run.rewarded_step, tick.step)
        if success and self.settings.reward_ends:
            return self._succeed(tick.step, now)
        return self._decide(now)

    def buttons_seen(self, stamp_ns: int, now: Now) -> list[Effect]:
        """The operator's buttons of ``stamp_ns`` have been read, and every press on them reported."""
        self._joy_ns = max(self._joy_ns, stamp_ns)
        return self._decide(now)

    def success_pressed(self, stamp_ns: int, now: Now) -> list[Effect]:
        """The operator pressed the success button at ``stamp_ns``: the first tick from then on is the final one."""
        if self.stage not in (Stage.RUNNING, Stage.DECIDING) or not self.settings.operator_ends:
            return []
        for tick_ns, step in self._steps.items():
            if tick_ns >= stamp_ns:
                return self._succeed(step, now) if step <= self.settings.max_steps else []
        self._run.pressed_ns = stamp_ns
        return []

    def end_request(self, outcome: Outcome, reason: str, now: Now) -> tuple[str, list[Effect]]:
        """The operator ends the episode by service or button; returns why not (empty: done) and the effects."""
        if outcome not in (Outcome.SUCCESS, Outcome.ABORTED):
            return f"an operator ends an episode with SUCCESS or ABORTED, not {outcome.name}", []
        if self.stage not in _IN_EPISODE or self._run.step < 0:
            return "no episode is running", []
        if outcome is Outcome.SUCCESS:
            return "", self._succeed(min(self._run.step, self.settings.max_steps), now)
        return "", self._end(
            Outcome.ABORTED, min(self._run.step, self.settings.max_steps), reason or "aborted by the operator", now
        )

    def veto(self, now: Now) -> list[Effect]:
        """The operator takes back the success of the last finished episode: it was a trial that did not succeed.

        The recorder is told until it has taken the veto in (``veto_taken``).
        """
        if self.last_outcome is not Outcome.SUCCESS or not self._last_id:
            return []
        self.last_outcome = Outcome.TIMEOUT
        if self.settings.only_successes:
            self.counted, self._last_counted = self.counted - 1, False
            self.stage = Stage.ENDED if self.stage is Stage.LAST else self.stage
        veto = _Veto(Relabel(self._last_id, Outcome.TIMEOUT, "the operator vetoed the success"))
        self._vetoes[self._last_id] = veto
        return [self._tell_veto(veto, now)]

    def veto_taken(self, episode_id: str) -> None:
        """The recorder answered that it has taken a veto in."""
        veto = self._vetoes.get(episode_id)
        if veto is not None and veto.recorded:
            del self._vetoes[episode_id]

    def start_request(self, now: Now) -> str:
        """The operator starts the waiting episode, or the way home; returns why not, empty: granted.

        The way home begins at once or not at all: an arm that set off once the last node is well would surprise whoever
        is at work on that node.
        """
        if self.stage not in (Stage.STANDBY, Stage.READY, Stage.FAULTED):
            return f"nothing waits for a start, the supervisor is {self.stage.name}"
        if self._not_ready and self.stage is not Stage.READY:
            return f"not ready: {'; '.join(self._not_ready)}"
        self._start_requested = True
        return ""

    def learner(self, last_episode_id: str, pending_updates: int) -> None:
        """The learner said how far it is."""
        self._learner_id, self._pending_updates = last_episode_id, pending_updates
        if not pending_updates:
            # A learner of several robots goes on with another's episode at once: what it said of this one is kept.
            self._learned_id = last_episode_id if last_episode_id == self._unlearned_id else self._learned_id

    def recorder(self, report: RecorderReport, now: Now) -> list[Effect]:
        """The recorder said which episodes are on the disk."""
        if not self.settings.recorder_expected:
            return []
        self._recording.hear(report)
        if not (problem := self._recording.problem):
            return []
        if self.stage in _IN_EPISODE:
            return self._fault(problem, now)
        return self._recording_lost(problem, now) if self.stage in (Stage.ENDED, Stage.LAST) else []

    def on_time(self, not_ready: list[str], failed: list[str], now: Now) -> list[Effect]:
        """To be called every few hundredths of a second.

        ``not_ready``: required nodes that are not well, so that no episode may begin; ``failed``: those that are so
        badly off that what is going on must end.
        """
        due = [veto for veto in self._vetoes.values() if now.wall_s - veto.told_wall_s > self.settings.veto_retry]
        return [*(self._tell_veto(veto, now) for veto in due), *self._advance(not_ready, failed, now)]

    def _tell_veto(self, veto: _Veto, now: Now) -> Relabel:
        veto.told_wall_s = now.wall_s
        veto.recorded = veto.relabel.episode_id != self._recording.awaited
        return veto.relabel

    def _advance(self, not_ready: list[str], failed: list[str], now: Now) -> list[Effect]:
        self._not_ready = not_ready
        if failed and self.stage in (*_BEFORE_EPISODE, *_IN_EPISODE):
            return self._fault("; ".join(failed), now)
        match self.stage:
            case Stage.STANDBY:
                return self._leave_standby(not_ready, now)
            case Stage.SCENE if self._since(now) > self.settings.scene_timeout:
                return self._fault(f"the scene was not reset within {self.settings.scene_timeout:.0f} s", now)
            case Stage.SCENE if now.wall_s - self._asked_wall_s > self.settings.scene_retry:
                return [self._ask_for_scene(now)]
            case Stage.SETTLING:
                return self._settle(now)
            case Stage.RESETTING if self._since(now) > self.settings.reset_timeout:
                return self._fault(
                    f"the reset pose was not reached within {self.settings.reset_timeout:.0f} s: {self.waiting_for}",
                    now,
                )
            case Stage.READY:
                return self._try_to_run(not_ready, now)
            case Stage.RUNNING | Stage.DECIDING | Stage.TAIL:
                return self._watch(now)
            case Stage.ENDED | Stage.LAST if self._recording.awaited:
                return self._await_recording(failed, now)
            case Stage.ENDED if self._since(now) >= self.settings.ended_pause:
                return self._next_episode(now)
            case Stage.FAULTED:
                return self._after_fault(not_ready, now)
            case Stage.LAST:
                return self._finish(now)
        return []

    def stop(self, now: Now) -> list[Effect]:
        """The supervisor is being shut down: a running episode ends as aborted."""
        if self.stage not in _IN_EPISODE:
            return []
        if self.stage is Stage.TAIL:
            return self._conclude_tail(now)
        return self._end(
            Outcome.ABORTED, max(0, min(self._run.step, self.settings.max_steps)), "the supervisor was shut down", now
        )

    def _leave_standby(self, not_ready: list[str], now: Now) -> list[Effect]:
        """Before the first motion: the arm is moved by nobody until all are well and a person has said so."""
        self.waiting_for = "; ".join(not_ready)
        if not self.waiting_for and self.settings.wait_for_start and not self._start_requested:
            self.waiting_for = "waits for the operator's start, then the arm goes home"
        if self.waiting_for:
            return []
        self._start_requested = False
        return self._next_episode(now)

    def _next_episode(self, now: Now) -> list[Effect]:
        self.episode += 1
        self._reason = ""
        if self.settings.scene_reset:
            self._enter(Stage.SCENE, now)
            return [self._ask_for_scene(now)]
        return self._begin_reset(now)

    def _ask_for_scene(self, now: Now) -> ResetScene:
        self._asked_wall_s = now.wall_s
        return ResetScene(self.settings.seed, self.episode)

    def _begin_reset(self, now: Now) -> list[Effect]:
        self._enter(Stage.RESETTING, now)
        # In lockstep everything older than the tick at which the simulator now waits shows the old scene.
        self._entered_ros_ns = max(self._newest_tick_ns, 0) if self.settings.lockstep else now.ros_ns
        return [self._publish(Phase.RESETTING)]

    def _settle(self, now: Now) -> list[Effect]:
        if self.settings.lockstep:
            seen = self._newest_tick_ns >= 0
            if self._since(now) > self.settings.scene_timeout:
                return self._fault(
                    f"no tick came within {self.settings.scene_timeout:.0f} s after the scene was reset", now
                )
            if not seen or now.wall_s - max(self._newest_tick_wall_s, self._entered_wall_s) < self.settings.quiet:
                self.waiting_for = "waits for the simulator's first tick after the reset"
                return []
        return self._begin_reset(now)

    def _try_to_run(self, not_ready: list[str], now: Now) -> list[Effect]:
        self.waiting_for = "; ".join(not_ready) or self._learner_problem()
        if not self.waiting_for and self.settings.wait_for_start and not self._start_requested:
            self.waiting_for = "waits for the operator's start"
        if self.waiting_for or self._since(now) < self.settings.ready_pause:
            return []
        ready_ns = self._entered_ros_ns
        self._enter(Stage.RUNNING, now)
        if self.settings.lockstep:
            self._entered_ros_ns = ready_ns
        self._start_requested = False
        self._run = _Running(now.wall_s)
        self._steps.clear()
        self._recording.begin(self.episode_id)
        return [self._publish(Phase.RUNNING)]

    def _learner_problem(self) -> str:
        if not self.settings.wait_for_learner:
            return ""
        if self._learner_id is None:
            return "waits for the learner's first status"
        if self._unlearned_id and self._learned_id == self._unlearned_id:
            return ""
        if self._unlearned_id and self._learner_id != self._unlearned_id:
            return f"waits for the learner to take in {self._unlearned_id}"
        if self._pending_updates:
            return f"waits for the learner, which owes {self._pending_updates} updates"
        return ""

    def _count_source(self, source: ActionSource, reason: str) -> None:
        run = self._run
        run.holds = run.holds + 1 if source is ActionSource.HOLD else 0
        run.hold_reason = reason
        drives = source is ActionSource.OPERATOR
        run.operator_ticks += drives
        run.interventions += drives and not run.operator_drives
        run.operator_drives = drives

    def _decide(self, now: Now) -> list[Effect]:
        """At the step limit: a time-out, once nobody can still call it a success."""
        if self.stage is not Stage.DECIDING:
            return []
        settings, run = self.settings, self._run
        limit_ns = next((tick_ns for tick_ns, step in self._steps.items() if step >= settings.max_steps), 0)
        reward_open = settings.reward_ends and settings.reward_expected and run.rewarded_step < settings.max_steps
        button_open = settings.operator_ends and settings.lockstep and self._joy_ns < limit_ns
        if (reward_open or button_open) and now.wall_s - run.deciding_since_wall_s < settings.decision_timeout:
            return []
        return self._end(Outcome.TIMEOUT, settings.max_steps, "", now)

    def _succeed(self, step: int, now: Now) -> list[Effect]:
        if self.stage is Stage.TAIL:
            return []
        self._run.success_step = step
        if self.settings.mode is Mode.DEMONSTRATION and self.settings.tail_steps:
            self.stage = Stage.TAIL
            return self._end_of_tail(now)
        return self._end(Outcome.SUCCESS, step, self._remark(), now)

    def _end_of_tail(self, now: Now) -> list[Effect]:
        assert self._run.success_step is not None
        return self._conclude_tail(now) if self._run.step >= self._run.success_step + self.settings.tail_steps else []

    def _conclude_tail(self, now: Now) -> list[Effect]:
        assert self._run.success_step is not None
        return self._end(Outcome.SUCCESS, self._run.success_step, self._remark(), now)

    def _remark(self) -> str:
        if self.settings.mode is Mode.EVALUATION and self._run.operator_ticks:
            return f"not a clean trial: the operator moved the arm in {self._run.operator_ticks} ticks"
        return ""

    def _watch(self, now: Now) -> list[Effect]:
        silence = now.wall_s - self._run.last_action_wall_s
        if silence > self.settings.action_timeout:
            return self._fault(f"no Action for {silence:.1f} s", now)
        return self._decide(now)

    def _end(self, outcome: Outcome, final_step: int, reason: str, now: Now) -> list[Effect]:
        if self._run.step >= 0:
            self._last_id, self.last_outcome = self.episode_id, outcome
            # Of an episode that ended with a fault there may be nothing on the disk to learn from.
            self._unlearned_id = "" if outcome is Outcome.FAULT else self.episode_id
            if self.settings.recorder_expected and outcome is not Outcome.FAULT:
                self._recording.end()
        self._reason = reason
        counts = outcome is Outcome.SUCCESS or (outcome is Outcome.TIMEOUT and not self.settings.only_successes)
        self.counted += counts
        self._last_counted = counts
        finished = 0 < self.settings.episodes <= self.counted
        self._enter(Stage.LAST if finished else Stage.ENDED, now)
        return [self._publish(Phase.ENDED, outcome, final_step)]

    def _await_recording(self, failed: list[str], now: Now) -> list[Effect]:
        """An episode has ended: nothing begins before it is on the disk."""
        self.waiting_for = f"waits for the recording of {self._recording.awaited}"
        if failed:
            return self._recording_lost("; ".join(failed), now)
        if self._since(now) > self.settings.recording_timeout:
            return self._recording_lost(f"not recorded within {self.settings.recording_timeout:.0f} s", now)
        return []

    def _recording_lost(self, reason: str, now: Now) -> list[Effect]:
        """The episode that has just ended is not on the disk as it ended: it was a fault, and nobody waits for it."""
        self.counted -= self._last_counted
        self.last_outcome, self._last_counted, self._unlearned_id = Outcome.FAULT, False, ""
        self._recording.forget()
        self._reason = reason
        self._start_requested = False
        self._enter(Stage.FAULTED, now)
        return [self._publish(Phase.ENDED, Outcome.FAULT, max(0, min(self._run.step, self.settings.max_steps)))]

    def _fault(self, reason: str, now: Now) -> list[Effect]:
        """Ends what is going on with a fault; a demonstration whose success was already called stays one."""
        if self.stage is Stage.TAIL:
            effects = self._conclude_tail(now)
        else:
            in_episode = self.stage in _IN_EPISODE
            if not in_episode:
                self._run = _Running(now.wall_s)
            effects = self._end(Outcome.FAULT, max(0, min(self._run.step, self.settings.max_steps)), reason, now)
        if self.stage is Stage.LAST:
            return effects
        self._reason = reason
        self._start_requested = False
        self._enter(Stage.FAULTED, now)
        return effects

    def _after_fault(self, not_ready: list[str], now: Now) -> list[Effect]:
        choice = self.settings.after_fault
        if choice is AfterFault.EXIT:
            if self._since(now) < self.settings.exit_delay:
                return []
            self.stage = Stage.DONE
            return [Quit(1, self._reason)]
        if choice is AfterFault.WAIT and not self._start_requested:
            self.waiting_for = f"after a fault, waits for the operator's start: {self._reason}"
            return []
        if not_ready:
            self.waiting_for = "after a fault: " + "; ".join(not_ready)
            return []
        if self._since(now) < self.settings.ended_pause:
            return []
        self._start_requested = False
        return self._next_episode(now)

    def _finish(self, now: Now) -> list[Effect]:
        self.waiting_for = self._learner_problem()
        if self.settings.recorder_expected and self._vetoes and self._since(now) < self.settings.recording_timeout:
            self.waiting_for = f"waits for the recorder to take in the veto of {', '.join(self._vetoes)}"
        if self.waiting_for or self._since(now) < self.settings.exit_delay:
            return []
        self.stage = Stage.DONE
        return [Quit(0, f"{self.counted} episodes done")]

    def _enter(self, stage: Stage, now: Now) -> None:
        self.stage, self._entered_wall_s, self._entered_ros_ns, self.waiting_for = stage, now.wall_s, now.ros_ns, ""

    def _since(self, now: Now) -> float:
        return now.wall_s - self._entered_wall_s

    def _publish(self, phase: Phase, outcome: Outcome = Outcome.NONE, final_step: int = 0) -> Publish:
        return Publish(
            EpisodeStatus(
                stamp_ns=self._entered_ros_ns,
                phase=phase,
                outcome=outcome,
                mode=self.settings.mode,
                episode=self.episode,
                final_step=final_step,
                episode_id=self.episode_id,
                task=self.settings.task,
                instruction=self.settings.instruction,
                message_version=MESSAGE_VERSION,
                reason=self._reason,
            )
        )
