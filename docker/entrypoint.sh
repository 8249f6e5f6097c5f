#!/usr/bin/env bash
# A shell of the container, as one of a workstation: ROS 2 and the workspace are sourced.
set -eo pipefail
if [ -f /opt/ros/jazzy/setup.bash ]; then
  # shellcheck disable=SC1091
  source /opt/ros/jazzy/setup.bash
fi
# shellcheck disable=SC1091
source "$HOME/conrft/install/setup.bash"
exec "$@"
