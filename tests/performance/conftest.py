"""Claims under pytest: judged when this folder, or something in it, is named on the command line."""

from perfclaims.pytest_plugin import pytest_addoption, pytest_pycollect_makemodule  # noqa: F401
