"""Triton kernels with tensor descriptors (TMA on sm_90 and sm_100), warp specialisation, and attention, whose second
product
takes its left operand from registers (sm_90) or tensor memory (sm_100).

Tolerances: relative to the largest value; bf16 and fp16 results and probabilities are rounded to 2^-8 and 2^-11.
"""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

pytestmark = pytest.mark.compiles

TMA = pytest.mark.softgpu(capability=[90, 100])


@triton.jit
def matmul(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPECIALISE: tl.constexpr):
    a_map = tl.make_tensor_descriptor(a, [M, K], [K, 1], [BM, BK])
    b_map = tl.make_tensor_descriptor(b, [N, K], [K, 1], [BN, BK])
    c_map = tl.make_tensor_descriptor(c, [M, N], [N, 1], [BM, BN])
    i, j = tl.program_id(0) * BM, tl.program_id(1) * BN
    acc = tl.zeros((BM, BN), tl.float32)
    for k in tl.range(0, K, BK, warp_specialize=SPECIALISE):
        acc = tl.dot(a_map.load([i, k]), b_map.load([j, k]).T, acc)
    c_map.store([i, j], acc.to(c_map.dtype))


@triton.jit
def attention(q, k, v, out, N, scale, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    rows, d = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, D)
    x = tl.load(q + rows[:, None] * D + d[None, :])
    top, total, acc = tl.full((BM,), -1e30, tl.float32), tl.zeros((BM,), tl.float32), tl.zeros((BM, D), tl.float32)
    for n in range(0, N, BN):
        at = (n + tl.arange(0, BN))[:, None] * D + d[None, :]
        s = tl.dot(x, tl.load(k + at).T) * scale * 1.4426950408889634
        new = tl.maximum(top, tl.max(s, 1))
        p, shrink = tl.exp2(s - new[:, None]), tl.exp2(top - new)
        total = total * shrink + tl.sum(p, 1)
        acc = tl.dot(p.to(x.dtype), tl.load(v + at), acc * shrink[:, None])
        top = new
    tl.store(out + rows[:, None] * D + d[None, :], (acc / total[:, None]).to(x.dtype))


@triton.jit
def gather_rows(x, index, out, R, C, column, B: tl.constexpr):
    rows = tl.load(index + tl.arange(0, 32))
    y = tl.make_tensor_descriptor(x, [R, C], [C, 1], [1, B]).gather(rows, column)
    tl.store(out + tl.arange(0, 32)[:, None] * B + tl.arange(0, B)[None, :], y)


@triton.jit
def add_block(x, out, R, C, row, column, B: tl.constexpr):
    y = tl.load(x + tl.arange(0, B)[:, None] * B + tl.arange(0, B)[None, :])
    tl.make_tensor_descriptor(out, [R, C], [C, 1], [B, B]).atomic_add([row, column], y)


@pytest.fixture(autouse=True)
def _descriptor_memory(softgpu):
    """Descriptors made by a kernel live in memory that the launcher asks this allocator for."""
    from triton.runtime._allocation import NullAllocator

    triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8, device=softgpu.device))
    yield
    triton.set_allocator(NullAllocator())


def _close(result: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    error = (result.double() - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, error


@TMA
@pytest.mark.parametrize("specialise", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float32], ids=str)
def test_matmul_through_descriptors_with_ragged_edges(softgpu, dtype, specialise):
    torch.manual_seed(11)
    m, n, k = 250, 192, 240
    a, b = ((torch.randn(size, k, device=softgpu.device) / 2).to(dtype) for size in (m, n))
    c = torch.zeros(m, n, dtype=torch.bfloat16, device=softgpu.device)
    matmul[(2, 3)](a, b, c, m, n, k, BM=128, BN=64, BK=64, SPECIALISE=specialise, num_warps=4, num_stages=3)
    _close(c, a.double() @ b.double().T, 2.0**-8)


@TMA
@pytest.mark.parametrize("block,warps", [(64, 4), (128, 4), (128, 8)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_attention(softgpu, dtype, block, warps):
    torch.manual_seed(12)
    q, k, v = (torch.randn(128, 64, device=softgpu.device).to(dtype) for _ in range(3))
    out = torch.zeros_like(q)
    attention[(128 // block,)](q, k, v, out, 128, 0.125, D=64, BM=block, BN=64, num_warps=warps)
    expected = torch.softmax(q.double() @ k.double().T * 0.125, -1) @ v.double()
    _close(out, expected, 2 * torch.finfo(dtype).eps)


@pytest.mark.softgpu(capability=100)
def test_gather_of_rows_through_a_descriptor(softgpu):
    torch.manual_seed(13)
    x, out = torch.randn(64, 128, device=softgpu.device), torch.zeros(32, 32, device=softgpu.device)
    index = torch.randperm(64, device=softgpu.device)[:32].int()
    gather_rows[(1,)](x, index, out, 64, 128, 16, B=32)
    assert torch.equal(out, x[index.long(), 16:48])


def _check_atomic_add(softgpu, row: int, column: int) -> None:
    torch.manual_seed(14)
    x, out = torch.randn(32, 32, device=softgpu.device), torch.randn(64, 64, device=softgpu.device)
    padded = torch.zeros(128, 128, device=softgpu.device)
    padded[32 + row : 64 + row, 32 + column : 64 + column] = x
    expected = out + padded[32:96, 32:96]
    add_block[(1,)](x, out, 64, 64, row, column, B=32)
    assert torch.equal(out, expected)


@TMA
@pytest.mark.parametrize("row,column", [(5, 16), (40, 48)])
def test_atomic_add_through_a_descriptor_leaves_out_what_is_outside(softgpu, row, column):
    _check_atomic_add(softgpu, row, column)


@pytest.mark.softgpu(capability=[90, 100], software_only=True)
def test_stores_through_a_descriptor_do_not_begin_in_front_of_the_tensor(softgpu):
    """An H100 and an H200 stop with an illegal instruction; the manual says that what is outside is left out."""
    with pytest.raises(RuntimeError, match="begins in front of the tensor"):
        _check_atomic_add(softgpu, -8, 0)


@pytest.mark.softgpu(capability=[90, 100], software_only=True)
def test_boxes_begin_at_multiples_of_16_bytes(softgpu):
    with pytest.raises(RuntimeError, match="no multiple of 16 bytes"):
        _check_atomic_add(softgpu, 0, 5)
