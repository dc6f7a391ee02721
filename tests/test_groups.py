"""Tests of a group run in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_imports import ROOT

_TESTS = """
import os

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("n", range(4))
def test_of_a_group(n):
    open("ran", "a").write(f"{os.getpid()}\\n")


@pytest.mark.parametrize("n", range(4))
def test_of_none(n):
    pass
"""


@pytest.mark.spawns
def test_a_group_is_not_spread_over_processes(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(_TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.groups", "-n", "2", "--dist", "loadgroup", "test_it.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    ran = (tmp_path / "ran").read_text().split()
    assert len(ran) == 4 and len(set(ran)) == 1
