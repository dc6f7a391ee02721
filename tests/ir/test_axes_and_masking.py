"""Which loop each dimension runs over, and what its padding holds."""

from __future__ import annotations

import math

import torch

import helion.language as hl
from helion.ir.facts import Facts
from helion.ir.masking import UNKNOWN
from tests.ir.traced import node
from tests.ir.traced import traced

X = torch.ones(20, 30)


def names(ir, name):
    return [axis.name if axis is not None else None for axis in Facts(ir.device).axes_of(node(ir.device, name))]


def shapes_of_values(x):
    out = torch.empty_like(x)
    for tile_m, tile_n in hl.tile(x.shape):
        loaded = x[tile_m, tile_n]
        turned = loaded.permute(1, 0)
        sums = loaded.sum(dim=1)
        column = sums[:, None]
        both = column + tile_n.index[None, :]
        wide = sums[:, None].expand(tile_m, 4)
        whole = x[tile_m, :]
        out[tile_m, tile_n] = both + turned.permute(1, 0) + wide.sum(1)[:, None] + whole.sum(1)[:, None]


def test_axes_follow_the_dimensions():
    ir = traced(shapes_of_values, X)
    assert names(ir, "loaded") == ["tile_m", "tile_n"]
    assert names(ir, "turned") == ["tile_n", "tile_m"]
    assert names(ir, "sums") == ["tile_m"]
    assert names(ir, "column") == ["tile_m", None]
    assert names(ir, "both") == ["tile_m", "tile_n"]
    assert names(ir, "wide") == ["tile_m", None]
    assert names(ir, "whole") == ["tile_m", None]


def shared_block(x):
    out = torch.empty_like(x)
    block = hl.register_block_size(64)
    for first, second in hl.tile(x.shape, block_size=[block, block]):
        value = x[first, second]
        square = value @ value.T @ value
        lanes = hl.zeros([block])
        out[first, second] = square + lanes[None, :]


def test_a_shared_block_size_leaves_the_axes_apart():
    ir = traced(shared_block, torch.ones(20, 20))
    assert names(ir, "value") == ["first", "second"]
    assert names(ir, "square") == ["first", "second"]
    assert names(ir, "lanes") == ["second"], "a bare size belongs to the innermost loop with it"


def carried(x):
    out = torch.empty([x.size(0)])
    for tile in hl.tile(x.size(0)):
        acc = hl.zeros([tile])
        for inner in hl.tile(x.size(1)):
            part = x[tile, inner]
            acc = acc + part.sum(1)
        total = acc * 2
        out[tile] = total


def test_axes_pass_through_loops():
    ir = traced(carried, X)
    assert names(ir, "part") == ["tile", "inner"]
    assert names(ir, "total") == ["tile"]


def paddings(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        loaded = x[tile, :]
        doubled = loaded * 2
        shifted = loaded + 1
        grown = torch.exp(loaded)
        undefined = loaded / loaded
        largest = loaded.amax(1)
        filled = hl.full([tile, 30], 7.0)
        scaled = loaded * filled
        index = tile.index
        turned = shifted.permute(1, 0)
        out[tile, :] = (
            doubled + shifted + grown + undefined + scaled + largest[:, None] + index[:, None] + turned.permute(1, 0)
        )


def test_padding_is_followed_through_pointwise_ops():
    ir = traced(paddings, X).device

    def fill(name, dim):
        return Facts(ir).padding_of(node(ir, name), dim)

    assert [fill("loaded", d) for d in (0, 1)] == [0, 0]
    assert [fill("doubled", d) for d in (0, 1)] == [0, 0]
    assert [fill("shifted", d) for d in (0, 1)] == [1, 1]
    assert [fill("turned", d) for d in (0, 1)] == [1, 1]
    assert [fill("grown", d) for d in (0, 1)] == [1, 1]
    assert fill("undefined", 1) is UNKNOWN, "0 / 0 is nan, which equals nothing"
    assert fill("filled", 0) == 7 and fill("scaled", 0) == 0
    assert fill("largest", 0) == 0, "a row of padding has the padding as its maximum"
    assert fill("index", 0) is UNKNOWN


def test_padding_tells_zeros_apart_only_where_it_matters():
    ir = traced(paddings, X).device
    padding_is = Facts(ir).padding_is
    assert padding_is(node(ir, "loaded"), 0, 0) and padding_is(node(ir, "loaded"), 0, -0.0)
    assert not padding_is(node(ir, "loaded"), 0, -math.inf)
    assert not padding_is(node(ir, "index"), 0, 0)
