#!/usr/bin/env bash
# Sets up and builds the workspace in this folder, as the user. Beneath a distribution's ROS 2 where there is one, else with the wheels.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -f /opt/ros/jazzy/setup.bash ]; then
  set +u
  # shellcheck disable=SC1091
  source /opt/ros/jazzy/setup.bash
  set -u
fi
make build
