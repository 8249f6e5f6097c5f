"""ROS nodes of the learner."""

from functools import partial

from conrft_data.node_start import start

# What their processes begin with.
learner = partial(start, "conrft_learner.nodes.learner_node")
critic = partial(start, "conrft_learner.nodes.critic_node")
