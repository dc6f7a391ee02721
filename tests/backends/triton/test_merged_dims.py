"""Reshapes that merge a tile's dimension with others, of sizes that are padded, and tiles that end early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

pytestmark = pytest.mark.gpu


def contracted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), a.size(2)], dtype=a.dtype, device=a.device)
    for t in hl.tile(a.size(0), block_size=16):
        out[t, :] = torch.einsum("mnk,n->mk", a[t, :, :], b[:])
    return out


def linear(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), a.size(1), w.size(0)], dtype=a.dtype, device=a.device)
    for t in hl.tile(a.size(0), block_size=16):
        out[t, :, :] = F.linear(a[t, :, :], w[:, :])
    return out


def pooled(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([2, *x.shape], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0), block_size=8):
        rows = x[t, :][:, None, :]
        out[0, t, :] = F.max_pool1d(rows, 3, 1, 1)[:, 0, :]
        out[1, t, :] = F.avg_pool1d(rows, 3, 1, 1)[:, 0, :]
    return out


def regrouped(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), 3], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0), block_size=16):
        out[t, :] = (x[t, :].reshape(-1) * 2).reshape([t, 3, 2]).sum(2)
    return out


CASES: dict[str, tuple[Callable[..., Any], list[list[int]], Callable[..., Any]]] = {
    "einsum": (contracted, [[20, 5, 7], [5]], lambda a, b: torch.einsum("mnk,n->mk", a, b)),
    "linear of sizes below those of a product": (linear, [[20, 8, 8], [12, 8]], F.linear),
    "linear of three columns": (linear, [[32, 3, 3], [3, 3]], F.linear),
    "pooling": (pooled, [[9, 20]], lambda x: torch.stack([f(x, 3, 1, 1) for f in (F.max_pool1d, F.avg_pool1d)])),
    "there and back": (regrouped, [[20, 6]], lambda x: (x * 2).reshape(-1, 3, 2).sum(2)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_tiles_dimension_merges_with_padded_ones(name: str, seed: int) -> None:
    function, shapes, reference = CASES[name]
    args = tuple(torch.randn(shape) for shape in shapes)
    run_everywhere(
        function, args, reference, configs=[{}], capabilities=[90], error_scale=10, uses_dot=True, dot_precision="ieee"
    )


@pytest.mark.parametrize("columns", [6, 8])
@pytest.mark.parametrize("rows", [20, 32])
def test_reductions_of_a_merged_dimension_take_the_rows_that_there_are(rows: int, columns: int, seed: int) -> None:
    @helion.kernel
    def kernel(x):
        out = torch.empty([4, x.size(0)], dtype=x.dtype, device=x.device)
        for t in hl.tile(x.size(0), block_size=16):
            flat = torch.flatten(x[t, :] - 9)
            out[0, t] = flat.sum()
            out[1, t] = flat.amax()
            out[2, t] = flat.mean()
            out[3, t] = (torch.cumsum(flat, 0) / flat.numel()).amin()
        return out

    def reference(x):
        results = []
        for part in x.split(16):
            flat = part.flatten() - 9
            values = flat.sum(), flat.amax(), flat.mean(), (flat.cumsum(0) / flat.numel()).amin()
            results.append(torch.stack(values)[:, None].expand(-1, len(part)))
        return torch.cat(results, 1)

    run_everywhere(kernel, (torch.randn(rows, columns),), reference, configs=[{}], capabilities=[90], error_scale=50)


@pytest.mark.parametrize("columns", [6, 8])
def test_rows_past_a_tiles_end_are_no_places_of_a_merged_index(columns: int, seed: int) -> None:
    """Their indices read as 0: each partial tile wrote to the first element."""

    @helion.kernel
    def kernel(at, x):
        out = torch.zeros([at.numel()], dtype=x.dtype, device=x.device)
        for t in hl.tile(at.size(0), block_size=16):
            places = torch.flatten(at[t, :])
            hl.store(out, [places], torch.flatten(x[t, :]) + 1)
        return out

    at = torch.randperm(20 * columns).reshape(20, columns)

    def reference(at, x):
        return torch.zeros([at.numel()], dtype=x.dtype).index_put((at.flatten(),), x.flatten() + 1)

    run_everywhere(kernel, (at, torch.randn(20, columns)), reference, configs=[{}], capabilities=[90])


def after_others(x: torch.Tensor, y: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, ...]:
    sums = torch.zeros([2, 6], dtype=x.dtype, device=x.device)
    most = torch.full([1], -1000.0, dtype=x.dtype, device=x.device)
    placed = torch.zeros([at.numel()], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(1), block_size=16):
        value = x[:, t, :] - 50
        hl.atomic_add(sums, [slice(None), slice(None)], value.reshape([2, -1, 6]).sum(1))
        hl.atomic_max(most, [0], torch.flatten(value).amax())
        hl.store(placed, [torch.flatten(at[:, t])], torch.flatten(y[:, t]) + 1)
    return sums, most, placed


def test_partial_tiles_that_are_not_the_first_of_a_merge(seed: int) -> None:
    """They were refused."""

    def plain(x: torch.Tensor, y: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, ...]:
        value = x - 50
        placed = torch.zeros([at.numel()], dtype=x.dtype).index_put((at.flatten(),), y.flatten() + 1)
        return value.reshape(2, -1, 6).sum(1), value.amax().reshape(1), placed

    x, y, at = torch.randn(4, 21, 6), torch.randn(4, 21), torch.randperm(84).reshape(4, 21)
    args = (x.double(), y.double(), at)
    run_everywhere(
        after_others, (x, y, at), plain, configs=[{}], capabilities=[90], error_scale=400, reference_args=args
    )


def of_two_tiles(x: torch.Tensor) -> torch.Tensor:
    sums = torch.zeros([6], dtype=x.dtype, device=x.device)
    for t0, t1 in hl.tile([x.size(0), x.size(1)]):
        hl.atomic_add(sums, [slice(None)], (x[t0, t1, :] - 50).reshape([-1, 6]).sum(0))
    return sums


def of_two_tiles_the_other_way(x: torch.Tensor) -> torch.Tensor:
    sums = torch.zeros([6], dtype=x.dtype, device=x.device)
    for t0, t1 in hl.tile([x.size(0), x.size(1)]):
        hl.atomic_add(sums, [slice(None)], (x[t0, t1, :] - 50).permute(2, 1, 0).reshape([6, -1]).sum(1))
    return sums


@pytest.mark.parametrize("fn", [of_two_tiles, of_two_tiles_the_other_way])
def test_a_merge_of_two_partial_tiles(fn: Callable[..., torch.Tensor], seed: int) -> None:
    def plain(x: torch.Tensor) -> torch.Tensor:
        return (x - 50).sum((0, 1))

    configs = [{"block_sizes": [4, 8]}, {"block_sizes": [16, 1]}]
    run_everywhere(fn, (torch.randn(7, 21, 6),), plain, configs=configs, capabilities=[90], error_scale=400)


def test_a_dimension_that_is_part_of_a_partial_tiles_is_refused() -> None:
    @helion.kernel
    def halves(x):
        out = torch.zeros([16], dtype=x.dtype, device=x.device)
        for t in hl.tile(x.size(0), block_size=16):
            hl.atomic_add(out, [0], (x[t] + 1).reshape([t.block_size // 2, 2]).sum(0).sum())
        return out

    with pytest.raises(exc.BackendUnsupported, match="a reduction over a reshaped dimension of tile 't'"):
        halves.bind((torch.zeros(20),)).to_triton_code({})
    halves.bind((torch.zeros(16),)).to_triton_code({})  # the advice


def split_of_a_product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty([2, 4, y.size(1)], dtype=torch.int32, device=x.device)
    for t in hl.tile(y.size(1)):
        out[:, :, t] = hl.dot(x[:, :], y[:, t]).unflatten(0, [2, 4])
    return out


def test_rows_of_a_product_that_is_padded_are_split() -> None:
    """A product of 8 rows has 16 of them on Triton, and as many were looked for in the result."""
    x = torch.randint(-10, 10, (8, 9), dtype=torch.int8)
    y = torch.randint(-10, 10, (9, 20), dtype=torch.int8)

    def plain(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y).to(torch.int32).reshape(2, 4, -1)

    run_everywhere(
        split_of_a_product, (x, y), plain, configs=[{"block_sizes": [16]}], reference_args=(x.int(), y.int())
    )


@pytest.mark.parametrize(
    ("before", "sizes", "mixed"),
    [
        ((4, 16, 8), (2, 32, 8), True),
        ((4, 16, 8), (512,), False),
        ((4, 16, 8), (4, 16, 2, 4), False),
        ((4, 2, 1), (8, 1), True),
        ((4, 2, 2), (16,), True),
        ((1, 16, 1), (16, 1), False),
    ],
)
def test_reductions_of_mixed_dimensions_choose_a_layout(
    before: tuple[int, ...], sizes: tuple[int, ...], mixed: bool
) -> None:
    """Triton 3.6 reduced them wrong on a GPU; where a warp has more lanes than there are elements, all of them too."""

    def function(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), *sizes[1:]], dtype=x.dtype, device=x.device)
        for t in hl.grid(x.size(0)):
            out[t, ...] = x[t, :, :, :].reshape(sizes).sum(0)
        return out

    kernel = helion.kernel(function, config=helion.Config())
    assert ("hlt_reducible" in kernel.bind((torch.randn(3, *before),)).to_triton_code()) == mixed
