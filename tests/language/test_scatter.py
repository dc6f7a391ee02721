"""Writing to computed places of device values: scatter, index_put and their kin, in every way to run a kernel.

Rows are a tile's, and its last one is partial: what the padding holds must not reach a place.
"""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

pytestmark = pytest.mark.slow

ROWS, PLACES, SOURCES = 10, 5, 7
CONFIG = helion.Config(block_sizes=[4])


def values(*shape: int) -> torch.Tensor:
    return torch.randint(-8, 9, shape).float() / 4


@helion.kernel(config=CONFIG)
def scatter_rows(x: torch.Tensor, index: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = torch.scatter(x[tile, :], 1, index[tile, :], src[tile, :])
    return out


def test_scatter_takes_the_last_of_several_writes_to_a_place(seed):
    args = values(ROWS, PLACES), torch.randint(0, PLACES, (ROWS, SOURCES)), values(ROWS, SOURCES)
    assert (args[1].sort(dim=1).values.diff(dim=1) == 0).any()  # several writes to a place

    def last(x, index, src):
        out = x.clone()
        for i in range(SOURCES):
            out.scatter_(1, index[:, i : i + 1], src[:, i : i + 1])
        return out

    run_everywhere(scatter_rows, args, last, error_scale=0, reference_args=args)


@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("include_self", [True, False])
def test_scatter_reduce(reduce, include_self, seed):
    @helion.kernel(config=CONFIG)
    def kernel(x: torch.Tensor, index: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            row, at, new = x[tile, :], index[tile, :], src[tile, :]
            out[tile, :] = torch.scatter_reduce(row, 1, at, new, reduce, include_self=include_self)
        return out

    def expected(x, index, src):
        return torch.scatter_reduce(x, 1, index, src, reduce, include_self=include_self)

    args = values(ROWS, PLACES), torch.randint(0, PLACES - 1, (ROWS, SOURCES)), values(ROWS, SOURCES)
    wide = (args[0].double(), args[1], args[2].double())
    run_everywhere(kernel, args, expected, reference_args=wide, error_scale=8, capabilities=[90])


@helion.kernel(config=CONFIG)
def scatter_nan(x: torch.Tensor, index: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = torch.scatter_reduce(x[tile, :], 1, index[tile, :], src[tile, :], "amax")
    return out


def test_nan_and_infinity_stay_where_they_are_written(seed):
    x, index, src = values(ROWS, PLACES), torch.randint(0, PLACES, (ROWS, SOURCES)), values(ROWS, SOURCES)
    src[::3, 2], src[1::3, 4], src[2::3, 0] = float("nan"), float("inf"), -float("inf")

    def expected(x, index, src):
        return torch.scatter_reduce(x, 1, index, src, "amax")

    args = (x, index, src)
    run_everywhere(scatter_nan, args, expected, reference_args=args, error_scale=0, capabilities=[90])


@helion.kernel(config=CONFIG)
def add_columns(x: torch.Tensor, index: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = torch.index_add(x[tile, :], 1, index[:], src[tile, :], alpha=2)
    return out


def test_index_add_counts_each_place_as_often_as_it_is_named(seed):
    args = values(ROWS, PLACES), torch.tensor([3, 0, 3, 3, 1, 0, 2]), values(ROWS, SOURCES)
    wide = (args[0].double(), args[1], args[2].double())
    run_everywhere(add_columns, args, lambda x, i, s: torch.index_add(x, 1, i, s, alpha=2), reference_args=wide)


@helion.kernel(config=CONFIG)
def put_pairs(x: torch.Tensor, i: torch.Tensor, j: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(2)):
        out[:, :, tile] = torch.index_put(x[:, :, tile], (i[:], j[:]), src[:, tile], accumulate=True)
    return out


def test_index_put_of_two_dimensions_takes_negative_places(seed):
    i, j = torch.tensor([0, -1, 2, 0]), torch.tensor([3, -4, 1, 3])
    args = values(3, 4, ROWS), i, j, values(4, ROWS)

    def expected(x, i, j, src):
        return torch.index_put(x, (i, j), src, accumulate=True)

    wide = (args[0].double(), i, j, args[3].double())
    run_everywhere(put_pairs, args, expected, reference_args=wide)


def test_a_tile_s_dimension_is_refused():
    @helion.kernel(config=CONFIG)
    def kernel(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            row = x[tile]
            out[tile] = torch.scatter_add(row, 0, index[tile], row)
        return out

    with pytest.raises(exc.TorchOpTracingError, match="dimension 0 has no constant size"):
        kernel(torch.ones(8), torch.arange(8))


def test_more_comparisons_than_a_value_holds_are_refused_with_what_to_write_instead(seed):
    @helion.kernel(config=helion.Config())
    def in_registers(out: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        for _ in hl.grid(1):
            out[:] = torch.scatter_add(out[:], 0, index[:], values[:])
        return out

    @helion.kernel(config=helion.Config(block_sizes=[256]))
    def in_memory(out: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        for tile in hl.tile(values.size(0)):
            hl.atomic_add(out, [index[tile]], values[tile])
        return out

    out, index, src = torch.zeros(2000), torch.randint(0, 2000, (2000,)), values(2000)
    with pytest.raises(exc.TorchOpTracingError) as error:
        in_registers(out.clone(), index, src)
    assert "hl.atomic_add(out, [index], values)" in str(error.value)
    expected = out.clone().scatter_add_(0, index, src)
    torch.testing.assert_close(in_memory(out.clone(), index, src), expected)


@helion.kernel(config=CONFIG)
def histograms(x: torch.Tensor, bins: hl.constexpr) -> torch.Tensor:
    out = torch.empty([x.size(0), bins], dtype=torch.float32, device=x.device)
    for tile in hl.tile(x.size(0)):
        bucket = torch.bucketize(x[tile, :], torch.arange(1, bins, dtype=torch.float32))
        zero = torch.zeros([tile, bins])
        out[tile, :] = torch.scatter_add(zero, 1, bucket, torch.ones_like(x[tile, :]))
    return out


def test_histogram_of_each_row(seed):
    x = torch.rand(ROWS, 9) * 6

    def expected(x, bins):
        return torch.stack([torch.histc(row, bins, 0, bins) for row in x])

    run_everywhere(histograms, (x, 6), expected)
