"""Reductions over whole dimensions: which can become loops, and what the loops hold."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.ir import device_ir
from helion.ir.block_sizes import large_tiles
from helion.ir.block_sizes import resolve_constants
from helion.ir.block_sizes import tunable_blocks
from helion.ir.device_ir import GraphKind
from helion.ir.reductions import roll
from tests.ir.traced import traced
from tests.support import run_everywhere

X = torch.ones(20, 300)


def softmax(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        row = x[tile, :]
        shifted = torch.exp(row - row.amax(1, keepdim=True))
        out[tile, :] = shifted / shifted.sum(1, keepdim=True)


def scanned(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        row = hl.cumsum(x[tile, :], 1)
        out[tile, :] = row / row.sum(1, keepdim=True)


def rolled(kernel):
    ir = traced(kernel, X)
    assert len(ir.reductions) == 1
    return roll(ir.device, ir.reductions)


def test_a_reduction_behind_a_scan_stays_whole():
    ir = traced(scanned, X)
    assert ir.reductions == []


def counted(x):
    out = torch.zeros([1], dtype=torch.int64, device=x.device)
    for tile in hl.tile(40):
        hl.atomic_add(out, [0], x[1:2].expand([tile]).sum(0) + hl.full([tile], 1, dtype=torch.int64).sum(0))
    return out


def test_the_lanes_of_a_tile_are_no_whole_dimension():
    """No loop over them: it would count those past the tile's end."""
    assert traced(counted, torch.ones(3, dtype=torch.int64)).reductions == []


def test_softmax_becomes_two_loops():
    device = rolled(softmax)
    loops = [n for n in device.graphs[device.roots[0].graph_id].graph.nodes if n.target is device_ir.for_loop]
    assert len(loops) == 2, "the maximum and the sum, the result"
    bodies = [device.graphs[n.args[0]] for n in loops]
    assert all(body.kind is GraphKind.LOOP for body in bodies)
    assert [len(body.carried) for body in bodies] == [2, 0]
    loads = [sum(getattr(n.target, "name", "") == "load" for n in body.graph.nodes) for body in bodies]
    assert loads == [1, 1], "each loop loads the row anew"


def centered(x, weight):
    """Three passes over a row; the weight is read in the last one alone."""
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        row = x[tile, :]
        shifted = row - row.mean(1, keepdim=True)
        position = hl.arange(row.size(1)) + 1.0
        out[tile, :] = shifted * torch.rsqrt((shifted * shifted).mean(1, keepdim=True)) * weight[:] / position
    return out


def test_every_other_pass_over_a_row_goes_backwards():
    device = rolled(softmax)
    assert [info.backwards for info in device.graphs if info.kind is GraphKind.LOOP] == [False, True]


def test_a_row_stays_in_the_cache_until_it_is_read_for_the_last_time():
    kernel = helion.kernel(centered, config=helion.Config(block_sizes=[2], reduction_loops=[64]))
    lines = kernel.bind((torch.empty(5, 300), torch.empty(300))).to_triton_code().splitlines()
    loads = [line for line in lines if "tl.load(x " in line]
    assert [next(word for word in ("evict_last", "evict_first") if word in line) for line in loads] == [
        *("evict_last", "evict_last", "evict_first")
    ]
    assert not any("evict" in line for line in lines if "tl.load(weight" in line), "other rows read it too"
    assert all("cache_modifier='.cs'" in line for line in lines if "tl.store(" in line)


def test_a_config_says_what_the_cache_does_with_chunks():
    said = {"load_eviction_policies": ["first"], "store_cache_modifiers": [".wt"]}
    config = helion.Config(block_sizes=[2], reduction_loops=[64], **said)
    code = helion.kernel(centered, config=config).bind((torch.empty(5, 300), torch.empty(300))).to_triton_code()
    assert "evict_last" not in code and ".cs" not in code and "cache_modifier='.wt'" in code


@pytest.mark.gpu
@pytest.mark.parametrize("n", [63, 64, 65, 300, 512])
@pytest.mark.parametrize("static_shapes", [True, False])
def test_passes_in_both_directions_cover_every_element_once(n, static_shapes, seed):
    def reference(x, weight):
        shifted = x - x.mean(1, keepdim=True)
        scale = torch.rsqrt((shifted * shifted).mean(1, keepdim=True))
        return shifted * scale * weight / torch.arange(1, n + 1)

    x, weight = torch.randn(5, n), torch.randn(n)
    configs = [{"block_sizes": [2], "reduction_loops": [64]}]
    run_everywhere(
        centered,
        (x, weight),
        reference,
        configs=configs,
        static_shapes=static_shapes,
        error_scale=32,
        capabilities=(90,),
    )


