"""What `import helion` loads: no compiler, since a process may find all its kernels compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.spawns

ROOT = Path(__file__).resolve().parents[2]

_IMPORT = """
import sys
import torch
before = set(sys.modules)
import helion
import helion.language as hl

@helion.kernel(config=helion.Config(block_sizes=[32]), backend="triton")
def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] + y[tile]
    return out

loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(loaded & {"triton", "sympy", "cutlass", "filelock", "rich", "sklearn", "optuna", "matplotlib"}))
"""


def run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_and_decorating_load_neither_triton_nor_sympy() -> None:
    assert run(_IMPORT) == ""


def test_every_public_name_is_there_when_asked_for_also_those_that_load_the_compiler() -> None:
    code = (
        "import helion.explain, helion; assert callable(helion.explain)\n"
        "[getattr(helion, name) for name in helion.__all__]\n"
        "print(*[getattr(helion, name).__name__ for name in ('BoundKernel', 'explain', 'from_cache')])"
    )
    assert run(code) == "BoundKernel explain from_cache"


def test_the_first_trace_loads_no_exporter() -> None:
    # PyTorch loads it to say where in the user's program a symbol was made: half a first call's seconds.
    code = (
        "import sys, torch\n"
        "from examples.matmul import make_args, matmul\n"
        "matmul.bind(make_args(64, 64, 64, device='cpu'))\n"
        "print(*[m for m in ('torch.export._trace', 'torch._functorch.aot_autograd') if m in sys.modules])"
    )
    assert run(code) == ""
