"""Values of node parameters, with the types that ``ros2 launch`` gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from conrft_bringup.launch_runner.marked_yaml import Value
from conrft_bringup.launch_runner.substitutions import Scope, SubstitutionError, Template

Scalar = bool | int | float | str
ParameterValue = Scalar | list[Any]

_TYPES: dict[str, tuple[type, bool]] = {
    "str": (str, False),
    "bool": (bool, False),
    "float": (float, False),
    "int": (int, False),
    "list_of_str": (str, True),
    "list_of_bool": (bool, True),
    "list_of_float": (float, True),
    "list_of_int": (int, True),
}


@dataclass(frozen=True)
class InlineParameter:
    """``param`` with a name and a value; ``value`` holds a Template wherever the file has a text with substitutions."""

    name: Template
    value: Scalar | Template | tuple[Scalar | Template, ...]
    type_name: str | None
    source: Value

    def evaluate(self, scope: Scope) -> tuple[str, ParameterValue]:
        """Name and typed value; raises LaunchFileError."""
        try:
            name = self.name.evaluate(scope)
            if isinstance(self.value, tuple):
                return name, self._list(self.value, scope)
            if isinstance(self.value, Template):
                return name, coerce(self.value.evaluate(scope), self.type_name)
            return name, self.value
        except (SubstitutionError, ValueError) as error:
            raise self.source.error(str(error)) from error

    def _list(self, items: tuple[Scalar | Template, ...], scope: Scope) -> list[Any]:
        scalar = self.type_name.removeprefix("list_of_") if self.type_name else None
        values = [coerce(item.evaluate(scope), scalar) if isinstance(item, Template) else item for item in items]
        return _uniform(values)


def read_parameter(value: Value, prefix: str = "") -> list[InlineParameter]:
    """Reads one entry of ``param`` that has a name; nested ``param`` entries are joined with dots."""
    entries = value.entries()
    known = {"name", "value", "type", "param"}
    for key, entry in entries.items():
        if key not in known:
            raise entry.error(f"is not known here; known: {', '.join(sorted(known))}")
    if "name" not in entries:
        raise value.error("needs a name (or from)")
    name = prefix + entries["name"].text()
    if "param" in entries:
        if "value" in entries or "type" in entries:
            raise entries["param"].error("excludes value and type")
        return [leaf for item in entries["param"].items() for leaf in read_parameter(item, f"{name}.")]
    if "value" not in entries:
        raise value.error(f"parameter '{name}' needs a value")
    type_name = entries["type"].text() if "type" in entries else None
    if type_name is not None and type_name not in _TYPES:
        raise entries["type"].error(f"unknown type '{type_name}'; known: {', '.join(_TYPES)}")
    return [InlineParameter(entries["name"].parse(name), _read_value(entries["value"], type_name), type_name, value)]


def _read_value(value: Value, type_name: str | None) -> Scalar | Template | tuple[Scalar | Template, ...]:
    plain = value.plain()
    if isinstance(plain, list):
        if type_name is not None and not _TYPES[type_name][1]:
            raise value.error(f"is a list, but its type is {type_name}")
        items = tuple(_read_scalar(value, item, type_name and type_name.removeprefix("list_of_")) for item in plain)
        try:
            _uniform([item for item in items if not isinstance(item, Template)])
        except ValueError as error:
            raise value.error(str(error)) from error
        return items
    if type_name is not None and _TYPES[type_name][1]:
        # ros2 launch refuses a text here even if a list would come of it.
        raise value.error(f"must be a list for type {type_name}; a text that comes to a list has no type")
    return _read_scalar(value, plain, type_name)


def _read_scalar(value: Value, plain: object, type_name: str | None) -> Scalar | Template:
    if not isinstance(plain, bool | int | float | str):
        raise value.error(f"must be a bool, int, float, string or a list of one of them, got {plain!r}")
    if isinstance(plain, str):
        template = value.parse(plain)
        if not template.is_plain:
            return template
        plain = "".join(str(part) for part in template.parts)
    if type_name is not None and not isinstance(plain, _TYPES[type_name][0]):
        raise value.error(f"{plain!r} is not of type {type_name}")
    return plain


def coerce(text: str, type_name: str | None) -> ParameterValue:
    """The value that a text has after its substitutions: by YAML's rules, or of the scalar type that was asked for.

    Raises:
        ValueError: the text has no such type.
    """
    if type_name is None:
        return _from_yaml(text)
    kind, _ = _TYPES[type_name]
    if kind is str:
        return text
    if kind is bool:
        value = {"1": True, "0": False}.get(text, _from_yaml(text))
        if not isinstance(value, bool):
            raise ValueError(f"{text!r} is not of type bool")
        return value
    try:
        return int(text) if kind is int else float(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not of type {type_name}") from error


def _from_yaml(text: str) -> ParameterValue:
    if not text:
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} cannot be read as YAML; add 'type: str' if it is meant to be a text") from error
    if isinstance(value, list):
        return _uniform(value)
    if not isinstance(value, bool | int | float | str):
        raise ValueError(
            f"{text!r} is no bool, int, float, string or list; add 'type: str' if it is meant to be a text"
        )
    return value


def _uniform(values: list[Any]) -> list[Any]:
    if any(not isinstance(value, bool | int | float | str) for value in values):
        raise ValueError(f"a list may hold bool, int, float or string only, got {values!r}")
    if len({type(value) for value in values}) > 1:
        raise ValueError(f"the values of a list must be of one type, got {values!r}")
    return values


class _QuotedText(str):
    """A string that is always written in quotes: rcl's parser takes ``1e-4`` for another type than PyYAML does."""


class _ParameterDumper(yaml.SafeDumper):
    """Writes parameter files."""


_ParameterDumper.add_representer(
    _QuotedText, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="'")
)


def parameter_file_text(node: str, values: dict[str, ParameterValue]) -> str:
    """A ROS parameter file for ``node`` (a full name, or ``/**`` for any)."""

    def quoted(value: ParameterValue) -> Any:
        if isinstance(value, list):
            return [quoted(item) for item in value]
        return _QuotedText(value) if isinstance(value, str) else value

    content = {node: {"ros__parameters": {name: quoted(value) for name, value in values.items()}}}
    return yaml.dump(content, Dumper=_ParameterDumper, default_flow_style=False, sort_keys=False, width=10_000)
