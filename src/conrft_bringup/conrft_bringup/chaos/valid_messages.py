"""What the partners of the loop send when all is well: a robot that stands at its reset pose, at a given tick."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped, WrenchStamped
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool, Float64MultiArray

from conrft_control import franka_interfaces
from conrft_control.reset_motion import reset_pose
from conrft_data import topics
from conrft_data.config import RobotConfig, TaskConfig
from conrft_data.conversion import (
    command_to_msg,
    episode_status_to_msg,
    ns_to_stamp,
    observation_to_msg,
    pose_to_msg,
    proposal_to_msg,
    verdict_to_msg,
)
from conrft_data.images import array_to_image
from conrft_data.ticks import EpisodeStatus, Proposal, Tick
from conrft_data.types import (
    MESSAGE_VERSION,
    ActionSource,
    Command,
    Float64,
    Image,
    Mode,
    Observation,
    Outcome,
    Phase,
    Verdict,
)
from conrft_msgs.msg import LearnerStatus, SceneState, Value, Weights

EPISODE = 1
MEASURED_JOINTS = "franka_robot_state_broadcaster/measured_joint_states"
ROBOT_STATE = "franka_robot_state_broadcaster/robot_state"
_JOINTS = [f"fr3_joint{number}" for number in range(1, 8)]
_ACTION = np.array([0.1, 0, 0, 0, 0, 0, 1], np.float32)


class ValidMessages:
    """Valid messages by topic. The pictures are noise, because a policy does not care."""

    def __init__(self, task: TaskConfig, robot: RobotConfig, seed: int) -> None:
        self.task, self.robot = task, robot
        self.pose: Float64 = reset_pose(task.reset)
        random = np.random.default_rng(seed)
        self._pixels = {
            name: random.integers(0, 255, (camera.height, camera.width, 3), dtype=np.uint8)
            for name, camera in task.cameras.items()
        }
        drivers = [(robot.cameras[name].topic, self._driver_pixels(name, random)) for name in task.cameras]
        self._makers: dict[str, Callable[[Tick], Any]] = {
            **self._sensor_makers(),
            **{topic: partial(_picture, pixels) for topic, pixels in drivers},
            topics.OBSERVATION: self._observation,
            topics.POLICY_OUTPUT: self._proposal,
            topics.ACTION: lambda tick: command_to_msg(Command(action=_ACTION, source=ActionSource.POLICY), tick),
            topics.REWARD: lambda tick: verdict_to_msg(
                Verdict(probability=0.1, gates_passed=True, success=False), tick
            ),
            topics.EPISODE_STATE: lambda tick: episode_status_to_msg(self.status(tick, Phase.RUNNING)),
            topics.VALUE: lambda tick: Value(episode=tick.episode, step=tick.step, value=1.0),
            topics.WEIGHTS: lambda tick: Weights(version=2, fingerprint="f", sha256="s", data=b"data"),
            topics.LEARNER_STATUS: lambda tick: LearnerStatus(last_episode_id="fuzz-training-000001"),
            topics.SCENE_STATE: self._scene,
            topics.DIAGNOSTICS: self._diagnostics,
            topics.EMERGENCY_STOP: lambda tick: Bool(data=False),
            topics.SPACENAV_TWIST: lambda tick: Twist(),
            topics.SPACENAV_JOY: lambda tick: Joy(axes=[0.0] * 6, buttons=[0] * 6),
        }

    @property
    def topics(self) -> list[str]:
        """Those that there is a valid message for."""
        return list(self._makers)

    def make(self, topic: str, tick: Tick) -> Any:
        """The message of ``topic`` at ``tick``."""
        message = self._makers[topic](tick)
        if hasattr(message, "header"):
            message.header.stamp = ns_to_stamp(tick.stamp_ns)
        return message

    def status(self, tick: Tick, phase: Phase) -> EpisodeStatus:
        """The supervisor's state ``phase`` in the tick's episode."""
        return EpisodeStatus(
            stamp_ns=tick.stamp_ns,
            phase=phase,
            outcome=Outcome.NONE,
            mode=Mode.TRAINING,
            episode=tick.episode,
            final_step=0,
            episode_id=f"fuzz-training-{tick.episode:06d}",
            task=self.task.name,
            instruction=self.task.instruction,
            message_version=MESSAGE_VERSION,
        )

    def _sensor_makers(self) -> dict[str, Callable[[Tick], Any]]:
        robot = self.robot
        fingers = [robot.gripper_max_width / 2] * 2
        return {
            robot.current_pose: lambda tick: PoseStamped(pose=pose_to_msg(self.pose)),
            robot.target_pose: lambda tick: PoseStamped(pose=pose_to_msg(self.pose)),
            robot.twist: lambda tick: TwistStamped(),
            robot.wrench: lambda tick: WrenchStamped(),
            robot.gripper_state: lambda tick: JointState(name=["left", "right"], position=fingers),
            robot.gripper_command: lambda tick: Float64MultiArray(data=[1.0]),
            MEASURED_JOINTS: lambda tick: JointState(name=_JOINTS, position=[0.1] * len(_JOINTS)),
            **({ROBOT_STATE: _robot_state} if importlib.util.find_spec("franka_msgs") else {}),
        }

    def _driver_pixels(self, name: str, random: np.random.Generator) -> Image:
        """A picture of the camera's driver, as large as its crop needs."""
        crop = self.task.cameras[name].crop or self.robot.cameras[name].crop
        if crop is None:
            return self._pixels[name]
        return random.integers(0, 255, (crop[3], crop[2], 3), dtype=np.uint8)

    def _observation(self, tick: Tick) -> Any:
        return observation_to_msg(
            Observation(
                stamp_ns=tick.stamp_ns,
                episode=tick.episode,
                step=tick.step,
                images=self._pixels,
                tcp_pose=self.pose,
                reset_pose=self.pose,
                tcp_twist=np.zeros(6),
                tcp_wrench=np.zeros(6),
                gripper_opening=1.0,
            )
        )

    def _proposal(self, tick: Tick) -> Any:
        proposal = Proposal(
            action=_ACTION,
            embedding=np.ones(8, np.float32),
            embedding_fingerprint="f",
            weights_version=1,
            inference_time=0.01,
        )
        return proposal_to_msg(proposal, tick)

    def _scene(self, tick: Tick) -> SceneState:
        objects = ["banana", "plate"]
        poses = [pose_to_msg(self.pose) for _ in objects]
        return SceneState(task=self.task.name, tcp_pose=pose_to_msg(self.pose), objects=objects, poses=poses)

    def _diagnostics(self, tick: Tick) -> DiagnosticArray:
        return DiagnosticArray(status=[DiagnosticStatus(name="somebody", hardware_id="conrft", message="well")])


def _picture(pixels: Image, tick: Tick) -> Any:
    """A driver's image; its stamp is set like every other."""
    return array_to_image(pixels, "rgb8", "camera")


def _robot_state(tick: Tick) -> Any:
    """Of an arm that follows its controller."""
    return franka_interfaces.interfaces("franka_msgs", "msg").FrankaRobotState(robot_mode=2)
