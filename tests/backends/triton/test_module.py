"""What a generated module imports: what its code uses, and nothing that text merely looks like."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from examples.catalog import EXAMPLES


@helion.kernel
def says(x: torch.Tensor, text: hl.constexpr) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        hl.device_print(text, x[tile])
        out[tile] = x[tile]
    return out


@helion.kernel
def rounds(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = hl.inline_triton("libdevice.rint({0})", [x[tile]], x[tile])
    return out


@helion.kernel
def calls_source(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = hl.triton_kernel("def rounded(x):\n    return libdevice.rint(x)", [x[tile]], x[tile])
    return out


def imported(source: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return {(alias.asname or alias.name).split(".")[0] for node in nodes for alias in node.names}


def read(source: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("text", ["libdevice.rint(", "hlt_max_nan(", "tl.make_tensor_descriptor", "math.pi", "_empty("])
def test_text_of_the_user_is_not_taken_for_code(text: str) -> None:
    source = says.bind((torch.randn(16), text)).to_triton_code()
    assert text in source
    assert not {name for name in imported(source) if name.startswith(("hlt_", "libdevice", "math"))}
    assert "_set_triton_allocator" not in source


@pytest.mark.parametrize("kernel", [rounds, calls_source])
def test_device_code_of_the_user_can_call_libdevice(kernel: Any) -> None:
    assert "libdevice" in imported(kernel.bind((torch.randn(16),)).to_triton_code())


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.slow
def test_a_module_imports_what_it_uses(name: str) -> None:
    example = EXAMPLES[name]
    source = example.kernel.bind(example.args(example.small)).to_triton_code()
    helpers = {name for name in read(source) if name.startswith(("hlt_", "libdevice", "math"))}
    assert helpers <= imported(source)
    ours = {name for name in imported(source) if name.startswith(("hlt_", "libdevice", "_"))}
    assert ours <= read(source)
