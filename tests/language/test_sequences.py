"""Windows, slopes, and counting down: what moves elements along a dimension of constant size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

X = torch.randn(9, 16)


def windows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    best = torch.empty_like(x)
    parts = x.new_empty([x.size(0), 4, 5])
    for t in hl.tile(x.size(0)):
        best[t, :] = F.pad(x[t, :], (1, 1)).unfold(1, 3, 1).amax(-1)
        parts[t, :, :] = x[t, :].unfold(-1, 5, 3)
    return best, parts


def planes(x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty([x.size(0), 3, 2, 2])
    for t in hl.tile(x.size(0)):
        out[t, :, :, :] = x[t, :, :].unfold(1, 2, 2)[:, :, 0:2, :]
    return out


@pytest.mark.compiles
def test_windows_of_a_dimension() -> None:
    run_everywhere(
        windows,
        (X,),
        lambda x: (F.pad(x, (1, 1)).unfold(1, 3, 1).amax(-1), x.unfold(-1, 5, 3)),
        configs=[{"block_sizes": [4]}],
        capabilities=[90],
    )
    run_everywhere(planes, (torch.randn(5, 6, 2),), lambda x: x.unfold(1, 2, 2), capabilities=[80])


def slopes(x: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, ...]:
    plain, apart, exact, uneven = (torch.empty_like(x) for _ in range(4))
    for t in hl.tile(x.size(0)):
        plain[t, :] = torch.gradient(x[t, :], dim=1)[0]
        apart[t, :] = torch.gradient(x[t, :], spacing=2.0, dim=1)[0]
        exact[t, :] = torch.gradient(x[t, :], spacing=0.5, dim=1, edge_order=2)[0]
        uneven[t, :] = torch.gradient(x[t, :], spacing=(places[:],), dim=1)[0]
    return plain, apart, exact, uneven


@pytest.mark.compiles
def test_slopes() -> None:
    run_everywhere(
        slopes,
        (X, torch.rand(16).cumsum(0) + torch.arange(16)),
        lambda x, places: (
            torch.gradient(x, dim=1)[0],
            torch.gradient(x, spacing=2.0, dim=1)[0],
            torch.gradient(x, spacing=0.5, dim=1, edge_order=2)[0],
            torch.gradient(x, spacing=(places,), dim=1)[0],
        ),
        error_scale=50,
        capabilities=[90],
    )


def counted_down(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    turned, sums, bytes_, floats = torch.empty_like(x), torch.empty_like(x), *(x.new_empty([6]) for _ in range(2))
    for t in hl.tile(x.size(0)):
        turned[t, :] = x[t, :].index_select(1, torch.arange(15, -1, -1))
        sums[t, :] = x[t, :] + torch.arange(45, -3, -3) + hl.arange(30, 0, -2)[0:15].sum()
    for _ in hl.grid(1):
        bytes_[:] = torch.arange(250, 219, -6, dtype=torch.uint8)
        floats[:] = torch.arange(6, 0, -1, dtype=torch.float32)
    return turned, sums, bytes_, floats


@pytest.mark.compiles
def test_counting_down() -> None:
    def reference(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        summed = x + torch.arange(45, -3, -3) + torch.arange(30, 0, -2).sum()
        return x.flip(1), summed, torch.arange(250, 219, -6), torch.arange(6, 0, -1)

    run_everywhere(counted_down, (X,), reference, capabilities=[90])


STEPS: dict[str, tuple[Any, ...]] = {"no step": (0, 4, 0), "the wrong way": (0, 4, -1), "backwards": (4, 0)}


@pytest.mark.parametrize("bounds", STEPS.values(), ids=STEPS)
def test_a_range_that_cannot_be_counted_is_refused(bounds: tuple[int, ...]) -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        for i in hl.grid(x.size(0)):
            x[i] = hl.arange(*bounds).sum()
        return x

    for mode in (helion.RefMode.EAGER, helion.RefMode.OFF):
        with pytest.raises(exc.InvalidAPIUsage, match="arange"):
            helion.kernel(kernel, ref_mode=mode)(torch.zeros(2))


def halves(x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty([x.size(0)])
    for t in hl.tile(x.size(0)):
        left, right = hl.split(x[t, :])
        out[t] = left * right
    return out


def halves_pasted(x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty([x.size(0)])
    hl.specialize(x.size(1))
    for t in hl.tile(x.size(0)):
        left, right = hl.split(x[t, :])
        out[t] = left * right
    return out


def test_the_line_that_makes_a_size_constant_is_named() -> None:
    x = torch.randn(10, 2)
    with pytest.raises(exc.ShapeMismatch, match=r"put `hl.specialize\(x.size\(1\)\)` before the loops"):
        helion.kernel(halves, static_shapes=False)(x)
    assert torch.equal(helion.kernel(halves_pasted, static_shapes=False)(x), x[:, 0] * x[:, 1])
    with pytest.raises(exc.ShapeMismatch, match="reshape"):
        helion.kernel(halves)(torch.randn(10, 4))


@pytest.mark.parametrize("op", [lambda v: v.unfold(1, 3, 1).sum(-1), lambda v: torch.gradient(v, dim=1)[0][:, :14]])
def test_windows_and_slopes_name_it_too(op: Any) -> None:
    def kernel(x: torch.Tensor, op: Any) -> torch.Tensor:
        out = x.new_empty([x.size(0), 14])
        for t in hl.tile(x.size(0)):
            out[t, :] = op(x[t, :])
        return out

    def pasted(x: torch.Tensor, op: Any) -> torch.Tensor:
        out = x.new_empty([x.size(0), 14])
        hl.specialize(x.size(1))
        for t in hl.tile(x.size(0)):
            out[t, :] = op(x[t, :])
        return out

    with pytest.raises(exc.TorchOpTracingError, match=r"put `hl.specialize\(x.size\(1\)\)` before the loops"):
        helion.kernel(kernel, static_shapes=False)(X, op)
    torch.testing.assert_close(helion.kernel(pasted, static_shapes=False)(X, op), op(X))
