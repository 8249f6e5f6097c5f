"""The trainer: takes in episodes, owes updates for them, trains, and hands out the weights that act. No ROS in here."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from conrft_data.bags.writer import lock_folder
from conrft_data.config import TaskConfig
from conrft_data.types import PROPRIOCEPTION_DIM, Episode, Float32, Mode, Outcome
from conrft_learner import checkpoints
from conrft_learner.agent import CalConRFT, HilConRFT
from conrft_learner.batch_stream import BatchStream
from conrft_learner.data_parallel import DataParallel
from conrft_learner.figure_log import FigureLog
from conrft_learner.figure_sinks import FigureSink
from conrft_learner.image_features import MAP_SHAPE, MAP_TYPE, ImageFeatures, load_image_features
from conrft_learner.networks import Networks
from conrft_learner.objectives import Figures
from conrft_learner.presets import Preset
from conrft_learner.recent_episodes import EpisodeRecord, RecentEpisodes
from conrft_learner.replay import Batch, FrameField, Replay
from conrft_learner.transitions import Labels, frames_from_episode, labels
from conrft_policy.consistency_head import ConsistencyHead, HeadConfig
from conrft_policy.policy_weights import POLICY_FILE, PolicyWeights, architecture_fingerprint, pack
from conrft_policy.policy_weights import save as save_weights

Progress = Callable[[int, int, Figures], None]
# None of these changes a loss: a run may go on with other values.
NOT_OF_THE_RUN = {"description", "resnet_weights", "prefetch_batches", "publish_every", "log_every"}
NOT_OF_THE_RUN |= {"checkpoint_every", "keep_checkpoints", "best_episodes"}


def _never() -> bool:
    return False


def _means(figures: Sequence[Figures]) -> Figures:
    """Each figure's mean over those that have it."""
    found: dict[str, list[float]] = {}
    for part in figures:
        for name, value in part.items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


class EpisodeRefused(ValueError):
    """An episode that must not be learned from; the text says why."""


class TrainingDiverged(ValueError):
    """A loss or what was trained is not finite; the text names it. Nothing of it was saved, nor will be."""


