"""The layouts of rviz, Foxglove and PlotJuggler show topics and fields that exist, of types that fit."""

from __future__ import annotations

import importlib
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from conrft_bringup.command import main
from conrft_bringup.visualisation.nodes import visualiser_node
from conrft_bringup.visualisation.viewer_layouts import LAYOUTS
from conrft_data import topics
from conrft_data.types import CAMERAS
from conrft_msgs.msg import Action, EpisodeState, LearnerStatus, Observation, PolicyOutput, Reward, Value

PACKAGE = Path(__file__).parents[1]
RVIZ = yaml.safe_load((PACKAGE / "rviz/conrft.rviz").read_text())["Visualization Manager"]
FOXGLOVE = json.loads((PACKAGE / "foxglove/conrft.json").read_text())
PLOTJUGGLER = ElementTree.parse(PACKAGE / "plotjuggler/conrft.xml").getroot()

VIEW = {
    f"/{visualiser_node.MARKERS}": MarkerArray,
    f"/{visualiser_node.MEASURED_POSE}": PoseStamped,
    f"/{visualiser_node.REFERENCE_POSE}": PoseStamped,
    f"/{visualiser_node.ROBOT_DESCRIPTION}": String,
    **{f"/{visualiser_node.IMAGE.format(camera=name)}": Image for name in CAMERAS},
}
PUBLISHED = VIEW | {
    topics.DIAGNOSTICS: DiagnosticArray,
    **{
        f"/{name}": kind
        for name, kind in {
            topics.OBSERVATION: Observation,
            topics.ACTION: Action,
            topics.POLICY_OUTPUT: PolicyOutput,
            topics.REWARD: Reward,
            topics.VALUE: Value,
            topics.EPISODE_STATE: EpisodeState,
            topics.LEARNER_STATUS: LearnerStatus,
        }.items()
    },
}


def is_number(kind: str) -> bool:
    return kind in {"boolean", "float", "double"} or bool(re.fullmatch(r"u?int(8|16|32|64)", kind))


def assert_leads_to_a_number(topic: str, fields: list[str]) -> None:
    kind = PUBLISHED[topic].get_fields_and_field_types()
    for depth, field in enumerate(fields):
        name, index = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", field).groups()  # type: ignore[union-attr]
        found = kind[name]
        if index is not None:
            found, length = re.fullmatch(r"(.+)\[(\d+)\]", found).groups()  # type: ignore[union-attr]
            assert int(index) < int(length), f"{topic} {fields}"
        if depth == len(fields) - 1:
            assert is_number(found), f"{topic} {fields} is {found}"
        else:
            package, name = found.split("/")
            kind = getattr(importlib.import_module(f"{package}.msg"), name).get_fields_and_field_types()


def test_rviz_shows_everything_that_the_visualiser_publishes() -> None:
    takes = {"MarkerArray": MarkerArray, "Pose": PoseStamped, "Image": Image, "RobotModel": String}
    shown = {}
    for display in RVIZ["Displays"]:
        topic = display.get("Topic", display.get("Description Topic"))
        if topic is not None:
            shown[topic["Value"]] = takes[display["Class"].removeprefix("rviz_default_plugins/")]
    assert shown == VIEW
    assert RVIZ["Global Options"]["Fixed Frame"] == "base"


def panels(layout: Any) -> Iterator[str]:
    if isinstance(layout, str):
        yield layout
        return
    assert set(layout) == {"direction", "first", "second", "splitPercentage"}
    assert layout["direction"] in ("row", "column") and 0 < layout["splitPercentage"] < 100
    yield from panels(layout["first"])
    yield from panels(layout["second"])


def test_foxglove_places_every_panel_once() -> None:
    placed = list(panels(FOXGLOVE["layout"]))
    assert sorted(placed) == sorted(FOXGLOVE["configById"])
    assert all(re.fullmatch(r"\w+!\w+", panel) for panel in placed)
    assert set(FOXGLOVE) == {"configById", "globalVariables", "userNodes", "playbackConfig", "layout"}


def test_foxglove_shows_topics_and_fields_that_exist() -> None:
    shown = set()
    for name, panel in FOXGLOVE["configById"].items():
        for path in panel.get("paths", []):
            topic, *fields = path["value"].split(".")
            assert_leads_to_a_number(topic, fields)
        if "imageMode" in panel:
            assert PUBLISHED[panel["imageMode"]["imageTopic"]] is Image
            shown.add(panel["imageMode"]["imageTopic"])
        shown |= set(panel.get("topics", ()))
        assert panel.get("topicToRender", topics.DIAGNOSTICS) == topics.DIAGNOSTICS, name
    assert shown == set(VIEW) - {f"/{visualiser_node.ROBOT_DESCRIPTION}"}


def test_plotjuggler_shows_fields_that_exist() -> None:
    curves = [curve.attrib["name"] for curve in PLOTJUGGLER.iter("curve")]
    assert len(curves) > 20
    for curve in curves:
        _, topic, *fields = curve.split("/")
        assert_leads_to_a_number(f"/{topic}", fields)


@pytest.mark.parametrize("splitter", list(PLOTJUGGLER.iter("DockSplitter")))
def test_plotjuggler_gives_every_plot_its_room(splitter: ElementTree.Element) -> None:
    sizes = [float(size) for size in splitter.attrib["sizes"].split(";")]
    assert len(sizes) == len(splitter) == int(splitter.attrib["count"])
    assert sum(sizes) == pytest.approx(1.0, abs=1e-3)


def names_in(text: str) -> set[str]:
    """The quoted names of a layout, ``/topic.field`` or ``/topic/field``."""
    return set(re.findall(r'"(/\w[^"]*)"', text))


@pytest.mark.parametrize("viewer", LAYOUTS)
@pytest.mark.parametrize(
    ("words", "view", "graph"),
    [
        ([], "/view", ""),
        (["namespace:=left"], "/left/view", "/left"),
        (["some/bag"], "/view", "/playback"),
        (["some/bag", "namespace:=left"], "/left/view", "/left/playback"),
    ],
)
def test_a_layout_is_printed_for_a_namespace_and_for_a_recording(
    viewer: str, words: list[str], view: str, graph: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", *words, "--layout", viewer]) == 0
    printed = capsys.readouterr().out
    shipped = (PACKAGE / LAYOUTS[viewer]).read_text()

    def placed(name: str) -> str:
        if name == topics.DIAGNOSTICS:
            return name
        return name.replace("/view", view, 1) if name.startswith("/view/") else f"{graph}{name}"

    assert names_in(printed) == {placed(name) for name in names_in(shipped)}
    assert printed.count("\n") == shipped.count("\n"), "nothing but names has changed"


def test_a_layout_wants_arguments_of_the_form_of_a_launch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", "some/bag", "left", "--layout", "foxglove"]) == 2
    assert "'left' is no argument of the form name:=value" in capsys.readouterr().err
