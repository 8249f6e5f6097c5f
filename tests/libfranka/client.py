"""Calls pylibfranka as it is told: each line of standard input is one call in JSON, each line of output its result.

Run by an interpreter that has pylibfranka, with the robot's address as the argument.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from typing import Any

import pylibfranka as franka


def names_of(value: Any) -> list[str]:
    return [name for name in dir(value) if not name.startswith("_")]


def plain(value: Any) -> Any:
    """What JSON can hold of a result: a state becomes a dict, errors become the names of those that are set."""
    if isinstance(value, franka.Errors):
        return [name for name in names_of(value) if getattr(value, name)]
    if isinstance(value, franka.RobotMode):
        return int(value)
    if isinstance(value, franka.Duration):
        return value.to_sec()
    if isinstance(value, franka.RobotState | franka.GripperState):
        return {name: plain(getattr(value, name)) for name in names_of(value)}
    return value


def drive(robot: franka.Robot, twist: list[float], cycles: int) -> list[Any]:
    """Moves the tool with ``twist`` in the base frame; returns the state of every tenth cycle."""
    control = robot.start_cartesian_velocity_control(franka.ControllerMode.JointImpedance)
    states = []
    for cycle in range(cycles):
        state, _ = control.readOnce()
        if cycle % 10 == 0:
            states.append(plain(state))
        ramp = min(1.0, 5 * cycle / cycles, 5 * (cycles - 1 - cycle) / cycles)
        command = franka.CartesianVelocities([ramp * part for part in twist])
        command.motion_finished = cycle == cycles - 1
        control.writeOnce(command)
    return states


def fall_silent(robot: franka.Robot) -> None:
    """Begins a motion, sends no command for a while, and goes on."""
    control = robot.start_joint_velocity_control(franka.ControllerMode.JointImpedance)
    for cycle in range(40):
        control.readOnce()
        if cycle == 20:
            time.sleep(0.3)
        control.writeOnce(franka.JointVelocities([0.0] * 7))


OWN = {
    "drive": drive,
    "fall_silent": fall_silent,
    "error_names": lambda robot: names_of(franka.Errors()),
    "modes": lambda robot: {name: int(mode) for name, mode in franka.RobotMode.__members__.items()},
}


def main() -> None:
    address = sys.argv[1]
    devices: dict[str, Any] = {"robot": franka.Robot(address, franka.RealtimeConfig.kIgnore)}
    print(json.dumps({"result": "connected"}), flush=True)
    for line in sys.stdin:
        call = json.loads(line)
        try:
            if call["device"] == "gripper" and "gripper" not in devices:
                devices["gripper"] = franka.Gripper(address)
            device = devices[call["device"]]
            method = partial(OWN[call["name"]], device) if call["name"] in OWN else getattr(device, call["name"])
            answer = {"result": plain(method(*call["arguments"]))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
