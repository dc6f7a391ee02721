"""Operands of different rank go together by tile, and stored values too."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

BLOCKS = [{"block_sizes": [8, 8]}]


def test_an_operand_of_one_tile_goes_with_the_dimension_of_that_tile() -> None:
    def rows(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out, kept, chosen, stored = (torch.empty_like(a) for _ in range(4))
        for t0, t1 in hl.tile([a.size(0), a.size(1)]):
            out[t0, t1] = a[t0, t1] + b[t0]
            kept[t0, t1] = b[t1] * a[t0, t1]
            chosen[t0, t1] = torch.where(b[t0] > 0, a[t0, t1], torch.lerp(a[t0, t1], b[t1], 0.5))
            stored[t0, t1] = b[t0]
        return out, kept, chosen, stored

    def expected(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        column = b[:, None]
        chosen = torch.where(column > 0, a, torch.lerp(a, b.expand_as(a), 0.5))
        return a + column, b * a, chosen, column.expand_as(a)

    # Equal sizes and equal blocks: sizes alone could not tell the two dimensions apart.
    run_everywhere(rows, (torch.randn(20, 20), torch.randn(20)), expected, configs=BLOCKS, capabilities=[90])


@pytest.mark.parametrize("blocks", [[None, None], [8, 8], [None, 16]], ids=str)
@pytest.mark.parametrize("n", [8, 11])
def test_a_tile_goes_with_itself_and_not_with_a_dimension_as_long(blocks: list[int | None], n: int) -> None:
    def by_tile(a: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out, masked = torch.empty_like(a), torch.empty_like(a)
        stored, added = torch.zeros_like(a), torch.zeros_like(a)
        for t0, t1 in hl.tile([a.size(0), a.size(1)], block_size=blocks):
            value = torch.where(c[t1] > 0, a[t0, t1, :], 0.5) * c[t1] + c[t0]
            value += c[t1]
            out[t0, t1, :] = value
            masked[t0, t1, :] = hl.load(a, [t0, t1, slice(None)], extra_mask=c[t1] > 0)
            stored[t0, t1, :] = c[t1]
            hl.atomic_add(added, [t0, t1, slice(None)], c[t1])
        return out, masked, stored, added

    def expected(a: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        column = c[:, None]
        value = torch.where(column > 0, a, 0.5) * column + c[:, None, None] + column
        return value, a * (column > 0), column.expand_as(a), column.expand_as(a)

    args = (torch.randn(n, n, 8), torch.randn(n))
    sizes = [{"block_sizes": [8] * blocks.count(None)}]
    run_everywhere(by_tile, args, expected, configs=sizes, capabilities=[90], error_scale=4)


def test_other_dimensions_go_by_size() -> None:
    def middle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(a)
        for t0, t1 in hl.tile([a.size(0), a.size(1)]):
            out[t0, t1, :] = a[t0, t1, 0:6] * b[t0, 0:6]
        return out

    run_everywhere(
        middle,
        (torch.randn(9, 9, 6), torch.randn(9, 6)),
        lambda a, b: a * b[:, None, :],
        configs=[{"block_sizes": [4, 4]}],
        capabilities=[90],
    )


def test_expand_as_goes_by_tile() -> None:
    def expanded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(a)
        for t0, t1 in hl.tile([a.size(0), a.size(1)]):
            out[t0, t1] = b[t0].expand_as(a[t0, t1]) - b[t1].expand_as(a[t0, t1])
        return out

    run_everywhere(
        expanded,
        (torch.randn(12, 12), torch.randn(12)),
        lambda a, b: b[:, None] - b,
        configs=BLOCKS,
        capabilities=[90],
    )


def test_tiles_that_share_a_block_size_are_told_apart() -> None:
    def shared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        block = hl.register_block_size(32)
        out = torch.empty_like(a)
        for t0, t1 in hl.tile([a.size(0), a.size(1)], block_size=[block, block]):
            out[t0, t1] = a[t0, t1] + b[t0]
        return out

    run_everywhere(
        shared,
        (torch.randn(20, 20), torch.randn(20)),
        lambda a, b: a + b[:, None],
        configs=[{"block_sizes": [8]}],
        capabilities=[90],
    )


@pytest.mark.parametrize("interpret", [False, True])
def test_a_tile_that_could_go_in_two_places_is_refused(interpret: bool) -> None:
    mode = helion.RefMode.EAGER if interpret else helion.RefMode.OFF

    @helion.kernel(ref_mode=mode)
    def twice(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), x.size(0), 3], device=x.device)
        for t in hl.tile(x.size(0)):
            square = (x[t][:, None] * x[t][None, :])[:, :, None] * hl.full([3], 1.0)
            out[t, t.index, :] = square + x[t]
        return out

    with pytest.raises(exc.ShapeMismatch, match="fewer dimensions"):
        twice(torch.randn(20))


def test_a_constant_goes_with_the_tile_whose_block_size_it_is() -> None:
    def ramps(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        out, raw = torch.empty_like(x), torch.empty_like(x)
        sums = torch.empty([helion.cdiv(x.size(0), 8)], dtype=x.dtype, device=x.device)
        for t in hl.tile(x.size(0), block_size=8):
            ramp = hl.arange(8) * 2.0
            value = ramp + x[t]
            out[t] = value
            raw[t] = ramp
            sums[t.id] = (value + 1).sum()
        return out, raw, sums

    def expected(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ramp = (torch.arange(8, dtype=x.dtype) * 2).repeat(4)[:30]
        return x + ramp, ramp, torch.stack([part.sum() for part in (x + ramp + 1).split(8)])

    run_everywhere(ramps, (torch.randn(30),), expected, capabilities=[90], error_scale=8)


def test_a_constant_and_a_tile_of_another_block_size_are_different() -> None:
    @helion.kernel
    def wrong(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0), block_size=16):
            out[t] = x[t] + hl.arange(8)
        return out

    with pytest.raises(exc.ShapeMismatch):
        wrong.bind((torch.randn(30),))


# -- tiles of two loops that share a block size: only the loops tell their elements apart


def carried_over(x: torch.Tensor, out: torch.Tensor) -> None:
    block = hl.register_block_size(16)
    for a in hl.tile(x.size(0) // 2, block_size=block):
        acc = x[a] * 0
        for b in hl.tile(x.size(0), block_size=block):
            acc = acc + x[b]
        out[a.id] = acc.sum()


def stored_elsewhere(x: torch.Tensor, out: torch.Tensor) -> None:
    block = hl.register_block_size(16)
    for a in hl.tile(x.size(0), block_size=block):
        for b in hl.tile(a.begin, x.size(0), block_size=block):
            out[a] = x[b]


def added_elsewhere(x: torch.Tensor, out: torch.Tensor) -> None:
    block = hl.register_block_size(16)
    for a in hl.tile(x.size(0), block_size=block):
        for b in hl.tile(a.begin, x.size(0), block_size=block):
            hl.atomic_add(out, [a], x[b])


def masked_by_another(x: torch.Tensor, out: torch.Tensor) -> None:
    block = hl.register_block_size(16)
    for a, b in hl.tile([x.size(0), x.size(0)], block_size=[block, block]):
        hl.store(out, [a], x[a], extra_mask=x[b] > 0)


def not_transposed(x: torch.Tensor, out: torch.Tensor) -> None:
    block = hl.register_block_size(16)
    square, result = x.view(4, 5), out.view(4, 5)
    for a, b in hl.tile([4, 4], block_size=[block, block]):
        result[a, b] = square[a, b] + square[b, a]


def summed_over_both(x: torch.Tensor, out: torch.Tensor) -> None:
    block = hl.register_block_size(16)
    square = x.view(4, 5)
    for a, b in hl.tile([4, 5], block_size=[block, block]):
        hl.atomic_add(out, [a.id + b.id], (square[a, b] @ square[a, b]).sum())


def chosen(x: torch.Tensor, out: torch.Tensor) -> None:
    block = hl.register_block_size(16)
    for a in hl.tile(x.size(0), block_size=block):
        for b in hl.tile(x.size(0), block_size=block):
            value = x[a]
            if x[0] > 0:
                value = x[b]
            out[a.id] = value.sum()


@pytest.mark.parametrize("interpret", [False, True], ids=["compiled", "ref"])
@pytest.mark.parametrize(
    "fn", [carried_over, stored_elsewhere, added_elsewhere, masked_by_another, not_transposed, summed_over_both]
)
def test_elements_of_two_tiles_of_one_block_size_do_not_go_together(fn: Any, interpret: bool) -> None:
    """Compiled, one tile's mask cut off the other's elements."""
    mode = helion.RefMode.EAGER if interpret else helion.RefMode.OFF
    out = torch.full([20], -1.0)
    kernel = helion.kernel(fn, ref_mode=mode, config=helion.Config(block_sizes=[16]))
    with pytest.raises(exc.ShapeMismatch, match="elements of tile 'a' and elements of tile 'b'"):
        kernel(torch.randn(20), out)
    assert interpret or (out == -1).all()


def test_nor_do_they_in_the_two_ways_of_a_branch() -> None:
    with pytest.raises(exc.ShapeMismatch, match="elements of tile 'a' and elements of tile 'b'"):
        helion.kernel(chosen)(torch.randn(20), torch.zeros(20))


def through_one_tile(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    block = hl.register_block_size(16)
    out = torch.zeros_like(x)
    for a in hl.tile(x.size(0), block_size=block):
        for b in hl.tile(y.size(0), block_size=block):
            hl.atomic_add(out, [a], x[a] * y[a + (b.begin - a.begin)])
    return out


def test_the_advice_for_two_tiles() -> None:
    def plain(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (
            x
            * torch.stack([torch.cat([y, y.new_zeros(16)])[b : b + 16] for b in range(0, 20, 16)]).sum(0)[
                torch.arange(20) % 16
            ]
        )

    run_everywhere(
        through_one_tile,
        (torch.randn(20), torch.randn(20)),
        plain,
        configs=[{"block_sizes": [16]}],
        capabilities=[90],
        error_scale=4,
    )


def fill_of_either(x: torch.Tensor) -> torch.Tensor:
    block = hl.register_block_size(16)
    out = torch.zeros([20, 2])
    for a in hl.tile(x.size(0) // 2, block_size=block):
        for b in hl.tile(x.size(0), block_size=block):
            ones = hl.full([block], 1.0)
            out[b.id, 0] = ones.sum()
            out[a.id, 1] = (ones + x[a]).sum()
    return out


def test_a_fill_of_a_bare_size_goes_with_the_tile_that_it_meets() -> None:
    def plain(x: torch.Tensor) -> torch.Tensor:
        out = x.new_zeros([20, 2])
        out[:2, 0] = torch.tensor([16.0, 6.0])
        out[0, 1] = (x[:11] + 1).sum()
        return out

    configs = [{"block_sizes": [16]}]
    run_everywhere(fill_of_either, (torch.randn(22),), plain, configs=configs, capabilities=[90], error_scale=16)


@helion.kernel(config=helion.Config(block_sizes=[]))
def products_of_one_tile(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = [helion.cdiv(a.size(0), 8)]
    outer, added, grids = torch.empty(shape), torch.empty(shape), torch.empty(shape)
    for t in hl.tile(a.size(0), block_size=8):
        v, w = a[t], b[t]
        outer[t.id] = torch.outer(v, w).amax()
        added[t.id] = torch.addr(v[:, None] - w[None, :], v, w, beta=2, alpha=0.5).amin()
        x, y = torch.meshgrid(v, w, indexing="xy")
        grids[t.id] = (x * y * y).sum() + v.ger(w).sum()
    return outer, added, grids


def test_torch_outer_of_one_tile_is_a_matrix():
    # A column beside a vector of the same tile would be pairs: so PyTorch writes outer.
    def expected(a, b):
        parts = list(zip(a.split(8), b.split(8)))
        outer = [torch.outer(v, w) for v, w in parts]
        added = [(2 * (v[:, None] - w) + 0.5 * torch.outer(v, w)).amin() for v, w in parts]
        grids = [(torch.outer(w * w, v) + torch.outer(v, w)).sum() for v, w in parts]
        return torch.stack([o.amax() for o in outer]), torch.stack(added), torch.stack(grids)

    run_everywhere(products_of_one_tile, (torch.randn(19), torch.randn(19)), expected, capabilities=[90])


@helion.kernel(config=helion.Config(block_sizes=[]))
def addr_of_bools(a: torch.Tensor, b: torch.Tensor, beta: int, alpha: int) -> torch.Tensor:
    out = torch.empty([helion.cdiv(a.size(0), 8)], dtype=torch.int64)
    for t in hl.tile(a.size(0), block_size=8):
        v, w = a[t], b[t]
        out[t.id] = torch.addr(v[:, None] ^ w[None, :], v, w, beta=beta, alpha=alpha).sum()
    return out


@pytest.mark.parametrize(("beta", "alpha"), [(3, 0), (0, 2)])
def test_addr_of_bools_is_a_bool(beta: int, alpha: int) -> None:
    def expected(a, b, beta, alpha):
        parts = zip(a.split(8), b.split(8))
        return torch.stack([torch.addr(v[:, None] ^ w, v, w, beta=beta, alpha=alpha).sum() for v, w in parts])

    args = (torch.arange(19) % 3 > 0, torch.arange(19) % 2 > 0, beta, alpha)
    run_everywhere(addr_of_bools, args, expected, capabilities=[90])


def addr_with_a_float(a: torch.Tensor) -> torch.Tensor:
    out = torch.empty([helion.cdiv(a.size(0), 8)])
    for t in hl.tile(a.size(0), block_size=8):
        out[t.id] = torch.addr(a[t][:, None], a[t], a[t], alpha=0.5).sum()
    return out


@pytest.mark.parametrize("ref", [False, True])
def test_addr_of_integers_takes_no_float(ref: bool) -> None:
    mode = helion.RefMode.EAGER if ref else helion.RefMode.OFF
    with pytest.raises(exc.InvalidAPIUsage, match="alpha is a float"):
        helion.kernel(addr_with_a_float, ref_mode=mode)(torch.arange(19))
