"""The substitutions of launch files.

``$(var NAME [DEFAULT])``, ``$(find-pkg-share PKG)``, ``$(env NAME [DEFAULT])``, ``$(dirname)``, ``$(eval EXPRESSION)``.
They nest. An argument is a word, or a text in single or double quotes; a backslash takes the meaning from the next
character.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from conrft_bringup.launch_runner.ament_index import PackageNotFound, package_share


class SubstitutionError(ValueError):
    """A substitution is malformed, unknown, or has no value."""


@dataclass
class Scope:
    """What substitutions see at one point of a launch.

    Attributes:
        variables: launch configurations, set by ``arg``, ``let`` and the command line.
        environment: of the processes to start.
        namespace: ROS namespace pushed so far; None: none was pushed.
        remaps: (from, to) of the names that every node after them gets.
        directory: of the launch file being read.
    """

    variables: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    namespace: str | None = None
    remaps: tuple[tuple[str, str], ...] = ()
    directory: Path = Path()

    def copy(self) -> Scope:
        """A scope of its own, as a group has."""
        return Scope(dict(self.variables), dict(self.environment), self.namespace, self.remaps, self.directory)


@dataclass(frozen=True)
class Substitution:
    """One ``$(name argument ...)``."""

    name: str
    arguments: tuple[Template, ...]

    def evaluate(self, scope: Scope) -> str:
        """The text that stands for it in ``scope``; raises SubstitutionError."""
        return _SUBSTITUTIONS[self.name].function(scope, *(argument.evaluate(scope) for argument in self.arguments))


@dataclass(frozen=True)
class Template:
    """Text with substitutions in it."""

    parts: tuple[str | Substitution, ...]

    @property
    def is_plain(self) -> bool:
        """Whether it holds no substitution."""
        return all(isinstance(part, str) for part in self.parts)

    def evaluate(self, scope: Scope) -> str:
        """The text with every substitution done; raises SubstitutionError."""
        return "".join(part if isinstance(part, str) else part.evaluate(scope) for part in self.parts)


@dataclass(frozen=True)
class _Kind:
    function: Callable[..., str]
    least: int
    most: int


def _var(scope: Scope, name: str, default: str | None = None) -> str:
    if name in scope.variables:
        return scope.variables[name]
    if default is None:
        raise SubstitutionError(f"no argument or variable is called '{name}'")
    return default


def _find_pkg_share(scope: Scope, package: str) -> str:
    try:
        return str(package_share(package, scope.environment))
    except PackageNotFound as error:
        raise SubstitutionError(str(error)) from error


def _env(scope: Scope, name: str, default: str | None = None) -> str:
    value = scope.environment.get(name, default)
    if value is None:
        raise SubstitutionError(f"environment variable '{name}' is not set")
    return value


def _dirname(scope: Scope) -> str:
    return str(scope.directory)


def _eval(scope: Scope, expression: str) -> str:
    """A Python expression that sees the names of ``math``. A launch file starts programs anyway, so it is trusted."""
    try:
        return str(eval(expression, {}, {**vars(math), "math": math}))
    except Exception as error:
        raise SubstitutionError(f"expression {expression!r}: {type(error).__name__}: {error}") from error


_SUBSTITUTIONS: dict[str, _Kind] = {
    "var": _Kind(_var, 1, 2),
    "find-pkg-share": _Kind(_find_pkg_share, 1, 1),
    "env": _Kind(_env, 1, 2),
    "dirname": _Kind(_dirname, 0, 0),
    "eval": _Kind(_eval, 1, 1),
}

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def parse_template(text: str) -> Template:
    """Reads text with substitutions; raises SubstitutionError."""
    return _Reader(text).template(until="")


class _Reader:
    """Recursive descent over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def template(self, until: str) -> Template:
        """Reads up to one of the characters of ``until`` (not consumed), or to the end of the text."""
        parts: list[str | Substitution] = []
        literal = ""
        while self.position < len(self.text):
            character = self.text[self.position]
            if character in until:
                break
            if self.text.startswith("$(", self.position):
                if literal:
                    parts.append(literal)
                    literal = ""
                parts.append(self.substitution())
            elif character == "\\" and self.position + 1 < len(self.text):
                literal += self.text[self.position + 1]
                self.position += 2
            else:
                literal += character
                self.position += 1
        if literal or not parts:
            parts.append(literal)
        return Template(tuple(parts))

    def substitution(self) -> Substitution:
        """Reads from ``$(`` to its closing parenthesis."""
        start = self.position
        self.position += 2
        match = _NAME.match(self.text, self.position)
        if match is None:
            raise SubstitutionError(f"'{self.text[start:]}' names no substitution")
        name = match.group()
        if name not in _SUBSTITUTIONS:
            raise SubstitutionError(f"unknown substitution '{name}'; known: {', '.join(_SUBSTITUTIONS)}")
        self.position = match.end()
        arguments: list[Template] = []
        while self.text.startswith(" ", self.position):
            self.position += 1
            arguments.append(self.argument())
        if not self.text.startswith(")", self.position):
            raise SubstitutionError(f"'{self.text[start:]}' is not closed by ')'")
        self.position += 1
        kind = _SUBSTITUTIONS[name]
        if not kind.least <= len(arguments) <= kind.most:
            allowed = str(kind.least) if kind.least == kind.most else f"{kind.least} to {kind.most}"
            raise SubstitutionError(f"'{name}' takes {allowed} argument(s), got {len(arguments)}")
        return Substitution(name, tuple(arguments))

    def argument(self) -> Template:
        """Reads one word or one quoted text."""
        quote = self.text[self.position : self.position + 1]
        if quote not in ("'", '"'):
            word = self.template(until=" ()")
            if word.parts == ("",):
                raise SubstitutionError(f"an argument is missing in '{self.text}'")
            return word
        self.position += 1
        quoted = self.template(until=quote)
        if self.position >= len(self.text):
            raise SubstitutionError(f"the quote {quote} is not closed in '{self.text}'")
        self.position += 1
        return quoted
