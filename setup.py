"""Which folders are packages: found, and the recipes, which stand at the top of the checkout. All else: setup.cfg."""

from setuptools import find_namespace_packages, setup

FOUND = find_namespace_packages(include=["lensphys*"], exclude=["*.__pycache__", "lensphys.simulations"])

if __name__ == "__main__":
    setup(packages=[*FOUND, "lensphys.simulations"])
