"""The ROS 2 nodes: parameters in, messages converted, the core asked, messages out."""
