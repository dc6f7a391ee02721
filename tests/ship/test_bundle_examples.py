"""Examples of every kind of plan run from a bundle, in a process that can import neither Triton nor the CuTe toolkit.

The whole catalog: `make bundle-examples`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import helion
from examples.catalog import EXAMPLES
from helion import _extension
from tests import softgpu as gpu
from tests.ship import bundle_examples

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.compiles,
    pytest.mark.skipif(_extension.C is None, reason="plans are the extension's"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the software GPU is installed by hand"),
]


@pytest.mark.spawns
def test_examples_of_every_kind_run_from_a_bundle_without_a_compiler(tmp_path) -> None:
    path = str(tmp_path / "examples.hlb")
    # Made here, where Triton is loaded already.
    try:
        assert bundle_examples.make(path, bundle_examples.OF_EACH_KIND) == 0
    finally:
        gpu.uninstall()
    command = [sys.executable, "-m", "tests.ship.bundle_examples", "run", path, *bundle_examples.OF_EACH_KIND]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith(f"{len(bundle_examples.OF_EACH_KIND)} examples ran"), result.stdout
    assert "absent" not in result.stdout, result.stdout


@pytest.mark.parametrize("name", ["matmul_epilogue", "attention_flex"])
def test_an_example_whose_host_code_reads_a_closure_is_left_out_with_the_reason(name: str, tmp_path) -> None:
    example = EXAMPLES[name]
    args = bundle_examples.arguments(example, torch.device("cpu"))
    report = helion.bundle(example.kernel, [args], tmp_path / "k.hlb", capabilities=[90], strict=False)
    assert not report.plans and "host code reads .cell_contents" in str(report)
