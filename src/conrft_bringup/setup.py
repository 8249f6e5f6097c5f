from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "conrft_bringup"


def shared(folder):
    """Every file below ``folder``, to be installed with the same tree below the package's share directory."""
    files = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            files.setdefault(f"share/{PACKAGE}/{path.parent}", []).append(str(path))
    return list(files.items())


setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        # colcon puts a prefix's bin folder on the PATH, ament_python has console scripts elsewhere; this leads there.
        ("bin", ["bin/conrft"]),
        *shared("launch"),
        *shared("config"),
        *shared("foxglove"),
        *shared("plotjuggler"),
        *shared("rviz"),
        *shared("urdf"),
    ],
    install_requires=["setuptools", "av", "numpy", "pyyaml", "matplotlib", "mujoco", "pillow", "rosbags", "torch"],
    zip_safe=False,
    maintainer="ConRFT for ROS 2 maintainers",
    maintainer_email="maintainers@conrft.invalid",
    description="Launch files, configuration of tasks, robots and presets, the conrft command and the demo.",
    license="Apache-2.0",
    extras_require={"test": ["pytest"]},
    entry_points={
        "console_scripts": [
            "conrft = conrft_bringup.command:main",
            "visualiser = conrft_bringup.visualisation.nodes:visualiser",
            "bag_player = conrft_bringup.visualisation.nodes:bag_player",
        ]
    },
)
