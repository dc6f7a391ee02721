"""Kernels that other kernels call in their host code, before their loops and after them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests import softgpu


@helion.kernel(config=helion.Config(block_sizes=[16]))
def scaled(x: torch.Tensor, s: float) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] * s
    return out


@helion.kernel(config=helion.Config(block_sizes=[16]), static_shapes=False)
def repeated(x: torch.Tensor, times: int, s: float) -> torch.Tensor:
    out = torch.empty([x.size(0) * times], device=x.device) if s > 0 else torch.empty([1], device=x.device)
    n = x.size(0)
    for t in hl.tile(out.size(0)):
        out[t] = hl.load(x, [t.index % n])
    return out


@helion.kernel(static_shapes=False)
def sums_of_blocks(x: torch.Tensor) -> torch.Tensor:
    block = hl.register_block_size(x.size(0))
    out = torch.empty([helion.cdiv(x.size(0), block)], device=x.device)
    for t in hl.tile(x.size(0), block_size=block):
        out[t.id] = x[t].sum()
    return out


def scaled_in_helper(x: torch.Tensor, s: float) -> torch.Tensor:
    return scaled(x, s)


def before(x: torch.Tensor, s: float) -> torch.Tensor:
    y = scaled(x, s=s)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = y[t] + 1
    return out


def in_helper(x: torch.Tensor, s: float) -> torch.Tensor:
    y = scaled_in_helper(x * 2, s / 2)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = y[t] + 1
    return out


def after(x: torch.Tensor, s: float) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + 1 / s
    return scaled(out, s)


def of_other_length(x: torch.Tensor, times: int, s: float) -> torch.Tensor:
    y = repeated(x, times, s)
    out = torch.empty_like(y)
    for t in hl.tile(y.size(0)):
        out[t] = y[t] + 1
    return out


def of_config(x: torch.Tensor) -> torch.Tensor:
    y = sums_of_blocks(x)
    out = torch.empty_like(y)
    for t in hl.tile(y.size(0)):
        out[t] = y[t] + 1
    return out


SOFTWARE_GPU = pytest.param("software GPU", marks=pytest.mark.compiles)


@pytest.fixture(params=["ref", "tiles", SOFTWARE_GPU])
def mode(request: pytest.FixtureRequest) -> Iterator[helion.RefMode]:
    """Where kernels run; those of this module are bound anew."""
    for inner in (scaled, repeated, sums_of_blocks):
        inner.reset()
    if request.param == "software GPU":
        softgpu.install(90, ptxas=False)
    try:
        yield helion.RefMode.EAGER if request.param == "ref" else helion.RefMode.OFF
    finally:
        if request.param == "software GPU":
            softgpu.uninstall()
            for inner in (scaled, repeated, sums_of_blocks):
                inner.reset()


@pytest.mark.parametrize("static_shapes", [True, False])
@pytest.mark.parametrize("function", [before, in_helper, after])
def test_a_kernel_is_called_in_host_code(function, static_shapes, mode):
    kernel = helion.kernel(function, config=helion.Config(block_sizes=[16]), static_shapes=static_shapes, ref_mode=mode)
    for n, s in ((20, 3.0), (33, -0.5), (33, 4.0)):
        x = torch.randn(n)
        torch.testing.assert_close(kernel(x, s), x * s + 1)


@pytest.mark.parametrize("static_shapes", [True, False])
def test_its_result_has_the_size_of_each_call(static_shapes, mode):
    kernel = helion.kernel(
        of_other_length, config=helion.Config(block_sizes=[16]), static_shapes=static_shapes, ref_mode=mode
    )
    for n, times, s in ((20, 2, 1.0), (20, 3, 1.0), (33, 3, 2.0), (33, 3, -2.0), (20, 2, 3.0)):
        x = torch.randn(n)
        torch.testing.assert_close(kernel(x, times, s), (x.repeat(times) if s > 0 else x[:1]) + 1)


def test_one_whose_sizes_are_its_configs_is_refused_when_traced():
    with pytest.raises(exc.NestedKernelCallsNotSupported, match=r"numbers of its Config.*\n(.*\n)*.*call it outside"):
        helion.kernel(of_config)(torch.randn(20))


@pytest.mark.parametrize("mode", [SOFTWARE_GPU], indirect=True)
def test_the_inner_kernel_is_launched_at_each_call_and_not_by_the_trace(mode):
    kernel, x = helion.kernel(before, config=helion.Config(block_sizes=[16])), torch.randn(20)
    start = softgpu.launches()
    kernel.bind((x, 2.0))
    assert softgpu.launches() == start
    kernel(x, 2.0)
    assert softgpu.launches() == start + 2
