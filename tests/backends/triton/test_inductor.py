"""torch.compile's Inductor copies a Triton kernel and what it calls out of the module it was printed in."""

from __future__ import annotations

import builtins
import dis
import importlib.util
from pathlib import Path
from types import CodeType

import pytest
import triton
from torch._inductor.codegen.wrapper import user_defined_triton_kernel_transitive_closure_source_code

from examples.catalog import EXAMPLES
from helion.runtime.code_cache import load_module

# What Inductor imports in front of the copy (gen_common_triton_imports).
HEADER = (
    "import triton\nimport triton.language as tl\nfrom "
    "torch._inductor.runtime.triton_helpers import libdevice\n\n\n"
    "@triton.jit\n"
)
NAMES = [
    "add",
    "matmul",
    "softmax_looped",
    "sum_rows",
    "cross_entropy",
    "attention",
    "welford",
    "geglu",
    "dropout",
    "segment_sum",
    "batch_norm",
]


def globals_of(code: CodeType) -> set[str]:
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    return names.union(*(globals_of(c) for c in code.co_consts if isinstance(c, CodeType)))


@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_whole_without_their_module(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    module = load_module(example.kernel.bind(example.args()).to_triton_code())
    kernels = [v for v in vars(module).values() if isinstance(v, triton.JITFunction) and v.__name__.startswith("_")]
    assert kernels
    for kernel in kernels:
        source = HEADER + user_defined_triton_kernel_transitive_closure_source_code(kernel)
        path = tmp_path / "copied.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("copied", path)
        copy = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(copy)
        functions = [v for v in vars(copy).values() if isinstance(v, triton.JITFunction)]
        for function in functions:
            assert globals_of(function.fn.__code__) <= {*vars(copy), *dir(builtins)}, source
