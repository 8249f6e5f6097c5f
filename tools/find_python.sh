#!/usr/bin/env bash
# Prints the Python interpreter that `make setup` builds the virtual environment from: the environment variable PYTHON if it
# is set, else the one that .venv was made from, else the first of python3.11, python3.12, python3.10, python3 on the PATH
# that suits. Exit code 1 with an explanation on stderr if there is none.
set -u
venv=$(dirname "$0")/../.venv

# Runs, is 3.10 to 3.12, can make virtual environments, has the C headers that message packages are built with, and (where
# a ROS distribution is sourced) is the Python which that distribution's rclpy was built for.
suits() {
  "$1" - <<'PYTHON' >/dev/null 2>&1
import ensurepip, os, sys, sysconfig, venv
if os.environ.get("ROS_DISTRO"):
    import rclpy
headers = os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h"))
sys.exit(not (headers and (3, 10) <= sys.version_info[:2] <= (3, 12)))
PYTHON
}

if [ -n "${PYTHON:-}" ]; then
  if suits "$PYTHON"; then
    command -v "$PYTHON"
    exit 0
  fi
  echo "PYTHON=$PYTHON does not suit; asked for:" >&2
else
  if [ -x "$venv/bin/python" ]; then
    # -S: the wheels' start-up hook is not wanted here.
    candidate=$("$venv/bin/python" -S -c 'import sys; print(sys._base_executable)' 2>/dev/null)
    if [ -n "$candidate" ] && suits "$candidate"; then
      echo "$candidate"
      exit 0
    fi
  fi
  for name in python3.11 python3.12 python3.10 python3; do
    # Every place on the PATH is tried: the first may be a shim of a version that is not active.
    while read -r candidate; do
      if suits "$candidate"; then
        echo "$candidate"
        exit 0
      fi
    done < <(type -aP "$name")
  done
fi

cat >&2 <<'TEXT'
No suitable Python found: the workspace needs Python 3.10, 3.11 or 3.12 with its venv module and its C headers; where a ROS 2
distribution is sourced, the one that its rclpy runs on.
  Debian, Ubuntu:  sudo apt-get install python3 python3-venv python3-dev
  elsewhere:       make setup PYTHON=/path/to/python3.11
TEXT
exit 1
