#!/usr/bin/env bash
# Builds the colcon workspace into install/ if anything that colcon installs has changed. Python modules are installed as
# links (--symlink-install), so editing one needs no build.
set -euo pipefail
cd "$(dirname "$0")/.."

fingerprint() {
  { cat .venv/conrft_setup.stamp colcon.meta tools/build.sh
    find src -type f ! -path '*/test/*' ! -path '*/__pycache__/*' \( ! -name '*.py' -o -name setup.py -o -name '*.launch.py' \) \
      -print0 | sort -z | xargs -0 sha256sum
  } | sha256sum
}

mkdir -p build
exec 9>build/.lock
flock 9

now=$(fingerprint)
if [ -f install/setup.bash ] && [ "$now" = "$(cat install/.fingerprint 2>/dev/null)" ]; then
  exit 0
fi

# Where the wheels are used nothing but the virtual environment may lie beneath the workspace; a distribution's ROS stays.
if [ -d .venv/share/ament_cmake ]; then
  unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH
fi
# shellcheck disable=SC1091
source .venv/local_setup.bash
rm -f install/.fingerprint
colcon --log-level error build --base-paths src --symlink-install --metas colcon.meta \
  --event-handlers console_cohesion- console_stderr+ "$@"
echo "$now" > install/.fingerprint
