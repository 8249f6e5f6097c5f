"""Configuration of a task and of a robot: typed, bounded, and strict about keys that it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from conrft_data.motion_limiter import SpeedLimits
from conrft_data.reference_pose import MotionLimits

Vector3 = tuple[float, float, float]
# Of the base frame, m: farther than any arm of this size reaches.
Coordinate = Annotated[float, Field(ge=-2, le=2)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Crop = tuple[int, int, int, int]
Pixels = Annotated[int, Field(ge=16, le=10000)]


class ConfigError(ValueError):
    """A configuration file that is missing, not YAML, or wrong; the text names file, key and allowed range."""


class Config(BaseModel):
    """Base of every configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_crop(crop: Crop | None) -> None:
    if crop is not None and not (0 <= crop[0] < crop[2] and 0 <= crop[1] < crop[3]):
        raise ValueError(f"crop {list(crop)} must be left < right and top < bottom, none negative")


class Camera(Config):
    """One camera of the task."""

    width: int = Field(ge=16, le=1024, description="width given to the policy, pixels")
    height: int = Field(ge=16, le=1024, description="height given to the policy, pixels")
    crop: Crop | None = Field(
        default=None,
        description="left, top, right, bottom of the crop in the camera's own pixels; none: the whole image",
    )

    @model_validator(mode="after")
    def _crop_has_area(self) -> Camera:
        _check_crop(self.crop)
        return self


class Reset(Config):
    """Where an episode begins."""

    position: Vector3 = Field(description="tool centre point, base frame, m")
    euler_xyz: Vector3 = Field(description="orientation, roll pitch yaw about the fixed axes, rad")
    joints: tuple[float, float, float, float, float, float, float] | None = Field(
        default=None, description="posture of the arm that goes with position and euler_xyz, rad; none: any"
    )
    kind: str = Field(pattern="^(human|script)$", description="who puts the scene back: a human or a script")
    linear_speed: float = Field(default=0.15, gt=0, le=0.5, description="of the reset motion, m/s")
    angular_speed: float = Field(default=0.6, gt=0, le=2.0, description="of the reset motion, rad/s")
    timeout: float = Field(default=20.0, gt=0, le=120, description="of the reset motion, s")


class Workspace(Config):
    """Where the reference pose may go."""

    low: tuple[Coordinate, Coordinate, Coordinate] = Field(description="corner of the box, base frame, m")
    high: tuple[Coordinate, Coordinate, Coordinate] = Field(description="opposite corner of the box, base frame, m")
    max_tilt: float = Field(default=0.6, gt=0, le=3.2, description="angle away from the reset orientation, rad")

    @model_validator(mode="after")
    def _box_has_volume(self) -> Workspace:
        if any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low {list(self.low)} must lie below high {list(self.high)} on every axis")
        return self


class ActionScale(Config):
    """What a full action of 1 means for one tick."""

    translation: float = Field(default=0.03, gt=0, le=0.1, description="m in one tick")
    rotation: float = Field(default=0.15, gt=0, le=0.5, description="rad in one tick")
    leash: float = Field(
        default=0.06, gt=0, le=0.2, description="how far the reference may run ahead of the measured position, m"
    )
    leash_angle: float = Field(
        default=0.4, gt=0, le=1.5, description="how far it may turn ahead of the measured orientation, rad"
    )


class RewardConfig(Config):
    """The binary reward and its gates."""

    success: float = Field(default=10.0, gt=0, le=1000, description="reward of the transition that succeeds")
    step: float = Field(default=-0.05, ge=-10, le=0, description="reward of every other transition")
    threshold: Fraction = Field(default=0.9, description="of the classifier's success probability")
    consecutive: int = Field(default=2, ge=1, le=20, description="ticks in a row above the threshold, gates included")
    min_gripper_opening: Fraction = Field(
        default=0.0, description="gate: the gripper is at least so far open, 0 closed .. 1 open"
    )
    min_tcp_height: float = Field(
        default=-10.0, ge=-10, le=10, description="gate: tool centre point at least so high, base frame, m"
    )


class TaskConfig(Config):
    """Everything that the suite knows of a task."""

    name: str = Field(pattern="^[a-z][a-z0-9_]*$", description="name of the task, as in file names")
    instruction: str = Field(min_length=3, max_length=200, description="language instruction for the VLA")
    action_dim: int = Field(ge=6, le=7, description="7: with gripper; 6: the gripper stays as it is")
    max_steps: int = Field(ge=5, le=2000, description="step limit of an episode")
    demonstrations: int = Field(default=20, ge=1, le=1000, description="successful demonstrations to record")
    cameras: dict[str, Camera] = Field(min_length=1, description="by name, in the order given to the policy")
    reset: Reset
    workspace: Workspace
    action_scale: ActionScale = ActionScale()
    reward: RewardConfig = RewardConfig()
    discount: float = Field(default=0.98, gt=0, lt=1, description="gamma")

    @model_validator(mode="after")
    def _reset_is_in_the_box(self) -> TaskConfig:
        position, box = self.reset.position, self.workspace
        if not all(low <= at <= high for low, at, high in zip(box.low, position, box.high, strict=True)):
            raise ValueError(
                f"reset.position {list(position)} must lie in the workspace {list(box.low)} .. {list(box.high)}"
            )
        return self

    def motion_limits(self) -> MotionLimits:
        """The limits of the reference pose."""
        return MotionLimits(
            translation_scale=self.action_scale.translation,
            rotation_scale=self.action_scale.rotation,
            box_low=self.workspace.low,
            box_high=self.workspace.high,
            max_tilt=self.workspace.max_tilt,
            leash=self.action_scale.leash,
            leash_angle=self.action_scale.leash_angle,
        )


