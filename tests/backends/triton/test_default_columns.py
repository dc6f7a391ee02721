"""Sums over the first dimension: which parts of lines a program reads, how many at a time, and that it is a sum."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.backends.triton.test_defaults import HALF
from tests.backends.triton.test_defaults import default_of
from tests.backends.triton.test_defaults import softmax_of_columns
from tests.support import run_everywhere

SECTOR = 32


def matrix(rows: int, columns: int, dtype: torch.dtype = HALF) -> torch.Tensor:
    return torch.empty(rows, columns, dtype=dtype, device="meta")


@helion.kernel
def sums_in_a_loop(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(1)], dtype=torch.float32, device=x.device)
    for columns in hl.tile(x.size(1)):
        total = hl.zeros([columns])
        for rows in hl.tile(x.size(0)):
            total = total + x[rows, columns].float().sum(0)
        out[columns] = total
    return out


@helion.kernel
def sums(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(1)], dtype=torch.float32, device=x.device)
    for columns in hl.tile(x.size(1)):
        out[columns] = x[:, columns].float().sum(0)
    return out


@helion.kernel
def weighted_rows(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=torch.float32, device=x.device)
    for rows in hl.tile(x.size(0)):
        out[rows] = torch.einsum("ij,ij->i", x[rows, :], y[rows, :])
    return out


@pytest.mark.parametrize("dtype", [torch.int8, HALF, torch.float32])
@pytest.mark.parametrize("count", [256, 1024, 16384])
def test_a_loop_over_rows_takes_many_of_few_columns(dtype: torch.dtype, count: int) -> None:
    columns, rows = default_of(sums_in_a_loop, matrix(16384, count, dtype)).block_sizes
    assert columns * dtype.itemsize >= SECTOR
    assert columns * dtype.itemsize == SECTOR or count // columns >= 132
    assert columns * rows >= 2048


@pytest.mark.parametrize("rows, count", [(16384, 1024), (65536, 8192), (65536, 256)])
def test_long_columns_are_read_in_chunks_of_sectors(rows: int, count: int) -> None:
    config = default_of(sums, matrix(rows, count))
    (chunk,) = config.reduction_loops
    assert chunk is not None and chunk < rows
    assert config.block_sizes[0] * 2 >= SECTOR // 2
    assert chunk * config.block_sizes[0] <= 16384


def test_short_columns_stay_whole() -> None:
    assert default_of(sums, matrix(1024, 16384)).reduction_loops == [None]
    assert default_of(softmax_of_columns, matrix(1024, 16384)).reduction_loops == [None]
    assert default_of(softmax_of_columns, matrix(2048, 16384)).reduction_loops != [None]


@pytest.mark.parametrize("rows, count", [(32768, 512), (8192, 4096), (2048, 16384)])
def test_chunks_of_exponentials_have_twice_as_many_elements_and_16_warps(rows: int, count: int) -> None:
    config = default_of(softmax_of_columns, matrix(rows, count))
    assert (config.block_sizes[0] * config.reduction_loops[0], config.num_warps) == (16384, 16)


def test_sums_of_products_of_rows_are_no_products_of_matrices() -> None:
    rows = torch.empty(1024, 100_001, dtype=HALF, device="meta")
    config = default_of(weighted_rows, rows, rows)
    assert "tl.dot" not in weighted_rows.bind((rows, rows)).to_triton_code(config)
    (chunk,) = config.reduction_loops
    assert chunk is not None  # of a whole row a thread had 300 bytes spilled


@pytest.mark.parametrize("chunk", [None, 16])
@pytest.mark.parametrize("kernel", [sums, weighted_rows])
def test_sums_in_chunks(kernel: helion.Kernel, chunk: int | None, seed) -> None:
    args = tuple(torch.randn(37, 21) for _ in range(2 if kernel is weighted_rows else 1))
    config = helion.Config(block_sizes=[8], reduction_loops=[chunk])
    run_everywhere(kernel.fn, args, lambda x, y=None: (x * y).sum(1) if y is not None else x.sum(0), configs=[config])