def test_rolling_leaves_the_first_ir_as_it_is():
    ir = traced(softmax, X)
    before = ir.device.format()
    rolled(softmax)
    assert ir.device.format() == before


def nested(x):
    out = torch.zeros([x.size(0), 4])
    for tile in hl.tile(x.size(0)):
        for inner in hl.tile(x.size(1)):
            for fixed in hl.tile(4, block_size=2):
                out[tile, fixed] = x[tile, inner].sum(1)[:, None] + 0 * fixed.index


def test_block_sizes_are_counted_in_the_order_of_the_loops():
    ir = traced(nested, X).device
    assert [b.name for b in tunable_blocks(ir)] == ["tile", "inner"]
    constants = resolve_constants(ir, [8, 16], {})
    assert [constants[b.symbol] for b in ir.space.blocks] == [8, 16, 2]


def test_a_wrong_number_of_block_sizes_is_an_error():
    with pytest.raises(exc.InvalidConfig, match="block_sizes has 3 entries, this kernel takes 2"):
        resolve_constants(traced(nested, X).device, [8, 16, 2], {})


def test_large_tiles_cover_ranges_up_to_a_limit():
    small = traced(nested, X).device
    assert large_tiles(small, tunable_blocks(small)) == [32, 512]
    huge = traced(nested, torch.empty(1, 1).expand(1 << 14, 1 << 14)).device
    sizes = large_tiles(huge, tunable_blocks(huge))
    assert sizes[0] * sizes[1] <= 1 << 22


@pytest.mark.compiles
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_extremes_of_16_bits_are_found_in_chunks(dtype, seed):
    def extremes(x):
        least = torch.empty(x.size(0), dtype=x.dtype, device=x.device)
        most = torch.empty_like(least)
        for tile in hl.tile(x.size(0)):
            least[tile] = x[tile, :].amin(1)
            most[tile] = x[tile, :].amax(1)
        return least, most

    config = {"block_sizes": [4], "reduction_loops": [16]}
    run_everywhere(extremes, (torch.randn(5, 50).to(dtype),), lambda x: (x.amin(1), x.amax(1)), configs=[config])


def test_a_sum_of_sums_is_one_loop_not_two():
    def total(x):
        out = torch.empty([x.size(1)], device=x.device)
        for tile in hl.tile(x.size(1)):
            out[tile] = x[:, tile, :].sum(2).sum(0)
        return out

    ir = traced(total, torch.ones(20, 8, 300))
    assert len(ir.reductions) == 2
    for one in ir.reductions:
        roll(ir.device, [one])
    with pytest.raises(exc.InvalidConfig, match="reduces the other's results"):
        roll(ir.device, ir.reductions)


def test_sums_that_have_nothing_to_do_with_each_other_are_two_loops():
    def both(x):
        out = torch.empty([x.size(0)], device=x.device)
        part = x[:, :100]
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile, :].sum(1) - part[tile, :].sum(1)
        return out

    ir = traced(both, X)
    assert len(ir.reductions) == 2
    device = roll(ir.device, ir.reductions)
    assert sum(n.target is device_ir.for_loop for n in device.graphs[device.roots[0].graph_id].graph.nodes) == 2


def picked(x, at):
    out = torch.empty_like(x)
    total = torch.empty([x.size(0)], device=x.device)
    for rows in hl.tile(x.size(0)):
        values = torch.where(hl.arange(x.size(1))[None, :] == at[rows][:, None], x[rows, :], 0.0)
        total[rows] = values.sum(1)
        out[rows, :] = values * hl.arange(3, 3 + 2 * x.size(1), 2)[None, :]
    return out, total


def test_positions_in_a_whole_dimension_are_those_of_the_chunk():
    x = torch.randn(5, 75, generator=torch.Generator().manual_seed(5))
    at = torch.tensor([0, 15, 16, 40, 74])

    def reference(x, at):
        values = torch.where(torch.arange(75)[None, :] == at[:, None], x, 0.0)
        return values * torch.arange(3, 153, 2)[None, :], values.sum(1)

    configs = [{"block_sizes": [2], "reduction_loops": [16]}, {"block_sizes": [4], "reduction_loops": [None]}]
    run_everywhere(picked, (x, at), reference, configs=configs)
