"""SceneSnapshot to ``conrft_msgs/SceneState`` and back."""

from __future__ import annotations

from conrft_data.conversion import ns_to_stamp, pose_from_msg, pose_to_msg, stamp_to_ns
from conrft_msgs.msg import SceneState
from conrft_sim.scene_snapshot import SceneSnapshot


def scene_to_msg(scene: SceneSnapshot, frame_id: str) -> SceneState:
    """The message of ``scene``; ``frame_id`` is the robot's base frame."""
    message = SceneState()
    message.header.stamp = ns_to_stamp(scene.stamp_ns)
    message.header.frame_id = frame_id
    message.task = scene.task
    message.tcp_pose = pose_to_msg(scene.tcp_pose)
    message.gripper_opening = float(scene.gripper_opening)
    message.objects = sorted(scene.objects)
    message.poses = [pose_to_msg(scene.objects[name]) for name in message.objects]
    message.success = bool(scene.success)
    message.achieved = bool(scene.achieved)
    return message


def scene_from_msg(message: SceneState) -> SceneSnapshot:
    """The scene of ``message``; raises MessageError when a pose is none."""
    names = [str(name) for name in message.objects]
    return SceneSnapshot(
        stamp_ns=stamp_to_ns(message.header.stamp),
        task=message.task,
        tcp_pose=pose_from_msg(message.tcp_pose, "scene_state.tcp_pose"),
        gripper_opening=float(message.gripper_opening),
        objects={
            name: pose_from_msg(pose, f"scene_state.poses[{name}]")
            for name, pose in zip(names, message.poses, strict=True)
        },
        success=bool(message.success),
        achieved=bool(message.achieved),
    )
