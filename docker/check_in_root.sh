#!/usr/bin/env bash
# Runs the Dockerfile's own steps in a bare root folder, where there is no container engine; needs root and debootstrap.
#     docker/check_in_root.sh FOLDER [SUITE [MIRROR [COMPONENTS]]]
#     docker/check_in_root.sh /tmp/root                                                       Debian 12
#     docker/check_in_root.sh /tmp/root noble http://archive.ubuntu.com/ubuntu main,universe  what ros:jazzy is made from
# The folder has no ROS 2, so the workspace is built on the wheels. Of this machine it gets the network and pip's settings
# and certificates; SHARED_FOLDERS="/a /b" are seen inside, read-only. FOLDER stays, and can be given again.
set -euo pipefail
root=$(realpath -m "${1:?a folder to make the root in}")
suite=${2:-bookworm} mirror=${3:-http://deb.debian.org/debian} components=${4:-main}
sources=$(realpath "$(dirname "$0")/..")

if [ "${IN_OWN_NAMESPACE:-}" != yes ]; then
  # What is mounted below, and what is left running, goes away with the namespaces.
  exec env IN_OWN_NAMESPACE=yes unshare --mount --pid --fork --kill-child "$0" "$@"
fi

step() {  # words of what is done, --, command
  local told=""
  while [ "$1" != -- ]; do told+=" $1"; shift; done
  shift
  local begun=$SECONDS
  echo "==$told"
  "$@" || { echo "== failed:$told" >&2; exit 1; }
  echo "==$told: $((SECONDS - begun)) s"
}

inside() { chroot "$root" env -i "${environment[@]}" HOME=/root "$@"; }
# The user's groups count: video, render, plugdev.
as_user() {
  local groups
  groups=$(chroot "$root" id -G conrft | tr ' ' ,)
  chroot --userspec="$number:$number" --groups="$groups" "$root" env -i "${environment[@]}" HOME=/home/conrft \
    sh -c 'cd /home/conrft/conrft && exec "$@"' sh "$@"
}
make_root() { debootstrap --variant=minbase --components="$components" "$suite" "$root" "$mirror"; }
copy_sources() {
  local home=$root/home/conrft/conrft
  mkdir -p "$home"
  (cd "$sources" && git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create) |
    tar --extract --directory "$home"
  chroot "$root" chown -R conrft:conrft /home/conrft/conrft
}
certificates_of_this_machine() { cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"; }

number=1000
mapfile -t environment < <(env | grep -E '^(PIP_|https?_proxy=|HTTPS?_PROXY=|no_proxy=|NO_PROXY=)' || true)
environment+=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8)

[ -f "$root/etc/os-release" ] || step "bare $suite" -- make_root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
cp --dereference /etc/resolv.conf "$root/etc/resolv.conf"
for settings in /etc/pip.conf /etc/xdg/pip; do
  [ ! -e "$settings" ] || { mkdir -p "$root${settings%/*}" && cp -r "$settings" "$root${settings%/*}/"; }
done
for folder in ${SHARED_FOLDERS:-}; do
  mkdir -p "$root$folder" && mount --bind -o ro "$folder" "$root$folder"
done
mkdir -p "$root/tmp/docker" && cp "$sources"/docker/*.sh "$root/tmp/docker/"

# The Dockerfile's steps, in its order.
step packages -- inside /tmp/docker/install_packages.sh
certificates_of_this_machine
step user -- inside /tmp/docker/add_user.sh "$number"
step sources -- copy_sources
step setup -- as_user make setup
step workspace -- as_user docker/build_workspace.sh
step "the image's own command" -- as_user docker/entrypoint.sh conrft doctor --no-graph
step "one demonstration in simulation" -- as_user docker/entrypoint.sh \
  conrft up record_demos.launch.yaml episodes:=1 negative_episodes:=0 run_dir:=runs/check
step "what was recorded" -- as_user docker/entrypoint.sh conrft demos list runs/check/demos
