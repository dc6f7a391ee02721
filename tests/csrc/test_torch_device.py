"""The current device and stream of PyTorch's CUDA, asked in C."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.spawns
@pytest.mark.compiles
@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="PyTorch answers for CUDA itself: test_real_gpu.py")
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles a device guard")
@pytest.mark.parametrize("devices", [1, 2])
def test_torch_is_asked_in_c_and_its_functions_where_it_does_not_answer(C, tmp_path: Path, devices: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.csrc.torch_device_script", str(tmp_path), str(devices)],
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, "HELION_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
