"""Matrix products smaller than `tl.dot` takes: padded, or multiplied and added up."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import run_everywhere


@helion.kernel(dot_precision="ieee", config=helion.Config(block_sizes=[16]))
def rows_times(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=a.dtype, device=a.device)
    for tile in hl.tile(a.size(0)):
        out[tile, :] = a[tile, :] @ b[:, :]
    return out


@helion.kernel(dot_precision="ieee")
def small_blocks(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)], block_size=[2, 4]):
        acc = hl.full([tile_m, tile_n], 1.0)
        for tile_k in hl.tile(a.size(1), block_size=8):
            acc = torch.addmm(acc, a[tile_m, tile_k], b[tile_k, tile_n])
        out[tile_m, tile_n] = acc
    return out


@helion.kernel(dot_precision="ieee")
def batches(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), a.size(1), b.size(2)], dtype=a.dtype, device=a.device)
    for tile in hl.tile(a.size(0), block_size=2):
        for tile_k in hl.tile(a.size(2), block_size=4):
            out[tile, :, :] = out[tile, :, :] * (tile_k.id > 0) + torch.bmm(a[tile, :, tile_k], b[tile, tile_k, :])
    return out


@pytest.mark.parametrize(("m", "k", "n"), [(20, 1, 7), (20, 3, 1), (3, 20, 5)])
def test_whole_dimensions_of_a_few_elements(m, k, n, seed):
    args = (torch.randn(m, k), torch.randn(k, n))
    run_everywhere(rows_times, args, torch.matmul, error_scale=8, capabilities=[80])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_blocks_of_a_few_elements(dtype, seed):
    args = (torch.randn(5, 17).to(dtype), torch.randn(17, 9).to(dtype))
    run_everywhere(small_blocks, args, lambda a, b: a @ b + 1, error_scale=8, capabilities=[90])


def test_batches_of_small_products(seed):
    args = (torch.randn(3, 2, 6), torch.randn(3, 6, 2))
    run_everywhere(batches, args, torch.bmm, error_scale=8, capabilities=[100])
