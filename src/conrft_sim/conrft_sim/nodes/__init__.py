"""ROS 2 nodes of the simulation."""

from functools import partial

from conrft_data.node_start import start

# What their processes begin with.
simulator = partial(start, "conrft_sim.nodes.simulator_node")
scripted_operator = partial(start, "conrft_sim.nodes.scripted_operator_node")
