"""Node ``learner``: takes in finished episodes, trains in a thread of its own, and publishes the weights that act."""

from __future__ import annotations

import array
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from conrft_data import topics
from conrft_data.config import ConfigError, TaskConfig, load_config
from conrft_data.node_process import described, diagnostic_array, run
from conrft_learner.episode_pull import DEMONSTRATIONS, EPISODES, PullThread
from conrft_learner.figure_sinks import open_sinks
from conrft_learner.heap import keep_freed_memory
from conrft_learner.intake import EpisodeIntake
from conrft_learner.nodes.episode_service import EpisodeService
from conrft_learner.offline import load_preset, run_config, within_cores
from conrft_learner.pace import needed_updates_per_s
from conrft_learner.progress import offline_line, online_line
from conrft_learner.trainer import Trainer, TrainingDiverged
from conrft_learner.worker import LearningWorker, Standing
from conrft_msgs.msg import EpisodeState, LearnerStatus, Weights
from conrft_policy.backbone import load_backbone
from conrft_policy.policy_weights import PolicyWeights

DIAGNOSTICS_PERIOD_S = 1.0
PROGRESS_PERIOD_S = 10.0  # between lines in the log while the offline stage runs
STOP_TIMEOUT_S = 20.0


class LearnerNode(Node):
    """Publishes ``weights`` and ``learner_status``; ``episode_state`` is only a hint to look for a new bag at once."""

    def __init__(self) -> None:
        super().__init__("learner")
        self._declare_parameters()
        keep_freed_memory()
        trainer, intake = self._make_trainer()
        self._trainer = trainer
        self._outgoing: queue.SimpleQueue[PolicyWeights | Standing] = queue.SimpleQueue()
        self._stop, self._wake = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._pull = self._make_pull()
        self._worker = LearningWorker(
            trainer,
            intake,
            on_weights=self._hand_over,
            on_standing=self._hand_over,
            demonstrations_are_here=lambda: self._pull is None or self._pull.demonstrations_are_here,
        )
        self._connect()
        self._thread = threading.Thread(target=self._work, name="learning", daemon=True)
        self._thread.start()

    def destroy_node(self) -> None:
        """Stops training between two updates and writes a checkpoint."""
        self._stop.set()
        self._wake.set()
        if self._pull is not None:
            self._pull.close()
        self._thread.join(STOP_TIMEOUT_S)
        if not self._thread.is_alive() and self._failure is None and self._trainer.unsaved:
            try:
                self._trainer.save()
            except (OSError, TrainingDiverged) as error:
                self.get_logger().error(f"no checkpoint at the end: {error}; the last one holds")
        self._trainer.close()
        super().destroy_node()

    def _declare_parameters(self) -> None:
        declare = self.declare_parameter
        declare("task_file", "", described("YAML file of the task"))
        declare("preset_file", "", described("YAML file of the preset"))
        declare("demos_dir", "", described("folder of the demonstrations' bags; empty: none"))
        declare("episodes_dir", "", described("folder in which finished online episodes appear; empty: none"))
        source = "folder: the recorder writes into these folders; service: they are this machine's own, and are filled"
        source += " by the episode server on the robot's machine"
        declare("episodes_source", "folder", described(source, constraints="folder, service"))
        declare("service_timeout", 5.0, described("for each answer of the episode server, s", numbers=(0.1, 300.0)))
        declare("run_dir", "", described("folder of replay, checkpoints and figures; a run that is there is continued"))
        declare("checkpoint", "", described("checkpoint or run folder of an earlier stage to start from; empty: none"))
        declare("backbone", "octo-nano", described("name of a shipped backbone, or folder of another"))
        encoder = "image encoder of the paper's critic: safetensors file, or 'random'; empty: what the preset names"
        declare("resnet_weights", "", described(encoder))
        declare("seed", 0, described("of initialisation, batches and noise", integers=(0, 2**31 - 1)))
        declare("threads", 1, described("cores of the CPU that training uses", integers=(1, 256)))
        declare("device", "cpu", described("torch device of the networks, such as cpu or cuda:0"))
        declare("niceness", 5, described("how far training steps back behind the control loop", integers=(0, 19)))
        declare("tensorboard", True, described("write TensorBoard files"))
        declare("wandb", "", described("project of Weights & Biases that shows the figures too; empty: none"))

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _folder(self, name: str) -> Path | None:
        return Path(self._value(name)).expanduser() if self._value(name) else None

    def _make_trainer(self) -> tuple[Trainer, EpisodeIntake]:
        for name in ("task_file", "preset_file", "run_dir"):
            if not self._value(name):
                raise ConfigError(f"parameter {name} is empty")
        task = load_config(TaskConfig, self._value("task_file"))
        preset = load_preset(self._value("preset_file"), self._value("resnet_weights"))
        preset, self._threads = within_cores(preset, self._value("threads"))
        torch.set_num_threads(self._threads)
        backbone = load_backbone(self._value("backbone"), task.instruction, device=self._value("device"))
        seed, run_dir = self._value("seed"), Path(self._value("run_dir")).expanduser()
        sinks = open_sinks(
            run_dir,
            tensorboard=self._value("tensorboard"),
            wandb_project=self._value("wandb"),
            config=run_config(preset, task, backbone.fingerprint, seed),
        )
        trainer = Trainer(
            preset,
            preset.head_config(task, backbone.embedding_dim),
            backbone.fingerprint,
            task,
            seed,
            run_dir,
            device=self._value("device"),
            sinks=sinks,
            report=lambda sentence: self.get_logger().warning(sentence),
        )
        if trainer.restore():
            self.get_logger().info(f"goes on after {trainer.updates} updates and {trainer.online_episodes} episodes")
        elif self._value("checkpoint"):
            trainer.start_from(self._value("checkpoint"))
            self.get_logger().info(f"starts from {self._value('checkpoint')}")
        return trainer, EpisodeIntake(trainer, backbone, self._folder("demos_dir"), self._folder("episodes_dir"))

    def _make_pull(self) -> PullThread | None:
        source = self._value("episodes_source")
        if source not in ("folder", "service"):
            raise ConfigError(f"parameter episodes_source must be folder or service, got {source!r}")
        folders = {DEMONSTRATIONS: self._folder("demos_dir"), EPISODES: self._folder("episodes_dir")}
        if source == "folder":
            return None
        return PullThread(
            EpisodeService(self, self._value("service_timeout"), self._stop),
            {collection: folder for collection, folder in folders.items() if folder},
            report=lambda sentence: self.get_logger().warning(sentence),
            on_new=self._wake.set,
        )

    def _connect(self) -> None:
        # Latched, both: a policy or supervisor that starts late, or again, needs the newest.
        self._weights = self.create_publisher(Weights, topics.WEIGHTS, topics.LATCHED)
        self._status = self.create_publisher(LearnerStatus, topics.LEARNER_STATUS, topics.LEARNER_STANDING)
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
        self.create_subscription(EpisodeState, topics.EPISODE_STATE, self._on_episode_state, topics.EVERY_STATE)
        self._guard = self.create_guard_condition(self._publish_outgoing)
        # Steady time: simulated time stands still while the learner is waited for.
        self._told: dict[str, LearnerStatus] = {}  # by the session of the last episode, the newest last
        self._measured = (time.monotonic(), self._trainer.updates)
        self._shown = (time.monotonic(), self._trainer.updates)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _work(self) -> None:
        # Both belong to the thread that sets them. The control loop goes first where they share cores.
        os.nice(self._value("niceness"))
        torch.set_num_threads(self._threads)
        try:
            self._worker.run(self._stop, self._wake)
        except BaseException as error:
            self._failure = error
            self._guard.trigger()

    def _hand_over(self, item: PolicyWeights | Standing) -> None:
        """From the training thread to the executor's: only that one publishes."""
        self._outgoing.put(item)
        self._guard.trigger()

    def _publish_outgoing(self) -> None:
        while True:
            try:
                item = self._outgoing.get_nowait()
            except queue.Empty:
                break
            if isinstance(item, PolicyWeights):
                self._publish_weights(item)
            else:
                self._publish_status(item)
        if self._failure is not None:
            raise RuntimeError("training failed") from self._failure

    def _publish_weights(self, weights: PolicyWeights) -> None:
        message = Weights(version=weights.version, fingerprint=weights.fingerprint, sha256=weights.sha256)
        message.header.stamp = self.get_clock().now().to_msg()
        message.data = array.array("B", weights.data)
        self._weights.publish(message)

    def _publish_status(self, standing: Standing) -> None:
        message = LearnerStatus(
            ingested_episodes=standing.ingested_episodes,
            last_episode_id=standing.last_episode_id,
            updates=standing.updates,
            pending_updates=standing.pending_updates,
            weights_version=standing.weights_version,
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(message)
        session = standing.last_episode_id.rpartition("-")[0]
        self._told.pop(session, None)
        self._told[session] = message
        if standing.ingested_episodes and not standing.pending_updates and standing.updates > self._shown[1]:
            self._shown = (time.monotonic(), standing.updates)
            pace, figures = self._worker.pace.updates_per_s, self._trainer.log.latest
            line = online_line(
                standing.last_episode_id, standing.updates, pace, figures, self._trainer.recent.figures()
            )
            self.get_logger().info(line)

    def _on_episode_state(self, message: EpisodeState) -> None:
        if message.state in (EpisodeState.ENDED, EpisodeState.RESETTING, EpisodeState.READY):
            self._wake.set()
            if self._pull is not None:
                self._pull.wake()

    def _report(self) -> None:
        worker, standing = self._worker, self._worker.standing()
        now, updates = time.monotonic(), standing.updates
        rate = (updates - self._measured[1]) / max(now - self._measured[0], 1e-6)
        self._measured = (now, updates)
        warnings = worker.warnings() + self._arrival_warnings()
        if standing.weights_version and not self._weights.get_subscription_count():
            warnings.append("nobody receives the weights")
        level = DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK
        problem = worker.problem or (self._pull.refusal if self._pull is not None else "")
        if problem:
            level = DiagnosticStatus.ERROR
        values = {
            "updates": updates,
            "pending_updates": standing.pending_updates,
            "updates_per_s": f"{rate:.1f}",
            "training_updates_per_s": f"{worker.pace.updates_per_s:.1f}",
            "needed_updates_per_s": f"{needed_updates_per_s(self._trainer.preset.updates_per_tick):.1f}",
            "ingested_episodes": standing.ingested_episodes,
            "waiting_episodes": worker.backlog,
            "last_episode_id": standing.last_episode_id,
            "weights_version": standing.weights_version,
            "refused_episodes": "; ".join(list(worker.refused.values())[-3:]),
        }
        if self._pull is not None:
            values["pulled_bytes"] = self._pull.pull.received_bytes
        figures = self._trainer.log.latest | self._trainer.recent.figures()
        values |= {name: f"{value:.4g}" for name, value in figures.items()}
        sentence = problem or "; ".join([worker.doing, *warnings])
        self._diagnostics.publish(diagnostic_array(self, level, sentence, values))
        for message in self._told.values():
            self._status.publish(message)  # an arm waits for it: it must not be lost, nor hidden by a stranger's
        self._show_offline_progress()

    def _show_offline_progress(self) -> None:
        """A line now and then: the stage that runs here without ``conrft train offline`` takes minutes to hours."""
        trainer, (shown, before), now = self._trainer, self._shown, time.monotonic()
        step, total = trainer.offline_step, trainer.offline_stage.steps
        if now - shown < PROGRESS_PERIOD_S or step == before or trainer.offline_finished:
            return
        self._shown = (now, step)
        self.get_logger().info(offline_line(step, total, (step - before) / (now - shown), trainer.log.latest))

    def _arrival_warnings(self) -> list[str]:
        """What keeps episodes from coming; none where they appear in a folder."""
        if self._pull is None:
            return []
        if self._pull.failure is not None:
            raise RuntimeError("fetching episodes failed") from self._pull.failure
        silence = [self._pull.silence] if self._pull.silence else []
        return silence + list(self._pull.pull.problems.values())[-3:]


def main() -> None:
    """Entry point."""
    sys.exit(run(LearnerNode, "learner"))


if __name__ == "__main__":
    main()
