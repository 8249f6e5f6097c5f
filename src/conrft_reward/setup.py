from setuptools import find_packages, setup

PACKAGE = "conrft_reward"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools", "matplotlib", "numpy", "pydantic>=2", "safetensors", "torch"],
    zip_safe=False,
    maintainer="ConRFT for ROS 2 maintainers",
    maintainer_email="maintainers@conrft.invalid",
    description="Binary success classifier: model, training from recorded episodes, and the node that judges.",
    license="Apache-2.0",
    extras_require={"test": ["pytest"]},
    entry_points={"console_scripts": [f"{name} = {PACKAGE}.nodes:reward" for name in ("reward", "reward_node")]},
)
