"""YAML in which every value still knows its line, so that an error can name it.

Values are as strictly typed as in launch_yaml: a text must be a YAML string (write ``"5"``, not ``5``), because the
genuine ``ros2 launch`` refuses anything else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from conrft_bringup.launch_runner.errors import LaunchFileError, Location
from conrft_bringup.launch_runner.substitutions import SubstitutionError, Template, parse_template

_EXAMPLES = {
    str: 'a string (in quotes, such as "true" or "5")',
    bool: "true or false",
    float: "a number with a point, such as 2.0",
}


class Value:
    """One YAML value under its key."""

    def __init__(self, node: yaml.Node, file: Path, key: str) -> None:
        self._node = node
        self._file = file
        self.key = key

    @property
    def location(self) -> Location:
        """Where the value begins."""
        return Location(self._file, self._node.start_mark.line + 1)

    def error(self, problem: str) -> LaunchFileError:
        """An error about this value."""
        return LaunchFileError(self.location, self.key, problem)

    @property
    def is_list(self) -> bool:
        """Whether it is a YAML list."""
        return isinstance(self._node, yaml.SequenceNode)

    def items(self) -> list[Value]:
        """The values of a list that may not be empty."""
        if not isinstance(self._node, yaml.SequenceNode):
            raise self.error("must be a list")
        if not self._node.value:
            raise self.error("the list is empty")
        return [Value(node, self._file, self.key) for node in self._node.value]

    def entries(self) -> dict[str, Value]:
        """The values of a mapping by their keys."""
        if not isinstance(self._node, yaml.MappingNode):
            raise self.error("must be a mapping of keys and values")
        entries: dict[str, Value] = {}
        for key_node, node in self._node.value:
            key = str(key_node.value)
            if key in entries:
                raise LaunchFileError(Location(self._file, key_node.start_mark.line + 1), key, "is given twice")
            entries[key] = Value(node, self._file, key)
        return entries

    def only_entry(self) -> Value:
        """The value of a mapping with one key."""
        entries = self.entries()
        if len(entries) != 1:
            raise self.error(f"must hold exactly one key, the name of the action; holds {', '.join(entries) or 'none'}")
        return next(iter(entries.values()))

    def plain(self) -> Any:
        """The value as ``yaml.safe_load`` gives it."""
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(self._node, deep=True)
        except yaml.YAMLError as error:
            raise self.error(str(error)) from error
        finally:
            loader.dispose()

    def text(self) -> str:
        """A string, not interpreted."""
        return str(self._typed(str))

    def flag(self) -> bool:
        """A boolean."""
        return bool(self._typed(bool))

    def number(self) -> float:
        """A float."""
        return float(self._typed(float))

    def template(self) -> Template:
        """A string in which substitutions are read."""
        return self.parse(self.text())

    def parse(self, text: str) -> Template:
        """Reads the substitutions of ``text``, which is (part of) this value."""
        try:
            return parse_template(text)
        except SubstitutionError as error:
            raise self.error(str(error)) from error

    def _typed(self, kind: type) -> Any:
        value = self.plain()
        if type(value) is not kind:
            raise self.error(f"must be {_EXAMPLES[kind]}, got {value!r}")
        return value


def load_root(file: Path) -> Value:
    """The one root value of a YAML file; raises LaunchFileError."""
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchFileError(Location(file, 1), "(file)", f"cannot be read: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise LaunchFileError(Location(file, line), "(file)", f"is not YAML: {error.problem}") from error
    if node is None:
        raise LaunchFileError(Location(file, 1), "(file)", "is empty")
    return Value(node, file, "(root)")
