"""ROS 2 nodes of this package."""

from functools import partial

from conrft_data.node_start import start

# What their processes begin with.
policy = partial(start, "conrft_policy.nodes.policy_node")