class CameraTopic(Config):
    """Where a camera's images come from."""

    topic: str = Field(min_length=1, description="sensor_msgs/Image")
    size: tuple[Pixels, Pixels] | None = Field(
        default=None, description="width and height of the images that the crop was measured in; the doctor compares"
    )
    crop: Crop | None = Field(
        default=None,
        description="left, top, right, bottom in the camera's own pixels, if the task names no crop; none: all of it",
    )

    @model_validator(mode="after")
    def _crop_has_area(self) -> CameraTopic:
        _check_crop(self.crop)
        return self


class SafetyLimits(Config):
    """What the commander never lets the arm exceed, in episodes and on the way home alike.

    The defaults are wide: a full action of the shipped tasks, and its reversal, stays below them. A robot's file sets
    its own.
    """

    linear_speed: float = Field(default=1.0, gt=0, le=3, description="of target_pose, m/s")
    angular_speed: float = Field(default=5.0, gt=0, le=10, description="of target_pose, rad/s")
    linear_acceleration: float = Field(default=13.0, gt=0, le=50, description="of target_pose, m/s^2")
    angular_acceleration: float = Field(default=60.0, gt=0, le=200, description="of target_pose, rad/s^2")
    force: float = Field(default=40.0, gt=0, le=200, description="measured force at which the arm retreats, N")
    torque: float = Field(default=10.0, gt=0, le=50, description="measured torque at which the arm retreats, N m")
    retreat_distance: float = Field(
        default=0.03, ge=0, le=0.2, description="how far it goes back the way it came, m; 0: it only stops"
    )
    retreat_speed: float = Field(default=0.05, gt=0, le=0.3, description="at which it goes back, m/s")

    def speed_limits(self) -> SpeedLimits:
        """Those of the target pose."""
        return SpeedLimits(
            linear_speed=self.linear_speed,
            angular_speed=self.angular_speed,
            linear_acceleration=self.linear_acceleration,
            angular_acceleration=self.angular_acceleration,
        )


class RobotConfig(Config):
    """Names and limits of one kind of robot. Topics are relative, so that namespaces work."""

    name: str = Field(pattern="^[a-z][a-z0-9_]*$")
    base_frame: str = Field(default="base", min_length=1)
    current_pose: str = Field(
        default="current_pose", description="geometry_msgs/PoseStamped, measured tool centre point"
    )
    target_pose: str = Field(
        default="target_pose", description="geometry_msgs/PoseStamped, to the impedance controller"
    )
    twist: str = Field(
        default="franka_robot_state_broadcaster/desired_end_effector_twist", description="geometry_msgs/TwistStamped"
    )
    wrench: str = Field(
        default="franka_robot_state_broadcaster/external_wrench_in_stiffness_frame",
        description="geometry_msgs/WrenchStamped",
    )
    gripper_state: str = Field(
        default="gripper/joint_states", description="sensor_msgs/JointState, position of the fingers, m"
    )
    gripper_command: str = Field(
        default="gripper/gripper_position_controller/commands",
        description="std_msgs/Float64MultiArray, one opening 0..1",
    )
    gripper_max_width: float = Field(default=0.08, gt=0, le=0.5, description="distance between the open fingers, m")
    cameras: dict[str, CameraTopic] = Field(min_length=1, description="by name")
    state_timeout: float = Field(default=0.1, gt=0, le=2, description="robot state older than this is stale, s")
    camera_timeout: float = Field(default=0.2, gt=0, le=2, description="an image older than this is stale, s")
    action_timeout: float = Field(
        default=0.15,
        gt=0,
        le=2,
        description="without an Action for so long the arm holds; one that is older is not followed, s",
    )
    safety: SafetyLimits = SafetyLimits()


ConfigT = TypeVar("ConfigT", bound=Config)


def load_config(cls: type[ConfigT], path: str | Path) -> ConfigT:
    """Reads one YAML file into ``cls``; raises ConfigError naming file, key and allowed range."""
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: must hold keys and values, holds {type(content).__name__}")
    try:
        return cls.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{file}: {_sentence(item)}" for item in error.errors())) from error


def _sentence(item: object) -> str:
    """One problem found by pydantic, as ``key: what is wrong (got value)``, or what is wrong between several keys."""
    assert isinstance(item, dict)
    wrong = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return str(wrong)
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{key}: is not a known key"
    if item["type"] == "missing":
        return f"{key}: is missing"
    return f"{key}: {wrong} (got {item['input']!r})"
