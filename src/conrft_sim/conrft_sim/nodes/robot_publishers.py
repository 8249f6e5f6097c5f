"""What the real robot's drivers publish, filled from the simulation."""

from __future__ import annotations

import array
import math
from typing import Any

from geometry_msgs.msg import PoseStamped, TwistStamped, WrenchStamped
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header

from conrft_data import topics
from conrft_data.config import RobotConfig
from conrft_data.conversion import ns_to_stamp, pose_to_msg, twist_to_msg, wrench_to_msg
from conrft_data.images import array_to_image
from conrft_msgs.msg import SceneState
from conrft_sim.scene_message import scene_to_msg
from conrft_sim.simulation import RobotState, Simulation

MEASURED_JOINTS = "franka_robot_state_broadcaster/measured_joint_states"
ARM_JOINTS = [f"fr3_joint{index}" for index in range(1, 8)]
FINGER_JOINTS = ["fr3_finger_joint1", "fr3_finger_joint2"]
STIFFNESS_FRAME = "fr3_hand_tcp"

Outgoing = tuple[Publisher, Any]


class RobotPublishers:
    """Publishers of the robot state, the cameras and the privileged scene, and the messages for them."""

    def __init__(self, node: Node, robot: RobotConfig, simulation: Simulation, *, lockstep: bool) -> None:
        """Raises ValueError when the robot's configuration names no topic for a camera of the task."""
        self._simulation = simulation
        self._base_frame = robot.base_frame
        make = node.create_publisher
        # Reliable like the broadcasters of ros2_control; depth one, because only the newest state counts.
        # Images best effort
        # like realsense2_camera (REP-2003). In lockstep all are reliable: the loss of one sample would stop
        # simulated time.
        state_quality, image_quality = (topics.TICK, topics.TICK) if lockstep else (topics.COMMAND, topics.SENSOR)
        self._pose = make(PoseStamped, robot.current_pose, state_quality)
        self._twist = make(TwistStamped, robot.twist, state_quality)
        self._wrench = make(WrenchStamped, robot.wrench, state_quality)
        self._joints = make(JointState, MEASURED_JOINTS, state_quality)
        self._gripper = make(JointState, robot.gripper_state, state_quality)
        self._scene = make(SceneState, topics.SCENE_STATE, topics.TICK)
        self._cameras: dict[str, tuple[Publisher, Publisher, CameraInfo]] = {}
        for name in simulation.task_config.cameras:
            if name not in robot.cameras:
                raise ValueError(f"robot {robot.name!r} has no camera {name!r}, only {sorted(robot.cameras)}")
            topic = robot.cameras[name].topic
            image = make(Image, topic, image_quality)
            info = make(CameraInfo, f"{topic.rsplit('/', 1)[0]}/camera_info", image_quality)
            self._cameras[name] = (image, info, self._camera_info(name))

    def state(self, state: RobotState) -> list[Outgoing]:
        """Messages of the arm and the gripper."""
        stamp = ns_to_stamp(state.stamp_ns)
        base = Header(stamp=stamp, frame_id=self._base_frame)
        joints = JointState(header=base, name=ARM_JOINTS)
        joints.position = array.array("d", state.joint_positions)
        joints.velocity = array.array("d", state.joint_velocities)
        joints.effort = array.array("d", state.joint_torques)
        fingers = JointState(header=base, name=FINGER_JOINTS)
        fingers.position = array.array("d", state.finger_positions)
        stiffness = Header(stamp=stamp, frame_id=STIFFNESS_FRAME)
        return [
            (self._pose, PoseStamped(header=base, pose=pose_to_msg(state.tcp_pose))),
            (self._twist, TwistStamped(header=base, twist=twist_to_msg(state.tcp_twist))),
            (self._wrench, WrenchStamped(header=stiffness, wrench=wrench_to_msg(state.tcp_wrench))),
            (self._joints, joints),
            (self._gripper, fingers),
        ]

    def images(self) -> list[Outgoing]:
        """Messages of all cameras, rendered now."""
        outgoing: list[Outgoing] = []
        stamp = ns_to_stamp(self._simulation.time_ns)
        for name, (image_publisher, info_publisher, info) in self._cameras.items():
            image = array_to_image(self._simulation.render(name), "rgb8", name)
            image.header.stamp = info.header.stamp = stamp
            outgoing += [(image_publisher, image), (info_publisher, info)]
        return outgoing

    def scene(self) -> list[Outgoing]:
        """Message of the privileged scene."""
        return [(self._scene, scene_to_msg(self._simulation.scene(), self._base_frame))]

    def _camera_info(self, name: str) -> CameraInfo:
        """An ideal pinhole camera with square pixels."""
        model, camera = self._simulation.model, self._simulation.task_config.cameras[name]
        focal = camera.height / 2 / math.tan(math.radians(float(model.camera(name).fovy[0])) / 2)
        cx, cy = camera.width / 2, camera.height / 2
        info = CameraInfo(width=camera.width, height=camera.height, distortion_model="plumb_bob", d=[0.0] * 5)
        info.header.frame_id = name
        info.k = [focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info
