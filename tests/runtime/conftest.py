"""Registers the marker that names the guard a test is about."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mutation(guard): the test fails when this guard of the launch path is taken out")
