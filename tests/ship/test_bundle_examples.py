"""All examples run from a bundle, in a process that can import neither Triton nor the CuTe toolkit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helion import _extension

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.spawns,
    pytest.mark.compiles,
    pytest.mark.skipif(_extension.C is None, reason="plans are the extension's"),
]

#: Their host code reads what a function that was passed captured.
NO_PLAN = {"matmul_epilogue", "attention_flex"}


def run(what: str, path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.ship.bundle_examples", what, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_examples_run_from_a_bundle_without_a_compiler(tmp_path) -> None:
    made = run("make", tmp_path / "examples.hlb")
    assert made.count("left out") >= len(NO_PLAN)
    said = run("run", tmp_path / "examples.hlb")
    absent = {line.split(":")[1].strip() for line in said.splitlines() if line.startswith("absent")}
    assert absent == NO_PLAN, said
    assert int(said.split()[0]) > 50 or torch.cuda.is_available(), said
