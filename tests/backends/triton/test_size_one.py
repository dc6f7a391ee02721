"""A tile over a dimension of size 1 of one operand: it broadcasts, as in PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import compile_for
from tests.support import run_everywhere

pytestmark = pytest.mark.gpu


def biased(x: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile_m, tile_n in hl.tile(x.shape):
        out[tile_m, tile_n] = x[tile_m, tile_n] * column[tile_m, tile_n] + row[tile_m, tile_n]
    return out


def reduced_in_a_loop(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Whole sums: lanes past the end of a loop count nothing."""
    out = torch.empty([x.size(0)], device=x.device)
    for tile in hl.tile(x.size(0)):
        acc = hl.zeros([tile])
        for columns in hl.tile(x.size(1)):
            acc += (x[tile, columns] + weight[0, columns] * 0).sum(1) + weight[tile, columns].sum(1)
        out[tile] = acc
    return out


def moved(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A tile that was moved names places, of which all but one are outside."""
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] + y[tile] + 10 * y[tile - 3]
    return out


def counted(x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    for tile in hl.tile(x.size(0)):
        hl.atomic_add(total, [tile], x[tile])
    return total


CONFIGS = [{"block_sizes": [16, 32]}]


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
def test_operands_of_size_one_broadcast(static: bool, seed: int) -> None:
    args = (torch.randn(37, 45), torch.randn(1, 45), torch.randn(37, 1))
    run_everywhere(biased, args, lambda x, r, c: x * c + r, configs=CONFIGS, capabilities=(80,), static_shapes=static)


@pytest.mark.parametrize("indexing", ["pointer", "block_ptr", "tensor_descriptor"])
def test_every_indexing_broadcasts(indexing: str, seed: int) -> None:
    args = (torch.randn(32, 64), torch.randn(1, 64), torch.randn(32, 1))
    configs = [{"block_sizes": [16, 32], "indexing": indexing}]
    run_everywhere(biased, args, lambda x, r, c: x * c + r, configs=configs, capabilities=(90,))


def test_one_compiled_kernel_is_not_taken_for_the_other(seed: int) -> None:
    kernel = helion.kernel(biased, static_shapes=False)
    for rows in (37, 1, 37):
        x, r, c = torch.randn(37, 45), torch.randn(rows, 45), torch.randn(37, 1)
        assert torch.equal(kernel(x, r, c), x * c + r)


def test_sums_count_each_lane_once(seed: int) -> None:
    args = (torch.randn(37, 45), torch.randn(1, 45))
    run_everywhere(
        reduced_in_a_loop, args, lambda x, w: x.sum(1) + w.sum(), configs=CONFIGS, error_scale=50, capabilities=(90,)
    )


def test_a_moved_tile_does_not_broadcast(seed: int) -> None:
    def reference(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        result = x + y
        result[3] += 10 * y[0]
        return result

    run_everywhere(
        moved, (torch.randn(37), torch.randn(1)), reference, configs=[{"block_sizes": [16]}], capabilities=(80,)
    )


def test_an_atomic_updates_the_one_element_from_every_lane() -> None:
    args = (torch.arange(37), torch.zeros(1, dtype=torch.int64))
    run_everywhere(
        counted, args, lambda x, total: total + x.sum(), configs=[{"block_sizes": [16]}], capabilities=(100,)
    )


@pytest.mark.compiles
def test_compiles_for_every_gpu() -> None:
    args = (torch.randn(37, 45), torch.randn(1, 45), torch.randn(37, 1))
    compile_for(helion.kernel(biased), args, CONFIGS[0])


def stores_rows(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile_m, tile_n in hl.tile(x.shape):
        out[tile_m, tile_n] = x[tile_m, tile_n]


def stores_in_an_inner_loop(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile_m in hl.tile(x.size(0)):
        for tile_n in hl.tile(x.size(1)):
            out[tile_n, tile_m] = tile_n.index[:, None] + x[0, tile_m][None, :]


def stores_what_it_loads(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile_m, tile_n in hl.tile(x.shape):
        out[tile_m, tile_n] = out[tile_m, tile_n] + 1


@pytest.mark.parametrize("kernel", [stores_rows, stores_in_an_inner_loop, stores_what_it_loads])
def test_stores_of_different_values_are_refused(kernel: Any) -> None:
    with pytest.raises(exc.LoopDependencyError, match="the one element that dimension 0 of 'out' has"):
        helion.kernel(kernel).bind((torch.randn(37, 45), torch.randn(1, 45)))


def stores_the_same(x: torch.Tensor, row: torch.Tensor, out: torch.Tensor, flags: torch.Tensor) -> torch.Tensor:
    for tile_m, tile_n in hl.tile(x.shape):
        out[tile_m, tile_n] = row[tile_m, tile_n] * 2
        flags[:] = 1
    return out + flags


def test_stores_of_one_value_are_taken(seed: int) -> None:
    args = (torch.randn(37, 45), torch.randn(1, 45), torch.zeros(1, 45), torch.zeros(1))
    run_everywhere(stores_the_same, args, lambda x, r, o, f: r * 2 + 1, configs=CONFIGS, capabilities=(80,))


def test_a_scan_along_a_dimension_of_one_element_is_the_value(seed: int) -> None:
    """Triton 3.6 has no scan of a thread's elements where the layout, made for the rows beside it, gives it several."""

    def larger(value_a, place_a, value_b, place_b):
        return torch.maximum(value_a, value_b), torch.maximum(place_a, place_b)

    @helion.kernel
    def kernel(x):
        out = torch.empty([x.size(0), 2], dtype=torch.float32, device=x.device)
        for tile in hl.tile(x.size(0)):
            least = x[tile, :].amin(1, keepdim=True)
            sums = torch.cumsum(least, 1) + torch.cumprod(least.to(torch.bfloat16), 1)
            value, place = hl.associative_scan(larger, (sums, least), 1, reverse=True)
            out[tile, :] = value + hl.associative_scan(torch.add, place, 1)
        return out

    def reference(x):
        least = x.amin(1, keepdim=True)
        return (2 * least + least.float().bfloat16()).expand(-1, 2)

    x = torch.randn(20, 16)
    code = kernel.bind((x,)).to_triton_code({"block_sizes": [16]})
    assert not any(f"tl.{name}(" in code for name in ("cumsum", "cumprod", "associative_scan"))
    run_everywhere(kernel, (x,), reference, configs=[{"block_sizes": [16]}], capabilities=[90])
