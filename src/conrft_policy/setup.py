from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "conrft_policy"


def models() -> list[tuple[str, list[str]]]:
    """The shipped backbones, one folder each, as (installed folder, files)."""
    folders: dict[str, list[str]] = {}
    for file in sorted(Path("models").rglob("*")):
        if file.is_file():
            folders.setdefault(f"share/{PACKAGE}/{file.parent.as_posix()}", []).append(file.as_posix())
    return sorted(folders.items())


setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *models(),
    ],
    install_requires=["setuptools", "numpy", "pydantic>=2", "safetensors", "torch"],
    zip_safe=False,
    maintainer="ConRFT for ROS 2 maintainers",
    maintainer_email="maintainers@conrft.invalid",
    description="Vision-language-action backbones, the consistency head, and the node that acts with them at 10 Hz.",
    license="Apache-2.0",
    extras_require={"test": ["pytest"]},
    entry_points={"console_scripts": [f"{name} = {PACKAGE}.nodes:policy" for name in ("policy", "policy_node")]},
)
