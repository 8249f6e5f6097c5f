"""Reading a launch file: everything of the subset is understood, and everything else stops with file, line and key."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml
from launch_files import add_package, expand, processes, write

from conrft_bringup.launch_runner.errors import LaunchError, LaunchFileError
from conrft_bringup.launch_runner.expansion import EndLaunch, LogMessage, StartTimer, check_arguments
from conrft_bringup.launch_runner.runner import launch_arguments


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    add_package(tmp_path / "prefix", "pkg", node="exit 0")
    return tmp_path / "prefix"


def node_words(path: Path, prefix: Path, **arguments: str) -> list[str]:
    """The command line of the only node of a file, without the executable."""
    (process,) = processes(path, {"AMENT_PREFIX_PATH": str(prefix)}, **arguments)
    assert process.command[0] == str(prefix / "lib/pkg/node")
    return list(process.command[1:])


def parameters(words: list[str]) -> dict:
    """What the parameter files of a command line hold, the last one winning."""
    content: dict = {}
    for flag, file in itertools.pairwise(words):
        if flag == "--params-file":
            for node, values in yaml.safe_load(Path(file).read_text()).items():
                content.setdefault(node, {}).update(values["ros__parameters"])
    return content


def test_arguments_have_defaults_descriptions_and_choices(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        launch:
          - arg: {name: task, description: what to do}
          - arg: {name: file, default: $(var task).yaml}
          - arg: {name: mode, default: fast, choice: [{value: fast}, {value: slow}]}
          - log: {message: $(var task) $(var file) $(var mode)}
        """,
    )
    assert expand(path, task="pick") == [LogMessage(message="pick pick.yaml fast")]
    assert expand(path, task="pick", mode="slow", file="x") == [LogMessage(message="pick x slow")]
    assert [(a.name, a.description, a.choices) for a in launch_arguments(path, {})] == [
        ("task", "what to do", ()),
        ("file", "", ()),
        ("mode", "", ("fast", "slow")),
    ]


@pytest.mark.parametrize(
    ("arguments", "line", "problem"),
    [
        ({}, 3, "argument 'task' (what to do) has no default and was not given"),
        ({"task": "x", "mode": "up"}, 4, "must be one of: fast, slow"),
    ],
)
def test_a_missing_or_wrong_argument_is_named(tmp_path: Path, arguments: dict, line: int, problem: str) -> None:
    path = write(
        tmp_path,
        """
        launch:
          - arg: {name: task, description: what to do}
          - arg: {name: mode, default: fast, choice: [{value: fast}, {value: slow}]}
        """,
    )
    with pytest.raises(LaunchFileError) as error:
        expand(path, **arguments)
    assert (error.value.location.line, error.value.key) == (line, "arg")
    assert problem in str(error.value)


def test_a_misspelt_argument_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "launch: [{group: [{arg: {name: task, default: x}}]}]")
    declared = {argument.name: argument for argument in launch_arguments(path, {})}
    check_arguments(["task"], declared, path)
    with pytest.raises(LaunchError, match="no argument is called 'taks'; known: task"):
        check_arguments(["taks"], declared, path)


def test_a_remap_holds_for_the_nodes_after_it_in_its_group(tmp_path: Path, prefix: Path) -> None:
    path = write(
        tmp_path,
        """
        launch:
          - arg: {name: pose, default: measured}
          - group:
              - node: {pkg: pkg, exec: node}
              - set_remap: {from: current_pose, to: $(var pose)}
              - node: {pkg: pkg, exec: node, remap: [{from: a, to: b}]}
          - node: {pkg: pkg, exec: node}
        """,
    )
    before, within, after = processes(path, {"AMENT_PREFIX_PATH": str(prefix)})
    words = " ".join(within.command)
    assert "-r current_pose:=measured -r a:=b" in words, "in the order of ros2 launch"
    assert not any("current_pose" in word for word in (*before.command, *after.command))


