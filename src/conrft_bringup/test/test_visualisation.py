"""What a viewer is shown of a tick, and a picture of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from PIL import Image
from visualization_msgs.msg import Marker

from conrft_bringup.visualisation.marker_picture import draw_markers
from conrft_bringup.visualisation.marker_scene import MarkerScene, Moment, Workspace
from conrft_bringup.visualisation.robot_model import RobotModel, RobotModelError
from conrft_bringup.visualisation.tick_view import TickView
from conrft_data.config import TaskConfig, load_config
from conrft_data.reference_pose import ReferencePose
from conrft_data.rotations import from_euler_xyz, to_matrix
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import ActionSource, Command, Mode, Outcome, Phase, Verdict
from conrft_sim import kinematics

PACKAGE = Path(__file__).parents[1]
URDF = PACKAGE / "urdf" / "fr3.urdf"
TASK = load_config(TaskConfig, PACKAGE / "config" / "tasks" / "pick_banana.yaml")
WORKSPACE = Workspace(TASK.workspace.low, TASK.workspace.high)
DOWN = np.array([0.45, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0])
ARM_JOINTS = [f"fr3_joint{number}" for number in range(1, 8)]


def command(source: ActionSource, action: list[float], proposal: list[float] | None = None) -> Command:
    wanted = None if proposal is None else np.array(proposal, np.float32)
    return Command(action=np.array(action, np.float32), source=source, proposal=wanted)


def status(phase: Phase = Phase.RUNNING, episode: int = 3) -> EpisodeStatus:
    return EpisodeStatus(
        stamp_ns=1, phase=phase, outcome=Outcome.NONE, mode=Mode.TRAINING, episode=episode, final_step=0,
        episode_id="e", task="pick_banana", instruction="i", message_version=1,
    )  # fmt: skip


@pytest.fixture
def scene() -> MarkerScene:
    return MarkerScene(WORKSPACE, RobotModel.load(URDF), arrow_length=0.15)


def shown(scene: MarkerScene, moment: Moment) -> dict[str, list[Marker]]:
    """The visible markers by namespace."""
    found: dict[str, list[Marker]] = {}
    for marker in scene.markers(moment, Time(sec=5)).markers:
        if marker.action == Marker.ADD:
            found.setdefault(marker.ns, []).append(marker)
    return found


def ends(marker: Marker) -> np.ndarray:
    return np.array([[point.x, point.y, point.z] for point in marker.points])


def test_the_robot_model_stands_as_the_arm_does() -> None:
    model = RobotModel.load(URDF)
    rng = np.random.default_rng(0)
    for joints in rng.uniform(kinematics.POSITION_LOW, kinematics.POSITION_HIGH, (20, 7)):
        tcp = model.link_poses(dict(zip(ARM_JOINTS, joints, strict=True)))["fr3_hand_tcp"]
        expected = kinematics.forward(joints)
        np.testing.assert_allclose(tcp[:3], expected[:3, 3], atol=1e-8)
        np.testing.assert_allclose(to_matrix(tcp[3:]), expected[:3, :3], atol=1e-8)


def test_an_independent_reader_of_urdf_places_every_shape_alike() -> None:
    # MuJoCo's own reader; it asks for inertia and drops shapes unless told otherwise.
    extension = '<mujoco><compiler discardvisual="false" fusestatic="false" boundmass="1" boundinertia="1"/></mujoco>'
    peer = mujoco.MjModel.from_xml_string(
        URDF.read_text().replace('<robot name="fr3">', f'<robot name="fr3">{extension}')
    )
    data, model = mujoco.MjData(peer), RobotModel.load(URDF)
    joints = dict(zip(model.moving_joints, [*kinematics.READY, 0.03, 0.03], strict=True))
    for name, position in joints.items():
        data.qpos[peer.joint(name).qposadr] = position
    mujoco.mj_forward(peer, data)
    places = np.array(model.shape_poses(joints))
    assert len(places) == peer.ngeom
    np.testing.assert_allclose(places[:, :3], data.geom_xpos, atol=1e-7)
    for limits, name in zip(peer.jnt_range, (peer.joint(i).name for i in range(peer.njnt)), strict=True):
        if name in ARM_JOINTS:
            index = ARM_JOINTS.index(name)
            assert tuple(limits) == (kinematics.POSITION_LOW[index], kinematics.POSITION_HIGH[index])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<robot", "is not XML"),
        ("<mujoco/>", "expected element 'robot'"),
        ('<robot name="r"><link name="a"/><link name="b"/></robot>', "one link without a parent"),
        ('<robot name="r"><link name="a"><visual><geometry><mesh filename="x"/></geometry></visual></link></robot>',
         "link 'a': expected box, cylinder or sphere, got 'mesh'"),
        ('<robot name="r"><link name="a"/><joint name="j" type="floating"/></robot>', "joint 'j'"),
    ],
)  # fmt: skip
def test_a_urdf_that_cannot_be_shown_is_refused_with_a_sentence(text: str, complaint: str) -> None:
    with pytest.raises(RobotModelError, match=complaint):
        RobotModel(text)


def test_arrows_point_where_the_action_moves_the_tool(scene: MarkerScene) -> None:
    tilted = np.concatenate([[0.4, 0.1, 0.2], from_euler_xyz([np.pi, 0, np.pi / 2])])
    both = command(ActionSource.OPERATOR, [0, 0, 1, 0, 0, 0, 0], proposal=[1, 0, 0, 0, 0, 0.5, 0])
    markers = shown(scene, Moment(measured=tilted, command=both, proposal=both.proposal))
    (operator,), (policy,), (turn,) = markers["operator move"], markers["policy move"], markers["policy turn"]
    np.testing.assert_allclose(ends(operator), [[0.4, 0.1, 0.2], [0.4, 0.1, 0.05]], atol=1e-9)
    np.testing.assert_allclose(ends(policy), [[0.4, 0.1, 0.2], [0.4, 0.25, 0.2]], atol=1e-9)
    np.testing.assert_allclose(ends(turn)[1] - ends(turn)[0], [0, 0, -0.075], atol=1e-9)
    assert "operator turn" not in markers


def test_without_an_intervention_there_is_no_operators_arrow(scene: MarkerScene) -> None:
    drives = command(ActionSource.POLICY, [1, 0, 0, 0, 0, 0, 0], proposal=[1, 0, 0, 0, 0, 0, 0])
    markers = shown(scene, Moment(measured=DOWN, command=drives, proposal=drives.proposal))
    assert "policy move" in markers
    assert "operator move" not in markers


def test_the_hand_hangs_on_the_measured_pose_and_the_arm_on_the_joints(scene: MarkerScene) -> None:
    joints = dict(zip(ARM_JOINTS, kinematics.READY, strict=True))
    tcp = RobotModel.load(URDF).link_poses(joints)["fr3_hand_tcp"]
    alone = shown(scene, Moment(measured=tcp))
    whole = shown(scene, Moment(measured=tcp, joints=joints))
    assert "arm" not in alone
    assert len(whole["arm"]) + len(whole["hand"]) == len(RobotModel.load(URDF).shapes)
    placed = [(m.pose.position.x, m.pose.position.y, m.pose.position.z) for m in [*whole["arm"], *whole["hand"]]]
    fingers = dict.fromkeys(("fr3_finger_joint1", "fr3_finger_joint2"), 0.04)
    np.testing.assert_allclose(placed, np.array(RobotModel.load(URDF).shape_poses(joints | fingers))[:, :3], atol=1e-9)


def test_the_text_names_driver_success_and_value() -> None:
    moment = Moment(step=7, status=status(), verdict=Verdict(probability=0.934, gates_passed=True, success=False))
    moment.command = command(ActionSource.OPERATOR, [0.0] * 7, proposal=[0.0] * 7)
    moment.proposal, moment.value = moment.command.proposal, 3.25
    assert moment.text() == "episode 3 RUNNING  step 7\nOPERATOR intervenes\nsuccess 0.93  Q 3.25"


def test_a_long_reason_is_broken_into_lines_that_fit_the_picture(scene: MarkerScene) -> None:
    reason = "policy: no answer within 80 ms; side: stale, 0.250 s old (at most 0.200 s); the arm does not follow"
    hold = Command(action=np.zeros(7, np.float32), source=ActionSource.HOLD, reason=reason)
    moment = Moment(status=status(), command=hold)
    lines = moment.text().splitlines()
    assert " ".join(lines[1:]) == f"HOLD: {reason}"
    assert max(map(len, lines)) <= 60
    written = (draw_markers(scene.markers(moment, Time()).markers) > 200).all(axis=2)  # as white as the text alone
    assert written[:, :100].any() and not written[:, -40:].any()


def test_what_nobody_said_is_not_shown(scene: MarkerScene) -> None:
    assert set(shown(scene, Moment())) == {"workspace"}


def test_the_workspace_is_the_box_of_the_task(scene: MarkerScene) -> None:
    corners = ends(shown(scene, Moment())["workspace"][0])
    assert len(corners) == 24
    np.testing.assert_array_equal(corners.min(axis=0), TASK.workspace.low)
    np.testing.assert_array_equal(corners.max(axis=0), TASK.workspace.high)
    lengths = np.linalg.norm(corners[1::2] - corners[::2], axis=1)
    sides = np.subtract(TASK.workspace.high, TASK.workspace.low)
    np.testing.assert_allclose(np.sort(lengths), np.sort(np.repeat(sides, 4)))


def test_without_the_commander_the_reference_follows_its_arithmetic() -> None:
    view, expected = TickView(TASK.motion_limits()), ReferencePose(TASK.motion_limits())
    expected.start(DOWN)
    actions = [command(ActionSource.POLICY, [1, 0, 0, 0, 0, 0.3, 0]), command(ActionSource.HOLD, [1] * 7)]
    for step, action in enumerate(actions):
        view.on_observation(Tick(step, 1, step), DOWN, 1.0)
        view.on_command(Tick(step, 1, step), action)
    np.testing.assert_array_equal(view.moment.reference, expected.apply(actions[0].action, DOWN))
    view.on_reference(DOWN)
    np.testing.assert_array_equal(view.moment.reference, DOWN)


def test_a_new_episode_starts_with_a_clean_slate() -> None:
    view = TickView(TASK.motion_limits())
    for episode in (1, 2):
        view.on_observation(Tick(0, episode, 0), DOWN, 1.0)
        view.on_command(Tick(0, episode, 0), command(ActionSource.POLICY, [0.0] * 7))
        assert len(view.moment.trace) == 1
        view.on_verdict(Verdict(probability=1.0, gates_passed=True, success=True))
    view.on_status(status(episode=9))
    assert view.moment.verdict is None and view.moment.trace == []


def test_a_person_sees_the_scene_without_rviz(scene: MarkerScene, tmp_path: Path) -> None:
    joints = dict(zip(ARM_JOINTS, kinematics.READY, strict=True))
    moment = Moment(step=12, joints=joints, gripper_opening=0.6, status=status())
    moment.measured = RobotModel.load(URDF).link_poses(joints)["fr3_hand_tcp"]
    moment.reference = moment.measured + np.array([0.02, 0.0, -0.02, 0, 0, 0, 0])
    moment.command = command(ActionSource.OPERATOR, [0, 1, 0.3, 0, 0, 0, 0], proposal=[1, 0, 0.5, 0, 0, 0, 0])
    moment.proposal = moment.command.proposal
    moment.verdict = Verdict(probability=0.12, gates_passed=False, success=False)
    moment.trace = [
        (moment.measured[:3] + np.array([0, 0, 0.01 * k]), ActionSource(1 + (k < 5))) for k in reversed(range(12))
    ]
    picture = draw_markers(scene.markers(moment, Time()).markers)
    Image.fromarray(picture).save(tmp_path / "scene.png")
    pixels = picture.reshape(-1, 3).astype(int)
    empty = draw_markers([]).reshape(-1, 3).astype(int)
    for colour, name in {(0, 114, 178): "policy", (230, 159, 0): "operator", (255, 217, 51): "workspace"}.items():
        # Light changes brightness, not hue.
        direction = np.array(colour) / np.linalg.norm(colour)
        bright = np.linalg.norm(pixels, axis=1) > 60
        alike = (pixels @ direction) / np.maximum(np.linalg.norm(pixels, axis=1), 1) > 0.985
        assert np.count_nonzero(alike & bright) > 50, f"{name} is not to be seen"
    assert np.count_nonzero((pixels != empty).any(axis=1)) > 0.05 * len(pixels)


def test_an_arrow_is_drawn_as_long_as_it_is() -> None:
    def pixels(kind: int, ends: tuple[tuple[float, float], ...]) -> np.ndarray:
        marker = Marker(type=kind, action=Marker.ADD)
        marker.pose.orientation.w, marker.scale.x, marker.color.r, marker.color.a = 1.0, 0.01, 1.0, 1.0
        marker.points = [Point(x=0.3, y=y, z=z) for y, z in ends]
        picture = draw_markers([marker], azimuth=180.0, elevation=0.0).astype(int)
        return np.argwhere((picture[..., 0] > 90) & (picture[..., 1:].max(axis=2) < 60))

    for ends in (((-0.2, 0.3), (0.2, 0.3)), ((0.1, 0.45), (0.1, 0.2)), ((0.2, 0.2), (-0.1, 0.5))):
        arrow, line = pixels(Marker.ARROW, ends), pixels(Marker.LINE_LIST, ends)
        assert np.abs(arrow.min(axis=0) - line.min(axis=0)).max() <= 8, ends
        assert np.abs(arrow.max(axis=0) - line.max(axis=0)).max() <= 8, ends


def test_the_viewers_side_knows_nothing_of_torch() -> None:
    code = "import sys, conrft_bringup.visualisation.nodes.visualiser_node as _; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
