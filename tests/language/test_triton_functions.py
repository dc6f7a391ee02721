"""hl.triton_kernel by name: a `@triton.jit` function of the kernel's module, with what it uses."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

import helion
import helion.language as hl
from helion import exc
from tests.support import check

FACTOR = tl.constexpr(3)

pytestmark = pytest.mark.compiles


@triton.jit
def _twice(v):
    return v * 2


@triton.jit
def _mixed(a, b):
    return _twice(a) + b * FACTOR


@triton.jit
def _around(a):
    return a + 1, a - 1


@triton.jit
def _store_twice(p, at, v, mask):
    tl.store(p + at, v * 2, mask)


@helion.kernel(config=helion.Config(block_sizes=[16]))
def around_mixed(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    above, below = torch.empty_like(x), torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        value = hl.triton_kernel("_mixed", args=(x[t], y[t]), output_like=x[t])
        above[t], below[t] = hl.triton_kernel("_around", args=(value,), output_like=(value, value))
    return above, below


@pytest.mark.softgpu(capability=90)
def test_a_function_is_named_and_brings_what_it_uses(softgpu) -> None:
    x, y = torch.randn(40), torch.randn(40)
    result = around_mixed(x.to(softgpu.device), y.to(softgpu.device))
    middle = x.double() * 2 + y.double() * 3
    check(result, (middle + 1, middle - 1), "by name", error_scale=4)


@helion.kernel(config=helion.Config(block_sizes=[16]))
def through_pointers(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out, back = torch.empty_like(x), torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        mask = t.index < x.size(0)
        hl.triton_kernel("_store_twice", args=(out, t.index, x[t], mask), output_like=None)
        hl.inline_triton(
            """
            q = tl.load({out} + {at}, {mask}) + 1
            tl.debug_barrier()
            tl.store({out} + {at}, q, {mask})
            """,
            args={"out": out, "at": t.index, "mask": mask},
            output_like=None,
        )
        back[t] = out[t] * 3
    return out, back


@pytest.mark.softgpu(capability=90)
def test_a_host_tensor_is_a_pointer(softgpu) -> None:
    x = torch.randn(40)
    expected = x.double() * 2 + 1
    check(through_pointers(x.to(softgpu.device)), (expected, expected * 3), "pointers", error_scale=4)


@pytest.mark.softgpu(capability=90)
def test_inline_ptx_without_arguments_is_a_number(softgpu) -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            seven = hl.inline_asm_elementwise("mov.u32 $0, 7;", "=r", [], torch.int32, True, 1)
            out[t] = x[t] + seven
        return out

    x = torch.arange(40, device=softgpu.device)
    assert torch.equal(helion.kernel(kernel, config=helion.Config(block_sizes=[16]))(x), x + 7)


def test_what_is_written_through_a_pointer_counts_as_written() -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            hl.inline_triton("tl.store({0}, 1.0)", args=(x,), output_like=None)
        for t in hl.tile(x.size(0)):
            out[t] = x[t]
        return out

    with pytest.raises(exc.LoopDependencyError, match="'x'"):
        helion.kernel(kernel, config=helion.Config(block_sizes=[16, 16])).bind((torch.randn(40),))
