from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from launch_files import add_package, write

from conrft_bringup.launch_runner import cli
from conrft_bringup.launch_runner.errors import LaunchError
from conrft_bringup.launch_runner.runner import find_launch_file

FILE = """
launch:
  - arg: {name: task, description: what to do}
  - arg: {name: mode, default: "$(env MODE fast)", choice: [{value: fast}, {value: slow}]}
  - log: {message: $(var task) $(var mode)}
"""


def up(*words: str) -> int:
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    args = parser.parse_args(["up", *words])
    return args.run(args)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "prefix"))
    add_package(tmp_path / "prefix", "conrft_bringup")
    (tmp_path / "prefix/share/conrft_bringup/launch").mkdir()
    write(tmp_path / "prefix/share/conrft_bringup/launch", FILE, "sim.launch.yaml")


@pytest.mark.parametrize("name", ["sim.launch.yaml", "sim", "prefix/share/conrft_bringup/launch/sim.launch.yaml"])
def test_a_file_is_found_by_path_and_by_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert up(name, "task:=pick", "task:=place") == 0
    assert "[INFO] [launch.user]: place fast" in capsys.readouterr().out


def test_package_and_file_work_as_with_ros2_launch(capsys: pytest.CaptureFixture[str]) -> None:
    assert up("conrft_bringup", "sim.launch.yaml", "task:=pick", "mode:=slow") == 0
    assert "[INFO] [launch.user]: pick slow" in capsys.readouterr().out


def test_show_args_tells_names_meanings_defaults_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert up("sim", "--show-args") == 0
    assert capsys.readouterr().out.splitlines() == [
        "Arguments (pass arguments as '<name>:=<value>'):",
        *["", "    'task':", "        what to do", "        (required)"],
        *[
            "",
            "    'mode':",
            "        no description given",
            "        one of: fast, slow",
            "        (default: '$(env MODE fast)')",
        ],
    ]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["sim"], "sim.launch.yaml:3: arg: argument 'task' (what to do) has no default"),
        (["sim", "task=pick"], "launch file 'task=pick' is not in"),
        (["sim", "task:=pick", "pick"], "'pick' is no argument of the form name:=value"),
        (["sim", "task:=pick", "mod:=slow"], "no argument is called 'mod'; known: mode, task"),
        (["gone"], "launch file 'gone' is not in"),
        (["no/where.launch.yaml"], "launch file no/where.launch.yaml does not exist"),
        (["nopackage", "sim"], "package 'nopackage' not found"),
    ],
)
def test_what_cannot_be_launched_is_one_sentence_and_exit_code_2(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if words == ["sim", "task=pick"]:
        add_package(Path("prefix"), "sim")
    assert up(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("conrft up: ")
    assert problem in error


def test_a_name_found_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "prefix/share/conrft_bringup", FILE, "sim.launch.yaml")
    with pytest.raises(LaunchError, match="more than once"):
        find_launch_file("sim", {"AMENT_PREFIX_PATH": str(tmp_path / "prefix")})
