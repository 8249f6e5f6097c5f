from __future__ import annotations

from pathlib import Path

import pytest
from launch_files import add_package

from conrft_bringup.launch_runner.substitutions import Scope, SubstitutionError, parse_template


def evaluate(text: str, **variables: str) -> str:
    scope = Scope(variables=variables, environment={"HOME": "/home/ada"}, directory=Path("/launch/here"))
    return parse_template(text).evaluate(scope)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("a $(var x) b", "a 1 b"),
        ("$(var x)$(var y)", "12"),
        ("$(var $(var name))", "1"),
        ("$(var missing fallback)", "fallback"),
        ("$(var missing 'two words')", "two words"),
        ("$(var missing '')", ""),
        ("$(env HOME)/x", "/home/ada/x"),
        ("$(env MISSING none)", "none"),
        ("$(dirname)/y.yaml", "/launch/here/y.yaml"),
        ("""$(eval "'$(var x)' == '1'")""", "True"),
        ("$(eval '$(var x) + 2 * $(var y)')", "5"),
        ("$(eval 'sqrt(16.0)')", "4.0"),
        ("costs 5$ (or more)", "costs 5$ (or more)"),
        (r"\$(var x)", "$(var x)"),
    ],
)
def test_a_substitution_is_replaced_by_its_value(text: str, expected: str) -> None:
    assert evaluate(text, x="1", y="2", name="x") == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("$(var missing)", "no argument or variable is called 'missing'"),
        ("$(env MISSING)", "'MISSING' is not set"),
        ("$(eval '1 +')", "SyntaxError"),
        ("$(find-exec ls)", "unknown substitution 'find-exec'; known: var, find-pkg-share, env, dirname, eval"),
        ("$(var x", "is not closed"),
        ("$(var 'x)", "quote ' is not closed"),
        ("$(var)", "takes 1 to 2 argument"),
        ("$(dirname x)", "takes 0 argument"),
        ("$(var x )", "an argument is missing"),
        ("$()", "names no substitution"),
    ],
)
def test_what_cannot_be_substituted_is_an_error_that_says_why(text: str, problem: str) -> None:
    with pytest.raises(SubstitutionError) as error:
        evaluate(text, x="1")
    assert problem in str(error.value)


def test_packages_are_found_through_the_prefix_path(tmp_path: Path) -> None:
    add_package(tmp_path / "second", "here")
    scope = Scope(environment={"AMENT_PREFIX_PATH": f"{tmp_path}/first:{tmp_path}/second"})
    assert parse_template("$(find-pkg-share here)/x").evaluate(scope) == f"{tmp_path}/second/share/here/x"
    with pytest.raises(SubstitutionError, match="package 'gone' not found in"):
        parse_template("$(find-pkg-share gone)").evaluate(scope)
