"""The workstation: clock, buffers of the network, shared memory, disk, graphics card."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from conrft_bringup.doctor.finding import Finding, error, ok, warning

MIB = 2**20
GIB = 2**30

# One 640x480 image is 0.9 MiB and arrives in 64 KiB pieces; two cameras' bursts must fit while a node is busy.
_RECEIVE_BUFFER = 8 * MIB
_SHARED_MEMORY = 128 * MIB  # eight for each of a dozen processes (config/dds/fastdds.xml), and some for others
# A demonstration of 100 steps takes some 20 MiB, an hour of practice some 5 GiB with the learner's memory.
_DISK_LOW, _DISK_FULL = 10 * GIB, GIB


def check_clock(synchronised: bool | None) -> Finding:
    """``synchronised``: by NTP or chrony; None where the system does not tell."""
    if synchronised:
        return ok("clock", "synchronised")
    cure = (
        "sudo timedatectl set-ntp true (or install chrony); several machines need one time for stamps to mean anything"
    )
    return warning("clock", "the system does not tell" if synchronised is None else "not synchronised", cure)


def check_receive_buffer(rmem_max: int | None) -> Finding:
    """``rmem_max``: net.core.rmem_max, bytes; None where it cannot be read."""
    if rmem_max is None:
        return warning("dds buffers", "net.core.rmem_max cannot be read", "cat /proc/sys/net/core/rmem_max")
    if rmem_max >= _RECEIVE_BUFFER:
        return ok("dds buffers", f"net.core.rmem_max {rmem_max / MIB:.1f} MiB")
    cure = f"sudo sysctl -w net.core.rmem_max={2 * _RECEIVE_BUFFER}, and the same line in /etc/sysctl.d/60-ros2.conf"
    told = f"net.core.rmem_max {rmem_max / MIB:.1f} MiB: images from another machine will be lost"
    return warning("dds buffers", told, cure)


def check_shared_memory(free: int | None) -> Finding:
    """``free``: bytes free in /dev/shm, through which images go on one machine."""
    if free is not None and free >= _SHARED_MEMORY:
        return ok("shared memory", f"{free / MIB:.0f} MiB free in /dev/shm")
    told = "there is no /dev/shm" if free is None else f"{free / MIB:.0f} MiB free in /dev/shm"
    cure = "in a container: --shm-size 1g or --ipc host; else, while no node runs: rm /dev/shm/fastrtps_*"
    return warning("shared memory", told, cure)


def check_disk(free: int, folder: Path) -> Finding:
    """``free``: bytes on the disk of ``folder``."""
    told = f"{free / GIB:.1f} GiB free for {folder}"
    cure = "make room, or choose another run_dir; conrft demos list shows what the episodes take"
    if free < _DISK_FULL:
        return error("disk", told, cure)
    return warning("disk", told, cure) if free < _DISK_LOW else ok("disk", told)


def check_gpu(device: str, cuda_devices: int) -> Finding:
    """``device``: what policy and learner are to run on; ``cuda_devices``: how many torch sees."""
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        if index >= cuda_devices:
            cure = "nvidia-smi; a torch with CUDA (make clean, then make setup); in Docker the learner-gpu profile"
            return error("gpu", f"device {device} was asked for, torch sees {cuda_devices}", cure)
        return ok("gpu", f"{device}, one of {cuda_devices}")
    if cuda_devices:
        return warning("gpu", f"{cuda_devices} there, unused", "device:=cuda:0 in the launch")
    return ok("gpu", "none, and none is asked for")


def machine_findings(run_dir: Path, device: str) -> list[Finding]:
    """All of the above, of this machine."""
    import torch

    folder = run_dir.expanduser().absolute()
    while not folder.is_dir():
        folder = folder.parent
    shared = Path("/dev/shm")
    return [
        check_clock(_clock_is_synchronised()),
        check_receive_buffer(_read_number(Path("/proc/sys/net/core/rmem_max"))),
        check_shared_memory(shutil.disk_usage(shared).free if shared.is_dir() else None),
        check_disk(shutil.disk_usage(folder).free, folder),
        check_gpu(device, torch.cuda.device_count() if torch.cuda.is_available() else 0),
    ]


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _clock_is_synchronised() -> bool | None:
    command = ["timedatectl", "show", "--property", "NTPSynchronized", "--value"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5.0)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(answer.stdout.strip())
