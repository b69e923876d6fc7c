"""Everything that can be declared stands in setup.cfg."""

from setuptools import setup

setup()
