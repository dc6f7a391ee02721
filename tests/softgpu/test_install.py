"""Installing the software GPU in a process that has run kernels on the CPU."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests import softgpu as gpu
from tests.softgpu import provider

pytestmark = [pytest.mark.softgpu(capability=90, software_only=True), pytest.mark.compiles]


def _kernel() -> helion.Kernel:
    @helion.kernel(config=helion.Config(block_sizes=[64]))
    def double(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * 2
        return out

    return double


def test_a_kernel_called_before_goes_to_the_gpu_after(softgpu):
    gpu.uninstall()
    kernel, x = _kernel(), torch.randn(100)
    for _ in range(3):
        assert torch.equal(kernel(x), x * 2)
    assert gpu.launches() == 0
    gpu.install(capability=90)
    for n in range(1, 4):
        assert torch.equal(kernel(x), x * 2)
        assert gpu.launches() == n


def test_a_kernel_first_called_on_the_gpu_goes_to_the_cpu_after(softgpu):
    kernel, x = _kernel(), torch.randn(100)
    kernel(x)
    gpu.uninstall()
    for _ in range(3):
        assert torch.equal(kernel(x), x * 2)
    assert gpu.launches() == 1


def test_a_kernel_of_another_capability_is_bound_anew(softgpu):
    kernel, x = _kernel(), torch.randn(100)
    for capability in gpu.CAPABILITIES:
        gpu.install(capability=capability)
        assert torch.equal(kernel(x), x * 2)
        assert gpu.launches() == 1


def test_where_a_tensor_is_placed_is_forgotten_with_it(softgpu):
    """What is known is asked of the storage of every tensor, which the output pool sees: a later test had no reuse."""
    gpu.install(capability=90, devices=2)
    before = dict(provider._placed)
    x = gpu.place(torch.ones(4), 1)
    view = x[1:]
    del x
    assert provider.SoftGpuProvider(90, 2).device_index_of(view) == 1
    del view
    assert provider._placed == before
