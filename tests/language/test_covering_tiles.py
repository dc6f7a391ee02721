"""A tile whose constant block size covers its range beside all elements of the range; loops that unpack the rest;
joined halves as operands of small products; what errors say about index vectors of one tile.
"""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

SMALL = helion.Config(block_sizes=[4])


def everywhere(kernel, args, expected, config=SMALL, **options):
    kernel = helion.kernel(kernel, config=config)
    options = {"capabilities": [80], "configs": [config], "error_scale": 0, **options}
    run_everywhere(kernel, args, expected, reference_args=args, **options)


def beside_whole(x: torch.Tensor, block: hl.constexpr) -> tuple[torch.Tensor, ...]:
    added, stored, whole, summed = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x), x.new_empty(x.size(0))
    for tile in hl.tile(x.size(0)):
        for columns in hl.tile(x.size(1), block_size=block):
            both = x[tile, columns] * 2 + x[tile, :]
            added[tile, columns] = both
            summed[tile] = (both + x[tile, :]).sum(1)
            stored[tile, columns] = x[tile, :] + 1
            whole[tile, :] = x[tile, columns] + 2
    return added, stored, whole, summed


@pytest.mark.parametrize("columns, block", [(8, 16), (8, 8), (5, 8), (12, 64)])
def test_a_tile_that_covers_its_range_goes_with_all_of_it(columns, block):
    x = torch.randint(-9, 9, (7, columns)).float()
    everywhere(beside_whole, (x, block), lambda x, block: (x * 3, x + 1, x + 2, (x * 4).sum(1)))


def rows_covered(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0), block_size=16):
        out[rows, :] = x[rows, :] + x[:, :] * 2
    return out


def test_rows_that_one_tile_covers():
    everywhere(rows_covered, (torch.randint(-9, 9, (10, 6)).float(),), lambda x: x * 3, helion.Config())


def not_covered(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        for columns in hl.tile(x.size(1), block_size=4):
            out[tile, columns] = x[tile, columns] + x[tile, :]
    return out


def test_a_tile_that_covers_less_does_not():
    with pytest.raises(exc.ShapeMismatch):
        helion.kernel(not_covered, config=SMALL)(torch.randn(7, 8))


def rest(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for first, *others in hl.tile([x.size(0), x.size(1), x.size(2)]):
        for only, *none in hl.tile([1]):
            out[(first, *others)] = x[(first, *others)] + len(others) + len(none) + only.begin
    return out


def test_loops_unpack_the_rest_of_their_tiles():
    config = helion.Config(block_sizes=[2, 4, 2, 1])
    everywhere(rest, (torch.arange(60.0).reshape(3, 5, 4),), lambda x: x + 2, config)


def last(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for *others, columns in hl.grid([x.size(0), x.size(1)]):
        out[others[0], columns] = x[others[0], columns] + 1
    return out


def test_grids_unpack_the_rest_too():
    everywhere(last, (torch.randn(3, 5),), lambda x: x + 1, helion.Config())


def too_many(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for a, b, *others in hl.tile([x.size(0)]):
        out[a] = x[a]
    return out


def test_too_few_dimensions_for_the_rest():
    with pytest.raises(exc.InvalidTileRange, match="1 dimensions for 3 loop variables"):
        helion.kernel(too_many, config=SMALL)(torch.randn(7))


def joined_product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(x.size(0), w.size(1))
    half = x.size(1) // 2
    for tile in hl.tile(x.size(0)):
        acc = hl.zeros([tile, w.size(1)])
        for k in hl.tile(half):
            a = hl.join(x[tile, k], x[tile, k + half]).reshape([tile, k.block_size * 2])
            b = torch.stack([w[k, :], w[k + half, :]], dim=1).reshape([k.block_size * 2, w.size(1)])
            acc = hl.dot(a, b, acc=acc)
        out[tile, :] = acc
    return out


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("n", [4, 8])
def test_joined_halves_are_operands_of_small_products(k, n):
    x, w = torch.randint(-3, 4, (7, 8)).float(), torch.randint(-3, 4, (8, n)).float()
    everywhere(joined_product, (x, w), lambda x, w: x @ w, helion.Config(block_sizes=[4, k]))


def beside_its_tile(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(x.size(0))
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile, places[tile]]
    return out


def paired(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = x[places[tile], places[tile]] + x[:, tile]
    return out


def beside_its_tile_mended(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(x.size(0))
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile.index, places[tile]]
    return out


def test_errors_say_what_index_vectors_of_one_tile_make():
    x, places = torch.randn(8, 8), torch.randint(0, 8, (8,))
    with pytest.raises(exc.ShapeMismatch, match=r"every row with every column; `x\[tile.index, y\[tile\]\]`"):
        helion.kernel(beside_its_tile, config=SMALL)(x, places)
    with pytest.raises(exc.ShapeMismatch, match=r"pairs; `x\[i\[tile\]\[:, None\], j\[tile\]\[None, :\]\]`"):
        helion.kernel(paired, config=SMALL)(x, places)
    everywhere(beside_its_tile_mended, (x, places), lambda x, places: x[torch.arange(8), places])


def viewed_inside(x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(x.numel())
    for tile in hl.tile(x.numel()):
        out[tile] = x.view(-1)[tile]
    return out


@pytest.mark.parametrize("mode", [{}, {"ref_mode": helion.RefMode.EAGER}], ids=["tiles", "ref"])
def test_a_view_of_a_host_tensor_is_made_before_the_loops(mode):
    with pytest.raises(exc.HostTensorDirectUsage, match=r"before the loops, `v = x.view\(-1\)`"):
        helion.kernel(viewed_inside, config=SMALL, **mode)(torch.randn(3, 4))
