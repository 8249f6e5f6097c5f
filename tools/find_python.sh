#!/usr/bin/env bash
# Prints the Python interpreter that `make setup` builds the virtual environment from: the environment variable PYTHON if it
# is set, else the first of python3.11, python3.12, python3.10, python3 on the PATH that runs, is 3.10 to 3.12 and can make
# virtual environments. Exit code 1 with an explanation on stderr if there is none.
set -u

suits() {
  "$1" -c 'import sys, ensurepip, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
  if suits "$PYTHON"; then
    command -v "$PYTHON"
    exit 0
  fi
  echo "PYTHON=$PYTHON does not run, is not Python 3.10 to 3.12, or has no venv module (Debian, Ubuntu: apt-get install python3-venv)." >&2
  exit 1
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

cat >&2 <<'TEXT'
No suitable Python found: this workspace needs Python 3.10, 3.11 or 3.12 with its venv module.
  Debian, Ubuntu:  sudo apt-get install python3 python3-venv
  elsewhere:       make setup PYTHON=/path/to/python3.11
TEXT
exit 1
