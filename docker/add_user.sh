#!/usr/bin/env bash
# The user that everything runs as: "conrft" with the given number, in the groups of cameras, SpaceMouse and graphics card.
set -euo pipefail
number=${1:-1000}
if existing=$(getent passwd "$number" | cut -d: -f1) && [ -n "$existing" ] && [ "$existing" != conrft ]; then
  userdel --remove "$existing" 2>/dev/null   # Ubuntu's images come with a user of this number
fi
id conrft >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --uid "$number" conrft
for group in video render plugdev input dialout; do
  getent group "$group" >/dev/null || groupadd --system "$group"
  usermod --append --groups "$group" conrft
done
