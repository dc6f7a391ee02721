"""The warning of a kernel that is compiled again and again for another size."""

from __future__ import annotations

import warnings

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.runtime.launch.sizes import SizeCounter


def make(**settings) -> helion.Kernel:
    @helion.kernel(config=helion.Config(block_sizes=[32]), **settings)
    def copy(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile]
        return out

    return copy


def warned(kernel: helion.Kernel, count: int, device: torch.device) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for n in range(count):
            kernel.bind((torch.empty(40 + n, device=device),))
    return [str(w.message) for w in found if isinstance(w.message, exc.ManySizes)]


@pytest.mark.softgpu(capability=90)
def test_the_eighth_size_of_a_dimension_is_named_and_no_later_one(softgpu) -> None:
    kernel = make()
    assert warned(kernel, 7, softgpu.device) == []
    (message,) = warned(kernel, 12, softgpu.device)
    assert "8 sizes of dimension 0 of 'x' (40, 41, 42" in message and "static_shapes=False" in message


@pytest.mark.softgpu(capability=90)
def test_the_advice_works(softgpu) -> None:
    kernel = make(static_shapes=False)
    assert warned(kernel, 12, softgpu.device) == []
    assert sum(map(len, kernel._bound.values())) == 1


@pytest.mark.softgpu(capability=90)
def test_it_can_be_left_out(softgpu) -> None:
    assert warned(make(ignore_warnings=[exc.ManySizes]), 12, softgpu.device) == []


def test_the_same_sizes_again_and_dimensions_that_stay_do_not_count() -> None:
    counter = SizeCounter(("x", "ys"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(40):
            counter.add("k", (torch.empty(n % 7, 5), [torch.empty(3)]), ())


def test_tensors_in_lists_are_named_by_their_place() -> None:
    counter = SizeCounter(("x", "ys"))
    with pytest.warns(exc.ManySizes, match=r"dimension 1 of 'ys\[1\]'"):
        for n in range(8):
            counter.add("k", (torch.empty(5), [torch.empty(3), torch.empty(2, n)]), ())
