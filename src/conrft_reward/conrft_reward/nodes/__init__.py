"""ROS 2 node of this package."""

from functools import partial

from conrft_data.node_start import start

# What their processes begin with.
reward = partial(start, "conrft_reward.nodes.reward_node")
