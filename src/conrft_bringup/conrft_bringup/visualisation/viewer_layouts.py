"""The layouts of Foxglove and PlotJuggler, for a graph in a namespace and for a recording that is played beneath it."""

from __future__ import annotations

import os
import re

from conrft_bringup.launch_runner.ament_index import package_share
from conrft_data import topics

PLAYBACK = "playback"  # where view.launch.yaml has a recording played
LAYOUTS = {"foxglove": "foxglove/conrft.json", "plotjuggler": "plotjuggler/conrft.xml"}

_TOPIC = re.compile(r'(?<=")/(\w+)')  # up to its first part, at the beginning of a string
_OF_THE_VISUALISER = "view"


def viewer_layout(viewer: str, *, namespace: str, playback: bool) -> str:
    """The text of a layout whose topics are those of one graph; ``viewer``: a key of ``LAYOUTS``.

    Neither viewer knows relative topic names, so that a namespace would leave every panel empty.
    """

    def placed(match: re.Match[str]) -> str:
        name = match.group(1)
        if f"/{name}" == topics.DIAGNOSTICS:
            return f"/{name}"
        source = PLAYBACK if playback and name != _OF_THE_VISUALISER else ""
        return "/" + "/".join(part for part in (namespace.strip("/"), source, name) if part)

    text = (package_share("conrft_bringup", os.environ) / LAYOUTS[viewer]).read_text(encoding="utf-8")
    return _TOPIC.sub(placed, text)
