from setuptools import find_packages, setup

PACKAGE = "conrft_learner"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools", "numpy", "pydantic>=2", "safetensors", "tensorboard", "torch"],
    zip_safe=False,
    maintainer="ConRFT for ROS 2 maintainers",
    maintainer_email="maintainers@conrft.invalid",
    description="Critics, objectives, replay and trainer of ConRFT, and the learner node.",
    license="Apache-2.0",
    extras_require={"test": ["pytest"]},
    entry_points={
        "console_scripts": ["learner = conrft_learner.nodes:learner", "critic = conrft_learner.nodes:critic"]
    },
)
