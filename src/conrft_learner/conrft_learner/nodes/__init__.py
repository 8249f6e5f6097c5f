"""ROS nodes of the learner."""