class Trainer:
    """Both stages of one run.

    Two trainers with the same arguments that ingest the same episodes in the same order give the same losses, and so
    does one that was stopped and restored from a checkpoint.

    Attributes:
        offline_step: updates of the offline stage that are done, or those of the checkpoint that this run began from.
        online_updates: updates of the online stage that are done.
        online_episodes: training episodes ingested.
        last_online_episode: name of the newest of them.
        journal: names of all ingested episodes, in order.
        lost: those of them whose frames did not survive a crash; ingesting one again counts for nothing else.
        owed: online updates that the ingested transitions are worth, a fraction included.
        recent: figures of the newest training episodes.
    """

    def __init__(
        self,
        preset: Preset,
        head_config: HeadConfig,
        backbone_fingerprint: str,
        task: TaskConfig,
        seed: int,
        run_dir: Path | str,
        *,
        device: torch.device | str = "cpu",
        sinks: Sequence[FigureSink] = (),
        report: Callable[[str], None] = print,
        parallel: DataParallel | None = None,
    ) -> None:
        """Starts a fresh run in memory; :meth:`restore` continues the one in ``run_dir``, which is ours until it ends.

        Args:
            preset: settings of both stages.
            head_config: sizes of the policy's head.
            backbone_fingerprint: of the backbone whose embeddings are ingested.
            task: rewards, discount and name.
            seed: of everything random.
            run_dir: replay, checkpoints and figures are kept there.
            device: of the networks.
            sinks: where figures are shown beside ``metrics.jsonl``.
            report: takes a sentence for a person.
            parallel: this process's place among several that train together; only the first one writes checkpoints
                and figures.

        Raises:
            ValueError: another learner works in ``run_dir``, the weights of the critic's image encoder are missing or
                do not fit, or a batch cannot be shared out to the processes.
        """
        self.preset, self.head_config, self.task, self.seed = preset, head_config, task, seed
        self.backbone_fingerprint = backbone_fingerprint
        self.run_dir, self.report = Path(run_dir), report
        self.discount = task.discount if preset.discount is None else preset.discount
        self.parallel = parallel or DataParallel()
        self._release = self._take_hold()
        self.image_features = self._load_image_features(device)
        self.networks = Networks(preset, head_config, seed, device, cameras=tuple(task.cameras))
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        stages = (self.networks, preset, self.discount, self.generator, self.parallel)
        self.offline_stage, self.online_stage = CalConRFT(*stages), HilConRFT(*stages)
        self.replay = self._open_replay()
        self.log = FigureLog(self.own_dir, every=preset.log_every, sinks=sinks, report=report)
        self.journal: list[str] = []
        self.lost: set[str] = set()
        self.offline_step = self.online_updates = self.online_episodes = 0
        self._inherited_updates = 0  # of the checkpoint that this run began from
        self.last_online_episode = ""
        self.owed = 0.0
        self.recent = RecentEpisodes(preset.best_episodes)
        self._best_episodes = RecentEpisodes(preset.best_episodes)
        self._scaled = not preset.scale_inputs
        self._diverged = ""  # how
        self._changes = 0  # episodes taken in and relabelled by this process
        self._saved = self._progress()
        self._buffers: dict[str, list[Batch]] = {}

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes what the run leaves behind."""
        return self.parallel.rank == 0

    @property
    def own_dir(self) -> Path:
        """Folder of what each process has for itself: the run's, but for processes beside the first."""
        return self.run_dir if self.first else self.run_dir / f"process-{self.parallel.rank}"

    @property
    def fingerprint(self) -> str:
        """Of head and backbone; weights with another do not fit."""
        return architecture_fingerprint(self.head_config, self.backbone_fingerprint)

    @property
    def updates(self) -> int:
        """All updates done, both stages."""
        return self.offline_step + self.online_updates

    @property
    def begun(self) -> bool:
        """Whether this run has trained, restarts included; the run that it started from does not count."""
        return self.updates > self._inherited_updates

    @property
    def best(self) -> float:
        """Highest share of successes without a take-over at a checkpoint, as labelled now; the link best names it."""
        return self._best_episodes.figures().get("autonomous_success_rate", 0.0)

    @property
    def pending_updates(self) -> int:
        """Online updates still owed to the update-to-data ratio."""
        return max(0, math.floor(self.owed + 1e-9) - self.online_updates)

    @property
    def offline_finished(self) -> bool:
        """Whether the offline stage is done."""
        return self.offline_step >= self.offline_stage.steps

    def ingest(self, episode: Episode, embeddings: Float32 | None = None) -> bool:
        """Takes an episode in; false when it is known already.

        Args:
            episode: demonstration or training episode.
            embeddings: ``(T+1, D)`` of the backbone; None: those in the episode, if their fingerprint is right.

        Raises:
            EpisodeRefused: it is of another task, an evaluation, empty, or its embeddings are missing or do not fit.
        """
        if episode.episode_id in self.lost:
            self._store(episode, embeddings)
            self.lost.remove(episode.episode_id)
            self._changes += 1
            return True
        if episode.episode_id in self.journal:
            return False
        if episode.episode_id not in self.replay:
            self._store(episode, embeddings)
        self._log_episode(episode)  # first: where the disk refuses, all of this is done once more
        self.journal.append(episode.episode_id)
        self._changes += 1
        if episode.mode is Mode.TRAINING:
            self.online_episodes += 1
            self.last_online_episode = episode.episode_id
            if self.replay.count("online") >= self.preset.training_starts:
                self.owed += len(episode) * self.preset.updates_per_tick
        return True

    def relabel(self, episode_id: str, outcome: Outcome) -> bool:
        """Changes reward, return and terminal flag to another outcome's; false where that changes nothing.

        A demonstration that was no success leaves the replay and the journal: ingested now, it would be refused.
        """
        success = outcome is Outcome.SUCCESS
        for episodes in (self.recent, self._best_episodes):
            episodes.relabel(episode_id, success)
        if episode_id not in self.replay or self.replay.is_success(episode_id) == success:
            return False
        if self.replay.is_demonstration(episode_id) and not success:
            self.journal = [name for name in self.journal if name != episode_id]
            self.replay.remove(episode_id)
        else:
            self.replay.relabel(episode_id, self._labels(episode_id, success))
        self._changes += 1
        about = {"episode_id": episode_id, "success": int(success)}
        self.log.write("relabelled", self.updates, about, shown=False)
        return True

    def _labels(self, episode_id: str, success: bool) -> Labels:
        interventions = self.replay.interventions(episode_id)
        return labels(
            len(interventions),
            success,
            interventions,
            self.task.reward,
            self.discount,
            self.preset.takeover_rules,
        )

    def offline(
        self, progress: Progress | None = None, *, steps: int | None = None, stop: Callable[[], bool] = _never
    ) -> None:
        """Runs the rest of the offline stage, or at most ``steps`` of it, or until ``stop``, with checkpoints."""
        total = self.offline_stage.steps
        end = total if steps is None else min(total, self.offline_step + steps)
        batches = sum(self._offline_batches(step) for step in range(self.offline_step, end))
        with self._stream("offline", batches) as stream:
            while self.offline_step < end and not stop():
                figures = self._offline_update(stream)
                self.log.add("offline", self.offline_step, figures)
                if progress is not None:
                    progress(self.offline_step, total, figures)
                if self.offline_step % self.preset.checkpoint_every == 0 or self.offline_step == total:
                    self.save()

    def train(self, count: int, *, stop: Callable[[], bool] = _never) -> Figures:
        """Does ``count`` online updates, owed or not, or fewer when ``stop`` says so; returns the figures of the last.

        Whoever goes on later does the same updates: batches that were drawn ahead are drawn again.
        """
        figures: Figures = {}
        with self._stream("online", count * self.preset.critic_steps_per_actor_step) as stream:
            for _ in range(count):
                if stop():
                    break
                figures = self._online_update(stream)
                self.log.add("online", self.updates, figures)
                if self.online_updates % self.preset.checkpoint_every == 0:
                    self.save()
        return figures

    def acting_head(self) -> ConsistencyHead:
        """A copy of the head that acts, on raw inputs."""
        return self.networks.acting_head()

    def acting_weights(self) -> PolicyWeights:
        """The weights that act, for publication; the version is the number of updates."""
        return pack(self.acting_head(), version=self.updates, backbone_fingerprint=self.backbone_fingerprint)

    def save(self) -> Path:
        """Writes a checkpoint of all that is needed to go on bit for bit, and the acting weights beside it.

        Raises:
            TrainingDiverged: there is a number that is not finite among them.
            OSError: the disk refuses.
        """
        self.replay.flush()
        if not self.first:
            return self.run_dir
        tensors = self.networks.state() | {"generator": self.generator.get_state()}
        self._check_saveable(tensors)
        weights = self.acting_weights()
        save_weights(weights, self.run_dir / POLICY_FILE)
        score = self.recent.autonomous_success
        best = score is not None and score >= self.best
        if best:
            self._best_episodes.load(self.recent.state())
        folder = self.run_dir / checkpoints.FOLDER
        path = checkpoints.write_checkpoint(folder, self.updates, tensors, self._state(), {POLICY_FILE: weights.data})
        if best:
            checkpoints.mark_best(path)
        checkpoints.remove_old(folder, keep=self.preset.keep_checkpoints)
        self._saved = self._progress()
        return path

    def restore(self) -> bool:
        """Continues from the newest whole checkpoint of the run folder; false when there is none.

        Raises:
            ValueError: the checkpoint was made with another preset, task, discount, reward, camera, backbone or seed.
        """
        found = checkpoints.read_newest(self.run_dir / checkpoints.FOLDER, self.report, set_aside=self.first)
        if found is None:
            return False
        path, tensors, state = found
        for name, value in self._identity().items():
            if state["identity"].get(name) != value:
                raise ValueError(
                    f"checkpoint {path} was made with another {name}: {state['identity'].get(name)!r}, now {value!r}"
                )
        self.networks.load_state(tensors)
        self.generator.set_state(tensors["generator"])
        self.rng.bit_generator.state = state["rng"]
        self.offline_step, self.online_updates = state["offline_step"], state["online_updates"]
        self.online_episodes, self.owed, self._scaled = state["online_episodes"], state["owed"], state["scaled"]
        self.last_online_episode = state["last_online_episode"]
        self._inherited_updates = state["inherited_updates"]
        self.recent.load(state["recent"])
        if (self.run_dir / checkpoints.FOLDER / checkpoints.BEST).exists():  # and was not damaged
            self._best_episodes.load(state["best"])
        self.log.rewind(state["log"])
        self.journal = state["journal"]
        self.lost = set(self.replay.go_back([(name, start) for name, start in state["replay"]])) | set(state["lost"])
        for name in sorted(self.lost):
            self.report(f"the replay has lost episode {name}: it is read again from its bag")
        self._saved = self._progress()
        return True

    def start_from(self, checkpoint: Path | str) -> None:
        """Begins the online stage with the networks of a checkpoint, and with this run's own seed.

        ``checkpoint`` is its folder, or that of another run, whose newest is taken.

        Episodes are not taken over: they are ingested again.

        Raises:
            ValueError: there is no whole checkpoint, or it is of another task, architecture or backbone.
        """
        found = checkpoints.read_chosen(Path(checkpoint), self.report)
        if found is None:
            raise ValueError(f"{checkpoint} holds no whole checkpoint to start from")
        path, tensors, state = found
        for name in ("task", "fingerprint"):
            if state["identity"][name] != self._identity()[name]:
                raise ValueError(f"checkpoint {path} is of another {name}: {state['identity'][name]!r}")
        self.networks.load_state(tensors)
        # Online updates of that run too: the versions of the weights go on from the checkpoint's own.
        self.offline_step, self._scaled = state["offline_step"] + state["online_updates"], state["scaled"]
        self._inherited_updates = self.offline_step
        # Another branch of the seed than the one the offline stage began with.
        branch = np.random.SeedSequence([self.seed, 1])
        self.rng = np.random.default_rng(branch)
        self.generator.manual_seed(int(branch.generate_state(1)[0]))

    def close(self) -> None:
        """Closes the figures and leaves the run folder to others."""
        self.log.close()
        self._release()

    @property
    def unsaved(self) -> bool:
        """Whether anything was ingested, relabelled or trained since the last checkpoint."""
        return self._saved != self._progress()

    def _progress(self) -> tuple[int, int]:
        return self.updates, self._changes

    def _identity(self) -> dict[str, Any]:
        # Where the encoder's weights lie does not matter: the features have a fingerprint.
        return {
            "preset": self.preset.model_dump(mode="json", exclude=NOT_OF_THE_RUN),
            "image_features": self.image_features.fingerprint if self.image_features else "",
            "task": self.task.name,
            "discount": self.discount,
            "reward": self.task.reward.model_dump(mode="json", include={"success", "step"}),
            "cameras": [[name, camera.model_dump(mode="json")] for name, camera in self.task.cameras.items()],
            "fingerprint": self.fingerprint,
            "seed": self.seed,
        }

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self._identity(),
            "offline_step": self.offline_step,
            "online_updates": self.online_updates,
            "inherited_updates": self._inherited_updates,
            "online_episodes": self.online_episodes,
            "last_online_episode": self.last_online_episode,
            "owed": self.owed,
            "scaled": self._scaled,
            "rng": self.rng.bit_generator.state,
            "journal": self.journal,
            "lost": sorted(self.lost),
            "replay": self.replay.places,
            "log": self.log.position(),
            "recent": self.recent.state(),
            "best": self._best_episodes.state(),
        }

    def _store(self, episode: Episode, embeddings: Float32 | None) -> None:
        self.check_learnable(episode)
        if embeddings is None:
            embeddings = self.usable_embeddings(episode)
        if embeddings is None:
            raise EpisodeRefused(f"episode {episode.episode_id} has no embeddings of this run's backbone")
        try:
            frames = frames_from_episode(
                episode, embeddings, self.task.reward, self.discount, self.preset.takeover_rules
            )
            features = self.image_features.encode_episode(episode) if self.image_features else None
            self.replay.add(frames, features)
        except ValueError as error:
            raise EpisodeRefused(str(error)) from error

    def check_learnable(self, episode: Episode) -> None:
        """Raises EpisodeRefused for an episode of another task, an evaluation, or a demonstration that failed."""
        if episode.task != self.task.name:
            raise EpisodeRefused(
                f"episode {episode.episode_id} is of task {episode.task}, this run of {self.task.name}"
            )
        if episode.mode is Mode.EVALUATION:
            raise EpisodeRefused(f"episode {episode.episode_id} is an evaluation: it is never learned from")
        if episode.mode is Mode.DEMONSTRATION and episode.outcome is not Outcome.SUCCESS:
            ended = episode.outcome.name.lower()
            raise EpisodeRefused(
                f"demonstration {episode.episode_id} ended by {ended}: only successes are learned from"
            )

    def usable_embeddings(self, episode: Episode) -> Float32 | None:
        """The episode's own embeddings where this run's backbone made all of them."""
        right = episode.embeddings is not None and episode.embedding_fingerprint == self.backbone_fingerprint
        return episode.embeddings if right else None

    def _log_episode(self, episode: Episode) -> None:
        online = episode.mode is Mode.TRAINING
        record = EpisodeRecord.of(episode, self.replay.interventions(episode.episode_id), self.updates)
        figures = {"mode": episode.mode.name.lower()} | record.figures()
        if online:
            self.recent.add(record)
            figures |= self.recent.figures()
        self.log.write("episodes", self.updates, figures, shown=online)

    def _offline_batches(self, step: int) -> int:
        """Batches that an offline update takes."""
        objective = self.offline_stage.objective(step)
        return self.preset.critic_steps_per_actor_step if objective.critic and objective.actor else 1

    def _offline_update(self, stream: BatchStream) -> Figures:
        self._fit_scaling()
        stage = self.offline_stage
        objective = stage.objective(self.offline_step)
        parts = [objective.critic_only()] * (self._offline_batches(self.offline_step) - 1) + [objective]
        figures = _means([stage.update(stage.transitions(stream.next()), part) for part in parts])
        self.offline_step += 1
        self._check_finite("offline", figures)
        return figures

    def _online_update(self, stream: BatchStream) -> Figures:
        self._fit_scaling()
        if self.preset.online_actor_lr is not None:
            self.networks.set_actor_rate(self.preset.online_actor_lr)
        stage = self.online_stage
        objective = stage.objective(self.online_updates, self.online_episodes)
        parts = [objective.critic_only()] * (self.preset.critic_steps_per_actor_step - 1) + [objective]
        figures = _means([stage.update(stage.transitions(stream.next()), part) for part in parts])
        self.online_updates += 1
        self._check_finite("online", figures)
        return figures

    def _check_finite(self, stage: str, figures: Figures) -> None:
        for name, value in figures.items():
            if not math.isfinite(value):
                self._diverged = f"{stage} training diverged at update {self.updates}: {name} is {value}"
                raise TrainingDiverged(self._diverged)

    def _check_saveable(self, tensors: dict[str, torch.Tensor]) -> None:
        # Adam divides by what has overflowed: its loss is finite for as long as one likes.
        broken = [name for name, value in tensors.items() if not value.isfinite().all()]
        if broken and not self._diverged:
            self._diverged = f"training diverged before update {self.updates}: {', '.join(broken[:3])} are not finite"
        if self._diverged:
            raise TrainingDiverged(self._diverged)

    def _stream(self, stage: Literal["offline", "online"], count: int) -> BatchStream:
        """The next ``count`` batches of a stage."""
        preset = self.preset
        offline = stage == "offline"
        size = preset.batch_size if offline else preset.online_batch_size
        shard = self.parallel.shard(size)
        if stage not in self._buffers:
            self._buffers[stage] = [
                self.replay.batch(shard.stop - shard.start) for _ in range(preset.prefetch_batches + 1)
            ]
        return BatchStream(
            self.replay,
            self.rng,
            self._buffers[stage],
            size=size,
            demonstration_share=1.0 if offline else preset.demonstration_fraction,
            count=count,
            shard=shard,
        )

    def _take_hold(self) -> Callable[[], object]:
        """Locks the own folder, against two learners that write the same files; returns what unlocks it."""
        self.own_dir.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(self.own_dir)
        if lock is None:
            raise ValueError(f"{self.own_dir} is in use by another learner")
        return weakref.finalize(self, os.close, lock)

    def _load_image_features(self, device: torch.device | str) -> ImageFeatures | None:
        preset = self.preset
        if preset.critic != "paper":
            return None
        return load_image_features(
            preset.resnet_weights,
            tuple(self.task.cameras),
            crop_bank=preset.crop_bank,
            seed=self.seed,
            device=device,
            report=self.report,
        )

    def _open_replay(self) -> Replay:
        features, bank = self.image_features, self.preset.crop_bank
        return Replay(
            self.own_dir / "replay",
            capacity=self.preset.replay_capacity,
            embedding_dim=self.head_config.embedding_dim,
            proprio_dim=PROPRIOCEPTION_DIM,
            action_dim=self.head_config.action_dim,
            extra={camera: FrameField(MAP_SHAPE, MAP_TYPE, bank) for camera in features.cameras} if features else None,
            extra_fingerprint=features.fingerprint if features else "",
            n_step=self.preset.n_step,
            discount=self.discount,
        )

    def _fit_scaling(self) -> None:
        """Fits the inputs' scaling once, when training begins, on the demonstrations, or on what else there is."""
        if self._scaled:
            return
        embeddings, proprio = self.replay.frames(demonstrations=True)
        if not len(embeddings):
            embeddings, proprio = self.replay.frames(demonstrations=False)
        self.networks.scaling.fit(torch.from_numpy(embeddings), torch.from_numpy(proprio))
        self._scaled = True
