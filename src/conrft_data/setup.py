from setuptools import find_packages, setup

PACKAGE = "conrft_data"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=[
        "setuptools",
        "av",
        "numpy",
        "pydantic>=2",
        "pyyaml",
        "pillow",
        "matplotlib",
        "rosbags",
        "mcap",
        "pyarrow",
    ],
    zip_safe=False,
    maintainer="ConRFT for ROS 2 maintainers",
    maintainer_email="maintainers@conrft.invalid",
    description="Observations, actions, transitions and episodes; ROS messages to arrays and back; episode bags.",
    license="Apache-2.0",
    extras_require={"test": ["pytest", "hypothesis"]},
)
