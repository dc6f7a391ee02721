"""Matrix products smaller than `tl.dot` takes: padded, or multiplied and added up; batches of one matrix, written as
matrices.
"""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import compile_for
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
    out = torch.zeros([a.size(0), a.size(1), b.size(2)], dtype=a.dtype, device=a.device)
    for tile in hl.tile(a.size(0), block_size=2):
        for tile_k in hl.tile(a.size(2), block_size=4):
            out[tile, :, :] = out[tile, :, :] + torch.bmm(a[tile, :, tile_k], b[tile, tile_k, :])
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


@pytest.mark.compiles
def test_pipelined_batches_of_one_matrix_compile() -> None:
    @helion.kernel
    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(q)
        for batch, rows in hl.tile([q.size(0), q.size(1)]):
            largest = hl.full([batch, rows], float("-inf"))
            acc = hl.zeros([batch, rows, 64])
            for columns in hl.tile(k.size(1)):
                scores = torch.bmm(q[batch, rows, :], k[batch, columns, :].transpose(1, 2)).to(torch.float32)
                grown = torch.maximum(largest, scores.amax(dim=-1))
                weights = torch.exp2(scores - grown[:, :, None])
                acc = torch.baddbmm(
                    acc * torch.exp2(largest - grown)[:, :, None], weights.to(v.dtype), v[batch, columns, :]
                )
                largest = grown
            out[batch, rows, :] = acc
        return out

    args = tuple(torch.empty(2, 128, 64, dtype=torch.bfloat16) for _ in range(3))
    compile_for(kernel, args, {"block_sizes": [1, 64, 64], "num_warps": 8, "num_stages": 3}, capabilities=[90])


@helion.kernel
def scaled(a: torch.Tensor, a_scale: torch.Tensor, b: torch.Tensor, b_scale: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)]):
        a_part, b_part = a_scale[tile_m, :], b_scale[tile_n, :]
        out[tile_m, tile_n] = hl.dot_scaled(a[tile_m, :], a_part, "e5m2", b[:, tile_n], b_part, "e5m2")
    return out


@helion.kernel
def scaled_in_steps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)]):
        acc = hl.zeros([tile_m, tile_n])
        for tile_k in hl.tile(a.size(1)):
            acc = hl.dot_scaled(a[tile_m, tile_k], None, "e5m2", b[tile_k, tile_n], None, "e5m2", acc)
        out[tile_m, tile_n] = acc
    return out


@pytest.mark.compiles
def test_block_scaled_products_have_smallest_block_sizes_and_a_default() -> None:
    a, b = torch.randn(40, 64).to(torch.float8_e5m2), torch.randn(64, 40).to(torch.float8_e5m2)
    scale = torch.full((40, 2), 127, dtype=torch.uint8)
    for kernel, args, smallest in ((scaled, (a, scale, b, scale), [16, 16]), (scaled_in_steps, (a, b), [16, 16, 32])):
        bound = kernel.bind(args)
        assert [fragment.low for fragment in bound.config_spec.fields["block_sizes"].items] == smallest
        compile_for(bound, args, capabilities=(90,))
        assert bound.config_spec.normalize({"block_size": [8] * len(smallest)})["block_sizes"] == smallest


@helion.kernel
def scaled_rows(a: torch.Tensor, a_scale: torch.Tensor, b: torch.Tensor, b_scale: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
    for tile_n in hl.tile(b.size(1)):
        b_part = b_scale[tile_n, :]
        out[:, tile_n] = hl.dot_scaled(a[:, :], a_scale[:, :], "e5m2", b[:, tile_n], b_part, "e5m2")
    return out


@pytest.mark.compiles
def test_as_many_rows_as_groups_of_scales() -> None:
    a, b = torch.randn(8, 256).to(torch.float8_e5m2), torch.randn(256, 64).to(torch.float8_e5m2)
    scales = [torch.full((rows, 8), 127, dtype=torch.uint8) for rows in (8, 64)]
    compile_for(scaled_rows, (a, scales[0], b, scales[1]), capabilities=(90,))


@helion.kernel(dot_precision="ieee", config=helion.Config(block_sizes=[16, 16]))
def of_nibbles(packed: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    n = hl.specialize(packed.size(1))
    out = torch.empty([packed.size(0), b.size(1)], dtype=torch.float32, device=b.device)
    for tile_m, tile_n in hl.tile([packed.size(0), b.size(1)]):
        bytes_ = packed[tile_m, :]
        left = torch.stack([(bytes_ << 4) >> 4, bytes_ >> 4], dim=-1).reshape(tile_m, 2 * n).to(b.dtype)
        out[tile_m, tile_n] = hl.dot(left, b[:, tile_n])
    return out


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("n", [8, 16])
def test_products_of_two_parts_of_a_byte(n: int, dtype: torch.dtype) -> None:
    """Over 16 elements Triton took some of them twice and others not at all."""

    def plain(packed: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (torch.stack([(packed << 4) >> 4, packed >> 4], dim=-1).flatten(1).double() @ b.double()).float()

    args = (torch.randint(-128, 128, (17, n), dtype=torch.int8), torch.randint(-3, 4, (2 * n, 9)).to(dtype))
    run_everywhere(of_nibbles, args, plain, capabilities=[80, 90], reference_args=args)
