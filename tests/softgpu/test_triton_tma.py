"""Tensor descriptors (TMA), warp specialisation and clusters, as Triton emits them for sm_90 and sm_100."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tests.softgpu import kernels

pytestmark = pytest.mark.compiles

NEW = pytest.mark.softgpu(capability=[90, 100])


def _descriptor(x: torch.Tensor, *block: int) -> TensorDescriptor:
    return TensorDescriptor(x, list(x.shape), list(x.stride()), list(block))


@NEW
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8], ids=str)
@pytest.mark.parametrize("shape", [(64, 64), (100, 48), (33, 80)], ids=str)
def test_loads_and_stores_clip_at_the_edges(softgpu, shape, dtype):
    torch.manual_seed(13)
    x = (torch.randn(shape, device=softgpu.device) * 20).to(dtype)
    out = torch.zeros_like(x)
    grid = (triton.cdiv(shape[0], 32), triton.cdiv(shape[1], 32))
    kernels.copy_by_descriptor[grid](_descriptor(x, 32, 32), _descriptor(out, 32, 32), BM=32, BN=32)
    assert torch.equal(out, x * 2)


@NEW
def test_descriptors_made_in_the_kernel(softgpu):
    torch.manual_seed(14)
    x = torch.randn(64, 96, device=softgpu.device)
    out = torch.zeros(96, 64, device=softgpu.device)
    triton.set_allocator(lambda size, align, stream: torch.empty(size + align, dtype=torch.int8, device=softgpu.device))
    kernels.transpose_by_device_descriptor[(2, 3)](x, out, 64, 96, B=32)
    assert torch.equal(out, x.t())


def _check_matmul(softgpu, warps: int, stages: int, specialize: bool) -> None:
    torch.manual_seed(15)
    a, b = (
        torch.randn(128, 192, device=softgpu.device).bfloat16(),
        torch.randn(192, 128, device=softgpu.device).bfloat16(),
    )
    c = torch.zeros(128, 128, device=softgpu.device)
    operands = _descriptor(a, 128, 64), _descriptor(b, 64, 64), _descriptor(c, 128, 64)
    kernels.matmul_by_descriptor[(1, 2)](
        *operands, 192, BM=128, BN=64, BK=64, SPECIALIZE=specialize, num_stages=stages, num_warps=warps
    )
    torch.testing.assert_close(c.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-4)


@NEW
@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("warps", [4, 8])
def test_matmul_through_descriptors(softgpu, warps, stages):
    _check_matmul(softgpu, warps, stages, specialize=False)


@pytest.mark.softgpu(capability=100)
@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("warps", [4, 8])
def test_matmul_with_specialised_warps(softgpu, warps, stages):
    _check_matmul(softgpu, warps, stages, specialize=True)


@pytest.mark.softgpu(capability=90)
@pytest.mark.parametrize("stages", [2, 3])
def test_matmul_with_specialised_warps_on_hopper(softgpu, stages):
    _check_matmul(softgpu, 8, stages, specialize=True)  # Triton 3.7 cannot do it with 4 warps


@pytest.mark.softgpu(capability=90)
def test_matmul_in_clusters_of_two(softgpu):
    torch.manual_seed(16)
    a, b = torch.randn(128, 128, device=softgpu.device).half(), torch.randn(128, 128, device=softgpu.device).half()
    c = torch.zeros(128, 128, device=softgpu.device)
    strides = (128, 1) * 3
    kernels.matmul[(1, 1)](a, b, c, 128, 128, 128, *strides, BM=128, BN=128, BK=64, ACC=tl.float32, num_ctas=2)
    torch.testing.assert_close(c.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-4)
