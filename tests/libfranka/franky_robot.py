"""A simulated FR3 of franky-sim: prints its address, then every command that it gets, each as one line of JSON.

Run by an interpreter that has franky-sim. Between the fingers slides a block of 30 mm.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any
from xml.etree import ElementTree

from franky_sim import SimulationServer, franka_gripper_protocol, franka_robot_protocol
from franky_sim.mujoco_simulator import MujocoSimulator

READY = (0.0, -0.785398163, 0.0, -2.35619449, 0.0, 1.57079633, 0.785398163)


def tell(command: type) -> None:
    handle = command.handle  # type: ignore[attr-defined]

    def tell_and_handle(self: Any, server: Any) -> None:
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del named["client_socket"], named["command_id"]
        print(json.dumps({"command": type(self).__name__, **named}), flush=True)
        handle(self, server)

    command.handle = tell_and_handle  # type: ignore[attr-defined]


def main() -> None:
    for protocol in (franka_robot_protocol, franka_gripper_protocol):
        for name, kind in vars(protocol).items():
            if name.endswith("Command") and dataclasses.is_dataclass(kind) and "handle" in vars(kind):
                tell(kind)
    with MujocoSimulator(enable_visualization=False) as simulator:
        robot = simulator.add_robot(initial_q=READY, initial_hand_width=0.08)
        (hand,) = (body for body in simulator.worldbody.iter("body") if body.get("name", "").endswith("hand"))
        block = ElementTree.SubElement(hand, "body", name="block", pos="0 0 0.1034", gravcomp="1")
        ElementTree.SubElement(block, "joint", type="slide", axis="0 1 0", damping="10")  # as the fingers
        ElementTree.SubElement(block, "geom", type="box", size="0.008 0.015 0.008", mass="0.02")
        with SimulationServer(simulator) as server:
            print(json.dumps({"address": robot.hostname}), flush=True)
            server.run_forever()


if __name__ == "__main__":
    main()