def test_a_group_keeps_its_variables_environment_and_namespace_to_itself(tmp_path: Path, prefix: Path) -> None:
    path = write(
        tmp_path,
        """
        launch:
          - let: {name: x, value: outside}
          - group:
              children:
                - let: {name: x, value: inside}
                - set_env: {name: COLOUR, value: red}
                - push_ros_namespace: {namespace: left}
                - group:
                    - push_ros_namespace: {namespace: arm}
                    - node: {pkg: pkg, exec: node}
                - log: {message: $(var x) $(env COLOUR)}
          - node: {pkg: pkg, exec: node}
          - log: {message: $(var x) $(env COLOUR none)}
          - group:
              scoped: false
              children: [{let: {name: x, value: kept}}]
          - log: {message: $(var x)}
        """,
    )
    requests = expand(path, {"AMENT_PREFIX_PATH": str(prefix)})
    assert [request.message for request in requests if isinstance(request, LogMessage)] == [
        "inside red",
        "outside none",
        "kept",
    ]
    inner, outer = processes(path, {"AMENT_PREFIX_PATH": str(prefix)})
    assert "__ns:=/left/arm" in inner.command
    assert inner.environment["COLOUR"] == "red"
    assert not any("__ns" in word for word in outer.command)
    assert "COLOUR" not in outer.environment


@pytest.mark.parametrize(
    ("condition", "runs"),
    [
        ("if: 'true'", True),
        ("if: '0'", False),
        ("unless: 'false'", True),
        ("unless: $(var yes)", False),
        ("""if: $(eval "'$(var yes)' != 'x'")""", True),
    ],
)
def test_conditions(tmp_path: Path, condition: str, runs: bool) -> None:
    path = write(
        tmp_path,
        f"launch:\n  - let: {{name: 'yes', value: 'True'}}\n  - log:\n      message: hello\n      {condition}\n",
    )
    assert expand(path) == ([LogMessage(message="hello")] if runs else [])


