"""The scene of one tick of a recorded episode as a picture, beside what the cameras saw."""

from __future__ import annotations

import os

import numpy as np
from builtin_interfaces.msg import Time

from conrft_bringup.launch_runner.ament_index import package_share
from conrft_bringup.visualisation.marker_picture import Picture, draw_markers
from conrft_bringup.visualisation.marker_scene import MarkerScene, Workspace
from conrft_bringup.visualisation.robot_model import RobotModel
from conrft_bringup.visualisation.tick_view import TickView
from conrft_data.config import TaskConfig, load_config
from conrft_data.images import crop_and_resize
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import MESSAGE_VERSION, Episode, Phase


def draw_tick(episode: Episode, step: int) -> Picture:
    """The tick's scene with the cameras' images to its right, RGB ``(H, W, 3)``.

    Raises ValueError when the episode has no such step, ConfigError when its task is not installed.
    """
    if not 0 <= step <= episode.final_step:
        raise ValueError(f"{episode.episode_id}: has steps 0 to {episode.final_step}, got {step}")
    share = package_share("conrft_bringup", os.environ)
    task = load_config(TaskConfig, share / "config" / "tasks" / f"{episode.task}.yaml")
    view = TickView(task.motion_limits())
    view.on_status(_status(episode))
    for index in range(step + 1):
        observation, command = episode.observations[index], episode.commands[index]
        tick = Tick(observation.stamp_ns, observation.episode, observation.step)
        view.on_observation(tick, observation.tcp_pose, observation.gripper_opening)
        view.on_command(tick, command)
        if (verdict := episode.verdicts.get(index)) is not None:
            view.on_verdict(verdict)
    model = RobotModel.load(share / "urdf" / "fr3.urdf")
    scene = MarkerScene(Workspace(task.workspace.low, task.workspace.high), model)
    picture = draw_markers(scene.markers(view.moment, Time()).markers)
    side = picture.shape[0] // len(episode.observations[step].images)
    cameras = [crop_and_resize(image, side, side) for image in episode.observations[step].images.values()]
    column = np.vstack(cameras)
    return np.hstack([picture[: len(column)], column])


def _status(episode: Episode) -> EpisodeStatus:
    first = episode.observations[0]
    return EpisodeStatus(
        stamp_ns=first.stamp_ns,
        phase=Phase.RUNNING,
        outcome=episode.outcome,
        mode=episode.mode,
        episode=first.episode,
        final_step=0,
        episode_id=episode.episode_id,
        task=episode.task,
        instruction=episode.instruction,
        message_version=MESSAGE_VERSION,
    )
