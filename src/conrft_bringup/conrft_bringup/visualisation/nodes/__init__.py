"""The ROS 2 nodes of the viewers' side."""

from functools import partial

from conrft_data.node_start import start

visualiser = partial(start, "conrft_bringup.visualisation.nodes.visualiser_node")
bag_player = partial(start, "conrft_bringup.visualisation.nodes.bag_player_node")
