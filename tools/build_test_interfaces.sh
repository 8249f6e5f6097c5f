#!/usr/bin/env bash
# Builds the interfaces that only a robot workstation has, reduced to what the tests of the Franka adapter need, into a prefix
# of their own that nothing else sees: build/test_interfaces/install. Does nothing when they are up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

source_folder=src/conrft_control/test/interfaces
build=$PWD/build/test_interfaces
mkdir -p "$build"
exec 9>"$build/.lock"
flock 9

now=$({ cat .venv/conrft_setup.stamp; find $source_folder -type f -print0 | sort -z | xargs -0 sha256sum; } | sha256sum)
if [ "$now" = "$(cat "$build/.fingerprint" 2>/dev/null)" ]; then
  exit 0
fi

if [ -d .venv/share/ament_cmake ]; then
  unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH
fi
# shellcheck disable=SC1091
source .venv/local_setup.bash
rm -f "$build/.fingerprint"
colcon --log-level error --log-base "$build/log" build --base-paths $source_folder --metas colcon.meta \
  --build-base "$build/build" --install-base "$build/install" --event-handlers console_cohesion- console_stderr+
echo "$now" > "$build/.fingerprint"
