"""Machine code of the printed kernels: the aims that hold for any run of the same assembler."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.spawns, pytest.mark.xdist_group("cute_static")]  # one run of the benchmark for all

ROOT = Path(__file__).resolve().parents[3]
# NVIDIA's example for the same problem under the toolkit's own assembler (ptxas 12.9).
EXAMPLE_INSTRUCTIONS = 1020


@pytest.fixture(scope="module")
def figures() -> dict:
    command = [sys.executable, str(ROOT / "benchmarks" / "cute_static.py"), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=_environment())
    return json.loads(done.stdout)


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_nothing_spills(figures: dict) -> None:
    for name, row in figures.items():
        assert (row["sites"]["LDL"], row["sites"]["STL"], row["stack_bytes"]) == (0, 0, 0), name


def test_there_are_two_load_sites(figures: dict) -> None:
    for name, row in figures.items():
        assert row["sites"]["UTMALDG"] == 2, name


@pytest.mark.parametrize("name", ["sm_100a e4m3", "sm_100a e4m3 scaled"])
def test_pairs_are_no_longer_than_the_example(figures: dict, name: str) -> None:
    assert figures[name]["instructions"] <= EXAMPLE_INSTRUCTIONS


def test_the_published_depths_are_kept(figures: dict) -> None:
    row = figures["sm_100a e4m3"]
    assert (row["ab_stages"], row["acc_stages"], row["c_stages"]) == (8, 2, 4)
