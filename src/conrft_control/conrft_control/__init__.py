"""The 10 Hz loop around the robot: observer, intervention mux, commander, episode supervisor and recorder.

Every decision lives in a module of this package without ROS; `conrft_control.nodes` puts a thin node over each.
"""
