from setuptools import find_packages, setup

PACKAGE = "conrft_control"
NODES = (
    "observer", "intervention_mux", "commander", "supervisor", "recorder", "episode_server", "franka_adapter",
    "impedance_phases",
)  # fmt: skip

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools", "numpy", "pydantic"],
    zip_safe=False,
    maintainer="ConRFT for ROS 2 maintainers",
    maintainer_email="maintainers@conrft.invalid",
    description="The 10 Hz loop around the robot: observer, intervention mux, commander, supervisor, recorder.",
    license="Apache-2.0",
    extras_require={"test": ["pytest", "hypothesis"]},
    entry_points={"console_scripts": [f"{node} = {PACKAGE}.nodes:{node}" for node in NODES]},
)
