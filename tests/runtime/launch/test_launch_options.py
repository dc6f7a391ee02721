"""FastLauncher: launch attributes, scratch memory, and arguments that only Triton understands."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from helion.runtime import code_cache
from helion.runtime.launch import launcher as launcher_module
from helion.runtime.launch.launcher import FastLauncher

from .hand_written import HandWrittenHost
from .hand_written import pair

pytestmark = [pytest.mark.usefixtures("way_to_launch"), pytest.mark.compiles]


@pytest.mark.parametrize("option", ["launch_cooperative_grid", "launch_pdl"])
def test_launch_attributes_reach_every_launch(gpu, option):
    add = HandWrittenHost(options=f", {option}=True")
    x, y = pair()
    add(x, y)
    add(x, y)
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 1}
    assert [(launch.cooperative, launch.pdl) for launch in gpu.launches] == [
        (option == "launch_cooperative_grid", option == "launch_pdl")
    ] * 2


def test_cluster_size_reaches_every_launch(gpu):
    add = HandWrittenHost(options=", num_ctas=2")
    x, y = pair()
    add(x, y)
    add(x, y)
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 1}
    assert [launch.num_ctas for launch in gpu.launches] == [2, 2]


def test_host_tensor_descriptor_stays_with_triton(gpu):
    source = """
import triton
import triton.language as tl


@triton.jit
def copy_kernel(src, out, BLOCK: tl.constexpr = 128):
    tl.store(out + tl.arange(0, BLOCK), src.load([0]))
"""
    from triton.tools.tensor_descriptor import TensorDescriptor

    kernel = code_cache.load_module(source, "copy").copy_kernel
    launcher = FastLauncher("copy", device=0)
    x, y = pair()
    for _ in range(2):
        with pytest.raises(
            AttributeError, match="fill_tma_descriptor"
        ):  # the recording driver has none: Triton asked for it
            launcher(kernel, (1,), TensorDescriptor.from_tensor(x, [128]), y, num_warps=4, num_stages=1)
    assert launcher.stats.snapshot().reasons == {"argument of type TensorDescriptor": 2}


def test_scratch_memory_is_allocated_on_every_launch(gpu, monkeypatch):
    monkeypatch.setattr(launcher_module._compat_triton.CompiledKernel, "__init__", _with_scratch)
    sizes = []
    triton.set_allocator(lambda size, alignment, stream: sizes.append(size) or torch.empty(size, dtype=torch.int8))
    try:
        add = HandWrittenHost()
        x, y = pair()
        add(x, y)
        add(x, y)
    finally:
        triton.set_allocator(launcher_module._compat_triton._allocation._NULL_ALLOCATOR)
    assert add.layers() == {"default_launcher": 1, "fast_launcher": 1}
    assert sizes == [8 * 64, 8 * 64]
    assert all(launch.scratch[0] is not None for launch in gpu.launches)


_original_init = launcher_module._compat_triton.CompiledKernel.__init__


def _with_scratch(self, *args):
    _original_init(self, *args)
    self.metadata = self.metadata._replace(global_scratch_size=64)


def test_argument_that_only_triton_understands(gpu):
    add = HandWrittenHost(scalar=True)
    x, y = pair()
    for _ in range(2):
        add(x, y, tl.constexpr(3))
    assert add.layers() == {"default_launcher": 2}
    assert add.reasons() == {"argument of type constexpr": 2}
