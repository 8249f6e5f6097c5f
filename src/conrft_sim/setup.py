from setuptools import find_packages, setup

PACKAGE = "conrft_sim"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools", "gymnasium>=1.0", "mujoco>=3.2", "numpy"],
    zip_safe=False,
    maintainer="ConRFT for ROS 2 maintainers",
    maintainer_email="maintainers@conrft.invalid",
    description="MuJoCo stand-in for a Franka arm with two cameras, its tasks, and a scripted operator.",
    license="Apache-2.0",
    extras_require={"test": ["pytest"]},
    entry_points={
        # Gymnasium calls it when it is imported, so that gymnasium.make("ConRFT/PickBanana-v0") just works.
        "gymnasium.envs": ["ConRFT = conrft_sim.environment:register"],
        "console_scripts": [
            "simulator = conrft_sim.nodes:simulator",
            "scripted_operator = conrft_sim.nodes:scripted_operator",
        ],
    },
)
