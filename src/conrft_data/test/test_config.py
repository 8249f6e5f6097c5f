"""A configuration that is wrong says which file, which key and what is allowed."""

from pathlib import Path

import pytest

from conrft_data.config import ConfigError, TaskConfig, load_config

TASK = """
name: pick_banana
instruction: put the banana on the plate
action_dim: 7
max_steps: 100
cameras: {side: {width: 256, height: 256}, wrist: {width: 128, height: 128}}
reset: {position: [0.5, 0.0, 0.3], euler_xyz: [3.14159, 0.0, 0.0], kind: human}
workspace: {low: [0.3, -0.3, 0.0], high: [0.7, 0.3, 0.5]}
"""


def load(tmp_path: Path, text: str) -> TaskConfig:
    file = tmp_path / "task.yaml"
    file.write_text(text)
    return load_config(TaskConfig, file)


def test_a_right_file_is_read_and_the_order_of_the_cameras_is_kept(tmp_path: Path) -> None:
    task = load(tmp_path, TASK)
    assert list(task.cameras) == ["side", "wrist"]
    assert task.motion_limits().box_low == (0.3, -0.3, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("max_steps: 100", "max_steps: 1"), "task.yaml: max_steps: .*greater than or equal to 5.*got 1"),
        (("max_steps: 100", "max_step: 100"), "task.yaml: max_step: is not a known key"),
        (("name: pick_banana", ""), "task.yaml: name: is missing"),
        (("width: 256", "width: 4"), "cameras.side.width: .*greater than or equal to 16"),
        (("low: [0.3", "low: [0.9"), "must lie below high"),
        (("high: [0.7", "high: [7.0"), r"workspace.high.0: .*less than or equal to 2 \(got 7.0\)"),
        (
            ("position: [0.5, 0.0, 0.3]", "position: [0.5, 0.31, 0.3]"),
            r"reset.position \[0.5, 0.31, 0.3\] must lie in the workspace \[0.3, -0.3, 0.0\] .. \[0.7, 0.3, 0.5\]",
        ),
        (("kind: human", "kind: dog"), "reset.kind"),
    ],
)
def test_a_wrong_value_is_named_with_file_key_and_range(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, TASK.replace(*change))


@pytest.mark.parametrize(("text", "message"), [("[1, 2]", "keys and values"), ("a: [", "is not YAML")])
def test_a_file_that_holds_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_config(TaskConfig, tmp_path / "nowhere.yaml")
