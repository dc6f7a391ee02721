"""Which accesses are boxes for descriptors: transposed views, tiles in front of a tensor."""

from __future__ import annotations

import torch

import helion
import helion.language as hl
from tests.support import run_everywhere


def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x @ y, stored by way of the transposed view."""
    out = torch.empty([y.size(1), x.size(0)], dtype=x.dtype, device=x.device).t()
    for rows, columns in hl.tile(out.shape):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(x.size(1)):
            acc = hl.dot(x[rows, inner], y[inner, columns], acc=acc)
        out[rows, columns] = acc
    return out


def batched(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The columns of one matrix of a batch after the other."""
    out = torch.empty([x.size(0), x.size(1), y.size(2)], dtype=x.dtype, device=x.device)
    for i in hl.grid(x.size(0)):
        for rows in hl.tile(x.size(1)):
            acc = hl.zeros([rows, y.size(2)], dtype=torch.float32)
            for inner in hl.tile(x.size(2)):
                acc = hl.dot(x[i, rows, inner], y[i, inner, :], acc=acc)
            out[i, rows, :] = acc
    return out


def tiles_of_three(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.shape):
        out[tile] = x[tile] * 2
    return out


def halves(*size: int) -> torch.Tensor:
    return torch.randn(*size).half()


def test_products_with_transposed_views(seed: int) -> None:
    args = halves(40, 48), halves(72, 48).t()  # partial tiles of every dimension
    config = {"block_sizes": [32, 64, 32], "indexing": "tensor_descriptor"}
    text = helion.kernel(product).bind(args).to_triton_code(config)
    assert "make_tensor_descriptor(y, [72, 48], [48, 1], [BLOCK_COLUMNS, BLOCK_INNER])" in text
    assert "make_tensor_descriptor(out, [72, 40], [40, 1], [BLOCK_COLUMNS, BLOCK_ROWS])" in text
    run_everywhere(product, args, torch.mm, configs=[config], capabilities=[90])


def test_one_transposed_matrix_of_a_batch(seed: int) -> None:
    args = halves(3, 40, 64), halves(3, 32, 64).transpose(1, 2)
    config = {"block_sizes": [32, 32], "indexing": "tensor_descriptor"}
    text = helion.kernel(batched).bind(args).to_triton_code(config)
    assert "make_tensor_descriptor(y, [96, 64], [64, 1], [32, BLOCK_INNER])" in text
    run_everywhere(batched, args, torch.bmm, configs=[config], capabilities=[90])


def test_the_first_of_three_dimensions_side_by_side(seed: int) -> None:
    x = torch.randn(6, 9, 20).transpose(0, 2)
    config = {"block_sizes": [8, 4, 2], "indexing": "tensor_descriptor"}
    text = helion.kernel(tiles_of_three).bind((x,)).to_triton_code(config)
    assert text.count("turned_desc") == 2 + 2  # made and used
    run_everywhere(tiles_of_three, (x,), lambda x: x * 2, configs=[config], error_scale=0, capabilities=[90])


def test_a_transposed_view_whose_rows_begin_anywhere_has_no_descriptor() -> None:
    args = halves(40, 47), halves(72, 47).t()
    config = {"block_sizes": [32, 64, 32], "indexing": "tensor_descriptor"}
    assert "make_tensor_descriptor(y" not in helion.kernel(product).bind(args).to_triton_code(config)


def test_tiles_that_begin_in_front_of_the_tensor_are_stored_by_pointers() -> None:
    """The GPU stopped with an illegal instruction."""

    def kernel(x: torch.Tensor, begin: int) -> torch.Tensor:
        out = torch.full_like(x, 7.0)
        for rows in hl.tile(begin - 7, x.size(0)):
            out[rows, :] = x[rows, :]
        return out

    config = {"block_sizes": [8], "indexing": "tensor_descriptor"}
    x = torch.randn(24, 16)
    run_everywhere(kernel, (x, 2), lambda x, begin: x, configs=[config], capabilities=[90, 100])
