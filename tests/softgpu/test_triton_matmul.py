"""Triton's tl.dot in every element type: mma.sync on sm_80, wgmma on sm_90, tcgen05 on sm_100.

Tolerances: the software GPU adds products exactly and rounds to the accumulator's type once per instruction, so an
    error
bound is K products' rounding in the accumulator (2^-23 for fp32) relative to the sum of magnitudes, then the output
type's rounding.
"""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from tests.softgpu import kernels

pytestmark = pytest.mark.compiles

ALL = pytest.mark.softgpu(capability=[80, 90, 100])


def _operands(dtype: torch.dtype, m: int, n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    if dtype is torch.int8:
        return torch.randint(-128, 128, (m, k)).to(dtype), torch.randint(-128, 128, (k, n)).to(dtype)
    return torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)


def _run(softgpu, a, b, out_dtype, acc, block=(64, 64, 64), **options):
    (m, k), n = a.shape, b.shape[1]
    a, b = a.to(softgpu.device), b.to(softgpu.device)
    c = torch.zeros(m, n, dtype=out_dtype, device=softgpu.device)
    bm, bn, bk = block
    grid = (triton.cdiv(m, bm), triton.cdiv(n, bn))
    kernels.matmul[grid](
        a, b, c, m, n, k, *a.stride(), *b.stride(), *c.stride(), BM=bm, BN=bn, BK=bk, ACC=acc, **options
    )
    return c


def _check(c, a, b, operand_eps=0.0):
    expected = a.double() @ b.double()
    magnitude = a.double().abs() @ b.double().abs()
    accumulate = a.shape[1] * 2.0**-24
    eps = 0.0 if not c.dtype.is_floating_point else torch.finfo(c.dtype).eps
    bound = magnitude * (accumulate + 2 * operand_eps) + expected.abs() * eps
    assert ((c.cpu().double() - expected).abs() <= bound).all(), (
        (c.cpu().double() - expected).abs() / bound.clamp_min(1e-30)
    ).max()


SHAPES = [(64, 64, 64), (100, 90, 200), (128, 64, 32)]


@ALL
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "dtype,out", [(torch.float16, torch.float32), (torch.float16, torch.float16), (torch.bfloat16, torch.bfloat16)]
)
def test_matmul_of_16_bit_floats(softgpu, dtype, out, shape):
    torch.manual_seed(4)
    m, n, k = shape
    a, b = _operands(dtype, m, n, k)
    _check(_run(softgpu, a, b, out, tl.float32), a, b)


@ALL
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matmul_of_float32_as_tf32(softgpu, shape):
    torch.manual_seed(5)
    m, n, k = shape
    a, b = _operands(torch.float32, m, n, k)
    _check(_run(softgpu, a, b, torch.float32, tl.float32), a, b, operand_eps=2.0**-10)


@ALL
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matmul_of_int8_is_exact(softgpu, shape):
    torch.manual_seed(6)
    m, n, k = shape
    a, b = _operands(torch.int8, m, n, k)
    c = _run(softgpu, a, b, torch.int32, tl.int32)
    assert torch.equal(c.cpu().long(), (a.double() @ b.double()).long())


@ALL
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matmul_of_e5m2(softgpu, shape):
    _check_fp8(softgpu, torch.float8_e5m2, shape)


@pytest.mark.softgpu(capability=[90, 100])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matmul_of_e4m3(softgpu, shape):
    _check_fp8(softgpu, torch.float8_e4m3fn, shape)


def _check_fp8(softgpu, dtype, shape):
    torch.manual_seed(7)
    m, n, k = shape
    a, b = _operands(dtype, m, n, k)
    c = _run(softgpu, a, b, torch.float32, tl.float32)
    if not softgpu.software:  # Hopper accumulates fp8 products in fewer bits
        torch.testing.assert_close(c.double(), a.double().to(c.device) @ b.double().to(c.device), rtol=1e-2, atol=0.3)
        return
    _check(c, a, b)


@pytest.mark.softgpu(capability=[80, 90])
def test_matmul_of_float64(softgpu):
    torch.manual_seed(8)
    a, b = _operands(torch.float64, 64, 64, 96)
    c = _run(softgpu, a, b, torch.float64, tl.float64, block=(32, 32, 32))
    torch.testing.assert_close(c.cpu(), a @ b, rtol=1e-13, atol=1e-12)


@ALL
@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("warps", [4, 8])
def test_matmul_at_every_pipeline_depth(softgpu, stages, warps):
    torch.manual_seed(9)
    a, b = _operands(torch.bfloat16, 128, 128, 256)
    _check(
        _run(softgpu, a, b, torch.float32, tl.float32, block=(128, 64, 32), num_stages=stages, num_warps=warps), a, b
    )


@ALL
@pytest.mark.parametrize("transposed", ["a", "b", "both"])
def test_matmul_of_transposed_operands(softgpu, transposed):
    torch.manual_seed(10)
    a, b = _operands(torch.float16, 64, 96, 128)
    if transposed in ("a", "both"):
        a = a.t().contiguous().t()
    if transposed in ("b", "both"):
        b = b.t().contiguous().t()
    _check(_run(softgpu, a, b, torch.float32, tl.float32, block=(64, 32, 64)), a, b)
