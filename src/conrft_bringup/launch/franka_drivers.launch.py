"""Franka's own bring-up with this suite's controllers: the one launch file that needs franka_ros2.

Arguments are those of franka_bringup's franka.launch.py that a bench needs; robot.launch.yaml passes them on.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

ARGUMENTS = {
    "namespace": ("", "ROS namespace of the robot"),
    "robot_ip": ("172.16.0.2", "address of the arm's control box"),
    "robot_type": ("fr3", "kind of arm for franka_description: fr3, fer"),
    "load_gripper": ("true", "start franka_gripper"),
    "controllers_file": (None, "ros2_control parameters"),
}


def generate_launch_description():
    given = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    franka = PathJoinSubstitution([FindPackageShare("franka_bringup"), "launch", "franka.launch.py"])
    passed = {name: given[name] for name in ARGUMENTS if name != "controllers_file"}
    passed["controllers_yaml"] = given["controllers_file"]
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(n, default_value=d, description=about) for n, (d, about) in ARGUMENTS.items()),
            IncludeLaunchDescription(franka, launch_arguments=passed.items()),
            *(
                Node(
                    package="controller_manager",
                    executable="spawner",
                    namespace=given["namespace"],
                    arguments=[controller, "--controller-manager-timeout", "60", *more],
                    output="screen",
                )
                # The arm takes its settings only before a controller commands it: franka_adapter activates that one.
                for controller, *more in (("pose_broadcaster",), ("cartesian_impedance_controller", "--inactive"))
            ),
        ]
    )
