#!/usr/bin/env bash
# A shell of the container, as one of a workstation: ROS 2 and the workspace are sourced.
set -eo pipefail
if [ -f /opt/ros/jazzy/setup.bash ]; then
  # shellcheck disable=SC1091
  source /opt/ros/jazzy/setup.bash
fi
# What is built on the host beneath the same distribution: franka_ros2, for its franka_msgs.
if [ -n "${FRANKA_WS:-}" ]; then
  # shellcheck disable=SC1091
  source "$FRANKA_WS/install/local_setup.bash"
fi
# shellcheck disable=SC1091
source "$HOME/conrft/install/setup.bash"
exec "$@"
