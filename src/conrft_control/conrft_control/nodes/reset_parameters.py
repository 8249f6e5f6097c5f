"""The parameters of the reset, which commander and supervisor must judge alike."""

from __future__ import annotations

from rclpy.node import Node

from conrft_control.nodes.running import declare
from conrft_control.reset_motion import ResetTolerance


def declare_tolerance(node: Node) -> ResetTolerance:
    """How near to the reset pose an episode may begin."""
    default = ResetTolerance()
    return ResetTolerance(
        position=declare(
            node,
            "reset_position_tolerance",
            default.position,
            "m; the same for commander and supervisor",
            low=0.0005,
            high=0.1,
        ),
        angle=declare(
            node,
            "reset_angle_tolerance",
            default.angle,
            "rad; the same for commander and supervisor",
            low=0.001,
            high=0.5,
        ),
        gripper_opening=declare(
            node,
            "reset_gripper_opening",
            default.gripper_opening,
            "the gripper is at least so far open, 0..1",
            low=0.0,
            high=1.0,
        ),
    )
