"""Runs YAML launch files where the genuine ``ros2 launch`` is not installed.

The way of a launch file: ``launch_file`` (text to actions) -> ``expansion`` (actions to requests, substitutions done)
-> ``process_supervisor`` (requests to processes). The subset that is understood is written down in ``launch_file``;
anything else stops with file, line and key.
"""
