#!/usr/bin/env bash
# What the images need from the distribution, as root; arguments: further packages. The image's layers and a bare Debian or Ubuntu root folder run the same script.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends \
  ca-certificates g++ git libegl1 libgl1 libgl1-mesa-dri make python3 python3-dev python3-venv "$@"
rm -rf /var/lib/apt/lists/*
