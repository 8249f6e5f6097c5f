"""Reads a YAML launch file into actions.

The subset that is understood; each key below is known, any other stops with file, line and key:

    launch: [...]                     the root
    arg                               name, default, description, choice: [{value}], if, unless
    let, set_env                      name, value, if, unless
    push_ros_namespace                namespace, if, unless
    set_remap                         from, to, if, unless
    group                             children (or directly a list), scoped, if, unless
    include                           file, arg: [{name, value}], if, unless
    node                              pkg, exec, name, namespace, args, ros_args, param, remap: [{from, to}]
    executable                        cmd, name, cwd
    (node and executable)             env: [{name, value}], output (screen, log, both), respawn, respawn_delay,
                                      on_exit: shutdown, if, unless
    param                             {name, value, type}, {name, param: [...]}, or {from}
    log                               message, if, unless
    timer                             period, children, if, unless
    shutdown                          reason, if, unless

Types are as strict as in ``ros2 launch``: what is accepted here is accepted there.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from conrft_bringup.launch_runner.actions import (
    AnyAction,
    Condition,
    DeclareArgument,
    Executable,
    Group,
    Include,
    LaunchFile,
    Log,
    Node,
    Pairs,
    ParameterFile,
    PushNamespace,
    SetEnvironment,
    SetRemap,
    SetVariable,
    Shutdown,
    Timer,
)
from conrft_bringup.launch_runner.marked_yaml import Value, load_root
from conrft_bringup.launch_runner.parameters import InlineParameter, read_parameter
from conrft_bringup.launch_runner.substitutions import Substitution, Template

_CONDITION_KEYS = frozenset({"if", "unless"})
_PROCESS_KEYS = frozenset({"env", "output", "respawn", "respawn_delay", "on_exit"}) | _CONDITION_KEYS


def read_launch_file(path: Path) -> LaunchFile:
    """Reads the file at ``path``; raises LaunchFileError."""
    root = load_root(path)
    entries = root.entries()
    if set(entries) != {"launch"}:
        raise root.error(f"must hold exactly one key, 'launch'; holds {', '.join(entries) or 'none'}")
    return LaunchFile(path=path, actions=_read_actions(entries["launch"]))


def _read_actions(value: Value) -> tuple[AnyAction, ...]:
    return tuple(_read_action(item.only_entry()) for item in value.items())


def _read_action(value: Value) -> AnyAction:
    reader = _READERS.get(value.key)
    if reader is None:
        raise value.error(f"is no known action; known: {', '.join(_READERS)}")
    return reader(value)


def _entries(value: Value, known: set[str] | frozenset[str], needed: set[str] | None = None) -> dict[str, Value]:
    """The entries of an action, none unknown and none missing."""
    entries = value.entries()
    for key, entry in entries.items():
        if key not in known:
            raise entry.error(f"is not known in '{value.key}'; known: {', '.join(sorted(known))}")
    for key in sorted((needed or set()) - set(entries)):
        raise value.error(f"needs the key '{key}'")
    return entries


def _condition(entries: Mapping[str, Value]) -> Condition | None:
    if "if" in entries and "unless" in entries:
        raise entries["unless"].error("cannot be used together with 'if'")
    for key in ("if", "unless"):
        if key in entries:
            return Condition(expression=entries[key].template(), wanted=key == "if", key=key)
    return None


def _template(entries: Mapping[str, Value], key: str) -> Template | None:
    return entries[key].template() if key in entries else None


def _pairs(entries: Mapping[str, Value], key: str, first: str, second: str) -> Pairs:
    if key not in entries:
        return ()
    pairs = [_entries(item, {first, second}, {first, second}) for item in entries[key].items()]
    return tuple((pair[first].template(), pair[second].template()) for pair in pairs)


def _read_arg(value: Value) -> DeclareArgument:
    entries = _entries(value, _CONDITION_KEYS | {"name", "default", "description", "choice"}, {"name"})
    choices: tuple[str, ...] = ()
    if "choice" in entries:
        choices = tuple(_entries(item, {"value"}, {"value"})["value"].text() for item in entries["choice"].items())
    default = _template(entries, "default")
    if default is not None and default.is_plain and choices and str(default.parts[0]) not in choices:
        raise entries["default"].error(f"{default.parts[0]!r} is none of the choices: {', '.join(choices)}")
    return DeclareArgument(
        location=value.location,
        condition=_condition(entries),
        name=entries["name"].text(),
        default=default,
        description=entries["description"].text() if "description" in entries else "",
        choices=choices,
    )


def _read_let(value: Value) -> SetVariable:
    entries = _entries(value, _CONDITION_KEYS | {"name", "value"}, {"name", "value"})
    name, content = entries["name"].template(), entries["value"].template()
    return SetVariable(location=value.location, condition=_condition(entries), name=name, value=content)


def _read_set_env(value: Value) -> SetEnvironment:
    entries = _entries(value, _CONDITION_KEYS | {"name", "value"}, {"name", "value"})
    name, content = entries["name"].template(), entries["value"].template()
    return SetEnvironment(location=value.location, condition=_condition(entries), name=name, value=content)


def _read_push_ros_namespace(value: Value) -> PushNamespace:
    entries = _entries(value, _CONDITION_KEYS | {"namespace"}, {"namespace"})
    return PushNamespace(
        location=value.location, condition=_condition(entries), namespace=entries["namespace"].template()
    )


def _read_set_remap(value: Value) -> SetRemap:
    entries = _entries(value, _CONDITION_KEYS | {"from", "to"}, {"from", "to"})
    source, target = entries["from"].template(), entries["to"].template()
    return SetRemap(location=value.location, condition=_condition(entries), source=source, target=target)


def _read_group(value: Value) -> Group:
    if value.is_list:
        return Group(location=value.location, children=_read_actions(value))
    entries = _entries(value, _CONDITION_KEYS | {"children", "scoped"}, {"children"})
    return Group(
        location=value.location,
        condition=_condition(entries),
        children=_read_actions(entries["children"]),
        scoped=entries["scoped"].flag() if "scoped" in entries else True,
    )


def _read_include(value: Value) -> Include:
    entries = _entries(value, _CONDITION_KEYS | {"file", "arg"}, {"file"})
    arguments = _pairs(entries, "arg", "name", "value")
    return Include(
        location=value.location, condition=_condition(entries), file=entries["file"].template(), arguments=arguments
    )


def _read_log(value: Value) -> Log:
    entries = _entries(value, _CONDITION_KEYS | {"message"}, {"message"})
    return Log(location=value.location, condition=_condition(entries), message=entries["message"].template())


def _read_timer(value: Value) -> Timer:
    entries = _entries(value, _CONDITION_KEYS | {"period", "children"}, {"period", "children"})
    period: Template | float
    period = entries["period"].template() if isinstance(entries["period"].plain(), str) else entries["period"].number()
    return Timer(
        location=value.location,
        condition=_condition(entries),
        period=period,
        children=_read_actions(entries["children"]),
    )


def _read_shutdown(value: Value) -> Shutdown:
    entries = _entries(value, _CONDITION_KEYS | {"reason"})
    return Shutdown(location=value.location, condition=_condition(entries), reason=_template(entries, "reason"))


def _process_fields(value: Value, entries: Mapping[str, Value]) -> dict[str, Any]:
    """What ``executable`` and ``node`` have in common."""
    if "on_exit" in entries and entries["on_exit"].text() != "shutdown":
        raise entries["on_exit"].error(f"can only be shutdown, got {entries['on_exit'].text()!r}")
    delay = entries["respawn_delay"].number() if "respawn_delay" in entries else 0.0
    if delay < 0:
        raise entries["respawn_delay"].error(f"must not be negative, got {delay}")
    return {
        "location": value.location,
        "condition": _condition(entries),
        "output": _template(entries, "output"),
        "environment": _pairs(entries, "env", "name", "value"),
        "respawn": _template(entries, "respawn"),
        "respawn_delay": delay,
        "required": "on_exit" in entries,
    }


def _read_executable(value: Value) -> Executable:
    entries = _entries(value, _PROCESS_KEYS | {"cmd", "name", "cwd"}, {"cmd"})
    words = _split_words(entries["cmd"])
    if not words:
        raise entries["cmd"].error("is empty")
    name, directory = _template(entries, "name"), _template(entries, "cwd")
    return Executable(**_process_fields(value, entries), words=words, name=name, working_directory=directory)


def _read_node(value: Value) -> Node:
    known = _PROCESS_KEYS | {"pkg", "exec", "name", "namespace", "args", "ros_args", "param", "remap"}
    entries = _entries(value, known, {"pkg", "exec"})
    return Node(
        **_process_fields(value, entries),
        package=entries["pkg"].template(),
        executable=entries["exec"].template(),
        name=_template(entries, "name"),
        namespace=_template(entries, "namespace"),
        words=_split_words(entries["args"]) if "args" in entries else (),
        ros_words=_split_words(entries["ros_args"]) if "ros_args" in entries else (),
        parameters=_read_parameters(entries["param"]) if "param" in entries else (),
        remaps=_pairs(entries, "remap", "from", "to"),
    )


def _read_parameters(value: Value) -> tuple[ParameterFile | InlineParameter, ...]:
    parameters: list[ParameterFile | InlineParameter] = []
    for item in value.items():
        if "from" in item.entries():
            file = _entries(item, {"from"})["from"]
            parameters.append(ParameterFile(file=file.template(), location=file.location))
        else:
            parameters.extend(read_parameter(item))
    return tuple(parameters)


def _split_words(value: Value) -> tuple[Template, ...]:
    """Splits a command line into words as a shell does; the result of a substitution is never split."""
    words: list[list[str | Substitution]] = []
    open_word = False
    for part in value.template().parts:
        if isinstance(part, Substitution):
            pieces: list[str | Substitution] = [part]
            starts_new, ends = False, False
        else:
            try:
                pieces = list(shlex.split(part))
            except ValueError as error:
                raise value.error(f"{error} (a substitution cannot stand within quotes here)") from error
            starts_new, ends = part[:1].isspace(), part[-1:].isspace()
        for index, piece in enumerate(pieces):
            if index == 0 and open_word and not starts_new:
                words[-1].append(piece)
            else:
                words.append([piece])
        open_word = (bool(pieces) or open_word) and not ends
    return tuple(Template(tuple(word)) for word in words)


_READERS: dict[str, Callable[[Value], AnyAction]] = {
    "arg": _read_arg,
    "let": _read_let,
    "group": _read_group,
    "push_ros_namespace": _read_push_ros_namespace,
    "set_remap": _read_set_remap,
    "include": _read_include,
    "node": _read_node,
    "executable": _read_executable,
    "set_env": _read_set_env,
    "log": _read_log,
    "timer": _read_timer,
    "shutdown": _read_shutdown,
}
