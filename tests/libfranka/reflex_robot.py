"""A simulated FR3 of franka-sim, whose reflexes are those of the robot: prints its address as a line of JSON.

Run by an interpreter that has franka-sim and franky-sim, with a folder to write to as the argument.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from franka_sim import FrankaSimServer

PORT = 1337  # libfranka's; no client can be told another


class Robot(FrankaSimServer):
    """Says when the physics runs: libfranka does not wait for as long as that takes."""

    def run_server(self) -> None:
        print(json.dumps({"address": self.host}), flush=True)
        super().run_server()


def free_address() -> str:
    """Of this machine's own addresses one whose port nobody has: several simulations may run at once."""
    for last in range(1, 255):
        address = f"127.0.1.{last}"
        with socket.socket() as probe:
            try:
                probe.bind((address, PORT))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
        return address
    raise RuntimeError(f"port {PORT} is taken at all of 127.0.1.1 .. 254")


def write_arm(path: Path) -> None:
    """The arm of franky-sim's package: franka-sim has none and would download one."""
    found = find_spec("franky_sim")
    assert found is not None and found.origin is not None
    assets = Path(found.origin).parent / "assets"
    path.write_text(re.sub('meshdir="[^"]*"', f'meshdir="{assets / "meshes"}"', (assets / "fr3.xml").read_text()))


def main() -> None:
    arm = Path(sys.argv[1], "arm.xml")
    write_arm(arm)
    os.environ["FR3_MJCF"] = str(arm)
    address = free_address()
    # A motion whose commands fail to come twenty times in a row is stopped by a reflex.
    Robot(host=address, enable_gripper=False, enforce_comm_constraints=True).start()


if __name__ == "__main__":
    main()
