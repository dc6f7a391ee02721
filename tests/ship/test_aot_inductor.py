"""A model that calls a bundled kernel, through torch.export and AOTInductor, on PyTorch for the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

import helion
from helion import _extension
from tests import softgpu as gpu
from tests.ship import bundled_model as model
from tests.softgpu import native
from tests.softgpu.build import cuda_include

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.spawns,
    pytest.mark.compiles,
    pytest.mark.skipif(_extension.C is None, reason="plans are the extension's"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="linked with the software GPU's driver"),
]


def operator(path: Path) -> None:
    """Build the example's operator for tensors on the CPU, which the software GPU's kernels use."""
    driver, (torch_libraries, *_) = native.directory(), cpp_extension.library_paths()
    includes = [part for folder in [*cpp_extension.include_paths(), cuda_include()] for part in ("-isystem", folder)]
    sources = [ROOT / "csrc" / "bundle" / name for name in ("torch_op.cpp", "bundle.cpp")]
    command = [
        "g++", "-std=c++20", "-O0", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-DHELION_EXAMPLE_ON_CPU",
        *includes, *sources, f"{driver}/libcuda.so.1", f"-Wl,-rpath,{driver}", f"-L{torch_libraries}",
        f"-Wl,-rpath,{torch_libraries}", "-ltorch_cpu", "-lc10", "-o", path,
    ]  # fmt: skip
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def run(directory: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "tests.ship.aot_inductor_script", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(directory / "inductor")}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=directory, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_a_model_that_was_compiled_ahead_runs_a_bundled_kernel(tmp_path) -> None:
    library, package, bundle = tmp_path / "libadd.so", tmp_path / "model.pt2", tmp_path / "add.hlb"
    operator(library)
    gpu.install(90)
    try:
        helion.bundle(model.add, [(torch.zeros(100), torch.zeros(100), 1.0)], bundle, capabilities=[90])
    finally:
        gpu.uninstall()
    run(tmp_path, str(library), str(package), str(bundle))
    said = run(tmp_path, str(library), str(package))
    assert "3 launches\nrefused: a tensor of float32 is expected" in said, said