def test_an_included_file_gets_arguments_and_its_own_directory(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(
        tmp_path / "sub",
        "launch: [{arg: {name: who}}, {log: {message: $(var who) in $(dirname)}}]",
        "inner.launch.yaml",
    )
    path = write(
        tmp_path,
        """
        launch:
          - include:
              file: $(dirname)/sub/inner.launch.yaml
              arg: [{name: who, value: Ada}]
          - log: {message: back in $(dirname)}
        """,
    )
    assert expand(path) == [LogMessage(message=f"Ada in {tmp_path}/sub"), LogMessage(message=f"back in {tmp_path}")]


def test_a_node_gets_name_namespace_parameters_remaps_and_words_in_the_order_of_ros2_launch(
    tmp_path: Path, prefix: Path
) -> None:
    path = write(
        tmp_path,
        """
        launch:
          - node:
              pkg: pkg
              exec: node
              name: eye
              namespace: head
              args: --fast $(var x) 'two words'
              ros_args: --log-level debug
              remap: [{from: image, to: $(var x)/image}]
              env: [{name: COLOUR, value: $(var x)}]
        """,
    )
    assert node_words(path, prefix, x="left") == [
        *["--fast", "left", "two words", "--ros-args", "--log-level", "debug", "--ros-args"],
        *["-r", "__node:=eye", "-r", "__ns:=/head", "-r", "image:=left/image"],
    ]
    (process,) = processes(path, {"AMENT_PREFIX_PATH": str(prefix)}, x="left")
    assert process.environment["COLOUR"] == "left"
    assert process.label == "node"


def test_parameters_have_the_types_of_yaml_unless_a_type_is_given(tmp_path: Path, prefix: Path) -> None:
    path = write(
        tmp_path,
        """
        launch:
          - node:
              pkg: pkg
              exec: node
              param:
                - {name: flag, value: true}
                - {name: count, value: 3}
                - {name: gain, value: 0.5}
                - {name: word, value: "7"}
                - {name: from_variable, value: $(var x)}
                - {name: as_text, value: $(var x), type: str}
                - {name: as_number, value: $(var x), type: float}
                - {name: as_flag, value: $(var on), type: bool}
                - {name: list, value: [1, 2]}
                - {name: words, value: ["$(var x)", "b"], type: list_of_str}
                - {name: listed, value: $(var list)}
                - name: nested
                  param: [{name: deep, value: 1}, {name: more, param: [{name: deeper, value: $(var empty)}]}]
        """,
    )
    assert parameters(node_words(path, prefix, x="12", on="1", list="[a, b]", empty="")) == {
        "/**": {
            "flag": True,
            "count": 3,
            "gain": 0.5,
            "word": "7",
            "from_variable": 12,
            "as_text": "12",
            "as_number": 12.0,
            "as_flag": True,
            "list": [1, 2],
            "words": ["12", "b"],
            "listed": ["a", "b"],
            "nested.deep": 1,
            "nested.more.deeper": "",
        }
    }


def test_parameter_files_and_values_override_each_other_in_the_order_of_the_file(tmp_path: Path, prefix: Path) -> None:
    (tmp_path / "own.yaml").write_text("/eye: {ros__parameters: {a: 2, b: 2}}")
    path = write(
        tmp_path,
        """
        launch:
          - node:
              pkg: pkg
              exec: node
              name: eye
              namespace: /
              param:
                - {name: a, value: 1}
                - {name: c, value: 1}
                - {from: $(dirname)/own.yaml}
                - {name: b, value: 3}
        """,
    )
    words = node_words(path, prefix)
    assert words.count("--params-file") == 3
    assert parameters(words) == {"/eye": {"a": 2, "b": 3, "c": 1}}


def test_processes_timers_and_the_end_are_requests(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        launch:
          - executable:
              cmd: tail -f $(var x)/log
              name: follower
              cwd: /tmp
              output: both
              respawn: "true"
              respawn_delay: 1.5
          - executable: {cmd: ls, on_exit: shutdown}
          - timer: {period: 2.0, children: [{log: {message: late}}]}
          - timer: {period: $(var x), children: [{log: {message: later}}]}
          - shutdown: {reason: enough}
        """,
    )
    first, second, timer, later, end = expand(path, x="3")
    assert (first.label, first.command, first.working_directory, first.output) == (
        "follower",
        ("tail", "-f", "3/log"),
        "/tmp",
        "both",
    )
    assert (first.respawn, first.respawn_delay, first.required) == (True, 1.5, False)
    assert (second.label, second.output, second.required) == ("ls", "log", True)
    assert isinstance(timer, StartTimer) and timer.period == 2.0
    assert isinstance(later, StartTimer) and later.period == 3.0
    assert end == EndLaunch(reason="enough")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b", ["a", "b"]),
        ("a$(var x)b c", ["aXb", "c"]),
        ("$(var x) $(var x)", ["X", "X"]),
        ("$(var x)$(var x)", ["XX"]),
        ("a 'b c' $(var x) d", ["a", "b c", "X", "d"]),
    ],
)
def test_a_command_line_is_split_as_in_a_shell_and_substitutions_do_not_split(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    path = write(tmp_path, f'launch: [{{executable: {{cmd: "{text}"}}}}]')
    (process,) = processes(path, x="X")
    assert list(process.command) == words


@pytest.mark.parametrize(
    ("body", "line", "key", "problem"),
    [
        ("- lifecycle_node: {pkg: a, exec: b}", 2, "lifecycle_node", "is no known action; known: arg, let"),
        (
            "- node:\n    pkg: a\n    exec: b\n    respawn_max_retries: 3",
            5,
            "respawn_max_retries",
            "is not known in 'node'; known: args,",
        ),
        ("- node: {exec: b}", 2, "node", "needs the key 'pkg'"),
        ("- log: {message: a, messag: b}", 2, "messag", "is not known in 'log'"),
        ("- log: {message: 5}", 2, "message", "must be a string (in quotes"),
        ("- log:\n    message: hi\n    if: true", 4, "if", "must be a string (in quotes"),
        ("- log: {message: hi, if: 'a', unless: 'b'}", 2, "unless", "cannot be used together with 'if'"),
        ("- log: {message: hi, if: maybe}", 2, "if", "must come to true, false, 1 or 0, got 'maybe'"),
        ("- log: {message: $(vra x)}", 2, "message", "unknown substitution 'vra'"),
        ("- log: {message: $(var x)}", 2, "message", "no argument or variable is called 'x'"),
        ("- log: {message: a}\n  let: {name: a, value: b}", 2, "launch", "must hold exactly one key"),
        ("- log:\n    message: a\n    message: b", 4, "message", "is given twice"),
        ("- arg: {name: a, default: 5}", 2, "default", "must be a string"),
        ("- arg: {name: a, default: c, choice: [{value: b}]}", 2, "default", "is none of the choices: b"),
        ("- arg: {name: a, choice: []}", 2, "choice", "the list is empty"),
        ("- executable: {cmd: ls, on_exit: restart}", 2, "on_exit", "can only be shutdown"),
        ("- executable: {cmd: ls, respawn: true}", 2, "respawn", "must be a string"),
        ("- executable: {cmd: ls, respawn: maybe}", 2, "respawn", "is not of type bool"),
        ("- executable: {cmd: ls, respawn_delay: 2}", 2, "respawn_delay", "must be a number with a point"),
        ("- executable: {cmd: ls, respawn_delay: -1.0}", 2, "respawn_delay", "must not be negative"),
        ("- executable: {cmd: ls, output: tee}", 2, "output", "must be one of screen, log, both, got 'tee'"),
        ("- executable: {cmd: \"sh -c 'echo $(dirname)'\"}", 2, "cmd", "a substitution cannot stand within quotes"),
        ("- executable: {cmd: ''}", 2, "cmd", "is empty"),
        ("- timer: {period: 1, children: [{log: {message: a}}]}", 2, "period", "must be a number with a point"),
        ("- timer: {period: soon, children: [{log: {message: a}}]}", 2, "period", "must be a number of seconds"),
        ("- timer: {period: 1.0, children: [{lag: {message: a}}]}", 2, "lag", "is no known action"),
        ("- include: {file: nowhere.launch.yaml}", 2, "file", "launch file nowhere.launch.yaml does not exist"),
        ("- group: {children: [{log: {message: a}}], forwarding: false}", 2, "forwarding", "is not known in 'group'"),
        ("- push_ros_namespace: {namespace: 1st}", 2, "namespace", "'/1st' is no valid namespace"),
        ("- node: {pkg: pkg, exec: gone}", 2, "exec", "executable 'gone' of package 'pkg' not found at"),
        ("- node: {pkg: gone, exec: node}", 2, "exec", "package 'gone' not found in"),
        ("- node: {pkg: pkg, exec: node, name: my-eye}", 2, "name", "is no valid node name"),
        (
            "- node:\n    pkg: pkg\n    exec: node\n    param:\n      - {name: a, value: null}",
            6,
            "value",
            "must be a bool, int, float, string",
        ),
        (
            "- node:\n    pkg: pkg\n    exec: node\n    param:\n      - {name: a, value: [1, x]}",
            6,
            "value",
            "must be of one type",
        ),
        (
            "- node:\n    pkg: pkg\n    exec: node\n    param:\n      - {name: a, value: 1, type: float}",
            6,
            "value",
            "1 is not of type float",
        ),
        (
            "- node:\n    pkg: pkg\n    exec: node\n    param:\n      - {name: a, value: text, type: list_of_int}",
            6,
            "value",
            "must be a list for type list_of_int",
        ),
        (
            "- node:\n    pkg: pkg\n    exec: node\n    param:\n      - {name: a, value: 1, type: complex}",
            6,
            "type",
            "unknown type 'complex'",
        ),
        (
            "- node:\n    pkg: pkg\n    exec: node\n    param:\n      - {name: a, value: $(dirname), type: int}",
            6,
            "param",
            "is not of type int",
        ),
        (
            "- node:\n    pkg: pkg\n    exec: node\n    param:\n      - {from: gone.yaml}",
            6,
            "from",
            "parameter file gone.yaml does not exist",
        ),
        ("- node:\n    pkg: pkg\n    exec: node\n    param:\n      - {value: 1}", 6, "param", "needs a name"),
    ],
)
def test_what_the_runner_does_not_know_stops_with_file_line_and_key(
    tmp_path: Path, prefix: Path, body: str, line: int, key: str, problem: str
) -> None:
    path = write(tmp_path, f"launch:\n{body}\n")
    with pytest.raises(LaunchFileError) as error:
        expand(path, {"AMENT_PREFIX_PATH": str(prefix)})
    assert (error.value.location.file, error.value.location.line, error.value.key) == (path, line, key)
    assert problem in error.value.problem
    assert str(error.value).startswith(f"{path}:{line}: {key}: ")


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "is empty"),
        ("launch: [\n", 2, "is not YAML"),
        ("lunch: []", 1, "must hold exactly one key, 'launch'"),
        ("launch: {}", 1, "must be a list"),
        ("launch: []", 1, "the list is empty"),
    ],
)
def test_a_file_that_is_no_launch_file_is_refused(tmp_path: Path, text: str, line: int, problem: str) -> None:
    path = tmp_path / "broken.launch.yaml"
    path.write_text(text)
    with pytest.raises(LaunchFileError) as error:
        expand(path)
    assert error.value.location.line == line
    assert problem in error.value.problem


def test_files_that_include_each_other_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "launch: [{include: {file: $(dirname)/test.launch.yaml}}]")
    with pytest.raises(LaunchFileError, match="include each other"):
        expand(path)


def test_an_include_must_give_the_arguments_that_have_no_default_as_ros2_launch_demands(tmp_path: Path) -> None:
    write(tmp_path, "launch: [{arg: {name: who}}]", "inner.launch.yaml")
    path = write(
        tmp_path, "launch:\n  - let: {name: who, value: set}\n  - include: {file: $(dirname)/inner.launch.yaml}"
    )
    with pytest.raises(
        LaunchFileError, match=r"argument 'who' of inner\.launch\.yaml has no default and is not given here"
    ):
        expand(path)
