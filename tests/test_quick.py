"""`--quick` stops what should have been left out, and names what it left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_imports import ROOT

_CONFTEST = """
import pytest

pytest_plugins = ["tests.quick"]


@pytest.fixture(scope="session")
def own_caches():
    pass
"""

_TESTS = """
import multiprocessing
import subprocess
import sys

import pytest
import triton
import triton.language as tl


@triton.jit
def _nothing(x, n: tl.constexpr):
    pass


def test_starts_a_process():
    subprocess.run([sys.executable, "-c", ""])


def test_starts_a_process_and_hides_it():
    try:
        subprocess.run([sys.executable, "-c", ""])
    except BaseException:
        pass


def test_starts_an_interpreter():
    multiprocessing.get_context("spawn").Process(target=print).start()


def test_compiles():
    triton.compile(None)


@pytest.mark.spawns
def test_that_says_so():
    subprocess.run([sys.executable, "-c", ""])


def test_does_nothing():
    pass
"""


@pytest.mark.spawns
@pytest.mark.parametrize("workers", [0, 1])
def test_what_compiles_or_starts_a_process_is_stopped_and_named_unless_it_is_marked(
    workers: int, tmp_path: Path
) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_it.py").write_text(_TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--quick",
        "-v",
        "-p",
        "no:cacheprovider",
        "-n",
        str(workers),
        "test_it.py",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    stopped = dict(re.findall(r"times stopped on its way: test_it.py::(\w+) .*mark it @pytest.mark.(\w+)", done.stdout))
    assert stopped == {
        "test_starts_a_process": "spawns",
        "test_starts_a_process_and_hides_it": "spawns",
        "test_starts_an_interpreter": "spawns",
        "test_compiles": "compiles",
    }, done.stdout
    assert "1 passed, 4 skipped" in done.stdout
    assert "1 tests marked spawns" in done.stdout
