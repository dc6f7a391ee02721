"""Products of matrices with one row or one column, several of them to a program and to a warp."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import run_everywhere

#: Rows, columns of the first operand, columns of the second.
SHAPES = [(16, 16, 1), (5, 8, 1), (1, 16, 1), (1, 16, 16), (32, 4, 1)]


def products(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), x.size(1), y.size(2)], dtype=torch.float64, device=x.device)
    for b in hl.tile(x.size(0)):
        out[b, :, :] = torch.bmm(x[b, :, :], y[b, :, :])
    return out


def running(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), x.size(1), y.size(2)], dtype=x.dtype, device=x.device)
    for b, m, n in hl.tile(out.shape):
        acc = hl.zeros([b, m, n], dtype=torch.float32)
        for k in hl.tile(x.size(2)):
            acc = torch.baddbmm(acc, x[b, m, k], y[b, k, n])
        out[b, m, n] = acc
    return out


def vectors(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), x.size(1)], dtype=x.dtype, device=x.device)
    for b in hl.tile(x.size(0)):
        out[b, :] = torch.einsum("bij,bj->bi", x[b, :, :], y[b, :])
    return out


def draw(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(-4, 5, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("warps", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int8])
def test_of_whole_matrices(dtype, warps):
    for m, k, n in SHAPES:
        config = helion.Config(block_sizes=[8], num_warps=warps)
        args = draw(dtype, 11, m, k), draw(dtype, 11, k, n)
        kernel = helion.kernel(products, config=config)
        run_everywhere(kernel, args, torch.bmm, configs=[config], capabilities=[90], error_scale=0)


@pytest.mark.parametrize("blocks", [[8, 16, 1, 16], [4, 1, 16, 16], [8, 1, 1, 16]], ids=str)
def test_added_up_in_a_loop(blocks):
    config = helion.Config(block_sizes=blocks, num_warps=2)
    args = draw(torch.float16, 9, 20, 40), draw(torch.float16, 9, 40, 3)
    kernel = helion.kernel(running, config=config)
    run_everywhere(kernel, args, torch.bmm, configs=[config], capabilities=[80, 90])


def test_of_matrices_and_vectors():
    config = helion.Config(block_sizes=[8], num_warps=2)
    args = draw(torch.float32, 13, 8, 8), draw(torch.float32, 13, 8)
    kernel = helion.kernel(vectors, config=config)
    reference = lambda x, y: (x @ y[:, :, None])[:, :, 0]  # noqa: E731
    run_everywhere(kernel, args, reference, configs=[config], capabilities=[80, 90, 100])


def of_one_column(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), 1], dtype=torch.float32, device=a.device)
    for tile_m in hl.tile(a.size(0)):
        acc = hl.full([tile_m, 1], 1.0)
        for tile_k in hl.tile(a.size(1)):
            acc = torch.addmm(acc, a[tile_m, tile_k], b[tile_k, :])
        out[tile_m, :] = acc
    return out


def test_products_of_one_column_in_partial_tiles(seed: int) -> None:
    """A tile with one element left is one column in ref mode: it was refused there."""
    args = (torch.randn(5, 19), torch.randn(19, 1))
    run_everywhere(of_one_column, args, lambda a, b: 1 + a @ b, configs=[{"block_sizes": [4, 8]}], capabilities=[90])


def patches(v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    n, c, y, x, p, q = v.shape
    out = torch.empty([n, y, x, w.size(0)], dtype=w.dtype, device=v.device)
    for i, j, e in hl.tile([n, y, w.size(0)], block_size=[1, 1, None]):
        rows = v[i.begin, :, j.begin, :, :, :].permute(1, 0, 2, 3).reshape(x, c * p * q)
        out[i.begin, j.begin, :, e] = hl.dot(rows, w[e, :].T) + hl.dot(w[e, :], rows.T).T
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_only_dimensions_of_the_product_are_padded_to_what_it_takes(dtype):
    def reference(v, w):
        return 2 * v.permute(0, 2, 3, 1, 4, 5).flatten(3) @ w.T

    args = draw(dtype, 3, 2, 2, 2, 2, 2), draw(dtype, 16, 8)
    kernel = helion.kernel(patches)
    assert "tl.reshape(permute, [2, 8])" in kernel.bind(args).to_triton_code(helion.Config(block_sizes=[16]))
    run_everywhere(kernel, args, reference, configs=[helion.Config(block_sizes=[16])], capabilities=[80, 90])
