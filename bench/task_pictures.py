"""Draws docs/images/tasks.png: every task from both cameras, at the start and at success.

python bench/task_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from conrft_data.reference_pose import ReferencePose
from conrft_sim.operator import ScriptedOperator
from conrft_sim.operator_benchmark import execute, hand_action
from conrft_sim.simulation import Simulation
from conrft_sim.task import task_class, task_names

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "tasks.png"
SEED, EPISODES = 1, range(1, 6)
TILE, TITLE, GAP = 200, 26, 6  # pixels
TASKS_IN_A_ROW = 2


def tiles(simulation: Simulation) -> list[Image.Image]:
    """What each camera sees now."""
    return [Image.fromarray(simulation.render(camera)).resize((TILE, TILE)) for camera in ("side", "wrist")]


def episode(name: str) -> list[Image.Image]:
    """Both cameras at the start and at success of the first demonstration that succeeds."""
    kind = task_class(name)
    config = kind.default_config()
    operator = ScriptedOperator("demonstrate", kind.plan(config), SEED)
    reference = ReferencePose(config.motion_limits())
    with Simulation(config) as simulation:
        for number in EPISODES:
            simulation.reset(SEED, number)
            operator.reset(number)
            reference.start(simulation.tcp_pose)
            start = tiles(simulation)
            for _ in range(config.max_steps):
                scene = simulation.scene()
                if scene.success:
                    return start + tiles(simulation)
                execute(simulation, reference, hand_action(operator.act(scene), scene.tcp_pose))
    raise RuntimeError(f"{name}: the scripted operator failed in every one of {len(EPISODES)} episodes")


def panel(name: str) -> NDArray[np.uint8]:
    """One task: its name and four tiles."""
    image = Image.new("RGB", (4 * TILE + 3 * GAP, TITLE + TILE + GAP), "white")
    font = ImageFont.load_default(size=16)
    ImageDraw.Draw(image).text((2, 4), f"{name}: start, and success", fill="black", font=font)
    for column, tile in enumerate(episode(name)):
        image.paste(tile, (column * (TILE + GAP), TITLE))
    return np.asarray(image)


def main() -> None:
    """Draws the sheet."""
    panels = [panel(name) for name in task_names()]
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % TASKS_IN_A_ROW)
    space = np.full((panels[0].shape[0], 3 * GAP, 3), 255, np.uint8)
    rows = [
        np.hstack([part for one in panels[i : i + TASKS_IN_A_ROW] for part in (one, space)])
        for i in range(0, len(panels), TASKS_IN_A_ROW)
    ]
    OUT.parent.mkdir(exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(OUT, optimize=True)
    print(f"{OUT}: {len(task_names())} tasks, {OUT.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
