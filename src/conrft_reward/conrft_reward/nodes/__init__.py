"""ROS 2 node of this package."""
