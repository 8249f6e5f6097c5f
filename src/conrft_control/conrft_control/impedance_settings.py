"""How the Cartesian impedance controller is set for each phase of an episode, as a YAML file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from conrft_data.config import Config

Gain = Annotated[float, Field(ge=-1, le=5000)]
Gains = dict[str, Gain]


class ImpedanceSettings(Config):
    """Gains by phase, and the joints that the reset posture is given for.

    Gains are parameters of the controller's node, such as ``task.k_pos_x``; both phases name the same ones, so that
    each phase leaves nothing of the other behind.
    """

    controller: str = Field(default="cartesian_impedance_controller", min_length=1, description="the controller's node")
    reset: Gains = Field(min_length=1, description="on the way home: stiff, to arrive")
    contact: Gains = Field(min_length=1, description="in an episode: soft, to touch")
    timeout: float = Field(default=2.0, gt=0, le=60, description="for the controller to take them, s")
    joint_states: str = Field(
        default="franka_robot_state_broadcaster/measured_joint_states", description="sensor_msgs/JointState, rad"
    )
    target_joint: str = Field(default="target_joint", description="sensor_msgs/JointState, the posture to keep, rad")
    joints: tuple[str, ...] = Field(default=(), description="names, in the controller's order")
    joint_speed: float = Field(default=0.3, gt=0, le=1.5, description="of the posture on the way home, rad/s")

    @model_validator(mode="after")
    def _phases_agree(self) -> ImpedanceSettings:
        if set(self.reset) != set(self.contact):
            differing = sorted(set(self.reset) ^ set(self.contact))
            raise ValueError(f"reset and contact must name the same gains, only one has {', '.join(differing)}")
        return self
