"""The ROS 2 nodes: parameters in, messages converted, the core asked, messages out."""

from functools import partial

from conrft_data.node_start import start

# What their processes begin with.
observer = partial(start, "conrft_control.nodes.observer_node")
intervention_mux = partial(start, "conrft_control.nodes.intervention_mux_node")
commander = partial(start, "conrft_control.nodes.commander_node")
supervisor = partial(start, "conrft_control.nodes.supervisor_node")
recorder = partial(start, "conrft_control.nodes.recorder_node")
episode_server = partial(start, "conrft_control.nodes.episode_server_node")
franka_adapter = partial(start, "conrft_control.nodes.franka_adapter_node")
impedance_phases = partial(start, "conrft_control.nodes.impedance_phases_node")
