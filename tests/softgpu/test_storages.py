"""Every access outside a live tensor's storage is a fault, though no test names its tensors; fresh memory is poison."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import softgpu as gpu
from tests.softgpu import kernels
from tests.softgpu import storages

software = pytest.mark.softgpu(capability=90, software_only=True)


def _faults(x: torch.Tensor, y: torch.Tensor, out: torch.Tensor, n: int) -> str:
    with pytest.raises(RuntimeError, match="out_of_bounds"):
        kernels.add[(1,)](x, y, out, n, BLOCK=1024)
    fault = gpu.last_fault()
    assert fault is not None and fault.kind == "out_of_bounds" and fault.kernel == "add" and fault.line > 0
    return fault.message


# ---- bounds ---------------------------------------------------------------------------------------------------------
@pytest.mark.compiles
@software
@pytest.mark.parametrize("size", [1, 31, 1000])
def test_a_kernel_that_reads_one_element_past_a_tensor(softgpu, size):
    x, y, out = torch.randn(size), torch.randn(1024), torch.zeros(1024)
    kernels.add[(1,)](x, y, out, size, BLOCK=1024)
    assert torch.equal(out[:size], x + y[:size])
    message = _faults(x, y, out, size + 1)
    assert "reads global memory" in message
    assert f" the end of a tensor's storage of {4 * size} bytes" in message


@pytest.mark.compiles
@software
def test_a_kernel_that_stores_past_its_output(softgpu):
    x, y, out = torch.randn(1024), torch.randn(1024), torch.zeros(1000)
    beside = [torch.zeros(1000) for _ in range(8)]
    message = _faults(x, y, out, 1024)
    assert "writes global memory" in message and "after the end of a tensor's storage of 4000 bytes" in message
    assert not any(t.any() for t in beside)


@pytest.mark.compiles
@software
def test_a_storage_that_has_been_freed(softgpu):
    x, y, out = torch.randn(1024), torch.randn(1024), torch.zeros(1024)
    from tests.softgpu.ptx import PtxKernel

    text = """.visible .entry kernel(.param .u64 out) { .reg .b64 %rd<2>; .reg .b32 %r<2>;
      ld.param.u64 %rd1, [out]; mov.u32 %r1, 1; st.global.b32 [%rd1], %r1; ret; }"""
    address = torch.zeros(4096).data_ptr()  # freed at once
    with pytest.raises(gpu.DriverError, match="out_of_bounds"):
        PtxKernel(text)(1, 1, address)
    PtxKernel(text)(1, 1, out)
    assert out.view(torch.int32)[0] == 1 and x.numel() == y.numel()


@pytest.mark.compiles
@software
def test_views_reach_all_of_their_storage(softgpu):
    base = torch.randn(3000)
    x, y, out = base[100:1100], base[1100:2100], base[2000:]
    expected = x[:900] + y[:900]
    kernels.add[(1,)](x, y, out, 900, BLOCK=1024)
    assert torch.equal(out[:900], expected)
    assert "after the end of a tensor's storage of 12000 bytes" in _faults(x, y, out, 1024)


@pytest.mark.compiles
@software
def test_a_storage_that_no_python_object_holds(softgpu):
    """Autograd, containers and closures keep storages alive that nobody names."""
    kept = torch.nn.Linear(32, 32, bias=False).weight.detach().t()
    out = torch.zeros(1024)
    flat = torch.as_strided(kept, (1024,), (1,))
    kernels.add[(1,)](flat, torch.zeros(1024), out, 1024, BLOCK=1024)
    assert torch.equal(out, flat)


@pytest.mark.compiles
@software
def test_memory_of_others_is_shared_by_name(softgpu):
    x = torch.from_numpy(np.arange(1024, dtype=np.float32))
    y, out = torch.ones(1024), torch.zeros(1024)
    assert "softgpu.share" in _faults(x, y, out, 1024)
    kernels.add[(1,)](gpu.share(x), y, out, 1024, BLOCK=1024)
    assert torch.equal(out, x + 1)


# ---- poison ---------------------------------------------------------------------------------------------------------
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
INTEGERS = [torch.int64, torch.int32, torch.int16]


@pytest.mark.parametrize("make", [torch.empty, lambda n, dtype: torch.empty_strided((n,), (1,), dtype=dtype)])
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_fresh_memory_is_poison(size, dtype, make):
    fresh = make(size, dtype=dtype)
    if dtype.is_floating_point:
        assert fresh.double().isnan().all()
    else:
        assert (fresh > 0.99 * torch.iinfo(dtype).max).all()


def test_freed_memory_is_poison_again():
    for _ in range(10):
        x = torch.ones(257)
        del x
        assert torch.empty(257).isnan().all()


def test_what_is_filled_is_not_poison():
    assert not torch.zeros(100).any() and torch.full((3,), 2.5).tolist() == [2.5] * 3
    x = torch.randn(64)
    assert torch.equal(x.clone(), x) and x.new_zeros(5).sum() == 0
    grown = torch.ones(4).resize_(8)
    assert grown[:4].tolist() == [1] * 4 and grown[4:].isnan().all()


def test_storages_are_aligned_as_pytorchs_are():
    assert all(torch.empty(n).data_ptr() % 64 == 0 for n in range(1, 200, 13))
    assert torch.empty(0).data_ptr() == 0 and storages.is_installed()
