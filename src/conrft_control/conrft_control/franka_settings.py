"""What a Franka arm and its gripper are told through franka_ros2, as a YAML file."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from conrft_data import rotations
from conrft_data.config import Config, Positive, Vector3
from conrft_data.types import Float64

Torque = Annotated[float, Field(gt=0, le=200)]
Force = Annotated[float, Field(gt=0, le=300)]
Torques = tuple[Torque, Torque, Torque, Torque, Torque, Torque, Torque]
Forces = tuple[Force, Force, Force, Force, Force, Force]
# The ranges that libfranka documents for setJointImpedance and setCartesianImpedance.
JointStiffness = Annotated[float, Field(ge=0, le=14250)]
JointStiffnesses = tuple[
    JointStiffness, JointStiffness, JointStiffness, JointStiffness, JointStiffness, JointStiffness, JointStiffness
]
Translational = Annotated[float, Field(ge=10, le=3000)]
Rotational = Annotated[float, Field(ge=1, le=300)]
CartesianStiffness = tuple[Translational, Translational, Translational, Rotational, Rotational, Rotational]


class Frame(Config):
    """Where one frame stands in another."""

    position: Vector3 = Field(default=(0.0, 0.0, 0.0), description="m")
    euler_xyz: Vector3 = Field(default=(0.0, 0.0, 0.0), description="roll pitch yaw about the fixed axes, rad")

    def matrix(self) -> Float64:
        """``(16,)``: the 4x4 transform, column by column, as libfranka wants it."""
        transform = np.eye(4)
        transform[:3, :3] = rotations.to_matrix(rotations.from_euler_xyz(self.euler_xyz))
        transform[:3, 3] = self.position
        return transform.T.reshape(16)


class Load(Config):
    """What the hand carries besides itself: a tool, a camera."""

    mass: float = Field(ge=0, le=10, description="kg")
    center_of_mass: Vector3 = Field(default=(0.0, 0.0, 0.0), description="in the flange's frame, m")
    inertia: tuple[Positive, Positive, Positive] = Field(
        default=(0.001, 0.001, 0.001), description="about the axes through the centre of mass, kg m^2"
    )


class CollisionBehavior(Config):
    """Above a contact threshold the state says contact; above a collision threshold the arm stops with a reflex."""

    contact_torque: Torques = Field(description="of each joint, Nm")
    collision_torque: Torques = Field(description="of each joint, Nm")
    contact_force: Forces = Field(description="x y z N, then about x y z Nm")
    collision_force: Forces = Field(description="x y z N, then about x y z Nm")


class GripperSettings(Config):
    """How the gripper's actions are used."""

    interface: str = Field(
        default="franka",
        pattern="^(franka|gripper_command)$",
        description="franka: move and grasp of franka_gripper; gripper_command: control_msgs/GripperCommand",
    )
    action: str = Field(
        default="franka_gripper",
        min_length=1,
        description="franka: the gripper's node; gripper_command: the action itself, as 'gripper/gripper_cmd'",
    )
    speed: float = Field(default=0.1, gt=0, le=0.2, description="of the fingers, m/s")
    force: float = Field(default=40.0, gt=0, le=140, description="of a grasp, N")
    timeout: float = Field(default=5.0, gt=0, le=60, description="a goal that did not end by then has failed, s")
    patience: float = Field(default=2.0, gt=0, le=60, description="for an action server to appear, s")
    command_is_half_width: bool = Field(
        default=True, description="gripper_command: the position is that of one finger, not the distance of both"
    )


class ControllerSettings(Config):
    """What ros2_control has to activate: the arm takes settings only while no controller commands it."""

    manager: str = Field(default="controller_manager", min_length=1, description="ros2_control's node")
    hardware: str = Field(
        default="FrankaHardwareInterface", min_length=1, description="franka_ros2's hardware component"
    )
    broadcasters: tuple[str, ...] = Field(default=(), description="that only tell what is measured")
    controllers: tuple[str, ...] = Field(min_length=1, description="that command the arm; activated last")


class FrankaSettings(Config):
    """Set at the start; what is left out stays as the robot has it."""

    service_server: str = Field(default="service_server", description="franka_ros2's node with the set_* services")
    action_server: str = Field(default="action_server", description="franka_ros2's node with error_recovery")
    robot_state: str = Field(
        default="franka_robot_state_broadcaster/robot_state",
        description="franka_msgs/FrankaRobotState; empty: not watched (fake hardware has none)",
    )
    state_timeout: float = Field(
        default=1.0, gt=0, le=10, description="an arm whose state nobody has told for so long counts as stopped, s"
    )
    service_timeout: float = Field(default=5.0, gt=0, le=60, description="for an answer of a service or of recovery, s")
    controllers: ControllerSettings | None = Field(
        default=None,
        description="left out: somebody else activates them once the adapter has set up the arm",
    )
    gripper: GripperSettings | None = GripperSettings()
    load: Load | None = None
    tcp_frame: Frame | None = Field(default=None, description="end effector in the nominal end effector's frame")
    stiffness_frame: Frame | None = Field(default=None, description="in the end effector's frame")
    collision: CollisionBehavior | None = None
    joint_stiffness: JointStiffnesses | None = Field(
        default=None, description="of the arm's own joint impedance, Nm/rad"
    )
    cartesian_stiffness: CartesianStiffness | None = Field(
        default=None, description="of the arm's own Cartesian impedance: x y z N/m, then about x y z Nm/rad"
    )
